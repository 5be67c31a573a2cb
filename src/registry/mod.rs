//! Which cipher does this stream have? The answer, and the work it takes where it is not yet known.
//!
//! The precedence is: a rule of the configuration file, then the stream's entry in the config store,
//! then its basin. In a basin with a cipher nothing that the upstream says can make a stream plain.

mod baseline;
mod create;
mod data_keys;
mod delete;
mod pin;
mod plain;
mod probe;
pub mod rules;
mod settle;

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex as SyncMutex, atomic::AtomicU64},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use quick_cache::sync::Cache;
use tokio::sync::{Mutex, MutexGuard};

pub use plain::PlainStream;

use self::rules::Rules;
use crate::{
    crypto::Cipher,
    project::ProjectName,
    proxy::{
        Error,
        call::{Caller, Stop},
    },
    store::{
        BasinEntry, Change, Incarnation, Listed, Page, ProjectEntry, Recorded, Revision, Store,
        StreamEntry, StreamState, UnknownStreams, Versioned,
    },
    stream::{BasinName, StreamPath},
};

/// How long a plain stream of a basin with a cipher is taken for the same one before its
/// `created_at` is looked at again.
const VERIFY_EVERY: Duration = Duration::from_secs(10);

/// Plain streams whose last look is remembered.
const VERIFIED_STREAMS: usize = 100_000;

/// Locks that creations and changes of ciphers take, by hash of the basin.
const LOCKS: usize = 1024;

/// Longest wait for the lock of a basin: others hold it for a few calls upstream.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// How often one request may find that its stream changed under it before it gives up.
const MAX_ROUNDS: usize = 8;

/// A stream whose records are sealed.
#[derive(Debug, Clone)]
pub struct SealedStream {
    /// Its names.
    pub path: StreamPath,
    /// Its cipher.
    pub cipher: Cipher,
    /// Its entry at the time of the look-up.
    entry: Versioned<Arc<StreamEntry>>,
    /// The rules at the time of the look-up: they say whose key it is, too.
    rules: Arc<Rules>,
}

/// How the records of a stream are to be treated.
#[derive(Debug)]
pub enum Access {
    /// Forward them untouched.
    Plain(PlainStream),
    /// Seal and open them.
    Sealed(SealedStream),
}

/// What a look-up without any call upstream can tell.
#[derive(Debug)]
pub enum Lookup {
    /// How to treat the records.
    Found(Access),
    /// It takes [`Registry::settle`] to know.
    Unsettled,
}

/// Which auto-create setting of the basin a request goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `create_stream_on_append`
    Append,
    /// `create_stream_on_read`
    Read,
}

/// The ciphers of basins and streams.
pub struct Registry {
    store: Arc<dyn Store>,
    rules: ArcSwap<Rules>,
    unknown: UnknownStreams,
    locks: Box<[Mutex<()>]>,
    hasher: RandomState,
    verified: Cache<StreamPath, Instant>,
    /// Counts the changes of store and rules, so that whoever relies on an earlier look can tell.
    epoch: AtomicU64,
    /// Basins whose first cipher is being put in force, and by how many calls.
    changing: SyncMutex<HashMap<BasinName, usize>>,
}

impl Registry {
    /// A registry over `store`, ruled by `rules`.
    pub fn new(store: Arc<dyn Store>, rules: Rules, unknown: UnknownStreams) -> Self {
        Self {
            store,
            rules: ArcSwap::from_pointee(rules),
            unknown,
            locks: (0..LOCKS).map(|_| Mutex::new(())).collect(),
            hasher: RandomState::new(),
            verified: Cache::new(VERIFIED_STREAMS),
            epoch: AtomicU64::new(0),
            changing: SyncMutex::default(),
        }
    }

    /// Puts other rules in force. What was looked up before goes on by the rules of then, except that no
    /// further byte is forwarded to a stream that is not plain by the new ones.
    pub fn replace_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
        self.verified.clear();
        // Not before the rules: a proof of this moment must be one by the old rules or by the new.
        self.advance();
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Looks a stream up in rules and store. A cached look-up costs no I/O.
    ///
    /// # Errors
    /// The store cannot answer, or a rule contradicts it.
    pub async fn lookup(&self, path: &StreamPath) -> Result<Lookup, Error> {
        let epoch = self.epoch();
        let rules = self.rules();
        let found = self.store.stream(path).await?;
        let life = match found.entry.as_deref().map(|entry| &entry.state) {
            Some(StreamState::Live(life)) => Some(life.clone()),
            Some(StreamState::Creating { .. } | StreamState::Deleting(_)) => {
                return Ok(Lookup::Unsettled);
            }
            None => None,
        };
        let known = |cipher| Ok(Lookup::Found(access(path, cipher, found, epoch, &rules)));
        if let Some(rule) = rules.stream(path) {
            return match life {
                Some(life) if life.cipher == rule.cipher => known(life.cipher),
                Some(life) => Err(Error::RuleConflict {
                    path: path.clone(),
                    recorded: life.cipher,
                    declared: rule.cipher,
                }),
                // Recorded with its first record: looking alone writes nothing.
                None => known(rule.cipher),
            };
        }
        match life {
            Some(Incarnation {
                cipher: Some(cipher),
                ..
            }) => known(Some(cipher)),
            plain => match self.basin_by(&rules, &path.basin).await? {
                Basin::Plain if plain.is_none() && self.is_changing(&path.basin) => {
                    Ok(Lookup::Unsettled)
                }
                Basin::Plain => known(None),
                Basin::Sealing(_) if plain.is_some() && self.is_verified(path) => known(None),
                Basin::Sealing(_) | Basin::Unadopted(_) => Ok(Lookup::Unsettled),
            },
        }
    }

