//! The `redb` file: reading and changing rows, with the ledger and the witness that follow each change.

use std::{fs, path::PathBuf, sync::Arc};

use redb::{
    Database, ReadableDatabase as _, ReadableTable, ReadableTableMetadata as _, TableDefinition,
    TableHandle as _, WriteTransaction,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    ledger::{Ledger, STORE_ID_BYTES},
    open::Identity,
    readers::Readers,
    row::Place,
    witness::Witness,
};
use crate::{
    crypto::StoreKey,
    store::{
        BasinEntry, Change, Error, Holdings, ProjectEntry, Recorded, RecordedBasin,
        RecordedProject, Revision, RulesEntry, StreamEntry, Versioned,
    },
    stream::BasinName,
};

pub(super) type Table = TableDefinition<'static, &'static str, &'static [u8]>;

pub(super) const META: Table = TableDefinition::new("meta");
pub(super) const BASINS: Table = TableDefinition::new("basins");
pub(super) const STREAMS: Table = TableDefinition::new("streams");
pub(super) const PROJECTS: Table = TableDefinition::new("projects");
pub(super) const RULES: Table = TableDefinition::new("rules");

/// The tables of entries.
pub(super) const ENTRIES: [Table; 4] = [BASINS, STREAMS, PROJECTS, RULES];

/// Row of [`META`] that holds the ledger.
pub(super) const LEDGER: &str = "ledger";

/// The one row of [`RULES`].
pub(super) const IN_FORCE: &str = "in force";

/// What follows a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The next one.
    GoOn,
    /// What it replaced or removed is erased.
    Erase,
}

/// An open file. The operating system's lock on it is held for as long as it lives.
pub(super) struct File {
    pub(super) db: Database,
    pub(super) path: PathBuf,
    pub(super) key: Arc<StoreKey>,
    pub(super) store_id: [u8; STORE_ID_BYTES],
    pub(super) identity: Identity,
    /// The newest generation that was ever seen here.
    pub(super) seen: u64,
    /// Whoever else reads it.
    pub(super) readers: Arc<Readers>,
}

impl File {
    /// What is recorded under a name.
    pub(super) fn read<T: DeserializeOwned>(
        &self,
        table: Table,
        name: &str,
    ) -> Result<Versioned<T>, Error> {
        let txn = self.db.begin_read().map_err(|e| self.storage(e))?;
        let rows = txn.open_table(table).map_err(|e| self.storage(e))?;
        let Some(row) = rows.get(name).map_err(|e| self.storage(e))? else {
            return Ok(Versioned::none());
        };
        let (revision, entry) = place(&table, name).read(&self.key, row.value())?;
        Ok(Versioned {
            revision,
            entry: Some(entry),
        })
    }

    /// Every basin that is recorded.
    pub(super) fn basins(&self) -> Result<Vec<RecordedBasin>, Error> {
        let rows = self.rows::<BasinEntry>(BASINS, "", None)?;
        rows.into_iter()
            .map(|(name, entry)| {
                let basin = name.parse().map_err(|_| Error::Damaged(name.clone()))?;
                Ok((basin, entry))
            })
            .collect()
    }

    /// Every stream that is recorded, in one basin or in all.
    pub(super) fn streams(&self, basin: Option<&BasinName>) -> Result<Vec<Recorded>, Error> {
        // '0' is the byte after '/'.
        let range = basin.map(|basin| (format!("{basin}/"), format!("{basin}0")));
        let rows = match &range {
            Some((from, to)) => self.rows::<StreamEntry>(STREAMS, from, Some(to))?,
            None => self.rows::<StreamEntry>(STREAMS, "", None)?,
        };
        rows.into_iter()
            .map(|(name, entry)| {
                let path = name.parse().map_err(|_| Error::Damaged(name.clone()))?;
                Ok((path, entry))
            })
            .collect()
    }

    /// Every project that is recorded.
    pub(super) fn projects(&self) -> Result<Vec<RecordedProject>, Error> {
        let rows = self.rows::<ProjectEntry>(PROJECTS, "", None)?;
        rows.into_iter()
            .map(|(name, entry)| {
                let project = name.parse().map_err(|_| Error::Damaged(name.clone()))?;
                Ok((project, entry))
            })
            .collect()
    }

