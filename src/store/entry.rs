//! The stored rows of a basin and of a stream.

use serde::{Deserialize, Serialize};

use super::DataKeys;
use crate::crypto::{Cipher, KeyCheck};

/// Former incarnations that the entry of a stream keeps. The oldest is dropped first.
pub const MAX_FORMER: usize = 4;

/// The stored row of a basin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasinEntry {
    /// The cipher that new streams take; `None` leaves them plain.
    pub stream_cipher: Option<Cipher>,
    /// The cipher was copied from a `[[basins]]` rule by an earlier release.
    pub declared: bool,
    /// A deletion of the basin was sent upstream or is about to be sent, or its first creation has no
    /// outcome yet. The cipher stays in force until the basin is created again.
    #[serde(default)]
    pub deleted: bool,
}

/// The stored row of a stream. `registry::table` draws how it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamEntry {
    /// Existence and cipher of the stream.
    pub state: StreamState,
    /// How the entry got into the store.
    pub origin: Origin,
    /// The commitment to the stream's key, when its key is not managed: claimed before the first record
    /// is sent, confirmed by the first record that is known to be stored under the key.
    pub key_check: Option<KeyCheck>,
    /// `key_check` is a claim: no record under the key is known to be stored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub key_unconfirmed: bool,
    /// The managed keys of the stream. Only a confirmed deletion through the proxy drops them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_keys: Option<DataKeys>,
    /// Earlier incarnations that the upstream said are gone, the newest last; at most [`MAX_FORMER`].
    /// Their records still open, in case the upstream was wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<FormerIncarnation>,
}

/// What is known of a stream's own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKnown {
    /// Nothing.
    No,
    /// An append under this key was sent or is about to be sent.
    Claimed(KeyCheck),
    /// A record under this key is stored.
    Confirmed(KeyCheck),
}

impl StreamEntry {
    /// An entry without keys.
    pub const fn new(state: StreamState, origin: Origin) -> Self {
        Self {
            state,
            origin,
            key_check: None,
            key_unconfirmed: false,
            data_keys: None,
            former: Vec::new(),
        }
    }

    /// What is known of the stream's own key.
    pub fn key(&self) -> KeyKnown {
        match (self.key_check, self.key_unconfirmed) {
            (None, _) => KeyKnown::No,
            (Some(check), true) => KeyKnown::Claimed(check),
            (Some(check), false) => KeyKnown::Confirmed(check),
        }
    }

    /// The same entry with other knowledge of the key.
    #[must_use]
    pub fn with_key(self, key: KeyKnown) -> Self {
        let (key_check, key_unconfirmed) = match key {
            KeyKnown::No => (None, false),
            KeyKnown::Claimed(check) => (Some(check), true),
            KeyKnown::Confirmed(check) => (Some(check), false),
        };
        Self {
            key_check,
            key_unconfirmed,
            ..self
        }
    }

    /// The data keys that the next incarnation takes over.
    pub fn inherited(&self) -> Option<DataKeys> {
        self.data_keys.as_ref().map(DataKeys::of_next_life)
    }
}

/// One existence of a stream, from its creation to its deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incarnation {
    /// The cipher; `None` is a plain stream.
    pub cipher: Option<Cipher>,
    /// The upstream's `created_at`, as text; `None` when the proxy has not seen it.
    pub created_at: Option<String>,
}

/// An incarnation that the upstream said is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormerIncarnation {
    /// Its cipher; `None` for a plain stream.
    pub cipher: Option<Cipher>,
    /// The commitment to its own key, if one was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_check: Option<KeyCheck>,
    /// The upstream's `created_at` of it, if it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
}

/// Existence and cipher of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum StreamState {
    /// The stream exists and has this cipher.
    Live(Incarnation),
    /// A creation with this cipher was sent upstream or is about to be sent; its outcome is unknown.
    Creating {
        /// The cipher of the new incarnation.
        cipher: Option<Cipher>,
        /// The deleted incarnation before it. Written by earlier releases only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<Incarnation>,
    },
    /// A deletion of this incarnation was sent upstream or is about to be sent; its outcome is unknown.
    Deleting(Incarnation),
}

impl StreamState {
    /// The cipher that the stream shows to clients.
    pub fn cipher(&self) -> Option<Cipher> {
        match self {
            Self::Live(life) | Self::Deleting(life) => life.cipher,
            Self::Creating { cipher, .. } => *cipher,
        }
    }
}

/// How an entry got into the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A client created the stream.
    Created,
    /// An append or a read created the stream.
    AutoCreated,
    /// A rule of the configuration file declares the stream.
    Declared,
    /// The proxy itself forwarded the creation of the plain stream, or an acknowledged append to it,
    /// while its basin had no cipher.
    Seen,
    /// The operator admitted the plain stream by name. Earlier releases wrote `baseline` for streams that
    /// the upstream listed when the basin got its first cipher.
    #[serde(alias = "baseline")]
    Admitted,
    /// `streamseal store rebuild` found the records of the stream.
    Rebuilt,
}
