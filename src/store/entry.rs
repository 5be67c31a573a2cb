//! What the config store records of a basin and of a stream.

use serde::{Deserialize, Serialize};

use super::DataKeys;
use crate::crypto::{Cipher, KeyCheck};

/// What is recorded of a basin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasinEntry {
    /// The cipher that new streams take; `None` leaves them plain.
    pub stream_cipher: Option<Cipher>,
    /// Whether the configuration file declares the cipher, so that the API cannot change it.
    pub declared: bool,
    /// Whether its deletion was sent, or was about to be sent, upstream, or its first creation has no
    /// outcome yet. The cipher stays in force until the basin is made again.
    #[serde(default)]
    pub deleted: bool,
}

/// What is recorded of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamEntry {
    /// Where the stream stands.
    pub state: StreamState,
    /// How the entry got here.
    pub origin: Origin,
    /// The commitment to the stream's key, once a record under it is known to be stored.
    pub key_check: Option<KeyCheck>,
    /// The keys that the proxy made for the stream, when its key is a managed one. Only a deletion that a client
    /// asked for and the upstream confirmed drops them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_keys: Option<DataKeys>,
}

impl StreamEntry {
    /// The keys that another life in this one's place takes over.
    pub fn inherited(&self) -> Option<DataKeys> {
        self.data_keys.as_ref().map(DataKeys::of_next_life)
    }
}

/// One life of a stream: from its creation to its deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incarnation {
    /// Its cipher; `None` is a plain stream.
    pub cipher: Option<Cipher>,
    /// The upstream's `created_at`, as text; `None` while it has not been seen.
    pub created_at: Option<String>,
}

/// Where a stream stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum StreamState {
    /// It exists and has this cipher.
    Live(Incarnation),
    /// A create with this cipher was, or was about to be, sent upstream; the outcome is unknown.
    Creating {
        /// The cipher of the new incarnation.
        cipher: Option<Cipher>,
        /// The deleted incarnation it follows, if one is known.
        replaces: Option<Incarnation>,
    },
    /// A delete of this incarnation was, or was about to be, sent upstream.
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
    /// An append or a read created it.
    AutoCreated,
    /// A rule of the configuration file declares it.
    Declared,
    /// It was there when its basin got its first cipher.
    Baseline,
    /// `streamseal store rebuild` found its records.
    Rebuilt,
}
