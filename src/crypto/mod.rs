//! All of the cryptography: keys, ciphers, and sealed records; no I/O and no HTTP.

mod aead;
mod key;
mod sealed;
mod stack;
mod store_key;
mod token;

pub use aead::{Cipher, TooLong, UnknownCipher};
pub use key::{Key, KeyCheck, KeyError};
pub use sealed::{OpenError, Sealed, StreamCipher, Text, looks_sealed};
pub use store_key::{Digest, Digesting, NotADigest, Purpose, StoreKey};
pub use token::TokenFingerprint;

#[cfg(test)]
mod tests;
