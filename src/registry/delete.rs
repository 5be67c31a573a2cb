//! Deleting streams and basins: an entry stays until the upstream confirms the deletion.

use std::sync::Arc;

use super::{
    Error, Registry,
    table::{Event, next},
};
use crate::{
    store::{BasinEntry, Change, StreamEntry, Versioned},
    stream::{BasinName, StreamPath},
};

/// A stream whose deletion is about to be sent.
pub struct DoomedStream {
    path: StreamPath,
    /// Its managed keys seal records that may be on their way.
    pub has_managed_keys: bool,
}

/// A basin whose deletion is about to be sent.
pub struct DoomedBasin {
    name: BasinName,
    entry: Option<Arc<BasinEntry>>,
}

impl Registry {
    /// Records that a stream is about to be deleted. The caller holds the basin's lock.
    ///
    /// # Errors
    /// The store cannot answer or write.
    pub async fn begin_deletion(&self, path: &StreamPath) -> Result<DoomedStream, Error> {
        self.seen.deleting(&path.basin, Some(path)).await;
        let marked = self.happen(path, &[Event::DeleteIntended]).await?;
        let entry = marked.after.as_deref();
        Ok(DoomedStream {
            path: path.clone(),
            has_managed_keys: entry.is_some_and(|entry| entry.data_keys.is_some()),
        })
    }

    /// Records what the upstream answered to a deletion: [`Event::Deleted`] or [`Event::DeleteRefused`].
    ///
    /// # Errors
    /// The store cannot write. The mark then stays, and is settled before the next use.
    pub async fn finish_deletion(
        &self,
        doomed: &DoomedStream,
        outcome: Event,
    ) -> Result<(), Error> {
        self.happen(&doomed.path, &[outcome]).await.map(|_| ())
    }

    /// Records that a basin and every stream of it are about to be deleted. The caller holds the basin's lock.
    ///
    /// # Errors
    /// The store cannot answer or write.
    pub async fn begin_basin_deletion(&self, basin: &BasinName) -> Result<DoomedBasin, Error> {
        self.seen.deleting(basin, None).await;
        let found = self.store.basin(basin).await?;
        let mut changes = self.changes_of(basin, &Event::DeleteIntended).await?;
        if let Some(entry) = &found.entry {
            changes.push(Change::Basin {
                name: basin.clone(),
                expected: found.revision,
                entry: Some(BasinEntry {
                    deleted: true,
                    ..(**entry).clone()
                }),
            });
        }
        self.commit(changes).await?;
        Ok(DoomedBasin {
            name: basin.clone(),
            entry: found.entry,
        })
    }

    /// Takes the marks back: the upstream refused the deletion.
    ///
    /// # Errors
    /// The store cannot write. The marks then stay, and are settled before the next use.
    pub async fn revert_basin_deletion(&self, doomed: DoomedBasin) -> Result<(), Error> {
        let mut changes = self.changes_of(&doomed.name, &Event::DeleteRefused).await?;
        if let Some(entry) = doomed.entry {
            changes.push(Change::Basin {
                expected: self.store.basin(&doomed.name).await?.revision,
                name: doomed.name,
                entry: Some((*entry).clone()),
            });
        }
        Ok(self.commit(changes).await?)
    }

    /// Forgets the streams of a basin that the upstream deleted. The basin's own entry stays: until the basin is
    /// created again, its cipher is in force.
    ///
    /// # Errors
    /// The store cannot write. The marks then stay, and are settled before the next use.
    pub async fn finish_basin_deletion(&self, doomed: &DoomedBasin) -> Result<(), Error> {
        let changes = self.changes_of(&doomed.name, &Event::Deleted).await?;
        Ok(self.commit(changes).await?)
    }

    /// The changes that an event brings to every stream of a basin.
    async fn changes_of(&self, basin: &BasinName, event: &Event) -> Result<Vec<Change>, Error> {
        let streams = self.store.streams_of(basin).await?;
        let change = |(path, found): (StreamPath, Versioned<StreamEntry>)| {
            let after = next(found.entry.clone(), event.clone()).ok()?;
            (after != found.entry).then_some(Change::Stream {
                path,
                expected: found.revision,
                entry: after,
            })
        };
        Ok(streams.into_iter().filter_map(change).collect())
    }
}
