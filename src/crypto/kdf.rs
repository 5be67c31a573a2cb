//! Keys from keys: HKDF-SHA256 under one label for each purpose, and AES-256-KW to wrap one in another.
//!
//! ```text
//! lp(x) = u16 BE length ‖ x      u32 = big-endian      project = its name      every output = 32 bytes
//!
//! PRK_m       = Extract(salt = project, ikm = master key)
//! mk_commit   = Expand(PRK_m, "streamseal/v1/mk-commit" ‖ u32(mk_epoch))
//! mk_link     = Expand(PRK_m, "streamseal/v1/mk-link" ‖ u32(mk_epoch) ‖ u32(other mk_epoch))
//! dek_kek     = Expand(PRK_m, "streamseal/v1/dek-wrap" ‖ lp(stream id) ‖ u32(mk_epoch) ‖ u32(dek_epoch))
//! wrapped dek = AES-256-KW(dek_kek, dek)
//!
//! PRK_d       = Extract(salt = "streamseal/v1/dek", ikm = dek)
//! ctx         = lp(project) ‖ lp(stream id) ‖ u32(dek_epoch)
//! record_key  = Expand(PRK_d, "streamseal/v1/record-key" ‖ ctx)
//! dek_commit  = Expand(PRK_d, "streamseal/v1/dek-commit" ‖ ctx)
//! ```
//! Project, stream and epoch go into every derivation, so that a wrapped key does not open in another
//! place; the commitments tell a wrong key for certain before any record is touched.

use std::{fmt, str::FromStr};

use aes_kw::{KeyInit as _, KwAes256};
use base64ct::{Base64, Encoding as _};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{
    Digest, Key,
    key::KEY_BYTES,
    stack::{SETUP, scrubbed},
};
use crate::stream::StreamId;

/// Whose a data key is in its derivations where no project holds it. No project has this name.
pub const NO_PROJECT: &str = "";

/// A key wrapped in another with AES-256-KW (RFC 3394): 40 bytes, in base64 where it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Wrapped([u8; Wrapped::BYTES]);

impl Wrapped {
    /// Size of a wrapped key in bytes.
    pub const BYTES: usize = KEY_BYTES + 8;

    /// A wrapped key of these bytes.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Base64::encode_string(&self.0))
    }
}

impl fmt::Debug for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wrapped({self})")
    }
}

/// A text that is not 40 bytes in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 40 bytes in base64")]
pub struct NotWrapped;

impl FromStr for Wrapped {
    type Err = NotWrapped;

    fn from_str(text: &str) -> Result<Self, NotWrapped> {
        let mut bytes = [0; Self::BYTES];
        match Base64::decode(text, &mut bytes) {
            Ok(decoded) if decoded.len() == Self::BYTES => Ok(Self(bytes)),
            Ok(_) | Err(_) => Err(NotWrapped),
        }
    }
}

impl serde::Serialize for Wrapped {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Wrapped {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A project's master key. Only API keys hold it, wrapped; in the process it lives as long as the requests
/// that brought it.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey(Key);

impl MasterKey {
    /// A fresh one from the operating system's generator.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<Self, rand::rngs::SysError> {
        Key::generate().map(Self)
    }

    pub(super) fn new(key: Key) -> Self {
        Self(key)
    }

    pub(super) fn key(&self) -> &Key {
        &self.0
    }

    /// The commitment to this key as the project's of an epoch: what [`MasterKey`]s are checked against.
    pub fn commit(&self, project: &str, mk_epoch: u32) -> Digest {
        let label = b"streamseal/v1/mk-commit";
        let commitment = self.expand(project, &[label, &mk_epoch.to_be_bytes()]);
        Digest::from_bytes(*commitment.as_bytes())
    }

    /// Wraps a stream's data key.
    pub fn wrap_dek(&self, place: &DekPlace<'_>, mk_epoch: u32, dek: &Dek) -> Wrapped {
        wrap(&self.dek_kek(place, mk_epoch), &dek.0)
    }

    /// Opens what [`MasterKey::wrap_dek`] made for this place; `None` for anything else. Whoever asks
    /// compares [`Dek::commit`] with what is recorded.
    pub fn unwrap_dek(
        &self,
        place: &DekPlace<'_>,
        mk_epoch: u32,
        wrapped: &Wrapped,
    ) -> Option<Dek> {
        unwrap(&self.dek_kek(place, mk_epoch), wrapped).map(Dek)
    }

    /// Wraps another master key of the project in this one, which is of `mk_epoch`: while a project goes
    /// from one master key to the next, whoever has one has both.
    pub fn link(&self, project: &str, mk_epoch: u32, other: &Self, other_epoch: u32) -> Wrapped {
        wrap(&self.link_kek(project, mk_epoch, other_epoch), &other.0)
    }

