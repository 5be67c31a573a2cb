//! The embedded config store: one `redb` file, one process, a bounded cache in front.
//!
//! ```text
//! table "meta"     "format" → u32 LE    "store_id" → 16 bytes
//! table "basins"   basin         → {"revision":…,"entry":…}   JSON
//! table "streams"  basin/stream  → {"revision":…,"entry":…}   JSON
//! ```
//! A basin name holds no `/`, so the first one ends it.

use std::{path::Path, sync::Arc};

use futures_util::future::BoxFuture;
use quick_cache::sync::Cache;
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{BasinEntry, Change, Config, Error, Recorded, Revision, Store, StreamEntry, Versioned};
use crate::stream::{BasinName, StreamPath};

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const BASINS: TableDefinition<&str, &[u8]> = TableDefinition::new("basins");
const STREAMS: TableDefinition<&str, &[u8]> = TableDefinition::new("streams");

/// The format version this release writes, and the newest it reads.
const FORMAT: u32 = 1;

/// Basins kept in memory. A few hundred bytes each.
const CACHED_BASINS: usize = 10_000;

/// Streams kept in memory. A few hundred bytes each, so some tens of megabytes at most.
const CACHED_STREAMS: usize = 100_000;

/// The embedded store. Cheap to clone.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

struct Inner {
    db: Database,
    path: Box<Path>,
    basins: Cache<BasinName, Versioned<Arc<BasinEntry>>>,
    streams: Cache<StreamPath, Versioned<Arc<StreamEntry>>>,
    /// Held while a change is written and the cache follows, and while a miss is read into the
    /// cache, so that the cache never holds something older than the file.
    order: std::sync::Mutex<()>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row<T> {
    revision: Revision,
    entry: T,
}

impl Embedded {
    /// Opens the store, or makes it when `store.create` says so.
    ///
    /// # Errors
    /// [`Error`] for a file that is missing, in use, damaged, foreign or newer.
    pub fn open(config: &Config) -> Result<Self, Error> {
        if config.path.try_exists().unwrap_or(true) {
            Self::open_existing(&config.path)
        } else if config.create {
            Self::init(&config.path)
        } else {
            Err(Error::Missing(config.path.clone()))
        }
    }

    /// Makes a new, empty store.
    ///
    /// # Errors
    /// [`Error::Exists`] rather than touch a file that is already there.
    pub fn init(path: &Path) -> Result<Self, Error> {
        if path.try_exists().unwrap_or(true) {
            return Err(Error::Exists(path.to_path_buf()));
        }
        let storage = storage_error(path);
        // Made under another name: what a crash leaves half made is never taken for a store.
        let unfinished = path.with_added_extension("new");
        if let Err(error) = std::fs::remove_file(&unfinished)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(storage(error.into()));
        }
        let db = Database::create(&unfinished).map_err(|e| storage(e.into()))?;
        let store_id: [u8; 16] = rand::random();
        let write = || -> Result<(), redb::Error> {
            let txn = db.begin_write()?;
            {
                let mut meta = txn.open_table(META)?;
                meta.insert("format", FORMAT.to_le_bytes().as_slice())?;
                meta.insert("store_id", store_id.as_slice())?;
                txn.open_table(BASINS)?;
                txn.open_table(STREAMS)?;
            }
            txn.commit()?;
            Ok(())
        };
        write().map_err(&storage)?;
        drop(db);
        std::fs::rename(&unfinished, path).map_err(|e| storage(e.into()))?;
        sync_parent(path);
        Self::open_existing(path)
    }

    fn open_existing(path: &Path) -> Result<Self, Error> {
        let storage = storage_error(path);
        let db = Database::open(path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => Error::Locked(path.to_path_buf()),
            other => storage(other.into()),
        })?;
        let format = read_format(&db, path)?;
        if format > FORMAT {
            return Err(Error::Newer {
                path: path.to_path_buf(),
                found: format,
                known: FORMAT,
            });
        }
        Ok(Self::new(db, path))
    }

    fn new(db: Database, path: &Path) -> Self {
        Self(Arc::new(Inner {
            db,
            path: path.into(),
            basins: Cache::new(CACHED_BASINS),
            streams: Cache::new(CACHED_STREAMS),
            order: std::sync::Mutex::new(()),
        }))
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
                let _order = inner.lock()?;
                let found = inner.read(BASINS, name.as_str())?;
                inner.basins.insert(name, found.clone());
                Ok(found)
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
                let _order = inner.lock()?;
                let found = inner.read(STREAMS, &path.to_string())?;
                inner.streams.insert(path, found.clone());
                Ok(found)
            })
            .await
        })
    }

    fn streams_of<'a>(
        &'a self,
        basin: &'a BasinName,
    ) -> BoxFuture<'a, Result<Vec<Recorded>, Error>> {
        let basin = basin.clone();
        Box::pin(self.blocking(move |inner| inner.list(&basin)))
    }

    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.blocking(move |inner| inner.commit(changes)))
    }
}

