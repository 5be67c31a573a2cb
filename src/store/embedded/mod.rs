//! The embedded config store: one `redb` file, one process, a bounded cache in front.
//!
//! ```text
//! table "meta"     "format" → u32 LE    "store_id" → 16 bytes    "keyed" → 0 or 1    "ledger" → JSON
//! table "basins"   basin         → {"revision":…,"entry":…,"tag":…}   JSON
//! table "streams"  basin/stream  → {"revision":…,"entry":…,"tag":…}   JSON
//! table "projects" project       → {"revision":…,"entry":…,"tag":…}   JSON
//! table "rules"    "in force"    → {"revision":…,"entry":…,"tag":…}   JSON
//! ```
//! A basin name holds no `/`, so the first one ends it. Beside the file stands its witness. While something
//! is being erased, "meta" has a row "erasing", and there are two more files: [`erase`] draws them.

mod backend;
mod erase;
mod export;
mod file;
mod format;
mod ledger;
mod list;
mod open;
mod readers;
mod row;
mod transfer;
mod witness;

use std::{
    io::Write,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use quick_cache::sync::Cache;

pub use transfer::{ImportError, ImportOptions, Imported};

use self::{
    file::{BASINS, File, IN_FORCE, PROJECTS, RULES, STREAMS, Then},
    open::{Identity, Trust},
    readers::Reading,
};
use super::{
    BasinEntry, Change, Config, Error, ExportError, Holdings, Listed, Page, ProjectEntry, Recorded,
    RecordedBasin, RecordedProject, Revision, RulesEntry, Store, StreamEntry, Summary, Versioned,
};
use crate::{
    crypto::Key,
    project::ProjectName,
    stream::{BasinName, StreamPath},
};

/// Basins kept in memory. A few hundred bytes each.
const CACHED_BASINS: usize = 10_000;

/// Streams kept in memory. A few hundred bytes each, so some tens of megabytes at most.
const CACHED_STREAMS: usize = 100_000;

/// Projects kept in memory. Some kilobytes each.
const CACHED_PROJECTS: usize = 1000;

/// Shortest time between two attempts to open a file again that failed: each reads it whole.
const REOPEN_EVERY: Duration = Duration::from_secs(1);

/// The embedded store. Cheap to clone.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

struct Inner {
    path: Box<Path>,
    key: Option<Key>,
    basins: Cache<BasinName, Versioned<Arc<BasinEntry>>>,
    streams: Cache<StreamPath, Versioned<Arc<StreamEntry>>>,
    projects: Cache<ProjectName, Versioned<Arc<ProjectEntry>>>,
    /// How much the file held when it was opened or changed last.
    holdings: Mutex<Holdings>,
    /// Held while a change is written and the cache follows, and while a miss is read into the
    /// cache, so that the cache never holds something older than the file.
    file: Mutex<Slot>,
}

/// The file, while it can be used.
enum Slot {
    Open(File),
    /// It failed: the database wants to be opened anew, which puts right what a failed write left.
    Failed {
        identity: Identity,
        next_attempt: Instant,
    },
}

impl Embedded {
    /// Opens the store, or makes it when `store.create` says so.
    ///
    /// # Errors
    /// [`Error`] for a file that is missing, in use, damaged, altered, foreign, newer, or older than what
    /// was here before.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let key = config.key()?;
        let file = if config.path.try_exists().unwrap_or(true) {
            File::open(&config.path, key.as_ref(), Trust::Newest)?
        } else if config.create {
            File::init(&config.path, key.as_ref(), Trust::Newest)?
        } else {
            return Err(Error::Missing(config.path.clone()));
        };
        Ok(Self::new(file, config, key))
    }

    /// Makes a new, empty store.
    ///
    /// # Errors
    /// [`Error::Exists`] rather than touch a file that is already there, [`Error::Lost`] where one was.
    pub fn init(config: &Config) -> Result<Self, Error> {
        let key = config.key()?;
        let file = File::init(&config.path, key.as_ref(), Trust::Newest)?;
        Ok(Self::new(file, config, key))
    }

    /// Opens a store whose gaps are about to be filled: an older copy is taken as well, and a missing one
    /// is made. It counts as the newest from its first change on.
    ///
    /// # Errors
    /// As [`Embedded::open`], but for the age.
    pub fn open_to_rebuild(config: &Config) -> Result<Self, Error> {
        let key = config.key()?;
        let file = if config.path.try_exists().unwrap_or(true) {
            File::open(&config.path, key.as_ref(), Trust::Older)?
        } else {
            File::init(&config.path, key.as_ref(), Trust::Older)?
        };
        Ok(Self::new(file, config, key))
    }

    /// Opens a store that must be there, whatever `store.create` says.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub fn open_existing(config: &Config) -> Result<Self, Error> {
        if !config.path.try_exists().unwrap_or(true) {
            return Err(Error::Missing(config.path.clone()));
        }
        Self::open(config)
    }

    /// Opens a store to read in it. Nothing is changed, not even brought up to date.
    ///
    /// # Errors
    /// As [`Embedded::open`], and [`Error::Earlier`].
    pub fn open_to_look(config: &Config) -> Result<Self, Error> {
        if !config.path.try_exists().unwrap_or(true) {
            return Err(Error::Missing(config.path.clone()));
        }
        let key = config.key()?;
        let file = File::open(&config.path, key.as_ref(), Trust::Look)?;
        Ok(Self::new(file, config, key))
    }

    /// Every basin that is recorded.
    ///
    /// # Errors
    /// The file fails.
    pub async fn basins(&self) -> Result<Vec<RecordedBasin>, Error> {
        self.blocking(|inner| inner.with_file(|file| file.basins()))
            .await
    }

    /// Every stream that is recorded.
    ///
    /// # Errors
    /// The file fails.
    pub async fn streams(&self) -> Result<Vec<Recorded>, Error> {
        self.blocking(|inner| inner.with_file(|file| file.streams(None)))
            .await
    }

    fn new(file: File, config: &Config, key: Option<Key>) -> Self {
        let inner = Inner {
            path: config.path.as_path().into(),
            key,
            basins: Cache::new(CACHED_BASINS),
            streams: Cache::new(CACHED_STREAMS),
            projects: Cache::new(CACHED_PROJECTS),
            holdings: Mutex::new(file.holdings()),
            file: Mutex::new(Slot::Open(file)),
        };
        Self(Arc::new(inner))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(|_| Error::Closed)?
    }
}

