//! Authentication of the config store's entries: BLAKE3 keyed, over what is recorded and under which name.

use std::{fmt, str::FromStr};

use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::Key;

/// What keys are derived for here (BLAKE3's context string).
const CONTEXT: &str = "streamseal/v1/store";

/// The key that a config store's entries are authenticated with.
pub struct StoreKey(Zeroizing<[u8; Digest::BYTES]>);

/// What a digest is for. The same parts have another digest for each purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The tag of one entry.
    Entry,
    /// One entry's share in the sum of all.
    Share,
    /// What the sum is covered with.
    Cover,
    /// The tag of the sum.
    Ledger,
    /// The tag of the witness beside the store.
    Witness,
    /// The tag of an export.
    Export,
}

impl StoreKey {
    /// Derived from the operator's key.
    pub fn new(key: &Key) -> Self {
        Self::derive(key.as_bytes())
    }

    /// The key of a store that has none: everybody knows it. Its tags tell damage, and nothing else.
    pub fn public() -> Self {
        Self::derive(&[])
    }

    /// BLAKE3 keyed, over the purpose and the parts, each with its length before it.
    pub fn digest(&self, purpose: Purpose, parts: &[&[u8]]) -> Digest {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in std::iter::once(&purpose.label()).chain(parts) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let digest = Digest(*hasher.finalize().as_bytes());
        hasher.zeroize();
        digest
    }

    /// Begins the digest of one part of `length` bytes that come piece by piece. It is the one that
    /// [`StoreKey::digest`] gives for the whole part.
    pub fn begin(&self, purpose: Purpose, length: u64) -> Digesting {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        let label = purpose.label();
        hasher.update(&(label.len() as u64).to_le_bytes());
        hasher.update(label);
        hasher.update(&length.to_le_bytes());
        Digesting(hasher)
    }

    fn derive(material: &[u8]) -> Self {
        Self(Zeroizing::new(blake3::derive_key(CONTEXT, material)))
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreKey(redacted)")
    }
}

/// A digest of bytes that are still coming.
pub struct Digesting(blake3::Hasher);

impl Digesting {
    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes.
    pub fn finish(self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

impl Drop for Digesting {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Entry => b"entry",
            Self::Share => b"share",
            Self::Cover => b"cover",
            Self::Ledger => b"ledger",
            Self::Witness => b"witness",
            Self::Export => b"export",
        }
    }
}

/// 32 bytes, written as 64 hexadecimal digits; compared in constant time.
#[derive(Clone, Copy)]
pub struct Digest([u8; Digest::BYTES]);

impl Digest {
    /// Size of a digest in bytes.
    pub const BYTES: usize = 32;

    /// The digest in which nothing is summed up.
    pub const ZERO: Self = Self([0; Self::BYTES]);

    /// The digest of these bytes.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Bitwise exclusive or: adds a share to a sum, or takes it out again.
    #[must_use]
    pub fn xor(self, other: Self) -> Self {
        let mut bytes = self.0;
        for (byte, other) in bytes.iter_mut().zip(other.0) {
            *byte ^= other;
        }
        Self(bytes)
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 64 hexadecimal digits")]
pub struct NotADigest;

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| NotADigest)?;
        Ok(Self(*hash.as_bytes()))
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
