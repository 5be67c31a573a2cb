//! Erasing: what a change replaced or removed leaves the disk, too.
//!
//! The database writes each page anew that it changes, and keeps the old one until it needs the room. So a
//! store from which something has to be gone is written anew, row by row, into another file:
//!
//! ```text
//! store.redb            changed, and marked in the same transaction; from here on nothing stops it for good
//! store.redb.rewrite    every row that is left, and no mark; whole, checked and synced
//! store.redb.erasing    a second name of the old file
//! store.redb            the new file, which takes the name of the old one
//! store.redb.erasing    zeroed, synced, removed
//! ```
//! Whoever opens the store after a crash finds the mark, or one of the other files, and brings it to its
//! end first. Both files are locked by this process throughout, so that nobody else opens either.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use redb::{ReadableDatabase as _, ReadableTable as _, TableHandle as _, WriteTransaction};

use super::{
    backend::zero,
    file::{ENTRIES, File, META},
    open::Identity,
    readers::Reading,
    witness::{sync_parent, with_suffix},
};
use crate::store::Error;

/// Row of [`META`] that says that something has to be erased.
const MARK: &str = "erasing";

/// The files beside the store while something is erased. Names that nobody gives to a copy of his own: what
/// is found under them is destroyed.
#[derive(Debug)]
pub(super) struct Beside {
    /// The store itself: where links lead to.
    store: PathBuf,
    /// The new file, until it is the store.
    pub(super) rewrite: PathBuf,
    /// The old file, from then on.
    pub(super) erasing: PathBuf,
}

impl Beside {
    pub(super) fn of(store: &Path) -> io::Result<Self> {
        let store = fs::canonicalize(store)?;
        Ok(Self {
            rewrite: with_suffix(&store, ".rewrite"),
            erasing: with_suffix(&store, ".erasing"),
            store,
        })
    }
}

impl File {
    /// Says in the file that something has to be erased.
    pub(super) fn mark(&self, txn: &WriteTransaction) -> Result<(), Error> {
        let mut meta = txn.open_table(META).map_err(|e| self.storage(e))?;
        meta.insert(MARK, [1].as_slice())
            .map_err(|e| self.storage(e))?;
        Ok(())
    }

    /// Erases what was marked, and what a crash left of an earlier time.
    pub(super) fn finish_erasing(&mut self) -> Result<(), Error> {
        let is_marked = self.is_marked()?;
        self.erase_with(is_marked).map_err(|error| {
            let reason = match error {
                Error::Storage { source, .. } => source.to_string(),
                other => other.to_string(),
            };
            let path = self.path.clone();
            tracing::error!(reason, "the config store is not erased yet");
            Error::Unerased { path, reason }
        })
    }

    fn erase_with(&mut self, is_marked: bool) -> Result<(), Error> {
        let beside = Beside::of(&self.path).map_err(|e| self.storage(e))?;
        self.clean(&beside)?;
        if !is_marked {
            return Ok(());
        }
        let renewed = self.rewrite(&beside).and_then(|new| {
            let named = name(&beside).map_err(|e| self.storage(e));
            named.map(|()| new)
        });
        match renewed {
            Ok(new) => self.replace(new),
            Err(error) => {
                // Gives back what room it took. The error of before says more.
                let _tried_again_later = self.clean(&beside);
                return Err(error);
            }
        }
        self.clean(&beside)?;
        tracing::info!("what was removed from the config store is erased");
        Ok(())
    }

    fn is_marked(&self) -> Result<bool, Error> {
        let txn = self.db.begin_read().map_err(|e| self.storage(e))?;
        let meta = txn.open_table(META).map_err(|e| self.storage(e))?;
        let mark = meta.get(MARK).map_err(|e| self.storage(e))?;
        Ok(mark.is_some())
    }

    /// A new file with everything that is in this one, but the mark.
    pub(super) fn rewrite(&self, beside: &Beside) -> Result<Self, Error> {
        let key = self.key.clone();
        let mut new = Self::draft(&beside.rewrite, &self.path, key, self.store_id)?;
        self.copy_to(&new).map_err(|e| self.storage(e))?;
        let told = fs::metadata(&beside.store).map_err(|e| self.storage(e))?;
        // Whoever was let in to the old one, say for backups, is let in to the new one.
        fs::set_permissions(&beside.rewrite, told.permissions()).map_err(|e| self.storage(e))?;
        // What it is a copy of is destroyed next.
        if !new.db.check_integrity().map_err(|e| self.storage(e))? {
            return Err(Error::Altered(self.path.clone()));
        }
        new.verify()?;
        if new.ledger()? != self.ledger()? {
            return Err(Error::Altered(self.path.clone()));
        }
        new.seen = self.seen;
        Ok(new)
    }

    fn copy_to(&self, new: &Self) -> Result<(), redb::Error> {
        let from = self.db.begin_read()?;
        let to = new.db.begin_write()?;
        for table in [META].into_iter().chain(ENTRIES) {
            let (rows, mut copy) = (from.open_table(table)?, to.open_table(table)?);
            for row in rows.iter()? {
                let (name, row) = row?;
                if (table.name(), name.value()) != (META.name(), MARK) {
                    copy.insert(name.value(), row.value())?;
                }
            }
        }
        Ok(to.commit()?)
    }

    /// Goes on with the new file. Whoever reads the old one leaves it before anything happens to it.
    pub(super) fn replace(&mut self, new: Self) {
        let old = std::mem::replace(self, new);
        old.readers.leave(Reading::Erased);
    }

    /// Destroys the files beside the store, if there are any.
    pub(super) fn clean(&self, beside: &Beside) -> Result<(), Error> {
        for path in [&beside.rewrite, &beside.erasing] {
            discard(path, Some(self.identity)).map_err(|e| self.storage(e))?;
        }
        Ok(())
    }
}

/// Gives the new file the name of the store, and the old one another. At no moment is there no store.
pub(super) fn name(beside: &Beside) -> io::Result<()> {
    fs::hard_link(&beside.store, &beside.erasing)?;
    // The old file must not lose its last name: what is in it could not be erased after a crash.
    sync_parent(&beside.store);
    fs::rename(&beside.rewrite, &beside.store)?;
    sync_parent(&beside.store);
    Ok(())
}

/// Zeroes and removes a file, if it is there. Is it another name of the file that is `kept`, only the name
/// goes.
pub(super) fn discard(path: &Path, kept: Option<Identity>) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.is_file() {
        let path = path.display();
        return Err(io::Error::other(format!(
            "{path} is in the way, and no file"
        )));
    }
    let identity = Identity::told(&found);
    if Some(identity) != kept {
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        let told = file.metadata()?;
        if Identity::told(&told) != identity {
            return Err(io::Error::other("it was replaced meanwhile"));
        }
        // Nobody else's work.
        file.try_lock()?;
        zero(&file, 0, told.len())?;
        file.sync_all()?;
    }
    fs::remove_file(path)?;
    sync_parent(path);
    Ok(())
}

#[cfg(test)]
mod tests;
