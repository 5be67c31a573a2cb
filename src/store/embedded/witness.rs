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
use crate::store::Error;

/// What is remembered of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Witness {
    /// Which store it was.
    pub(super) store_id: [u8; STORE_ID_BYTES],
    /// Its last generation.
    pub(super) generation: u64,
}

impl Witness {
    /// Where the witness of the store at `store` is.
    pub(super) fn path(store: &Path) -> PathBuf {
        with_suffix(store, ".witness")
    }

    /// The witness of the store at `store`, if there is one.
    pub(super) fn read(store: &Path) -> Result<Option<Self>, Error> {
        let path = Self::path(store);
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(witness) => Ok(Some(witness)),
                Err(_) => Err(Error::Witness {
                    path,
                    reason: "it is damaged".to_owned(),
                }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::Witness {
                path,
                reason: error.to_string(),
            }),
        }
    }

    /// Writes it durably, in place of the one before or not at all.
    pub(super) fn write(&self, store: &Path) -> Result<(), Error> {
        let path = Self::path(store);
        let unfinished = with_suffix(&path, ".new");
        let write = || {
            let mut file = create(&unfinished)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_data()?;
            fs::rename(&unfinished, &path)
        };
        write().map_err(|error: io::Error| Error::Witness {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        sync_parent(&path);
        Ok(())
    }
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
