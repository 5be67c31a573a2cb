//! Who reads the file beside the one that works on it, and when they have to leave it.

use std::{
    path::Path,
    sync::{PoisonError, RwLock},
};

use crate::store::Error;

/// Lets others read the file until it is taken from them, which waits for the row that one is reading.
#[derive(Debug, Default)]
pub(super) struct Readers(RwLock<Reading>);

/// Whether the file may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Reading {
    /// It may.
    #[default]
    Open,
    /// It failed: it is opened anew only when nobody reads it.
    Failed,
    /// Another took its place, and this one is erased.
    Erased,
}

impl Readers {
    /// Reads something from the file at `path`, which stays what it is meanwhile.
    ///
    /// # Errors
    /// The file was taken away, or what `look` says.
    pub(super) fn read<T>(
        &self,
        path: &Path,
        look: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let reading = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match *reading {
            Reading::Open => look(),
            Reading::Failed => Err(Error::Failed(path.to_path_buf())),
            Reading::Erased => Err(Error::Rewritten(path.to_path_buf())),
        }
    }

    /// Takes the file away.
    pub(super) fn leave(&self, why: Reading) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = why;
    }
}
