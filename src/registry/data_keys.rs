//! What is recorded of the keys that the proxy made for a stream.

use std::sync::Arc;

use super::{Asked, Outcome, Registry, SealedStream, probe};
use crate::{
    crypto::Cipher,
    keys::Project,
    proxy::{Error, call::Caller},
    registry::rules::{KeySource, Rules},
    store::{Change, DataKeys, Incarnation, Origin, StreamEntry, StreamState, Versioned},
    stream::StreamPath,
};

impl Registry {
    /// Records the managed keys of a stream that lives as `found` says, or of one with a rule of which
    /// nothing is recorded yet; under a condition, if there is one.
    ///
    /// # Errors
    /// The store cannot write, or somebody else wrote first; [`Error::OtherLife`] for a stream that does not
    /// live.
    pub async fn record_data_keys(
        &self,
        path: &StreamPath,
        cipher: Cipher,
        found: &Versioned<Arc<StreamEntry>>,
        keys: DataKeys,
        condition: Option<Change>,
    ) -> Result<(), Error> {
        let entry = match found.entry.as_deref() {
            Some(entry) if matches!(entry.state, StreamState::Live(_)) => StreamEntry {
                data_keys: Some(keys),
                ..entry.clone()
            },
            Some(_) => return Err(Error::OtherLife(path.clone())),
            None => StreamEntry {
                state: StreamState::Live(Incarnation {
                    cipher: Some(cipher),
                    created_at: None,
                }),
                origin: Origin::Declared,
                key_check: None,
                data_keys: Some(keys),
            },
        };
        let change = Change::Stream {
            path: path.clone(),
            expected: found.revision,
            entry: Some(entry),
        };
        self.commit([Some(change), condition].into_iter().flatten().collect())
            .await
    }

    /// The number that the next record of a stream gets; `None` when the upstream knows no such stream.
    ///
    /// # Errors
    /// The upstream's.
    pub async fn tail(&self, path: &StreamPath, caller: &Caller) -> Outcome<Option<u64>> {
        probe::tail(&Asked { path, caller }).await
    }

    /// Whether the upstream lists a stream.
    ///
    /// # Errors
    /// The upstream's.
    pub async fn exists(&self, path: &StreamPath, caller: &Caller) -> Outcome<bool> {
        let listed = probe::stream(&Asked { path, caller }).await?;
        Ok(listed.is_some_and(|listed| listed.deleted_at.is_none()))
    }

    /// Counts the changes of store and rules: equal numbers, nothing changed between.
    pub fn changes(&self) -> u64 {
        self.epoch()
    }
}

impl SealedStream {
    /// Where its key comes from.
    pub fn key_source(&self) -> KeySource {
        self.rules.key_source(&self.path)
    }

    /// The project that it belongs to.
    pub fn owner(&self) -> Option<&Arc<Project>> {
        self.rules.projects().owner(&self.path)
    }

    /// The keys that the proxy made for it, as they were at the look-up.
    pub fn data_keys(&self) -> Option<&DataKeys> {
        self.entry.entry.as_ref()?.data_keys.as_ref()
    }

    /// Whether something was recorded of it at the look-up.
    pub fn is_recorded(&self) -> bool {
        self.entry.entry.is_some()
    }
}

impl Rules {
    /// Where a stream's key comes from.
    pub fn key_source(&self, path: &StreamPath) -> KeySource {
        let rule = self.stream(path);
        rule.map_or(KeySource::Header, |rule| rule.key_source())
    }
}