impl Store for Embedded {
    fn basin<'a>(
        &'a self,
        name: &'a BasinName,
    ) -> BoxFuture<'a, Result<Versioned<Arc<BasinEntry>>, Error>> {
        Box::pin(async move {
            if let Some(known) = self.0.basins.get(name) {
                return Ok(known);
            }
            let name = name.clone();
            self.blocking(move |inner| {
                inner.with_file(|file| {
                    let found = file.read(BASINS, name.as_str())?.map(Arc::new);
                    inner.basins.insert(name, found.clone());
                    Ok(found)
                })
            })
            .await
        })
    }

    fn stream<'a>(
        &'a self,
        path: &'a StreamPath,
    ) -> BoxFuture<'a, Result<Versioned<Arc<StreamEntry>>, Error>> {
        Box::pin(async move {
            if let Some(known) = self.0.streams.get(path) {
                return Ok(known);
            }
            let path = path.clone();
            self.blocking(move |inner| {
                inner.with_file(|file| {
                    let found = file.read(STREAMS, &path.to_string())?.map(Arc::new);
                    inner.streams.insert(path, found.clone());
                    Ok(found)
                })
            })
            .await
        })
    }

    fn project<'a>(
        &'a self,
        name: &'a ProjectName,
    ) -> BoxFuture<'a, Result<Versioned<Arc<ProjectEntry>>, Error>> {
        Box::pin(async move {
            if let Some(known) = self.0.projects.get(name) {
                return Ok(known);
            }
            let name = name.clone();
            self.blocking(move |inner| {
                inner.with_file(|file| {
                    let found = file.read(PROJECTS, name.as_str())?.map(Arc::new);
                    inner.projects.insert(name, found.clone());
                    Ok(found)
                })
            })
            .await
        })
    }

    fn projects(&self) -> BoxFuture<'_, Result<Vec<RecordedProject>, Error>> {
        Box::pin(self.blocking(|inner| inner.with_file(|file| file.projects())))
    }

    fn rules(&self) -> BoxFuture<'_, Result<Versioned<RulesEntry>, Error>> {
        Box::pin(self.blocking(|inner| inner.with_file(|file| file.read(RULES, IN_FORCE))))
    }

    fn streams_of<'a>(
        &'a self,
        basin: &'a BasinName,
    ) -> BoxFuture<'a, Result<Vec<Recorded>, Error>> {
        let basin = basin.clone();
        Box::pin(self.blocking(move |inner| inner.with_file(|file| file.streams(Some(&basin)))))
    }

    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.blocking(move |inner| {
            inner.with_file(|file| {
                // Until the cache follows, what the file holds is not known for certain: a failed commit
                // may still have reached the disk. So forget first, remember after.
                inner.forget(&changes);
                file.commit(&changes)?;
                inner.remember(changes);
                *inner.holdings() = file.holdings();
                Ok(())
            })
        }))
    }

    fn erase(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.blocking(move |inner| inner.with_file(|file| inner.erase(file, changes))))
    }

    fn holdings(&self) -> Holdings {
        *self.0.holdings()
    }

    fn basins_page(&self, page: Page) -> BoxFuture<'_, Result<Listed<RecordedBasin>, Error>> {
        Box::pin(self.blocking(move |inner| inner.with_file(|file| file.basins_page(&page))))
    }

    fn streams_page(
        &self,
        basin: Option<BasinName>,
        page: Page,
    ) -> BoxFuture<'_, Result<Listed<Recorded>, Error>> {
        Box::pin(self.blocking(move |inner| {
            inner.with_file(|file| file.streams_page(basin.as_ref(), &page))
        }))
    }

    fn summary(&self) -> BoxFuture<'_, Result<Summary, Error>> {
        Box::pin(self.blocking(|inner| {
            let is_keyed = inner.key.is_some();
            inner.with_file(|file| file.summary(is_keyed))
        }))
    }

    fn export(&self, mut out: Box<dyn Write + Send>) -> BoxFuture<'_, Result<(), ExportError>> {
        let this = self.clone();
        Box::pin(async move {
            let written = tokio::task::spawn_blocking(move || Self::export(&this, &mut out)).await;
            written.map_err(|_| Error::Closed)?
        })
    }
}