    /// The cipher a stream shows in lists and answers; `None` when nothing is recorded of it.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn shown_cipher(&self, path: &StreamPath) -> Result<Option<Option<Cipher>>, Error> {
        let found = self.store.stream(path).await?;
        Ok(match found.entry {
            Some(entry) => Some(entry.state.cipher()),
            None => self.rules().stream(path).map(|rule| rule.cipher),
        })
    }

    /// Makes sure that nobody else creates, deletes or re-ciphers anything in `basin` meanwhile.
    ///
    /// # Errors
    /// [`Error::Busy`] when others hold it for too long.
    pub async fn lock(&self, basin: &BasinName) -> Result<MutexGuard<'_, ()>, Error> {
        let slot = self.hasher.hash_one(basin) as usize % self.locks.len();
        #[expect(clippy::indexing_slicing, reason = "slot is taken modulo the length")]
        let lock = self.locks[slot].lock();
        tokio::time::timeout(LOCK_TIMEOUT, lock)
            .await
            .map_err(|_| Error::Busy)
    }

    /// What is recorded of a basin.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn basin_entry(&self, name: &BasinName) -> Result<Versioned<Arc<BasinEntry>>, Error> {
        Ok(self.store.basin(name).await?)
    }

    /// What the configuration file declares for a basin.
    pub fn declared(&self, name: &BasinName) -> Option<Option<Cipher>> {
        self.rules().basin(name)
    }

    /// Records `entry` for a basin and returns its new revision.
    ///
    /// # Errors
    /// The store cannot write, or somebody else wrote first.
    pub async fn record_basin(
        &self,
        name: &BasinName,
        expected: Revision,
        entry: Option<BasinEntry>,
    ) -> Result<(), Error> {
        let change = Change::Basin {
            name: name.clone(),
            expected,
            entry,
        };
        self.commit(vec![change]).await
    }

    /// How new streams of a basin are made.
    async fn basin(&self, name: &BasinName) -> Result<Basin, Error> {
        self.basin_by(&self.rules(), name).await
    }

    /// The same, by these rules.
    async fn basin_by(&self, rules: &Rules, name: &BasinName) -> Result<Basin, Error> {
        let found = self.store.basin(name).await?;
        let recorded = found.entry.as_deref();
        Ok(match rules.basin(name) {
            Some(None) => Basin::Plain,
            Some(Some(declared)) => match recorded {
                Some(entry) if entry.declared && entry.stream_cipher == Some(declared) => {
                    Basin::Sealing(declared)
                }
                _ => Basin::Unadopted(declared),
            },
            None => match recorded.and_then(|entry| entry.stream_cipher) {
                Some(cipher) => Basin::Sealing(cipher),
                None => Basin::Plain,
            },
        })
    }

    fn is_verified(&self, path: &StreamPath) -> bool {
        self.verified
            .get(path)
            .is_some_and(|at| at.elapsed() < VERIFY_EVERY)
    }

    /// Makes all changes, or none, and erases from the store's disk what they replace.
    ///
    /// # Errors
    /// As [`Registry::commit`]; [`store::Error::Unerased`](crate::store::Error::Unerased) when the changes are made
    /// and what they replaced may still be found.
    pub async fn erase(&self, changes: Vec<Change>) -> Result<(), Error> {
        let erased = self.store.erase(changes).await;
        self.advance();
        Ok(erased?)
    }

    /// What is recorded of a project.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn project(&self, name: &ProjectName) -> Result<Versioned<Arc<ProjectEntry>>, Error> {
        Ok(self.store.project(name).await?)
    }

    /// What is recorded of a stream.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn stream(&self, path: &StreamPath) -> Result<Versioned<Arc<StreamEntry>>, Error> {
        Ok(self.store.stream(path).await?)
    }

    /// A page of the streams that are recorded in all basins.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn streams_page(&self, page: Page) -> Result<Listed<Recorded>, Error> {
        Ok(self.store.streams_page(None, page).await?)
    }

    async fn record(
        &self,
        path: &StreamPath,
        expected: Revision,
        entry: Option<StreamEntry>,
    ) -> Result<(), Error> {
        let change = Change::Stream {
            path: path.clone(),
            expected,
            entry,
        };
        self.commit(vec![change]).await
    }

    /// Makes all changes, or none. Whoever relies on an earlier look looks again.
    ///
    /// # Errors
    /// The store cannot write, or somebody else wrote first.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let committed = self.store.commit(changes).await;
        // After the change, and also when it is not known whether it was made.
        self.advance();
        Ok(committed?)
    }
}

/// How new streams of a basin are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Basin {
    /// Plain.
    Plain,
    /// Sealed with this cipher.
    Sealing(Cipher),
    /// Declared in the file, but its existing streams have not been listed yet.
    Unadopted(Cipher),
}

impl Basin {
    fn cipher(self) -> Option<Cipher> {
        match self {
            Self::Plain => None,
            Self::Sealing(cipher) | Self::Unadopted(cipher) => Some(cipher),
        }
    }
}

fn access(
    path: &StreamPath,
    cipher: Option<Cipher>,
    entry: Versioned<Arc<StreamEntry>>,
    epoch: u64,
    rules: &Arc<Rules>,
) -> Access {
    match cipher {
        None => Access::Plain(PlainStream::known(entry.revision, epoch)),
        Some(cipher) => Access::Sealed(SealedStream {
            path: path.clone(),
            cipher,
            entry,
            rules: Arc::clone(rules),
        }),
    }
}

/// A caller and the stream it asks about.
struct Asked<'a> {
    path: &'a StreamPath,
    caller: &'a Caller,
}

type Outcome<T> = Result<T, Stop>;
