//! Plain streams that the proxy itself saw created or written, recorded behind the answer and in groups.
//!
//! An entry that is lost makes a refusal later, never plaintext. So nothing here holds a request up, except that a
//! change of a basin's cipher and a deletion first wait for what was seen before them.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex as SyncMutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use quick_cache::sync::Cache;
use tokio::sync::Mutex;

use super::table::{Event, next};
use crate::{
    store::{self, Change, Revision, Store},
    stream::{BasinName, StreamPath},
};

/// How long a group is collected.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// Streams in one commit.
const GROUP: usize = 256;

/// Streams that wait for a commit. Further ones are noted with their next append.
const MAX_PENDING: usize = 10_000;

/// Streams that are known to be noted: a hundred bytes each.
const NOTED: usize = 100_000;

/// Counters of deletions. A stream shares one with a few others.
const COUNTERS: usize = 256;

/// The plain streams seen and not recorded yet, with the upstream's `created_at`.
type Pending = HashMap<StreamPath, Option<String>>;

/// The plain streams seen and not recorded yet.
pub(super) struct Seen {
    store: Arc<dyn Store>,
    is_on: bool,
    /// Of a stream that is about to be deleted nothing is pending, and nothing that was looked up before is added.
    pending: SyncMutex<Pending>,
    noted: Cache<StreamPath, ()>,
    /// Deletions through the proxy, by the hash of the stream. What was looked up before one is not noted after it.
    deletions: Vec<AtomicU64>,
    hasher: RandomState,
    /// Held while a group is written.
    flushing: Mutex<()>,
}

impl Seen {
    pub(super) fn new(store: Arc<dyn Store>, is_on: bool) -> Self {
        Self {
            store,
            is_on,
            pending: SyncMutex::default(),
            noted: Cache::new(NOTED),
            deletions: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            flushing: Mutex::new(()),
        }
    }

    /// Returns the number of deletions so far, of this stream and of those that share its counter.
    pub(super) fn deletions(&self, path: &StreamPath) -> u64 {
        self.deletions[self.counter(path)].load(SeqCst)
    }

    fn counter(&self, path: &StreamPath) -> usize {
        self.hasher.hash_one(path) as usize % COUNTERS
    }

    /// Notes a plain stream that was looked up at this number of deletions.
    pub(super) fn note(
        self: &Arc<Self>,
        path: &StreamPath,
        deletions: u64,
        created_at: Option<String>,
    ) {
        if !self.is_on || self.noted.get(path).is_some() {
            return;
        }
        let mut pending = self.pending();
        if pending.len() >= MAX_PENDING || deletions != self.deletions(path) {
            return;
        }
        let is_first = pending.is_empty();
        pending.insert(path.clone(), created_at);
        self.noted.insert(path.clone(), ());
        drop(pending);
        if is_first {
            // Not kept alive: a stopped proxy must not hold the config store open.
            let seen = Arc::downgrade(self);
            tokio::spawn(async move {
                tokio::time::sleep(FLUSH_AFTER).await;
                if let Some(seen) = seen.upgrade() {
                    seen.flush().await;
                }
            });
        }
    }

    /// Writes all that was noted before, and waits for what another task is writing.
    pub(super) async fn flush(&self) {
        let _turn = self.flushing.lock().await;
        loop {
            let group: Vec<(StreamPath, Option<String>)> = {
                let mut pending = self.pending();
                let paths: Vec<StreamPath> = pending.keys().take(GROUP).cloned().collect();
                let taken = paths.into_iter();
                taken
                    .filter_map(|path| pending.remove_entry(&path))
                    .collect()
            };
            if group.is_empty() {
                return;
            }
            if let Err(error) = self.write(&group).await {
                tracing::warn!(%error, streams = group.len(), "plain streams not recorded");
                for (path, _) in &group {
                    self.noted.remove(path);
                }
            }
        }
    }

    /// Waits until a stream that was noted is written. False if it was not noted.
    pub(super) async fn is_written(&self, path: &StreamPath) -> bool {
        if self.noted.get(path).is_none() {
            return false;
        }
        self.flush().await;
        true
    }

    /// Writes a group, or what of it still has no entry.
    async fn write(&self, group: &[(StreamPath, Option<String>)]) -> Result<(), store::Error> {
        let mut changes = Vec::with_capacity(group.len());
        for (path, created_at) in group {
            if self.store.stream(path).await?.entry.is_some() {
                continue;
            }
            let created_at = created_at.clone();
            changes.push(Change::Stream {
                path: path.clone(),
                expected: Revision::NONE,
                entry: next(None, Event::SeenPlain { created_at }).unwrap_or_default(),
            });
        }
        match changes.is_empty() {
            true => Ok(()),
            false => self.store.commit(changes).await,
        }
    }

    /// Forgets what was noted of a basin's stream, or of all its streams, since it is about to be deleted. What is
    /// being written is waited for.
    pub(super) async fn deleting(&self, basin: &BasinName, path: Option<&StreamPath>) {
        // After a group that is being written: its entries are marked with those that were there.
        let _turn = self.flushing.lock().await;
        let mut pending = self.pending();
        match path {
            Some(path) => {
                self.deletions[self.counter(path)].fetch_add(1, SeqCst);
                pending.remove(path);
                self.noted.remove(path);
            }
            None => {
                for counter in &self.deletions {
                    counter.fetch_add(1, SeqCst);
                }
                pending.retain(|noted, _| noted.basin != *basin);
                self.noted.clear();
            }
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
