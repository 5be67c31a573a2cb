//! The two ciphers: AEGIS-256 and AES-256-GCM with random nonces, keyed once per stream and key.

use std::{fmt, str::FromStr};

use aegis::aegis256::Aegis256;
use aes_gcm::{
    Aes256Gcm, KeyInit as _,
    aead::{AeadInOut as _, inout::InOutBuf},
};
use rand::Rng as _;
use serde::{Deserialize, Serialize};

use super::{
    Key,
    key::KEY_BYTES,
    stack::{self, scrubbed},
};

/// Tag size of both ciphers in bytes.
pub(super) const TAG_BYTES: usize = 16;

/// Nonce size of AEGIS-256 in bytes.
const AEGIS_NONCE_BYTES: usize = 32;

/// Nonce size of AES-256-GCM in bytes.
const GCM_NONCE_BYTES: usize = 12;

/// An algorithm that records are sealed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cipher {
    /// AEGIS-256 with a 128-bit tag.
    #[serde(rename = "aegis-256")]
    Aegis256,
    /// AES-256-GCM. Random 96-bit nonces allow 2^32 records under one key.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
}

impl Cipher {
    /// Both ciphers.
    pub const ALL: [Self; 2] = [Self::Aegis256, Self::Aes256Gcm];

    /// The name in S2's API and in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aegis256 => "aegis-256",
            Self::Aes256Gcm => "aes-256-gcm",
        }
    }

    /// The first byte of a record sealed in the native layout.
    pub(super) const fn format_id(self) -> u8 {
        match self {
            Self::Aegis256 => 0x01,
            Self::Aes256Gcm => 0x02,
        }
    }

    /// Nonce size in bytes.
    pub(super) const fn nonce_bytes(self) -> usize {
        match self {
            Self::Aegis256 => AEGIS_NONCE_BYTES,
            Self::Aes256Gcm => GCM_NONCE_BYTES,
        }
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A cipher name that is neither `aegis-256` nor `aes-256-gcm`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown cipher, expected `aegis-256` or `aes-256-gcm`")]
pub struct UnknownCipher;

impl FromStr for Cipher {
    type Err = UnknownCipher;

    fn from_str(name: &str) -> Result<Self, UnknownCipher> {
        Self::ALL
            .into_iter()
            .find(|cipher| cipher.as_str() == name)
            .ok_or(UnknownCipher)
    }
}

/// A cipher with its key, ready to work.
///
/// AES-256-GCM keeps its expanded key (zeroed on drop by the crate's `zeroize` feature);
/// AEGIS-256 has no key schedule worth keeping.
#[derive(Clone)]
pub(super) enum Aead {
    Aegis256(Key),
    Aes256Gcm(Box<Aes256Gcm>),
}

impl Aead {
    pub(super) fn new(cipher: Cipher, key: &Key) -> Self {
        match cipher {
            Cipher::Aegis256 => Self::Aegis256(key.clone()),
            Cipher::Aes256Gcm => {
                let bytes: &[u8; KEY_BYTES] = key.as_bytes();
                scrubbed::<{ stack::SETUP }, _>(|| {
                    Self::Aes256Gcm(Box::new(Aes256Gcm::new(bytes.into())))
                })
            }
        }
    }

    pub(super) const fn cipher(&self) -> Cipher {
        match self {
            Self::Aegis256(_) => Cipher::Aegis256,
            Self::Aes256Gcm(_) => Cipher::Aes256Gcm,
        }
    }

    /// Encrypts `text` in place and returns its tag.
    pub(super) fn encrypt(
        &self,
        nonce: Nonce,
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], TooLong> {
        match (self, nonce) {
            (Self::Aegis256(key), Nonce::Aegis256(nonce)) => {
                Ok(scrubbed::<{ stack::AEGIS }, _>(|| {
                    Aegis256::<TAG_BYTES>::new(key.as_bytes(), &nonce).encrypt_in_place(text, aad)
                }))
            }
            (Self::Aes256Gcm(gcm), Nonce::Aes256Gcm(nonce)) => {
                scrubbed::<{ stack::GCM }, _>(|| {
                    gcm.encrypt_inout_detached(&nonce.into(), aad, InOutBuf::from(text))
                })
                .map(Into::into)
                .map_err(|_| TooLong)
            }
            (Self::Aegis256(_), Nonce::Aes256Gcm(_)) | (Self::Aes256Gcm(_), Nonce::Aegis256(_)) => {
                Err(TooLong)
            }
        }
    }

    /// Decrypts `text` in place. On `false` the tag is bad and `text` must not be used.
    #[must_use]
    pub(super) fn decrypt(
        &self,
        nonce: &[u8],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> bool {
        match self {
            Self::Aegis256(key) => {
                let Ok(nonce) = <&[u8; AEGIS_NONCE_BYTES]>::try_from(nonce) else {
                    return false;
                };
                scrubbed::<{ stack::AEGIS }, _>(|| {
                    Aegis256::<TAG_BYTES>::new(key.as_bytes(), nonce)
                        .decrypt_in_place(text, tag, aad)
                        .is_ok()
                })
            }
            Self::Aes256Gcm(gcm) => {
                let Ok(nonce) = <[u8; GCM_NONCE_BYTES]>::try_from(nonce) else {
                    return false;
                };
                let tag = (*tag).into();
                scrubbed::<{ stack::GCM }, _>(|| {
                    gcm.decrypt_inout_detached(&nonce.into(), aad, InOutBuf::from(text), &tag)
                        .is_ok()
                })
            }
        }
    }
}

/// More text than the cipher can encrypt under one nonce (64 GiB for AES-256-GCM): far beyond
/// what the record limits let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record too long for its cipher")]
pub struct TooLong;

/// A nonce of the right size for its cipher.
#[derive(Clone, Copy)]
pub(super) enum Nonce {
    Aegis256([u8; AEGIS_NONCE_BYTES]),
    Aes256Gcm([u8; GCM_NONCE_BYTES]),
}

impl Nonce {
    /// A fresh random nonce, from a CSPRNG that the operating system seeds and reseeds.
    pub(super) fn random(cipher: Cipher) -> Self {
        let mut rng = rand::rng();
        match cipher {
            Cipher::Aegis256 => {
                let mut nonce = [0; AEGIS_NONCE_BYTES];
                rng.fill_bytes(&mut nonce);
                Self::Aegis256(nonce)
            }
            Cipher::Aes256Gcm => {
                let mut nonce = [0; GCM_NONCE_BYTES];
                rng.fill_bytes(&mut nonce);
                Self::Aes256Gcm(nonce)
            }
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Aegis256(nonce) => nonce,
            Self::Aes256Gcm(nonce) => nonce,
        }
    }
}
