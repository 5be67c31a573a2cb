//! Plain streams that the proxy itself saw created or written, recorded behind the answer and in groups.
//!
//! An entry that is lost makes a refusal later, never plaintext. So nothing here holds a request up, except that a
//! change of a basin's cipher and a deletion first wait for what was seen before them.

use std::{
    collections::HashMap,
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

/// What was seen of a stream, by deletions through the proxy at that time.
struct Sight {
    deletions: u64,
    created_at: Option<String>,
}

/// The plain streams seen and not recorded yet.
pub(super) struct Seen {
    store: Arc<dyn Store>,
    is_on: bool,
    pending: SyncMutex<HashMap<StreamPath, Sight>>,
    noted: Cache<StreamPath, ()>,
    /// Deletions through the proxy. What was looked up before one is not noted after it.
    deletions: AtomicU64,
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
            deletions: AtomicU64::new(0),
            flushing: Mutex::new(()),
        }
    }

    /// Returns the number of deletions so far.
    pub(super) fn deletions(&self) -> u64 {
        self.deletions.load(SeqCst)
    }

    /// Notes a plain stream that was looked up at this number of deletions.
    pub(super) fn note(
        self: &Arc<Self>,
        path: &StreamPath,
        deletions: u64,
        created_at: Option<String>,
    ) {
        if !self.is_on || deletions != self.deletions() || self.noted.get(path).is_some() {
            return;
        }
        let mut pending = self.pending();
        if pending.len() >= MAX_PENDING {
            return;
        }
        let is_first = pending.is_empty();
        let sight = Sight {
            deletions,
            created_at,
        };
        pending.insert(path.clone(), sight);
        drop(pending);
        self.noted.insert(path.clone(), ());
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

    /// Writes all that was noted before.
    pub(super) async fn flush(&self) {
        if self.pending().is_empty() {
            return;
        }
        let _turn = self.flushing.lock().await;
        loop {
            let group: Vec<(StreamPath, Sight)> = {
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
        // Another task may be writing it.
        drop(self.flushing.lock().await);
        true
    }

    /// Writes a group, or what of it still has no entry.
    async fn write(&self, group: &[(StreamPath, Sight)]) -> Result<(), store::Error> {
        let mut changes = Vec::with_capacity(group.len());
        for (path, sight) in group {
            let is_stale = sight.deletions != self.deletions();
            if is_stale || self.store.stream(path).await?.entry.is_some() {
                continue;
            }
            let created_at = sight.created_at.clone();
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
        self.deletions.fetch_add(1, SeqCst);
        let _turn = self.flushing.lock().await;
        self.pending().retain(|noted, _| match path {
            Some(path) => noted != path,
            None => noted.basin != *basin,
        });
        match path {
            Some(path) => {
                self.noted.remove(path);
            }
            None => self.noted.clear(),
        }
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<StreamPath, Sight>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