    /// Opens what [`MasterKey::link`] made; `None` for anything else. Whoever asks compares
    /// [`MasterKey::commit`] with what is recorded.
    pub fn follow(
        &self,
        project: &str,
        mk_epoch: u32,
        link: &Wrapped,
        other_epoch: u32,
    ) -> Option<Self> {
        unwrap(&self.link_kek(project, mk_epoch, other_epoch), link).map(Self)
    }

    fn dek_kek(&self, place: &DekPlace<'_>, mk_epoch: u32) -> Key {
        let info: [&[u8]; 5] = [
            b"streamseal/v1/dek-wrap",
            &prefix(place.stream.as_bytes()),
            place.stream.as_bytes(),
            &mk_epoch.to_be_bytes(),
            &place.epoch.to_be_bytes(),
        ];
        self.expand(place.project, &info)
    }

    fn link_kek(&self, project: &str, mk_epoch: u32, other_epoch: u32) -> Key {
        let info: [&[u8]; 3] = [
            b"streamseal/v1/mk-link",
            &mk_epoch.to_be_bytes(),
            &other_epoch.to_be_bytes(),
        ];
        self.expand(project, &info)
    }

    fn expand(&self, project: &str, info: &[&[u8]]) -> Key {
        derive(project.as_bytes(), self.0.as_bytes(), info)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(redacted)")
    }
}

/// Whose data key it is, of which stream, and which in a row.
#[derive(Debug, Clone, Copy)]
pub struct DekPlace<'a> {
    /// The project, or [`NO_PROJECT`].
    pub project: &'a str,
    /// The stream.
    pub stream: &'a StreamId,
    /// The key epoch.
    pub epoch: u32,
}

/// A stream's data key of one epoch.
#[derive(Clone, PartialEq, Eq)]
pub struct Dek(Key);

impl Dek {
    /// A fresh one from the operating system's generator.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<Self, rand::rngs::SysError> {
        Key::generate().map(Self)
    }

    /// The data key that a KMS unwrapped.
    pub fn from_key(key: Key) -> Self {
        Self(key)
    }

    /// The data key, for a KMS to wrap.
    pub fn key(&self) -> &Key {
        &self.0
    }

    /// What seals the records of its stream and epoch.
    pub fn record_key(&self, place: &DekPlace<'_>) -> Key {
        self.expand(b"streamseal/v1/record-key", place)
    }

    /// The commitment to this key in its place.
    pub fn commit(&self, place: &DekPlace<'_>) -> Digest {
        let commitment = self.expand(b"streamseal/v1/dek-commit", place);
        Digest::from_bytes(*commitment.as_bytes())
    }

    fn expand(&self, label: &[u8], place: &DekPlace<'_>) -> Key {
        let info: [&[u8]; 6] = [
            label,
            &prefix(place.project.as_bytes()),
            place.project.as_bytes(),
            &prefix(place.stream.as_bytes()),
            place.stream.as_bytes(),
            &place.epoch.to_be_bytes(),
        ];
        derive(b"streamseal/v1/dek", self.0.as_bytes(), &info)
    }
}

impl fmt::Debug for Dek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dek(redacted)")
    }
}

/// Extract and expand in one step.
pub(super) fn derive(salt: &[u8], material: &[u8], info: &[&[u8]]) -> Key {
    scrubbed::<SETUP, _>(|| {
        let hkdf = Hkdf::<Sha256>::new(Some(salt), material);
        let mut okm = Zeroizing::new([0; KEY_BYTES]);
        #[expect(
            clippy::expect_used,
            reason = "HKDF-SHA256 gives up to 8160 bytes (RFC 5869)"
        )]
        hkdf.expand_multi_info(info, okm.as_mut())
            .expect("32 bytes are not too many");
        Key::from_bytes(*okm)
    })
}

/// The length of a part, as it stands before it.
pub(super) fn prefix(part: &[u8]) -> [u8; 2] {
    // Names and ids are far shorter; a cut length could not make two inputs alike unless one had 64 KiB.
    u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes()
}

pub(super) fn wrap(kek: &Key, key: &Key) -> Wrapped {
    scrubbed::<SETUP, _>(|| {
        let mut wrapped = [0; Wrapped::BYTES];
        #[expect(clippy::expect_used, reason = "both lengths are those of RFC 3394")]
        KwAes256::new(kek.as_bytes().into())
            .wrap_key(key.as_bytes(), &mut wrapped)
            .expect("32 bytes become 40");
        Wrapped(wrapped)
    })
}

pub(super) fn unwrap(kek: &Key, wrapped: &Wrapped) -> Option<Key> {
    scrubbed::<SETUP, _>(|| {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        KwAes256::new(kek.as_bytes().into())
            .unwrap_key(&wrapped.0, key.as_mut())
            .ok()?;
        Some(Key::from_bytes(*key))
    })
}
