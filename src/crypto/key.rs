//! Secret key material: 32 bytes that are zeroed on drop, never printed, compared in constant time.

use std::{fmt, sync::Arc};

use base64ct::{Base64, Decoder, Encoding as _};
use rand::TryRng as _;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::stack::{SETUP, scrubbed};
use crate::stream::StreamId;

/// Key size of both ciphers in bytes.
pub(super) const KEY_BYTES: usize = 32;

/// Longest text that can hold a key: 32 bytes in padded base64.
const MAX_KEY_TEXT_BYTES: usize = 44;

/// Why a text is not a key. Never carries the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Empty, or longer than a base64 key can be; holds the length found.
    #[error("key material length {0} is out of range")]
    TextLength(usize),
    /// Not padded standard base64.
    #[error("invalid base64")]
    InvalidBase64,
    /// Base64 of another number of bytes than 32; holds that number.
    #[error("decodes to {0} bytes instead of 32")]
    Length(usize),
}

/// A 256-bit stream key. It stays in one place, so that handing it on leaves no copy on the stack; clones
/// share it.
#[derive(Clone)]
pub struct Key(Arc<Zeroizing<[u8; KEY_BYTES]>>);

impl Key {
    /// A fresh key from the operating system's generator.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<Self, rand::rngs::SysError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        rand::rngs::SysRng.try_fill_bytes(bytes.as_mut())?;
        Ok(Self::copied(&bytes))
    }

    /// The key in these 32 bytes, of which the caller keeps a copy.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self::copied(&bytes)
    }

    fn copied(bytes: &[u8; KEY_BYTES]) -> Self {
        let mut key = Arc::new(Zeroizing::new([0; KEY_BYTES]));
        if let Some(key) = Arc::get_mut(&mut key) {
            key.copy_from_slice(bytes);
        }
        Self(key)
    }

    /// Decodes a key from padded standard base64, as `s2-encryption-key` and key files carry it.
    ///
    /// Surrounding white space is ignored. Decoding takes the same time whatever the bytes are.
    ///
    /// # Errors
    /// [`KeyError`] when the text is not base64 of exactly 32 bytes.
    pub fn from_base64(text: &[u8]) -> Result<Self, KeyError> {
        scrubbed::<SETUP, _>(|| Self::decode(text.trim_ascii()))
    }

    fn decode(text: &[u8]) -> Result<Self, KeyError> {
        if text.is_empty() || text.len() > MAX_KEY_TEXT_BYTES {
            return Err(KeyError::TextLength(text.len()));
        }
        let mut decoder = Decoder::<Base64>::new(text).map_err(|_| KeyError::InvalidBase64)?;
        let length = decoder.remaining_len();
        let mut decoded = Zeroizing::new([0; MAX_KEY_TEXT_BYTES]);
        let decoded = decoded.get_mut(..length).ok_or(KeyError::Length(length))?;
        decoder
            .decode(decoded)
            .map_err(|_| KeyError::InvalidBase64)?;
        <&[u8; KEY_BYTES]>::try_from(&*decoded)
            .map(Self::copied)
            .map_err(|_| KeyError::Length(length))
    }

    /// The key in padded standard base64, zeroed on drop.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(Base64::encode_string(self.as_bytes()))
    }

    /// A commitment to this key on one stream, safe to store.
    pub fn check(&self, stream: &StreamId) -> KeyCheck {
        scrubbed::<SETUP, _>(|| {
            let mut hasher = blake3::Hasher::new_derive_key("streamseal/v1/key-check");
            hasher.update(self.as_bytes()).update(stream.as_bytes());
            let mut check = [0; KeyCheck::BYTES];
            hasher.finalize_xof().fill(&mut check);
            hasher.zeroize();
            KeyCheck(check)
        })
    }

    pub(super) fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(redacted)")
    }
}

/// The first 16 bytes of BLAKE3-derive-key("streamseal/v1/key-check", key ‖ StreamId).
///
/// It tells whether a key is the one a stream was written with, and nothing else: the key is
/// 256 random bits, so it cannot be searched for.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct KeyCheck([u8; KeyCheck::BYTES]);

impl KeyCheck {
    /// Size of a stored key check in bytes.
    pub const BYTES: usize = 16;
}

impl fmt::Display for KeyCheck {
    /// In hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl PartialEq for KeyCheck {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyCheck {}
