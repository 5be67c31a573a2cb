//! The registry answers one question: which cipher does this stream have?
//!
//! The upstream is never believed about that. Records of a stream may go up in clear in three cases only:
//!
//! 1. a `[[streams]]` rule says `cipher = "none"`;
//! 2. the stream has no sealed entry, and its basin has no cipher, in the file or in the store;
//! 3. the stream's entry says plain, because this proxy forwarded its creation or an acknowledged append while
//!    its basin had no cipher ([`Origin::Seen`](crate::store::Origin)), or because the operator admitted it.
//!
//! Everything else is sealed or refused. [`decide`] is that rule as a pure function, `table` says how an
//! entry changes. All other files do the reading, asking and writing around these two.
//!
//! ```text
//! lookup ──▶ decide ──▶ Plain(proof) | Sealed | FirstUse | Unsettled
//!                                        │          │          │ settle: asks the upstream, may create the stream
//!                                        ▼          ▼          ▼
//!                        claim: the key is the stream's, or becomes it, durably before the first record is sent
//! ```

mod ask;
mod claim;
mod create;
mod data_keys;
pub mod decide;
mod delete;
mod error;
mod incarnation;
mod operator;
mod plain_basin;
pub mod rules;
mod seen;
mod settle;
mod stream;
pub mod table;
#[cfg(test)]
mod tests;
mod update;

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, MutexGuard};

pub use self::{
    ask::{Absence, Created, Creating, Listed, Purpose, Questions},
    claim::{Claim, Turn},
    create::Creation,
    delete::{DoomedBasin, DoomedStream},
    error::Error,
    operator::{Applied, apply},
    plain_basin::PlainBasin,
    stream::{Access, Lookup, PlainBy, PlainStream, SealedStream},
};
use self::{claim::Flights, decide::Decision, rules::Rules, seen::Seen};
use crate::{
    crypto::Cipher,
    project::ProjectName,
    store::{
        self, BasinEntry, Change, Listed as Page, Page as Asked, ProjectEntry, Recorded, Revision,
        Store, StreamEntry, StreamState, UnknownStreams, Versioned,
    },
    stream::{BasinName, StreamPath},
};

/// Locks for creations and changes of ciphers, by hash of the basin.
const LOCKS: usize = 1024;

/// Longest wait for the lock of a basin or the turn of a stream. Others hold it for a few calls upstream.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// Times that one request may find its stream changed before it gives up.
const MAX_ROUNDS: usize = 8;

/// The settings of `[store]` that decide about plain streams and new incarnations.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// What to do with a stream that exists upstream, has no entry, and is in a basin with a cipher.
    pub unknown_streams: UnknownStreams,
    /// Whether plain streams are recorded as the proxy sees them.
    pub remember_plain: bool,
    /// Whether an empty stream with another `created_at` counts as a new incarnation.
    pub trust_expiry: bool,
}

impl From<&store::Config> for Settings {
    fn from(config: &store::Config) -> Self {
        Self {
            unknown_streams: config.unknown_streams,
            remember_plain: config.remember_plain,
            trust_expiry: config.trust_expiry,
        }
    }
}

/// The ciphers of basins and streams.
pub struct Registry {
    store: Arc<dyn Store>,
    rules: ArcSwap<Rules>,
    settings: Settings,
    locks: Box<[Mutex<()>]>,
    hasher: RandomState,
    /// Number of changes of store and rules: equal numbers, nothing changed between.
    changes: AtomicU64,
    /// Appends in flight under keys that no record proves yet.
    flights: Flights,
    seen: Arc<Seen>,
}

impl Registry {
    /// Returns a registry over `store`, ruled by `rules`.
    pub fn new(store: Arc<dyn Store>, rules: Rules, settings: Settings) -> Self {
        Self {
            seen: Arc::new(Seen::new(Arc::clone(&store), settings.remember_plain)),
            store,
            rules: ArcSwap::from_pointee(rules),
            settings,
            locks: (0..LOCKS).map(|_| Mutex::new(())).collect(),
            hasher: RandomState::new(),
            changes: AtomicU64::new(0),
            flights: Flights::default(),
        }
    }

