//! Wrapping a project's data keys in its next master key, stream by stream.

use std::sync::Arc;

use super::{MasterChange, Progress, Stuck, Tell};
use crate::{
    crypto::{DekPlace, Wrapped},
    proxy::{Error, gate::Master},
    store::{
        self, Change, DataKey, DataKeys, Holder, Page, Recorded, StreamEntry, Versioned, WrappedKey,
    },
    stream::StreamPath,
};

/// Streams that are looked at together. A page is read in a few milliseconds, and others wait for the store
/// meanwhile.
const PAGE: usize = 500;

/// Streams that are written together: one write to the disk for all, and some milliseconds under the basin's
/// lock.
const BATCH: usize = 64;

/// How often a stream may change while its keys are wrapped anew, before it waits for the next pass.
const MAX_ROUNDS: usize = 8;

/// Data keys that are named as not opening: one keeps the change from its end, and these are enough to begin with.
const MAX_STUCK: usize = 100;

/// Wraps the data keys of one project.
pub(super) struct Rewrap<'a> {
    change: &'a MasterChange,
}

/// What one pass over all streams came to.
#[derive(Debug)]
pub(super) struct Rewrapped {
    /// Data keys that were wrapped anew.
    pub(super) done: u64,
    /// Streams that were found with something to do, and changed under it.
    pub(super) left: u64,
    /// What does not open.
    pub(super) stuck: Vec<Stuck>,
    /// Whether the progress is still read.
    pub(super) is_read: bool,
}

/// A stream's entry with its keys wrapped anew.
struct Renewed {
    entry: StreamEntry,
    keys: u64,
}

impl<'a> Rewrap<'a> {
    pub(super) fn new(change: &'a MasterChange) -> Self {
        Self { change }
    }

    /// Data keys that are not wrapped in the next master key.
    pub(super) async fn count(&self) -> Result<u64, Error> {
        let mut count = 0;
        let mut page = first_page();
        loop {
            let (found, next) = self.page(page).await?;
            count += found.iter().map(|(_, stale)| stale).sum::<u64>();
            match next {
                Some(after) => {
                    page = Page {
                        after,
                        ..first_page()
                    }
                }
                None => return Ok(count),
            }
        }
    }

    /// Looks at every stream once.
    pub(super) async fn pass(
        &self,
        before: u64,
        of: u64,
        tell: &mut Tell<'_>,
    ) -> Result<Rewrapped, Error> {
        let mut passed = Rewrapped {
            done: 0,
            left: 0,
            stuck: Vec::new(),
            is_read: true,
        };
        let mut page = first_page();
        loop {
            let (found, next) = self.page(page).await?;
            for streams in batches(&found) {
                let done = passed.done;
                self.batch(streams, &mut passed).await?;
                let rewrapped = before.saturating_add(passed.done);
                if passed.done > done && !tell(Progress { rewrapped, of }).await {
                    passed.is_read = false;
                    return Ok(passed);
                }
            }
            match next {
                Some(after) => {
                    page = Page {
                        after,
                        ..first_page()
                    }
                }
                None => return Ok(passed),
            }
        }
    }

    /// The streams of a page that have keys to wrap anew, with their number, and where the next page begins.
    async fn page(&self, page: Page) -> Result<(Vec<(StreamPath, u64)>, Option<String>), Error> {
        let listed = self.change.registry.streams_page(page).await?;
        let stale = |(path, found): Recorded| {
            let stale = self.stale(found.entry.as_ref()?.data_keys.as_ref()?);
            (stale > 0).then_some((path, stale))
        };
        Ok((
            listed.found.into_iter().filter_map(stale).collect(),
            listed.next,
        ))
    }

