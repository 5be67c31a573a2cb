//! The managed keys in a stream's entry.

use std::sync::Arc;

use super::{
    Error, Questions, Registry, SealedStream,
    rules::{KeySource, Rules},
    table::{Event, next},
};
use crate::{
    crypto::Cipher,
    keys::Project,
    store::{Change, DataKeys, StreamEntry, Versioned},
    stream::StreamPath,
};

impl Registry {
    /// Records the managed keys of a stream that lives as `found` says, or of one with a rule that has no entry
    /// yet; under a condition, if there is one.
    ///
    /// # Errors
    /// The store cannot write, or another request wrote first; [`Error::OtherIncarnation`] for a stream that does
    /// not live.
    pub async fn record_data_keys(
        &self,
        path: &StreamPath,
        cipher: Cipher,
        found: &Versioned<Arc<StreamEntry>>,
        (keys, condition): (DataKeys, Option<Change>),
    ) -> Result<(), Error> {
        let event = Event::KeysChanged { cipher, keys };
        let entry = next(found.entry.as_deref().cloned(), event)
            .map_err(|_| Error::OtherIncarnation(path.clone()))?;
        let change = Change::Stream {
            path: path.clone(),
            expected: found.revision,
            entry,
        };
        let changes = [Some(change), condition].into_iter().flatten();
        Ok(self.commit(changes.collect()).await?)
    }

    /// Whether the upstream lists a stream that is not being deleted.
    ///
    /// # Errors
    /// The upstream's.
    pub async fn exists<Q: Questions>(&self, path: &StreamPath, ask: &Q) -> Result<bool, Q::Stop> {
        let listed = ask.stream(path).await?;
        Ok(listed.is_some_and(|listed| !listed.is_going))
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

    /// Its managed keys, as they were at the look-up.
    pub fn data_keys(&self) -> Option<&DataKeys> {
        self.entry.entry.as_ref()?.data_keys.as_ref()
    }

    /// Whether it had an entry at the look-up.
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