impl Inner {
    fn lock(&self) -> Result<std::sync::MutexGuard<'_, ()>, Error> {
        self.order.lock().map_err(|_| Error::Closed)
    }

    fn storage(&self, source: impl Into<redb::Error>) -> Error {
        storage_error(&self.path)(source.into())
    }

    fn read<T: DeserializeOwned>(
        &self,
        table: TableDefinition<&str, &[u8]>,
        name: &str,
    ) -> Result<Versioned<Arc<T>>, Error> {
        let txn = self.db.begin_read().map_err(|e| self.storage(e))?;
        let table = txn.open_table(table).map_err(|e| self.storage(e))?;
        let Some(bytes) = table.get(name).map_err(|e| self.storage(e))? else {
            return Ok(Versioned::none());
        };
        let row: Row<T> = parse(name, bytes.value())?;
        Ok(Versioned {
            revision: row.revision,
            entry: Some(Arc::new(row.entry)),
        })
    }

    fn list(&self, basin: &BasinName) -> Result<Vec<Recorded>, Error> {
        let txn = self.db.begin_read().map_err(|e| self.storage(e))?;
        let table = txn.open_table(STREAMS).map_err(|e| self.storage(e))?;
        // '0' is the byte after '/'.
        let (from, to) = (format!("{basin}/"), format!("{basin}0"));
        let rows = table
            .range(from.as_str()..to.as_str())
            .map_err(|e| self.storage(e))?;
        rows.map(|row| {
            let (name, bytes) = row.map_err(|e| self.storage(e))?;
            let stream = name.value().get(from.len()..).and_then(|s| s.parse().ok());
            let stream = stream.ok_or_else(|| Error::Damaged(name.value().to_owned()))?;
            let path = StreamPath {
                basin: basin.clone(),
                stream,
            };
            let row: Row<StreamEntry> = parse(name.value(), bytes.value())?;
            let entry = Versioned {
                revision: row.revision,
                entry: Some(row.entry),
            };
            Ok((path, entry))
        })
        .collect()
    }

    fn commit(&self, changes: Vec<Change>) -> Result<(), Error> {
        let _order = self.lock()?;
        let txn = self.db.begin_write().map_err(|e| self.storage(e))?;
        for change in &changes {
            match change {
                Change::Basin {
                    name,
                    expected,
                    entry,
                } => self.write(&txn, BASINS, name.as_str(), *expected, entry.as_ref())?,
                Change::Stream {
                    path,
                    expected,
                    entry,
                } => self.write(&txn, STREAMS, &path.to_string(), *expected, entry.as_ref())?,
            }
        }
        // From here until the cache follows, what the file holds is not known for certain: a failed
        // commit may still have reached the disk. So forget first, remember after.
        self.forget(&changes);
        txn.commit().map_err(|e| self.storage(e))?;
        self.remember(changes);
        Ok(())
    }

    fn write<T: Serialize + DeserializeOwned>(
        &self,
        txn: &WriteTransaction,
        table: TableDefinition<&str, &[u8]>,
        name: &str,
        expected: Revision,
        entry: Option<&T>,
    ) -> Result<(), Error> {
        let mut table = txn.open_table(table).map_err(|e| self.storage(e))?;
        let found = match table.get(name).map_err(|e| self.storage(e))? {
            Some(bytes) => parse::<Row<T>>(name, bytes.value())?.revision,
            None => Revision::NONE,
        };
        if found != expected {
            return Err(Error::Conflict(name.to_owned()));
        }
        match entry {
            Some(entry) => {
                let row = Row {
                    revision: expected.next(),
                    entry,
                };
                let bytes =
                    serde_json::to_vec(&row).map_err(|_| Error::Damaged(name.to_owned()))?;
                table.insert(name, bytes.as_slice())
            }
            None => table.remove(name),
        }
        .map_err(|e| self.storage(e))?;
        Ok(())
    }

    fn forget(&self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Basin { name, .. } => {
                    self.basins.remove(name);
                }
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

fn parse<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|_| Error::Damaged(name.to_owned()))
}

fn storage_error(path: &Path) -> impl Fn(redb::Error) -> Error + use<> {
    let path = path.to_path_buf();
    move |source| Error::Storage {
        path: path.clone(),
        source,
    }
}

fn read_format(db: &Database, path: &Path) -> Result<u32, Error> {
    let storage = storage_error(path);
    let txn = db.begin_read().map_err(|e| storage(e.into()))?;
    let meta = match txn.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => {
            return Err(Error::Foreign(path.to_path_buf()));
        }
        Err(error) => return Err(storage(error.into())),
    };
    let format = meta.get("format").map_err(|e| storage(e.into()))?;
    format
        .and_then(|bytes| bytes.value().try_into().ok())
        .map(u32::from_le_bytes)
        .ok_or_else(|| Error::Foreign(path.to_path_buf()))
}

/// Makes the new file's name durable. Not every file system can; then the file itself still is.
fn sync_parent(path: &Path) {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    if let Ok(directory) = std::fs::File::open(parent)
        && let Err(error) = directory.sync_all()
    {
        tracing::debug!(%error, "cannot sync the directory of the config store");
    }
}
