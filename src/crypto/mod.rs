//! All of the cryptography: keys, ciphers, and sealed records; no I/O and no HTTP.

mod aead;
mod key;
mod sealed;
mod stack;
mod store_key;

pub use aead::{Cipher, TooLong, UnknownCipher};
pub use key::{Key, KeyCheck, KeyError};
pub use sealed::{OpenError, Sealed, StreamCipher, Text, looks_sealed};
pub use store_key::{Digest, NotADigest, Purpose, StoreKey};

#[cfg(test)]
mod tests;