    /// Wraps the keys of some streams of one basin anew, in one commit. Nobody creates or deletes streams there
    /// meanwhile: a stream of the same name and revision would be another one.
    async fn batch(
        &self,
        streams: &[(StreamPath, u64)],
        passed: &mut Rewrapped,
    ) -> Result<(), Error> {
        let Some((first, _)) = streams.first() else {
            return Ok(());
        };
        let _lock = self.change.registry.lock(&first.basin).await?;
        let mut changes = Vec::new();
        let mut keys = 0;
        for (path, _) in streams {
            let found = self.change.registry.stream(path).await?;
            if let Some(renewed) = self.renewed(path, &found, &mut passed.stuck) {
                keys += renewed.keys;
                changes.push(change(path, &found, renewed.entry));
            }
        }
        match self.change.registry.commit(changes).await {
            Ok(()) => {
                passed.done += keys;
                Ok(())
            }
            Err(store::Error::Conflict(_)) => {
                for (path, _) in streams {
                    self.one(path, passed).await?;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Wraps the keys of one stream anew, which others are writing to.
    async fn one(&self, path: &StreamPath, passed: &mut Rewrapped) -> Result<(), Error> {
        for _ in 0..MAX_ROUNDS {
            let found = self.change.registry.stream(path).await?;
            // What does not open was told with the batch.
            let Some(renewed) = self.renewed(path, &found, &mut Vec::new()) else {
                return Ok(());
            };
            let changes = vec![change(path, &found, renewed.entry)];
            match self.change.registry.commit(changes).await {
                Ok(()) => {
                    passed.done += renewed.keys;
                    return Ok(());
                }
                Err(store::Error::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        passed.left += 1;
        Ok(())
    }

    /// The entry of a stream with its keys wrapped in the next master key; `None` when nothing can be done.
    fn renewed(
        &self,
        path: &StreamPath,
        found: &Versioned<Arc<StreamEntry>>,
        stuck: &mut Vec<Stuck>,
    ) -> Option<Renewed> {
        let entry = found.entry.as_deref()?;
        let mut data_keys = entry.data_keys.clone()?;
        if self.stale(&data_keys) == 0 {
            return None;
        }
        let mut keys = 0;
        for key in &mut data_keys.keys {
            let Some((epoch, wrapped)) = self.is_stale(key) else {
                continue;
            };
            match self.rewrapped(path, key, epoch, &wrapped) {
                Ok(wrapped) => {
                    key.wrapped = Some(wrapped);
                    keys += 1;
                }
                Err(why) if stuck.len() < MAX_STUCK => stuck.push(Stuck {
                    stream: path.to_string(),
                    epoch: key.epoch,
                    why,
                }),
                Err(_) => {}
            }
        }
        let entry = StreamEntry {
            data_keys: Some(data_keys),
            ..entry.clone()
        };
        (keys > 0).then_some(Renewed { entry, keys })
    }

    /// A data key wrapped in the next master key, or why not.
    fn rewrapped(
        &self,
        path: &StreamPath,
        key: &DataKey,
        epoch: u32,
        wrapped: &Wrapped,
    ) -> Result<WrappedKey, String> {
        let MasterChange { by, old, next, .. } = self.change;
        if epoch != old.epoch {
            return Err(format!(
                "it is wrapped in master key {epoch}, which is neither the old one nor the next"
            ));
        }
        let stream = path.id();
        let place = DekPlace {
            project: by.project.name.as_str(),
            stream: &stream,
            epoch: key.epoch,
        };
        let dek = old.key.unwrap_dek(&place, epoch, wrapped);
        let dek = dek.filter(|dek| dek.commit(&place) == key.commit);
        let dek = dek.ok_or("it does not open under the old master key, or is not the stream's")?;
        Ok(wrap(next, &place, &dek))
    }

    /// How many keys of a stream of the project are not wrapped in the next master key.
    fn stale(&self, data_keys: &DataKeys) -> u64 {
        if data_keys.holder != Holder::Project(self.change.by.project.name.clone()) {
            return 0;
        }
        let stale = data_keys.keys.iter().filter_map(|key| self.is_stale(key));
        stale.count() as u64
    }

    fn is_stale(&self, key: &DataKey) -> Option<(u32, Wrapped)> {
        match key.wrapped {
            Some(WrappedKey::Master { mk_epoch, wrapped })
                if mk_epoch != self.change.next.epoch =>
            {
                Some((mk_epoch, wrapped))
            }
            Some(WrappedKey::Master { .. } | WrappedKey::Kms { .. }) | None => None,
        }
    }
}

fn wrap(master: &Master, place: &DekPlace<'_>, dek: &crate::crypto::Dek) -> WrappedKey {
    WrappedKey::Master {
        mk_epoch: master.epoch,
        wrapped: master.key.wrap_dek(place, master.epoch, dek),
    }
}

fn change(path: &StreamPath, found: &Versioned<Arc<StreamEntry>>, entry: StreamEntry) -> Change {
    Change::Stream {
        path: path.clone(),
        expected: found.revision,
        entry: Some(entry),
    }
}

fn first_page() -> Page {
    Page {
        limit: PAGE,
        ..Page::default()
    }
}

/// Streams of one basin each, not too many together. They come in the order of their names.
fn batches(streams: &[(StreamPath, u64)]) -> impl Iterator<Item = &[(StreamPath, u64)]> {
    streams
        .chunk_by(|(one, _), (other, _)| one.basin == other.basin)
        .flat_map(|basin| basin.chunks(BATCH))
}
