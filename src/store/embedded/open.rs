//! Opening and making the file: whatever is not a whole store of ours, in its newest state, is refused.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use redb::Database;

use super::{
    file::File,
    format::Head,
    ledger::STORE_ID_BYTES,
    witness::{Witness, create, sync_parent, with_suffix},
};
use crate::{
    crypto::{Key, StoreKey},
    store::Error,
};

/// Pages that the database keeps in memory. Entries have a cache of their own, so few are read twice.
const PAGE_CACHE_BYTES: usize = 16 * 1024 * 1024;

/// What is made of a store that is not the one, or not as new as the one, that was seen here last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// It is refused.
    Newest,
    /// It is taken: its gaps are about to be filled.
    Older,
}

/// What the witness knows of a store that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// All of it, or what it knows does not matter now.
    UpToDate,
    /// Less than there is.
    Behind,
}

/// Which file on which disk a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    /// Whether the path still names this file.
    pub(super) fn is_at(self, path: &Path) -> bool {
        Self::of(path).is_ok_and(|found| found == self)
    }
}

impl File {
    /// Opens a store that is there.
    pub(super) fn open(path: &Path, key: Option<&Key>, trust: Trust) -> Result<Self, Error> {
        guarded(path, || Self::open_file(path, key, trust))
    }

    /// Makes a new, empty store.
    pub(super) fn init(path: &Path, key: Option<&Key>, trust: Trust) -> Result<Self, Error> {
        let store_id = match Witness::read(path, key)? {
            None => rand::random(),
            // Made anew, it is the same store to whoever asks, without its memory.
            Some(witness) if trust == Trust::Older || exists(path) => witness.store_id,
            Some(_) => {
                return Err(Error::Lost {
                    path: path.to_path_buf(),
                    witness: Witness::path(path),
                });
            }
        };
        Self::make(path, key, store_id, trust, None, |_| Ok(()))
    }

    /// Makes a new store with this id, filled before it has its name. A witness may be one of a store that
    /// had `earlier_key`.
    pub(super) fn make(
        path: &Path,
        key: Option<&Key>,
        store_id: [u8; STORE_ID_BYTES],
        trust: Trust,
        earlier_key: Option<&StoreKey>,
        fill: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        if exists(path) {
            return Err(Error::Exists(path.to_path_buf()));
        }
        // Made under another name: what a crash leaves half made is never taken for a store.
        let unfinished = with_suffix(path, ".new");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(storage(path, error));
            }
            Ok(()) | Err(_) => {}
        }
        let new = create(&unfinished).map_err(|e| storage(path, e))?;
        let backend = redb::backends::FileBackend::new(new).map_err(|e| storage(path, e))?;
        let db = builder().create_with_backend(backend);
        let db = db.map_err(|e| storage(path, e))?;
        let identity = Identity::of(&unfinished).map_err(|e| storage(path, e))?;
        let mut file = Self::new(db, path, key, store_id, identity);
        file.write_new(key.is_some())?;
        fill(&mut file)?;
        file.verify()?;
        let heard = file.consult_witness(trust, earlier_key)?;
        fs::rename(&unfinished, path).map_err(|e| storage(path, e))?;
        sync_parent(path);
        if heard == Heard::Behind {
            file.tell_witness()?;
        }
        drop(file);
        Self::open(path, key, trust)
    }

    fn open_file(path: &Path, key: Option<&Key>, trust: Trust) -> Result<Self, Error> {
        let db = builder().open(path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => Error::Locked(path.to_path_buf()),
            other => storage(path, other),
        })?;
        let identity = Identity::of(path).map_err(|e| storage(path, e))?;
        let head = Head::read(&db, path)?;
        let mut file = Self::new(db, path, key, head.store_id, identity);
        // Every page against its checksum: a damaged one may hide a row as well as change it.
        if !file.db.check_integrity().map_err(|e| storage(path, e))? {
            tracing::warn!("config store {} had to be repaired", path.display());
        }
        match (head.is_keyed, key) {
            (None, None) => file.add_tags()?,
            (None | Some(false), Some(_)) => return Err(Error::NotKeyed(path.to_path_buf())),
            (Some(true), None) => return Err(Error::NeedsKey(path.to_path_buf())),
            (Some(true), Some(_)) | (Some(false), None) => {}
        }
        if head.lacks_projects {
            file.add_projects()?;
        }
        file.verify()?;
        if file.consult_witness(trust, None)? == Heard::Behind {
            file.tell_witness()?;
        }
        Ok(file)
    }

    fn new(
        db: Database,
        path: &Path,
        key: Option<&Key>,
        store_id: [u8; STORE_ID_BYTES],
        identity: Identity,
    ) -> Self {
        Self {
            db,
            path: path.to_path_buf(),
            key: Arc::new(key.map_or_else(StoreKey::public, StoreKey::new)),
            store_id,
            identity,
            seen: 0,
            is_open: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Every row is one that we wrote, and none is missing.
    fn verify(&self) -> Result<(), Error> {
        let ledger = self.ledger()?;
        self.basins()?;
        self.streams(None)?;
        self.projects()?;
        if self.sum()?.has_rows_of(&ledger) {
            Ok(())
        } else {
            Err(Error::Altered(self.path.clone()))
        }
    }

    /// Compares with what was seen here last.
    fn consult_witness(
        &mut self,
        trust: Trust,
        earlier_key: Option<&StoreKey>,
    ) -> Result<Heard, Error> {
        let found = self.ledger()?.generation;
        let witness = match (Witness::read_with(&self.path, &self.key), earlier_key) {
            (Err(_), Some(earlier)) => Witness::read_with(&self.path, earlier)?,
            (witness, _) => witness?,
        };
        self.seen = witness.map_or(found, |witness| witness.generation.max(found));
        match witness {
            Some(witness) if witness.store_id != self.store_id => Err(Error::Replaced {
                path: self.path.clone(),
                witness: Witness::path(&self.path),
            }),
            Some(witness) if witness.generation > found && trust == Trust::Newest => {
                Err(Error::RolledBack {
                    path: self.path.clone(),
                    found,
                    newest: witness.generation,
                })
            }
            Some(witness) if witness.generation >= found && earlier_key.is_none() => {
                Ok(Heard::UpToDate)
            }
            Some(_) => Ok(Heard::Behind),
            None => {
                if found > 0 {
                    let path = self.path.display();
                    tracing::warn!(
                        "config store {path} has no witness: whether it is the newest cannot be told"
                    );
                }
                Ok(Heard::Behind)
            }
        }
    }
}

fn builder() -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(PAGE_CACHE_BYTES);
    builder
}

/// Whether something is there, or cannot be looked at.
fn exists(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

/// The database takes its own pages on trust here and there, and panics where they make no sense. On a
/// damaged file that is an error like any other.
fn guarded<T>(path: &Path, open: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| {
        let nonsense = redb::Error::Corrupted("it makes no sense".to_owned());
        Err(storage(path, nonsense))
    })
}

pub(super) fn storage(path: &Path, source: impl Into<redb::Error>) -> Error {
    Error::Storage {
        path: path.to_path_buf(),
        source: source.into(),
    }
}
