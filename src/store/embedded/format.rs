//! What a file says of itself, format and id, and how one of an earlier format is brought up to date.

use std::{collections::BTreeMap, path::Path};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, WriteTransaction};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    file::{BASINS, ENTRIES, File, META, STREAMS, place},
    ledger::{Ledger, STORE_ID_BYTES},
    open::storage,
};
use crate::{
    store::{Error, Origin, Revision},
    stream::BasinName,
};

/// The format version this release writes, and the newest it reads. Version 1 had neither tags nor a
/// ledger, version 2 no projects and no data keys, version 3 no rules; all are brought up to date when they are
/// opened.
pub(super) const FORMAT: u32 = 4;
const FORMAT_WITHOUT_RULES: u32 = 3;
const FORMAT_WITHOUT_PROJECTS: u32 = 2;
const FORMAT_WITHOUT_TAGS: u32 = 1;

/// Rows of [`META`] beside the ledger.
const FORMAT_ROW: &str = "format";
const STORE_ID_ROW: &str = "store_id";
/// Whether the tags are under a key of the operator's: 1, or 0.
const KEYED_ROW: &str = "keyed";

/// What a file says of itself before anything else in it is looked at.
pub(super) struct Head {
    pub(super) store_id: [u8; STORE_ID_BYTES],
    /// Whether the rows are tagged under a key of the operator's; `None` without any tags.
    pub(super) is_keyed: Option<bool>,
    /// The version of its format.
    pub(super) format: u32,
}

impl Head {
    pub(super) fn read(db: &Database, path: &Path) -> Result<Self, Error> {
        let foreign = || Error::Foreign(path.to_path_buf());
        let txn = db.begin_read().map_err(|e| storage(path, e))?;
        let meta = match txn.open_table(META) {
            Ok(meta) => meta,
            Err(redb::TableError::TableDoesNotExist(_)) => return Err(foreign()),
            Err(error) => return Err(storage(path, error)),
        };
        let value = |name| {
            let row = meta.get(name).map_err(|e| storage(path, e))?;
            Ok::<_, Error>(row.map(|row| row.value().to_vec()))
        };
        let format = value(FORMAT_ROW)?.and_then(|bytes| bytes.try_into().ok());
        let format = format.map(u32::from_le_bytes).ok_or_else(foreign)?;
        let is_keyed = match format {
            FORMAT_WITHOUT_TAGS => None,
            FORMAT | FORMAT_WITHOUT_RULES | FORMAT_WITHOUT_PROJECTS => {
                match value(KEYED_ROW)?.as_deref() {
                    Some([0]) => Some(false),
                    Some([1]) => Some(true),
                    _ => return Err(foreign()),
                }
            }
            found if found > FORMAT => {
                return Err(Error::Newer {
                    path: path.to_path_buf(),
                    found,
                    known: FORMAT,
                });
            }
            _ => return Err(foreign()),
        };
        let store_id = value(STORE_ID_ROW)?.and_then(|bytes| bytes.try_into().ok());
        Ok(Self {
            store_id: store_id.ok_or_else(foreign)?,
            is_keyed,
            format,
        })
    }
}

impl File {
    /// Writes what a new file says of itself, and that it holds nothing.
    pub(super) fn write_new(&self, is_keyed: bool) -> Result<(), Error> {
        let txn = self.db.begin_write().map_err(|e| self.storage(e))?;
        {
            let mut meta = txn.open_table(META).map_err(|e| self.storage(e))?;
            for (name, value) in [
                (FORMAT_ROW, FORMAT.to_le_bytes().as_slice()),
                (STORE_ID_ROW, &self.store_id),
                (KEYED_ROW, &[u8::from(is_keyed)]),
            ] {
                meta.insert(name, value).map_err(|e| self.storage(e))?;
            }
        }
        self.make_tables(&txn)?;
        self.write_ledger(&txn, &Ledger::EMPTY)?;
        txn.commit().map_err(|e| self.storage(e))
    }

    /// Makes the tables of entries that are not there.
    fn make_tables(&self, txn: &WriteTransaction) -> Result<(), Error> {
        for table in ENTRIES {
            txn.open_table(table).map_err(|e| self.storage(e))?;
        }
        Ok(())
    }

    /// Brings a file of format 2 or 3 up to date. An earlier release does not open it any more: it would not keep
    /// what only this one knows.
    pub(super) fn upgrade(&self) -> Result<(), Error> {
        let txn = self.db.begin_write().map_err(|e| self.storage(e))?;
        self.make_tables(&txn)?;
        {
            let mut meta = txn.open_table(META).map_err(|e| self.storage(e))?;
            meta.insert(FORMAT_ROW, FORMAT.to_le_bytes().as_slice())
                .map_err(|e| self.storage(e))?;
        }
        txn.commit().map_err(|e| self.storage(e))
    }

    /// Logs which plain streams an earlier release recorded because the upstream listed them. They count as admitted
    /// by the operator, who has not seen them.
    pub(super) fn warn_of_admitted(&self) -> Result<(), Error> {
        let mut admitted: BTreeMap<BasinName, u64> = BTreeMap::new();
        for (path, found) in self.streams(None)? {
            if found
                .entry
                .is_some_and(|entry| entry.origin == Origin::Admitted)
            {
                *admitted.entry(path.basin).or_default() += 1;
            }
        }
        for (basin, streams) in admitted {
            tracing::warn!(
                %basin,
                streams,
                "streams are recorded as plain because the upstream listed them when their basin got its cipher; \
                 look at them with `streamseal store admit --list s2://{basin}`"
            );
        }
        Ok(())
    }

    /// Brings a file of format 1 up to format 2.
    pub(super) fn add_tags(&self) -> Result<(), Error> {
        #[derive(Serialize, Deserialize)]
        struct Untagged<'a> {
            revision: Revision,
            #[serde(borrow)]
            entry: &'a RawValue,
        }
        let txn = self.db.begin_write().map_err(|e| self.storage(e))?;
        let mut ledger = Ledger::EMPTY;
        for table in [BASINS, STREAMS] {
            let mut rows = txn.open_table(table).map_err(|e| self.storage(e))?;
            for (name, row) in all(&rows).map_err(|e| self.storage(e))? {
                let row: Untagged<'_> =
                    serde_json::from_slice(&row).map_err(|_| Error::Damaged(name.clone()))?;
                let row = place(&table, &name).write(&self.key, row.revision, &row.entry)?;
                ledger.add(place(&table, &name).share(&self.key, &row));
                rows.insert(&*name, row.as_slice())
                    .map_err(|e| self.storage(e))?;
            }
        }
        {
            let mut meta = txn.open_table(META).map_err(|e| self.storage(e))?;
            for (name, value) in [
                (FORMAT_ROW, FORMAT_WITHOUT_PROJECTS.to_le_bytes().as_slice()),
                (KEYED_ROW, &[0]),
            ] {
                meta.insert(name, value).map_err(|e| self.storage(e))?;
            }
        }
        self.write_ledger(&txn, &ledger)?;
        txn.commit().map_err(|e| self.storage(e))
    }
}

fn all(
    rows: &redb::Table<'_, &'static str, &'static [u8]>,
) -> Result<Vec<(String, Vec<u8>)>, redb::StorageError> {
    rows.iter()?
        .map(|row| {
            let (name, row) = row?;
            Ok((name.value().to_owned(), row.value().to_vec()))
        })
        .collect()
}
