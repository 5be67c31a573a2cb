//! All of the cryptography: keys, ciphers, and sealed records; no I/O and no HTTP.

mod aead;
mod api_key;
mod kdf;
mod key;
mod opener;
mod sealed;
mod stack;
mod store_key;
mod token;

pub use aead::{Cipher, TooLong, UnknownCipher};
pub use api_key::{API_KEY_PREFIX, ApiKey, Credentials, Pepper, holds_api_key};
pub use kdf::{Dek, DekPlace, MasterKey, NO_PROJECT, NotWrapped, Wrapped};
pub use key::{Key, KeyCheck, KeyError};
pub use opener::Opener;
pub use sealed::{Layout, OpenError, Sealed, StreamCipher, Text, layout_of, looks_sealed};
pub use store_key::{Digest, Digesting, NotADigest, Purpose, StoreKey};
pub use token::TokenFingerprint;

#[cfg(test)]
mod tests;
