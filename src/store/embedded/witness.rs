//! The witness: a small file beside the store that remembers which store was here and how far it got, so
//! that an older copy, a fresh store or a lost one is noticed.
//!
//! It is written after each change of the store, so it may lag one change behind a crash, never lead.

use std::{
    ffi::OsString,
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::ledger::STORE_ID_BYTES;
use crate::{
    crypto::{Digest, Key, Purpose, StoreKey},
    store::Error,
};

/// What is remembered of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Witness {
    /// Which store it was.
    pub(super) store_id: [u8; STORE_ID_BYTES],
    /// Its last generation.
    pub(super) generation: u64,
}

/// The witness as it is stored, with a tag under the store's key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    store_id: [u8; STORE_ID_BYTES],
    generation: u64,
    tag: Digest,
}

impl Witness {
    /// Where the witness of the store at `store` is.
    pub(super) fn path(store: &Path) -> PathBuf {
        with_suffix(store, ".witness")
    }

    /// The witness of the store at `store`, if there is one.
    pub(super) fn read(store: &Path, key: Option<&Key>) -> Result<Option<Self>, Error> {
        Self::read_with(store, &key.map_or_else(StoreKey::public, StoreKey::new))
    }

    /// The same, for a key that is derived already.
    pub(super) fn read_with(store: &Path, key: &StoreKey) -> Result<Option<Self>, Error> {
        let path = Self::path(store);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(path, error.to_string())),
        };
        let Ok(stored) = serde_json::from_slice::<Stored>(&bytes) else {
            return Err(unusable(path, "it is damaged".to_owned()));
        };
        let witness = Self {
            store_id: stored.store_id,
            generation: stored.generation,
        };
        if stored.tag != witness.tag(key) {
            let reason = "it is altered, or `store.key_file` is not its key".to_owned();
            return Err(unusable(path, reason));
        }
        Ok(Some(witness))
    }

    /// Writes it durably, in place of the one before or not at all.
    pub(super) fn write(&self, store: &Path, key: &StoreKey) -> Result<(), Error> {
        let path = Self::path(store);
        let unfinished = with_suffix(&path, ".new");
        let stored = Stored {
            store_id: self.store_id,
            generation: self.generation,
            tag: self.tag(key),
        };
        let write = || {
            let mut file = create(&unfinished)?;
            file.write_all(&serde_json::to_vec(&stored)?)?;
            file.sync_data()?;
            fs::rename(&unfinished, &path)
        };
        write().map_err(|error: io::Error| unusable(path.clone(), error.to_string()))?;
        sync_parent(&path);
        Ok(())
    }

    fn tag(&self, key: &StoreKey) -> Digest {
        let parts = [self.store_id.as_slice(), &self.generation.to_le_bytes()];
        key.digest(Purpose::Witness, &parts)
    }
}

fn unusable(path: PathBuf, reason: String) -> Error {
    Error::Witness { path, reason }
}

/// A new file, or an emptied old one, for nobody else's eyes: it says which streams there are.
pub(super) fn create(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// The path with `suffix` after its last component.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes a new file's name durable. Not every file system can; then the file itself still is.
pub(super) fn sync_parent(path: &Path) {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    if let Ok(directory) = fs::File::open(parent)
        && let Err(error) = directory.sync_all()
    {
        tracing::debug!(%error, "cannot sync the directory of the config store");
    }
}
