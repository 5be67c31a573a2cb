//! All of the cryptography: keys, ciphers, and sealed records; no I/O and no HTTP.

mod aead;
mod key;
mod sealed;

pub use aead::{Cipher, TooLong, UnknownCipher};
pub use key::{Key, KeyCheck, KeyError};
pub use sealed::{OpenError, Sealed, StreamCipher, Text};

#[cfg(test)]
mod tests;
