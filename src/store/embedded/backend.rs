//! The bytes below the database: a file that gives no room back to the disk before it is zeroed.
//!
//! The database leaves old pages as they are until it needs the room, and cuts the file when it is closed.
//! What was in that part would go on lying on the disk, where no file names it and nothing can erase it.

use std::{fs::File, io, ops::Bound, os::unix::fs::FileExt as _};

use redb::{BackendError, StorageBackend, backends::FileBackend};

/// Bytes that are looked at and zeroed at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// A file, locked as the database's own backend locks it.
#[derive(Debug)]
pub(super) struct Backend {
    locked: FileBackend,
    /// The same open file.
    file: File,
}

impl Backend {
    pub(super) fn new(file: File) -> Result<Self, redb::Error> {
        let same = file.try_clone()?;
        Ok(Self {
            locked: FileBackend::new(file)?,
            file: same,
        })
    }
}

impl StorageBackend for Backend {
    fn set_len(&self, len: u64) -> io::Result<()> {
        let before = self.locked.len()?;
        if len < before {
            zero(&self.file, len, before)?;
            // On the disk, not just in memory: what is cut off is not written any more.
            self.file.sync_data()?;
        }
        self.locked.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.locked.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.locked.read(offset, out)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.locked.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.locked.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.locked.close()
    }

    fn try_lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<bool, BackendError> {
        self.locked.try_lock_range(from, to)
    }

    fn try_lock_shared_range(
        &self,
        from: Bound<u64>,
        to: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.locked.try_lock_shared_range(from, to)
    }

    fn lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.locked.lock_range(from, to)
    }

    fn lock_shared_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.locked.lock_shared_range(from, to)
    }

    fn unlock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.locked.unlock_range(from, to)
    }

    fn query_lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<bool, BackendError> {
        self.locked.query_lock_range(from, to)
    }
}

/// Writes zeros over what there is between two places of a file. Where nothing was ever written nothing is
/// written now: a hole takes no room, and may have to take none on a disk that is full.
pub(super) fn zero(file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut found = vec![0; CHUNK_BYTES];
    let zeros = vec![0; CHUNK_BYTES];
    let mut at = from;
    while at < to {
        let length = usize::try_from(to - at).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let (Some(found), Some(zeros)) = (found.get_mut(..length), zeros.get(..length)) else {
            break;
        };
        file.read_exact_at(found, at)?;
        if found != zeros {
            file.write_all_at(zeros, at)?;
        }
        at += length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_is_zeroed_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![7; 3 * CHUNK_BYTES]).unwrap();
        let mut options = std::fs::OpenOptions::new();
        let backend = Backend::new(options.read(true).write(true).open(&path).unwrap()).unwrap();
        backend.set_len(20).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [7; 20]);
        // Nobody sees what was in a part that is gone. But where nothing can be written, that is what fails, and
        // not the cut, which is refused as an invalid argument.
        let backend = Backend::new(File::open(&path).unwrap()).unwrap();
        let error = backend.set_len(10).unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), [7; 20]);
    }

    #[test]
    fn only_what_is_between_is_zeroed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![7; 3 * CHUNK_BYTES]).unwrap();
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).open(&path).unwrap();
        zero(&file, 10, CHUNK_BYTES as u64 + 10).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes[..10].iter().all(|byte| *byte == 7));
        assert!(bytes[10..CHUNK_BYTES + 10].iter().all(|byte| *byte == 0));
        assert!(bytes[CHUNK_BYTES + 10..].iter().all(|byte| *byte == 7));
    }
}
