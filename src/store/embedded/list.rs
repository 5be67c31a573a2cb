//! Lists of rows a page at a time, and what the file says of itself.

use std::{
    fs,
    ops::Bound::{Excluded, Unbounded},
};

use redb::{ReadableDatabase as _, ReadableTableMetadata as _};
use serde::de::DeserializeOwned;

use super::{
    file::{BASINS, File, PROJECTS, STREAMS, Table, place},
    format::FORMAT,
};
use crate::{
    store::{Error, Listed, Page, Recorded, RecordedBasin, Summary, Versioned},
    stream::BasinName,
};

/// Rows looked at for one page. Others wait for the file meanwhile, so a filter that matches next to
/// nothing is followed through a large store in steps of some milliseconds.
const MAX_ROWS_LOOKED_AT: usize = 20_000;

/// Most rows of one page, whatever is asked for.
const MAX_ROWS_FOUND: usize = 1000;

impl File {
    /// A page of the basins.
    pub(super) fn basins_page(&self, page: &Page) -> Result<Listed<RecordedBasin>, Error> {
        self.page(BASINS, &page.after, None, page, |name| {
            name.parse().map_err(|_| Error::Damaged(name.to_owned()))
        })
    }

    /// A page of the streams, of one basin or of all.
    pub(super) fn streams_page(
        &self,
        basin: Option<&BasinName>,
        page: &Page,
    ) -> Result<Listed<Recorded>, Error> {
        // '0' is the byte after '/'.
        let range = basin.map(|basin| (format!("{basin}/"), format!("{basin}0")));
        let (from, to) = match &range {
            Some((from, to)) => ((&page.after).max(from), Some(to.as_str())),
            None => (&page.after, None),
        };
        self.page(STREAMS, from, to, page, |name| {
            name.parse().map_err(|_| Error::Damaged(name.to_owned()))
        })
    }

    /// What the file says of itself. Reads it, and so tells whether it can be read.
    pub(super) fn summary(&self, is_keyed: bool) -> Result<Summary, Error> {
        let txn = self.db.begin_read().map_err(|e| self.storage(e))?;
        let count = |table: Table| -> Result<u64, Error> {
            let rows = txn.open_table(table).map_err(|e| self.storage(e))?;
            rows.len().map_err(|e| self.storage(e))
        };
        let metadata = fs::metadata(&self.path).map_err(|e| self.storage(e))?;
        Ok(Summary {
            path: self.path.clone(),
            size: metadata.len(),
            basins: count(BASINS)?,
            streams: count(STREAMS)?,
            projects: count(PROJECTS)?,
            generation: self.ledger()?.generation,
            format: FORMAT,
            is_keyed,
        })
    }

    /// The rows behind `from` and before `to`.
    fn page<N, T: DeserializeOwned>(
        &self,
        table: Table,
        from: &str,
        to: Option<&str>,
        page: &Page,
        parse: impl Fn(&str) -> Result<N, Error>,
    ) -> Result<Listed<(N, Versioned<T>)>, Error> {
        let limit = page.limit.min(MAX_ROWS_FOUND);
        let filter = page.filter.to_lowercase();
        let mut found = Vec::new();
        let mut last = None;
        if to.is_some_and(|to| from >= to) {
            return Ok(Listed { found, next: None });
        }
        let txn = self.db.begin_read().map_err(|e| self.storage(e))?;
        let rows = txn.open_table(table).map_err(|e| self.storage(e))?;
        let rows = rows
            .range::<&str>((Excluded(from), to.map_or(Unbounded, Excluded)))
            .map_err(|e| self.storage(e))?;
        for (looked_at, row) in rows.enumerate() {
            let (name, row) = row.map_err(|e| self.storage(e))?;
            let name = name.value();
            if found.len() >= limit || looked_at >= MAX_ROWS_LOOKED_AT {
                return Ok(Listed { found, next: last });
            }
            if filter.is_empty() || name.to_lowercase().contains(&filter) {
                let (revision, entry) = place(&table, name).read(&self.key, row.value())?;
                let entry = Some(entry);
                found.push((parse(name)?, Versioned { revision, entry }));
            }
            last = Some(name.to_owned());
        }
        Ok(Listed { found, next: None })
    }
}