    /// Puts other rules in force. Requests keep the rules that they were looked up with, except that no
    /// further byte is forwarded to a stream that is not plain by the new rules.
    pub fn replace_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
        // After the rules: a proof of this moment is one by the old rules or by the new.
        self.advance();
    }

    /// Returns the rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Returns the number of changes of store and rules so far.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Makes every earlier proof stale.
    fn advance(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Looks a stream up in rules and store. A cached look-up costs no I/O.
    ///
    /// # Errors
    /// The store cannot answer, or a rule contradicts it.
    pub async fn lookup(&self, path: &StreamPath) -> Result<Lookup, Error> {
        let changes = self.changes();
        let deletions = self.seen.deletions(path);
        let rules = self.rules();
        let mut found = self.store.stream(path).await?;
        let mut decision = self.decision(&rules, path, &found).await?;
        let is_unknown = found.entry.is_none() && matches!(decision, Decision::FirstUse(_));
        // Seen plain just before a rule gave its basin a cipher, and perhaps not written yet.
        if is_unknown && self.seen.is_written(path).await {
            found = self.store.stream(path).await?;
            decision = self.decision(&rules, path, &found).await?;
        }
        let sealed = |cipher, found| SealedStream::new(path, cipher, found, (&rules, deletions));
        match decision {
            Decision::Plain(by) => Ok(Lookup::Found(Access::Plain(self.proof(path, by, changes)))),
            Decision::Sealed(cipher) => Ok(Lookup::Found(Access::Sealed(sealed(cipher, found)))),
            // What exists unknown is to pass in clear: so it is asked for first.
            Decision::FirstUse(_)
                if found.entry.is_none()
                    && self.settings.unknown_streams == UnknownStreams::Plain =>
            {
                Ok(Lookup::Unsettled)
            }
            Decision::FirstUse(cipher) => Ok(Lookup::FirstUse(sealed(cipher, found))),
            Decision::Ask => Ok(Lookup::Unsettled),
            Decision::Conflict { recorded, declared } => Err(Error::RuleConflict {
                path: path.clone(),
                recorded,
                declared,
            }),
        }
    }

    fn proof(&self, path: &StreamPath, by: PlainBy, changes: u64) -> PlainStream {
        PlainStream::new(by, changes, self.seen.deletions(path))
    }

    async fn decision(
        &self,
        rules: &Rules,
        path: &StreamPath,
        found: &Versioned<Arc<StreamEntry>>,
    ) -> Result<Decision, Error> {
        let rule = rules.stream(path).map(|rule| rule.cipher);
        let entry = found.entry.as_deref();
        let planned = match (rule, entry.map(|entry| &entry.state)) {
            (Some(rule), _) => rule,
            // Only a stream that is not known to exist depends on its basin.
            (None, None | Some(StreamState::Creating { .. })) => {
                self.basin_cipher(rules, &path.basin).await?
            }
            (None, Some(StreamState::Live(_) | StreamState::Deleting(_))) => None,
        };
        Ok(decide::decide(rule, entry, planned))
    }

    /// Returns the cipher a stream shows in lists and answers; `None` when nothing is recorded of it.
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

    /// Keeps other requests from creating, deleting or changing the cipher of anything in `basin`.
    ///
    /// # Errors
    /// [`Error::Busy`] after 30 s.
    pub async fn lock(&self, basin: &BasinName) -> Result<MutexGuard<'_, ()>, Error> {
        let slot = self.hasher.hash_one(basin) as usize % self.locks.len();
        #[expect(clippy::indexing_slicing, reason = "slot is taken modulo the length")]
        let lock = self.locks[slot].lock();
        tokio::time::timeout(LOCK_TIMEOUT, lock)
            .await
            .map_err(|_| Error::Busy)
    }

    /// Returns the entry of a basin.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn basin_entry(
        &self,
        name: &BasinName,
    ) -> Result<Versioned<Arc<BasinEntry>>, store::Error> {
        self.store.basin(name).await
    }

    /// Returns what the configuration file declares for a basin.
    pub fn declared(&self, name: &BasinName) -> Option<Option<Cipher>> {
        self.rules().basin(name)
    }

    /// Records `entry` for a basin.
    ///
    /// # Errors
    /// The store cannot write, or another request wrote first.
    pub async fn record_basin(
        &self,
        name: &BasinName,
        expected: Revision,
        entry: Option<BasinEntry>,
    ) -> Result<(), Error> {
        // A plain stream that was seen before the basin gets a cipher stays plain.
        self.seen.flush().await;
        let change = Change::Basin {
            name: name.clone(),
            expected,
            entry,
        };
        Ok(self.commit(vec![change]).await?)
    }

    /// Returns the cipher of new streams of a basin: the rule's, else the store's.
    async fn basin_cipher(&self, rules: &Rules, name: &BasinName) -> Result<Option<Cipher>, Error> {
        match rules.basin(name) {
            Some(declared) => Ok(declared),
            None => {
                let found = self.store.basin(name).await?;
                Ok(found.entry.and_then(|entry| entry.stream_cipher))
            }
        }
    }

    /// Returns the cipher that a stream gets if it is created now.
    async fn planned_cipher(&self, path: &StreamPath) -> Result<Option<Cipher>, Error> {
        let rules = self.rules();
        match rules.stream(path) {
            Some(rule) => Ok(rule.cipher),
            None => self.basin_cipher(&rules, &path.basin).await,
        }
    }

    /// Makes all changes, or none, and erases from the store's disk what they replace.
    ///
    /// # Errors
    /// As [`Registry::commit`]; [`store::Error::Unerased`] when the changes are made and what they replaced may
    /// still be on the disk.
    pub async fn erase(&self, changes: Vec<Change>) -> Result<(), store::Error> {
        let erased = self.store.erase(changes).await;
        self.advance();
        erased
    }

    /// Returns the entry of a project.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn project(
        &self,
        name: &ProjectName,
    ) -> Result<Versioned<Arc<ProjectEntry>>, store::Error> {
        self.store.project(name).await
    }

    /// Returns the entry of a stream.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn stream(
        &self,
        path: &StreamPath,
    ) -> Result<Versioned<Arc<StreamEntry>>, store::Error> {
        self.store.stream(path).await
    }

    /// Returns a page of the recorded streams of all basins.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn streams_page(&self, page: Asked) -> Result<Page<Recorded>, store::Error> {
        self.store.streams_page(None, page).await
    }

    /// Makes all changes, or none. Every earlier proof becomes stale.
    ///
    /// # Errors
    /// The store cannot write, or another request wrote first.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<(), store::Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let committed = self.store.commit(changes).await;
        // After the change, and also when it is not known whether it was made.
        self.advance();
        committed
    }

    /// Writes the plain streams seen so far. Called before the process stops.
    pub async fn flush_seen(&self) {
        self.seen.flush().await;
    }
}
