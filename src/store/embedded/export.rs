//! The export: one moment of the whole store as lines of JSON, written while others go on using it. The
//! lines are drawn in [`super::transfer`].

use std::{io::Write, path::PathBuf, sync::Arc};

use redb::{ReadTransaction, ReadableDatabase as _};
use serde::de::DeserializeOwned;

use super::{
    Embedded,
    file::{BASINS, File, META, PROJECTS, RULES, STREAMS, Table, place},
    ledger::STORE_ID_BYTES,
    open::storage,
    readers::Readers,
    transfer::{BasinLine, EXPORT, End, Head, Line, ProjectLine, RulesLine, StreamLine},
};
use crate::{
    crypto::{Purpose, StoreKey},
    store::{BasinEntry, Error, ExportError, ProjectEntry, Revision, RulesEntry, StreamEntry},
};

/// The store as it was at one moment.
pub(super) struct Snapshot {
    txn: ReadTransaction,
    path: PathBuf,
    key: Arc<StoreKey>,
    store_id: [u8; STORE_ID_BYTES],
    generation: u64,
    readers: Arc<Readers>,
}

impl Embedded {
    /// Writes everything that is recorded to `out`. Changes made meanwhile are not in it, and do not wait.
    ///
    /// # Errors
    /// The store or `out` fails.
    pub fn export(&self, out: &mut impl Write) -> Result<(), ExportError> {
        let snapshot = self.0.with_file(|file| file.snapshot())?;
        snapshot.write(out)
    }
}

impl File {
    fn snapshot(&self) -> Result<Snapshot, Error> {
        let txn = self.db.begin_read().map_err(|e| self.storage(e))?;
        let meta = txn.open_table(META).map_err(|e| self.storage(e))?;
        let generation = self.ledger_in(&meta)?.generation;
        Ok(Snapshot {
            txn,
            path: self.path.clone(),
            key: Arc::clone(&self.key),
            store_id: self.store_id,
            generation,
            readers: Arc::clone(&self.readers),
        })
    }
}

impl Snapshot {
    /// Writes the lines. The digest in the last begins with the length of the others, so they are made
    /// twice: once to be counted, once to be written. Neither time are they held in memory.
    fn write(&self, out: &mut impl Write) -> Result<(), ExportError> {
        let mut length = 0;
        self.lines(|line| {
            length += line.len() as u64;
            Ok(())
        })?;
        let mut digest = self.key.begin(Purpose::Export, length);
        let [basins, projects, streams, rules] = self.lines(|line| {
            digest.update(line);
            Ok(out.write_all(line)?)
        })?;
        let tag = digest.finish();
        let end = End {
            basins,
            projects,
            streams,
            rules,
            tag,
        };
        out.write_all(&line(&Line::End { end })?)?;
        Ok(out.flush()?)
    }

    /// Every line but the last, and how many of each kind are among them.
    fn lines(
        &self,
        mut each: impl FnMut(&[u8]) -> Result<(), ExportError>,
    ) -> Result<[u64; 4], ExportError> {
        each(&line(&Head {
            export: EXPORT,
            store_id: self.store_id,
            generation: self.generation,
        })?)?;
        let basins = self.rows(BASINS, |basin, revision, entry: BasinEntry| {
            each(&line(&Line::Basin(BasinLine {
                basin,
                revision,
                entry,
            }))?)
        })?;
        let projects = self.rows(PROJECTS, |project, revision, entry: ProjectEntry| {
            each(&line(&Line::Project(ProjectLine {
                project,
                revision,
                entry,
            }))?)
        })?;
        let streams = self.rows(STREAMS, |stream, revision, entry: StreamEntry| {
            each(&line(&Line::Stream(StreamLine {
                stream,
                revision,
                entry,
            }))?)
        })?;
        let rules = self.rows(RULES, |rules, revision, entry: RulesEntry| {
            each(&line(&Line::Rules(RulesLine {
                rules,
                revision,
                entry,
            }))?)
        })?;
        Ok([basins, projects, streams, rules])
    }

    fn rows<T: DeserializeOwned>(
        &self,
        table: Table,
        mut each: impl FnMut(String, Revision, T) -> Result<(), ExportError>,
    ) -> Result<u64, ExportError> {
        let failed = |error| storage(&self.path, error);
        let mut rows = self.readers.read(&self.path, || {
            let rows = self.txn.open_table(table);
            let rows = rows.map_err(|e| storage(&self.path, e))?;
            rows.range::<&str>(..).map_err(failed)
        })?;
        let mut count = 0;
        loop {
            let row = self.readers.read(&self.path, || {
                let Some(row) = rows.next() else {
                    return Ok(None);
                };
                let (name, row) = row.map_err(failed)?;
                let (revision, entry) = place(&table, name.value()).read(&self.key, row.value())?;
                Ok(Some((name.value().to_owned(), revision, entry)))
            })?;
            let Some((name, revision, entry)) = row else {
                break;
            };
            each(name, revision, entry)?;
            count += 1;
        }
        Ok(count)
    }
}

fn line(value: &impl serde::Serialize) -> Result<Vec<u8>, ExportError> {
    let mut line = serde_json::to_vec(value).map_err(std::io::Error::from)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::{super::readers::Reading, *};
    use crate::store::Config;

    #[test]
    fn a_file_that_was_taken_away_is_read_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            path: dir.path().join("store.redb"),
            create: true,
            ..Config::default()
        };
        let store = Embedded::open(&config).unwrap();
        let change = crate::store::Change::Basin {
            name: "test-basin".parse().unwrap(),
            expected: Revision::NONE,
            entry: Some(BasinEntry::default()),
        };
        store.0.with_file(|file| file.commit(&[change])).unwrap();
        let snapshot = store.0.with_file(|file| file.snapshot()).unwrap();
        snapshot.write(&mut Vec::new()).unwrap();
        snapshot.readers.leave(Reading::Failed);
        let error = snapshot.write(&mut Vec::new()).unwrap_err();
        assert!(
            matches!(error, ExportError::Store(Error::Failed(_))),
            "{error}"
        );
    }
}
