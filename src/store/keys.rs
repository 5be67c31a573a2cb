//! What the config store records of the keys that the proxy made for a stream: each wrapped, none in clear.

use serde::{Deserialize, Serialize};

use crate::{
    crypto::{Digest, Wrapped},
    project::ProjectName,
};

/// Most key epochs of a stream. What is recorded of one takes some 300 bytes, and the row of a stream is read and
/// written whole: so it stays at three megabytes, which every export can hold.
pub const MAX_KEY_EPOCHS: u32 = 10_000;

/// The managed keys of one life of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataKeys {
    /// Who can unwrap them.
    pub holder: Holder,
    /// One for each key epoch, in order; the last one that is not lost seals. Never empty.
    pub keys: Vec<DataKey>,
}

/// Who can unwrap a stream's data keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Holder {
    /// Whoever has an API key of this project.
    Project(ProjectName),
    /// The key management service of the configuration.
    Kms,
}

/// A stream's data key of one key epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataKey {
    /// Its number; the first is 1.
    pub epoch: u32,
    /// Its commitment: tells a wrong key before any record is touched.
    pub commit: Digest,
    /// The key, wrapped; `None` once it was shredded, or when it was lost with a config store.
    pub wrapped: Option<WrappedKey>,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_at: u64,
    /// When it was shredded, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shredded_at: Option<u64>,
    /// At most so much was sealed under it.
    #[serde(default)]
    pub sealed: Sealing,
    /// The lowest sequence number that an ack is known to have given a record of the epoch. A record whose ack was
    /// lost may stand before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seq_num: Option<u64>,
}

/// How much a key sealed: reserved before it is sealed, so never less than it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealing {
    /// Records.
    pub records: u64,
    /// Bytes in clear, as S2 meters them.
    pub bytes: u64,
}

/// A wrapped data key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum WrappedKey {
    /// In a project's master key.
    Master {
        /// The number of the master key.
        mk_epoch: u32,
        /// The data key.
        wrapped: Wrapped,
    },
    /// By a key management service.
    Kms {
        /// Which key of the service wrapped it, in the service's own words.
        key: String,
        /// What the service made of it, in base64.
        blob: String,
    },
}

impl DataKeys {
    /// The same keys for whatever stands in the stream's place now, where the places of records are others.
    /// Nobody but a client who deletes a stream lets go of its keys: what an upstream says of it may be a mistake,
    /// and without them its records are lost.
    pub fn of_next_life(&self) -> Self {
        let key = |key: &DataKey| DataKey {
            first_seq_num: None,
            ..key.clone()
        };
        Self {
            holder: self.holder.clone(),
            keys: self.keys.iter().map(key).collect(),
        }
    }

    /// The key that seals; `None` when it was shredded. One that was lost keeps its number from being used
    /// again, and nothing else: that there was one is no more than what records say, which anybody can forge who
    /// can write to the upstream.
    pub fn current(&self) -> Option<&DataKey> {
        let newest = self.keys.iter().rfind(|key| !key.is_lost());
        newest.filter(|key| key.wrapped.is_some())
    }

    /// The same, to be changed.
    pub fn current_mut(&mut self) -> Option<&mut DataKey> {
        let newest = self.keys.iter_mut().rfind(|key| !key.is_lost());
        newest.filter(|key| key.wrapped.is_some())
    }

    /// The key of an epoch.
    pub fn of(&self, epoch: u32) -> Option<&DataKey> {
        self.keys.iter().find(|key| key.epoch == epoch)
    }

    /// Whether every key was shredded, and with them the stream.
    pub fn is_shredded(&self) -> bool {
        self.keys.iter().all(|key| key.wrapped.is_none())
    }
}

impl DataKey {
    /// Whether nothing but its number is known: it was only in a config store that is lost.
    pub fn is_lost(&self) -> bool {
        self.wrapped.is_none() && self.shredded_at.is_none()
    }
}