impl Inner {
    fn lock(&self) -> Result<MutexGuard<'_, Slot>, Error> {
        self.file.lock().map_err(|_| Error::Closed)
    }

    fn holdings(&self) -> MutexGuard<'_, Holdings> {
        // Numbers are whole whoever panics.
        self.holdings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the file, opening it anew if it failed before. One that was moved away is another
    /// process's by now, or nobody's: what it says counts no more.
    fn with_file<T>(&self, work: impl FnOnce(&mut File) -> Result<T, Error>) -> Result<T, Error> {
        let mut slot = self.lock()?;
        let file = match &mut *slot {
            Slot::Open(file) => file,
            Slot::Failed { .. } => self.reopen(&mut slot)?,
        };
        if !file.identity.is_at(&self.path) {
            return Err(Error::Gone(self.path.to_path_buf()));
        }
        let done = work(file);
        if let Err(error @ Error::Storage { .. }) = &done {
            tracing::error!(%error, "the config store failed; it is opened anew with the next request");
            file.readers.leave(Reading::Failed);
            // Nothing is answered from memory that the file may contradict.
            self.basins.clear();
            self.streams.clear();
            self.projects.clear();
            *slot = Slot::Failed {
                // Another than before, when it was erasing.
                identity: file.identity,
                next_attempt: Instant::now() + REOPEN_EVERY,
            };
        }
        done
    }

    /// Makes the changes, if there are any, then erases what they and others before them left.
    fn erase(&self, file: &mut File, changes: Vec<Change>) -> Result<(), Error> {
        let mut told = Ok(());
        if !changes.is_empty() {
            self.forget(&changes);
            file.change(&changes, Then::Erase)?;
            self.remember(changes);
            told = file.tell_witness();
        }
        let erased = file.finish_erasing();
        *self.holdings() = file.holdings();
        erased.and(told)
    }

    fn reopen<'a>(&self, slot: &'a mut Slot) -> Result<&'a mut File, Error> {
        let Slot::Failed {
            identity,
            next_attempt,
        } = slot
        else {
            return Err(Error::Closed);
        };
        if Instant::now() < *next_attempt {
            return Err(Error::Failed(self.path.to_path_buf()));
        }
        if !identity.is_at(&self.path) {
            return Err(Error::Gone(self.path.to_path_buf()));
        }
        let opened = File::open(&self.path, self.key.as_ref(), Trust::Newest);
        // From its end: an attempt reads the whole file, and others wait for it here.
        *next_attempt = Instant::now() + REOPEN_EVERY;
        let file = opened
            .inspect_err(|error| tracing::error!(%error, "the config store does not open again"))?;
        tracing::info!("the config store is open again");
        *slot = Slot::Open(file);
        match slot {
            Slot::Open(file) => Ok(file),
            Slot::Failed { .. } => Err(Error::Closed),
        }
    }

    fn forget(&self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Basin { name, .. } => {
                    self.basins.remove(name);
                }
                Change::Project { name, .. } => {
                    self.projects.remove(name);
                }
                // The rules are not kept in memory.
                Change::SameProject { .. } | Change::Rules { .. } => {}
                Change::Stream { path, .. } => {
                    self.streams.remove(path);
                }
            }
        }
    }

    fn remember(&self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Basin {
                    name,
                    expected,
                    entry,
                } => self.basins.insert(name, written(expected, entry)),
                Change::Project {
                    name,
                    expected,
                    entry,
                } => self.projects.insert(name, written(expected, entry)),
                Change::SameProject { .. } | Change::Rules { .. } => {}
                Change::Stream {
                    path,
                    expected,
                    entry,
                } => self.streams.insert(path, written(expected, entry)),
            }
        }
    }
}

fn written<T>(expected: Revision, entry: Option<T>) -> Versioned<Arc<T>> {
    match entry {
        Some(entry) => Versioned {
            revision: expected.next(),
            entry: Some(Arc::new(entry)),
        },
        None => Versioned::none(),
    }
}
