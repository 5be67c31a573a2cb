//! Keys that the operator keeps in files, for clients that cannot send one.

use std::{
    io,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{crypto::Key, file::no_key};

/// A key read from a file at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileKey {
    key: Key,
}

/// Why a key file is of no use. Names the file, never its content.
#[derive(Debug, thiserror::Error)]
pub enum FileKeyError {
    /// The file cannot be read.
    #[error("key file {0}: {1}")]
    Read(PathBuf, io::Error),
    /// The content is not base64 of 32 bytes.
    #[error("key file {0}: {1}")]
    Content(PathBuf, String),
}

impl FileKey {
    /// Reads the key in `path`: 32 bytes in padded standard base64, white space around it ignored.
    ///
    /// # Errors
    /// [`FileKeyError`] when the file cannot be read or holds no key.
    pub fn read(path: &Path) -> Result<Self, FileKeyError> {
        let text = std::fs::read(path)
            .map(Zeroizing::new)
            .map_err(|error| FileKeyError::Read(path.to_path_buf(), error))?;
        let key = Key::from_base64(&text)
            .map_err(|error| FileKeyError::Content(path.to_path_buf(), no_key(&text, error)))?;
        Ok(Self { key })
    }

    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }
}