    /// What is recorded of the rules in force. No other row is beside it.
    pub(super) fn rules(&self) -> Result<Option<Versioned<RulesEntry>>, Error> {
        let mut rows = self.rows::<RulesEntry>(RULES, "", None)?.into_iter();
        match (rows.next(), rows.next()) {
            (Some((name, entry)), None) if name == IN_FORCE => Ok(Some(entry)),
            (None, _) => Ok(None),
            (Some((name, _)), _) => Err(Error::Damaged(name)),
        }
    }

    /// The sum of the rows that are there, whatever the ledger says.
    pub(super) fn sum(&self) -> Result<Ledger, Error> {
        let txn = self.db.begin_read().map_err(|e| self.storage(e))?;
        let mut sum = Ledger::EMPTY;
        for table in ENTRIES {
            let rows = txn.open_table(table).map_err(|e| self.storage(e))?;
            for row in rows.iter().map_err(|e| self.storage(e))? {
                let (name, row) = row.map_err(|e| self.storage(e))?;
                sum.add(place(&table, name.value()).share(&self.key, row.value()));
            }
        }
        Ok(sum)
    }

    /// The ledger in the file.
    pub(super) fn ledger(&self) -> Result<Ledger, Error> {
        let txn = self.db.begin_read().map_err(|e| self.storage(e))?;
        let meta = txn.open_table(META).map_err(|e| self.storage(e))?;
        self.ledger_in(&meta)
    }

    /// How much the file holds, by what its tables say of themselves: no row is read. What cannot be told
    /// counts as nothing.
    pub(super) fn holdings(&self) -> Holdings {
        let size = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        Holdings {
            bytes: size,
            basins: self.rows_in(BASINS).unwrap_or_default(),
            streams: self.rows_in(STREAMS).unwrap_or_default(),
            projects: self.rows_in(PROJECTS).unwrap_or_default(),
        }
    }

    fn rows_in(&self, table: Table) -> Result<u64, redb::Error> {
        Ok(self.db.begin_read()?.open_table(table)?.len()?)
    }

    /// Makes all changes durably, or none, and lets the witness know.
    pub(super) fn commit(&mut self, changes: &[Change]) -> Result<(), Error> {
        self.change(changes, Then::GoOn)?;
        self.tell_witness()
    }

    /// Makes all changes durably, or none.
    pub(super) fn change(&mut self, changes: &[Change], then: Then) -> Result<(), Error> {
        let txn = self.db.begin_write().map_err(|e| self.storage(e))?;
        let mut ledger = {
            let meta = txn.open_table(META).map_err(|e| self.storage(e))?;
            self.ledger_in(&meta)?
        };
        for change in changes {
            match change {
                Change::Basin {
                    name,
                    expected,
                    entry,
                } => {
                    let row = (BASINS, name.as_str());
                    self.write(&txn, &mut ledger, row, *expected, entry.as_ref())?;
                }
                Change::Project {
                    name,
                    expected,
                    entry,
                } => {
                    let row = (PROJECTS, name.as_str());
                    self.write(&txn, &mut ledger, row, *expected, entry.as_ref())?;
                }
                Change::SameProject { name, expected } => {
                    let row = (PROJECTS, name.as_str());
                    self.expect::<ProjectEntry>(&txn, row, *expected)?;
                }
                Change::Rules { expected, entry } => {
                    let row = (RULES, IN_FORCE);
                    self.write(&txn, &mut ledger, row, *expected, entry.as_ref())?;
                }
                Change::Stream {
                    path,
                    expected,
                    entry,
                } => {
                    let row = (STREAMS, &*path.to_string());
                    self.write(&txn, &mut ledger, row, *expected, entry.as_ref())?;
                }
            }
        }
        ledger.generation = ledger.generation.max(self.seen).saturating_add(1);
        self.write_ledger(&txn, &ledger)?;
        if then == Then::Erase {
            self.mark(&txn)?;
        }
        txn.commit().map_err(|e| self.storage(e))?;
        self.seen = ledger.generation;
        Ok(())
    }

    /// Lets the witness know which store is here, and how far it got.
    pub(super) fn tell_witness(&self) -> Result<(), Error> {
        let witness = Witness {
            store_id: self.store_id,
            generation: self.seen,
        };
        witness.write(&self.path, &self.key)
    }

