//! Deleting streams and basins: what is recorded stays known until the upstream says that it is gone,
//! and what is sealed even then where a forgotten name could turn plain.

use std::sync::Arc;

use super::{Asked, MAX_ROUNDS, Outcome, Registry};
use crate::{
    proxy::{Error, call::Caller},
    store::{
        BasinEntry, Change, Error as StoreError, Revision, StreamEntry, StreamState, Versioned,
    },
    stream::{BasinName, StreamPath},
};

/// The entry of a stream before its deletion began; `None` when nothing was marked.
pub type Doomed = Option<StreamEntry>;

/// What was recorded of a basin and its streams before their deletion began.
pub struct DoomedBasin {
    entry: Option<Arc<BasinEntry>>,
    streams: Vec<(StreamPath, StreamEntry)>,
}

impl Registry {
    /// Records that a stream is about to be deleted. The caller holds the basin's lock.
    ///
    /// # Errors
    /// The store cannot answer or write; an earlier creation cannot be settled.
    pub async fn begin_deletion(&self, path: &StreamPath, caller: &Caller) -> Outcome<Doomed> {
        self.settle_creation(&Asked { path, caller }).await?;
        for _ in 0..MAX_ROUNDS {
            let found = self.store.stream(path).await?;
            let Some(entry) = found.entry.as_deref() else {
                return Ok(None);
            };
            let Some(marked) = marked(entry) else {
                return Ok(None);
            };
            match self.record(path, found.revision, Some(marked)).await {
                Ok(()) => {
                    self.verified.remove(path);
                    return Ok(Some(entry.clone()));
                }
                // A first record was stored meanwhile, and with it the key check.
                Err(Error::Store(StoreError::Conflict(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Busy.into())
    }

    /// Takes the mark back: the upstream refused the deletion.
    ///
    /// # Errors
    /// The store cannot write. The mark then stays, and is settled before the next use.
    pub async fn revert_deletion(&self, path: &StreamPath, doomed: Doomed) -> Result<(), Error> {
        let Some(entry) = doomed else { return Ok(()) };
        let found = self.store.stream(path).await?;
        let entry = reverted(entry, found.entry.as_deref());
        self.record(path, found.revision, Some(entry)).await
    }

    /// Forgets a stream that the upstream deleted, where a stream without an entry is not plain, or it
    /// was plain itself.
    ///
    /// # Errors
    /// The store cannot write. The mark then stays, and is settled before the next use.
    pub async fn finish_deletion(&self, path: &StreamPath) -> Result<(), Error> {
        let found = self.store.stream(path).await?;
        let seals = self.basin(&path.basin).await?.cipher().is_some();
        match found.entry.as_deref().and_then(|entry| left(entry, seals)) {
            Some(left) => self.record(path, found.revision, left.entry()).await,
            None => Ok(()),
        }
    }

    /// Records that a basin and every stream of it are about to be deleted. The caller holds the basin's
    /// lock.
    ///
    /// # Errors
    /// The store cannot answer or write.
    pub async fn begin_basin_deletion(&self, basin: &BasinName) -> Result<DoomedBasin, Error> {
        let found = self.store.basin(basin).await?;
        let mut doomed = DoomedBasin {
            entry: found.entry.clone(),
            streams: Vec::new(),
        };
        let mut changes = Vec::new();
        if let Some(entry) = &found.entry {
            let entry = BasinEntry {
                deleted: true,
                ..(**entry).clone()
            };
            changes.push(basin_change(basin, found.revision, entry));
        }
        for (path, Versioned { revision, entry }) in self.store.streams_of(basin).await? {
            if let Some(entry) = entry
                && let Some(marked) = marked(&entry)
            {
                changes.push(stream_change(&path, revision, Some(marked)));
                self.verified.remove(&path);
                doomed.streams.push((path, entry));
            }
        }
        self.commit(changes).await?;
        Ok(doomed)
    }

    /// Takes the marks back: the upstream refused the deletion.
    ///
    /// # Errors
    /// The store cannot write. The marks then stay, and are settled before the next use.
    pub async fn revert_basin_deletion(
        &self,
        basin: &BasinName,
        doomed: DoomedBasin,
    ) -> Result<(), Error> {
        let mut changes = Vec::new();
        if let Some(entry) = doomed.entry {
            let revision = self.store.basin(basin).await?.revision;
            changes.push(basin_change(basin, revision, (*entry).clone()));
        }
        for (path, entry) in doomed.streams {
            let found = self.store.stream(&path).await?;
            let entry = reverted(entry, found.entry.as_deref());
            changes.push(stream_change(&path, found.revision, Some(entry)));
        }
        self.commit(changes).await
    }

    /// Forgets the streams of a basin that the upstream deleted. The basin's own entry stays: until it is
    /// made again, nothing in it is plain that was not.
    ///
    /// # Errors
    /// The store cannot write. The marks then stay, and are settled before the next use.
    pub async fn finish_basin_deletion(&self, basin: &BasinName) -> Result<(), Error> {
        let seals = self.basin(basin).await?.cipher().is_some();
        let mut changes = Vec::new();
        for (path, Versioned { revision, entry }) in self.store.streams_of(basin).await? {
            if let Some(left) = entry.and_then(|entry| left(&entry, seals)) {
                changes.push(stream_change(&path, revision, left.entry()));
            }
        }
        self.commit(changes).await
    }
}

/// The entry of a stream that is being deleted; `None` when it is not known to live.
fn marked(entry: &StreamEntry) -> Option<StreamEntry> {
    match &entry.state {
        StreamState::Live(life) => Some(StreamEntry {
            state: StreamState::Deleting(life.clone()),
            ..entry.clone()
        }),
        StreamState::Creating { .. } | StreamState::Deleting(_) => None,
    }
}

/// What is left of the entry of a stream that was deleted, where that is less than before.
enum Left {
    /// Nothing.
    Nothing,
    /// That it was sealed, without the keys that the proxy made for it.
    Mark(StreamEntry),
}

impl Left {
    fn entry(self) -> Option<StreamEntry> {
        match self {
            Self::Nothing => None,
            Self::Mark(entry) => Some(entry),
        }
    }
}

/// What a confirmed deletion leaves of an entry, in a basin that seals new streams or does not.
fn left(entry: &StreamEntry, seals: bool) -> Option<Left> {
    match &entry.state {
        StreamState::Deleting(life) if seals || life.cipher.is_none() => Some(Left::Nothing),
        StreamState::Deleting(_) if entry.data_keys.is_some() => Some(Left::Mark(StreamEntry {
            data_keys: None,
            ..entry.clone()
        })),
        StreamState::Deleting(_) | StreamState::Live(_) | StreamState::Creating { .. } => None,
    }
}

/// What a stream's entry is without the mark. Nothing but the state is of before: its keys may have been
/// wrapped anew since, or shredded.
fn reverted(before: StreamEntry, now: Option<&StreamEntry>) -> StreamEntry {
    match now {
        Some(now) => StreamEntry {
            state: before.state,
            ..now.clone()
        },
        None => before,
    }
}

fn stream_change(path: &StreamPath, expected: Revision, entry: Option<StreamEntry>) -> Change {
    Change::Stream {
        path: path.clone(),
        expected,
        entry,
    }
}

fn basin_change(name: &BasinName, expected: Revision, entry: BasinEntry) -> Change {
    Change::Basin {
        name: name.clone(),
        expected,
        entry: Some(entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{DataKeys, Holder, Incarnation, Origin};

    #[test]
    fn a_mark_that_is_taken_back_brings_no_keys_back() {
        let with = |state, keys| StreamEntry {
            state,
            origin: Origin::Created,
            key_check: None,
            data_keys: Some(DataKeys {
                holder: keys,
                keys: Vec::new(),
            }),
        };
        let life = Incarnation {
            cipher: None,
            created_at: None,
        };
        let before = with(
            StreamState::Live(life.clone()),
            Holder::Project("before".parse().unwrap()),
        );
        let now = with(StreamState::Deleting(life), Holder::Kms);
        let after = reverted(before.clone(), Some(&now));
        assert_eq!(after.state, before.state);
        assert_eq!(after.data_keys, now.data_keys);
        assert_eq!(reverted(before.clone(), None), before);
    }
}
