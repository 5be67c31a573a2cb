//! Deleting streams and basins: what is recorded stays known until something new takes the name.

use super::Registry;
use crate::{
    proxy::Error,
    store::{BasinEntry, Change, Incarnation, Revision, StreamEntry, StreamState, Versioned},
    stream::{BasinName, StreamPath},
};

/// An entry as it was before its stream's deletion began; `None` when there was nothing to mark.
pub type Doomed = Option<StreamEntry>;

impl Registry {
    /// Records that a stream is about to be deleted. The caller holds the basin's lock.
    ///
    /// # Errors
    /// The store cannot answer or write.
    pub async fn begin_deletion(&self, path: &StreamPath) -> Result<Doomed, Error> {
        let found = self.store.stream(path).await?;
        let Some(entry) = found.entry.as_deref().cloned() else {
            return Ok(None);
        };
        let Some(marked) = marked(&entry) else {
            return Ok(None);
        };
        self.record(path, found.revision, Some(marked)).await?;
        self.verified.remove(path);
        Ok(Some(entry))
    }

    /// Takes the mark back: the upstream refused the deletion.
    ///
    /// # Errors
    /// The store cannot write. The mark then stays, and is settled before the next use.
    pub async fn revert_deletion(&self, path: &StreamPath, doomed: Doomed) -> Result<(), Error> {
        let Some(entry) = doomed else { return Ok(()) };
        let found = self.store.stream(path).await?;
        self.record(path, found.revision, Some(entry)).await
    }

    /// Records that every stream of a basin is about to be deleted. The caller holds the basin's lock.
    ///
    /// # Errors
    /// The store cannot answer or write.
    pub async fn begin_basin_deletion(
        &self,
        basin: &BasinName,
    ) -> Result<Vec<(StreamPath, StreamEntry)>, Error> {
        let mut doomed = Vec::new();
        let mut changes: Vec<Change> = self.mark_basin(basin, true).await?.into_iter().collect();
        for (path, Versioned { revision, entry }) in self.store.streams_of(basin).await? {
            let Some((entry, marked)) = entry.and_then(|entry| {
                let marked = marked(&entry)?;
                Some((entry, marked))
            }) else {
                continue;
            };
            changes.push(change(&path, revision, marked));
            self.verified.remove(&path);
            doomed.push((path, entry));
        }
        self.store.commit(changes).await?;
        Ok(doomed)
    }

    /// Takes the marks back: the upstream refused the deletion.
    ///
    /// # Errors
    /// The store cannot write. The marks then stay, and are settled before the next use.
    pub async fn revert_basin_deletion(
        &self,
        basin: &BasinName,
        doomed: Vec<(StreamPath, StreamEntry)>,
    ) -> Result<(), Error> {
        let mut changes: Vec<Change> = self.mark_basin(basin, false).await?.into_iter().collect();
        for (path, entry) in doomed {
            let revision = self.store.stream(&path).await?.revision;
            changes.push(change(&path, revision, entry));
        }
        Ok(self.store.commit(changes).await?)
    }

    /// The change that marks a recorded basin as deleted or not; nothing for one without an entry.
    async fn mark_basin(&self, basin: &BasinName, deleted: bool) -> Result<Option<Change>, Error> {
        let found = self.store.basin(basin).await?;
        Ok(found.entry.map(|entry| Change::Basin {
            name: basin.clone(),
            expected: found.revision,
            entry: Some(BasinEntry {
                deleted,
                ..(*entry).clone()
            }),
        }))
    }
}

/// The entry of a stream that is being deleted; `None` when it already says so.
fn marked(entry: &StreamEntry) -> Option<StreamEntry> {
    let life = match &entry.state {
        StreamState::Live(life) => life.clone(),
        StreamState::Creating { cipher, .. } => Incarnation {
            cipher: *cipher,
            created_at: None,
        },
        StreamState::Deleting(_) => return None,
    };
    Some(StreamEntry {
        state: StreamState::Deleting(life),
        ..entry.clone()
    })
}

fn change(path: &StreamPath, expected: Revision, entry: StreamEntry) -> Change {
    Change::Stream {
        path: path.clone(),
        expected,
        entry: Some(entry),
    }
}