    pub(super) fn write_ledger(
        &self,
        txn: &WriteTransaction,
        ledger: &Ledger,
    ) -> Result<(), Error> {
        let bytes = ledger.write(&self.key, &self.store_id);
        let bytes = bytes.map_err(|_| Error::Damaged(LEDGER.to_owned()))?;
        let mut meta = txn.open_table(META).map_err(|e| self.storage(e))?;
        meta.insert(LEDGER, bytes.as_slice())
            .map_err(|e| self.storage(e))?;
        Ok(())
    }

    pub(super) fn storage(&self, source: impl Into<redb::Error>) -> Error {
        Error::Storage {
            path: self.path.clone(),
            source: source.into(),
        }
    }

    /// Makes sure that a row is still at `expected`.
    fn expect<T: DeserializeOwned>(
        &self,
        txn: &WriteTransaction,
        (table, name): (Table, &str),
        expected: Revision,
    ) -> Result<(), Error> {
        let rows = txn.open_table(table).map_err(|e| self.storage(e))?;
        let found = match rows.get(name).map_err(|e| self.storage(e))? {
            Some(row) => place(&table, name).read::<T>(&self.key, row.value())?.0,
            None => Revision::NONE,
        };
        match found == expected {
            true => Ok(()),
            false => Err(Error::Conflict(name.to_owned())),
        }
    }

    /// Writes or removes one row that is still at `expected`.
    fn write<T: Serialize + DeserializeOwned>(
        &self,
        txn: &WriteTransaction,
        ledger: &mut Ledger,
        (table, name): (Table, &str),
        expected: Revision,
        entry: Option<&T>,
    ) -> Result<(), Error> {
        let place = place(&table, name);
        let mut rows = txn.open_table(table).map_err(|e| self.storage(e))?;
        let found = match rows.get(name).map_err(|e| self.storage(e))? {
            Some(row) => {
                ledger.take(place.share(&self.key, row.value()));
                place.read::<T>(&self.key, row.value())?.0
            }
            None => Revision::NONE,
        };
        if found != expected {
            return Err(Error::Conflict(name.to_owned()));
        }
        match entry {
            Some(entry) => {
                drop(rows);
                self.insert(txn, ledger, (table, name), expected.next(), entry)?;
            }
            None => {
                rows.remove(name).map_err(|e| self.storage(e))?;
            }
        }
        Ok(())
    }

    /// Writes a row in place of one that was taken from the ledger, or of none.
    pub(super) fn insert<T: Serialize>(
        &self,
        txn: &WriteTransaction,
        ledger: &mut Ledger,
        (table, name): (Table, &str),
        revision: Revision,
        entry: &T,
    ) -> Result<(), Error> {
        let row = place(&table, name).write(&self.key, revision, entry)?;
        ledger.add(place(&table, name).share(&self.key, &row));
        let mut rows = txn.open_table(table).map_err(|e| self.storage(e))?;
        rows.insert(name, row.as_slice())
            .map_err(|e| self.storage(e))?;
        Ok(())
    }

    /// The rows whose names are at or after `from` and before `to`.
    fn rows<T: DeserializeOwned>(
        &self,
        table: Table,
        from: &str,
        to: Option<&str>,
    ) -> Result<Vec<(String, Versioned<T>)>, Error> {
        let txn = self.db.begin_read().map_err(|e| self.storage(e))?;
        let rows = txn.open_table(table).map_err(|e| self.storage(e))?;
        let rows = match to {
            Some(to) => rows.range(from..to),
            None => rows.range(from..),
        };
        rows.map_err(|e| self.storage(e))?
            .map(|row| {
                let (name, row) = row.map_err(|e| self.storage(e))?;
                let place = place(&table, name.value());
                let (revision, entry) = place.read(&self.key, row.value())?;
                let entry = Versioned {
                    revision,
                    entry: Some(entry),
                };
                Ok((name.value().to_owned(), entry))
            })
            .collect()
    }

    pub(super) fn ledger_in(
        &self,
        meta: &impl ReadableTable<&'static str, &'static [u8]>,
    ) -> Result<Ledger, Error> {
        let row = meta.get(LEDGER).map_err(|e| self.storage(e))?;
        row.and_then(|row| Ledger::read(&self.key, &self.store_id, row.value()))
            .ok_or_else(|| Error::Altered(self.path.clone()))
    }
}

pub(super) fn place<'a>(table: &'a Table, name: &'a str) -> Place<'a> {
    Place {
        table: table.name(),
        name,
    }
}
