//! Opening and making the file: whatever is not a whole store of ours, in its newest state, is refused.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use redb::Database;

use super::{
    backend::Backend,
    erase::discard,
    file::File,
    format::{FORMAT, Head},
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
    /// It is refused, and nothing of one that is new enough is changed: not even its format.
    Look,
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
        Ok(Self::told(&fs::metadata(path)?))
    }

    /// The file that this is said of.
    pub(super) fn told(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
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
        discard(&unfinished, None).map_err(|e| storage(path, e))?;
        let key_of_rows = Arc::new(store_key(key));
        let filled = Self::draft(&unfinished, path, key_of_rows, store_id).and_then(|mut file| {
            file.write_new(key.is_some())?;
            fill(&mut file)?;
            file.verify()?;
            let heard = file.consult_witness(trust, earlier_key)?;
            Ok((file, heard))
        });
        let (file, heard) = match filled {
            Ok(filled) => filled,
            Err(error) => {
                // An export may have brought keys that were shredded since. A new attempt clears it, too.
                let _the_first_error_tells_more = discard(&unfinished, None);
                return Err(error);
            }
        };
        fs::rename(&unfinished, path).map_err(|e| storage(path, e))?;
        sync_parent(path);
        if heard == Heard::Behind {
            file.tell_witness()?;
        }
        drop(file);
        Self::open(path, key, trust)
    }

    /// An empty file that is to be the store at `path`, locked, and under another name until then.
    pub(super) fn draft(
        unfinished: &Path,
        path: &Path,
        key: Arc<StoreKey>,
        store_id: [u8; STORE_ID_BYTES],
    ) -> Result<Self, Error> {
        let new = create(unfinished).map_err(|e| storage(path, e))?;
        let db = database(new, path)?;
        let identity = Identity::of(unfinished).map_err(|e| storage(path, e))?;
        Ok(Self::new(db, path, key, store_id, identity))
    }

    fn open_file(path: &Path, key: Option<&Key>, trust: Trust) -> Result<Self, Error> {
        let found = fs::OpenOptions::new().read(true).write(true).open(path);
        let found = found.map_err(|e| storage(path, e))?;
        Self::found(found, path, key, trust)
    }

    /// The store in a file that was found at the path a moment ago.
    pub(super) fn found(
        found: fs::File,
        path: &Path,
        key: Option<&Key>,
        trust: Trust,
    ) -> Result<Self, Error> {
        let told = found.metadata().map_err(|e| storage(path, e))?;
        if told.len() == 0 {
            // The database would take it for a new one.
            let empty = io::Error::new(io::ErrorKind::InvalidData, "the file is empty");
            return Err(storage(path, empty));
        }
        let db = database(found, path)?;
        let identity = Identity::told(&told);
        if !identity.is_at(path) {
            // Another process erased something: its new file is locked, and this is the old one.
            return Err(Error::Locked(path.to_path_buf()));
        }
        let head = Head::read(&db, path)?;
        let mut file = Self::new(db, path, Arc::new(store_key(key)), head.store_id, identity);
        // Every page against its checksum: a damaged one may hide a row as well as change it.
        if !file.db.check_integrity().map_err(|e| storage(path, e))? {
            tracing::warn!("config store {} had to be repaired", path.display());
        }
        match (head.is_keyed, key) {
            (None, None) if trust != Trust::Look => file.add_tags()?,
            (None, None) => {}
            (None | Some(false), Some(_)) => return Err(Error::NotKeyed(path.to_path_buf())),
            (Some(true), None) => return Err(Error::NeedsKey(path.to_path_buf())),
            (Some(true), Some(_)) | (Some(false), None) => {}
        }
        if trust == Trust::Look && head.format < FORMAT {
            return Err(Error::Earlier(path.to_path_buf()));
        }
        if head.format < FORMAT {
            file.upgrade()?;
        }
        file.verify()?;
        if head.format < FORMAT {
            file.warn_of_admitted()?;
        }
        let heard = file.consult_witness(trust, None)?;
        if trust == Trust::Look {
            return Ok(file);
        }
        if heard == Heard::Behind {
            file.tell_witness()?;
        }
        file.finish_erasing()?;
        Ok(file)
    }

    fn new(
        db: Database,
        path: &Path,
        key: Arc<StoreKey>,
        store_id: [u8; STORE_ID_BYTES],
        identity: Identity,
    ) -> Self {
        Self {
            db,
            path: path.to_path_buf(),
            key,
            store_id,
            identity,
            seen: 0,
            readers: Arc::default(),
        }
    }

    /// Every row is one that we wrote, and none is missing.
    pub(super) fn verify(&self) -> Result<(), Error> {
        let ledger = self.ledger()?;
        self.basins()?;
        self.streams(None)?;
        self.projects()?;
        self.rules()?;
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
            Some(witness) if witness.generation > found && trust != Trust::Older => {
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

/// The database in a file, which is a new one if the file is empty.
fn database(file: fs::File, path: &Path) -> Result<Database, Error> {
    let backend = Backend::new(file).map_err(|e| storage(path, e))?;
    let mut builder = redb::Builder::new();
    let db = builder
        .set_cache_size(PAGE_CACHE_BYTES)
        .create_with_backend(backend);
    db.map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => Error::Locked(path.to_path_buf()),
        other => storage(path, other),
    })
}

fn store_key(key: Option<&Key>) -> StoreKey {
    key.map_or_else(StoreKey::public, StoreKey::new)
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
