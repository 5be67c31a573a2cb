//! One row of the file: an entry with its revision and its tag, in JSON.
//!
//! ```text
//! {"revision":3,"entry":{…},"tag":"64 hexadecimal digits"}
//! ```
//! The tag is over table, name, revision and the entry's bytes, so that a row cannot be altered, and not
//! be moved to another name.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    crypto::{Digest, Purpose, StoreKey},
    store::{Error, Revision},
};

/// Where a row stands: the table, and the name in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) table: &'a str,
    pub(super) name: &'a str,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row<'a> {
    revision: Revision,
    #[serde(borrow)]
    entry: &'a RawValue,
    tag: Digest,
}

impl Place<'_> {
    /// The row of an entry at this place.
    pub(super) fn write<T: Serialize>(
        self,
        key: &StoreKey,
        revision: Revision,
        entry: &T,
    ) -> Result<Vec<u8>, Error> {
        let write = || {
            let entry = &*serde_json::value::to_raw_value(entry)?;
            let tag = self.tag(key, revision, entry);
            serde_json::to_vec(&Row {
                revision,
                entry,
                tag,
            })
        };
        write().map_err(|_: serde_json::Error| self.damaged())
    }

    /// Reads the row that was found at this place.
    pub(super) fn read<T: DeserializeOwned>(
        self,
        key: &StoreKey,
        row: &[u8],
    ) -> Result<(Revision, T), Error> {
        let row: Row<'_> = serde_json::from_slice(row).map_err(|_| self.damaged())?;
        if row.tag != self.tag(key, row.revision, row.entry) {
            return Err(self.damaged());
        }
        let entry = serde_json::from_str(row.entry.get()).map_err(|_| self.damaged())?;
        Ok((row.revision, entry))
    }

    /// What a row at this place adds to the sum of all rows.
    pub(super) fn share(self, key: &StoreKey, row: &[u8]) -> Digest {
        let parts = [self.table.as_bytes(), self.name.as_bytes(), row];
        key.digest(Purpose::Share, &parts)
    }

    fn tag(self, key: &StoreKey, revision: Revision, entry: &RawValue) -> Digest {
        let parts = [
            self.table.as_bytes(),
            self.name.as_bytes(),
            &revision.0.to_le_bytes(),
            entry.get().as_bytes(),
        ];
        key.digest(Purpose::Entry, &parts)
    }

    fn damaged(self) -> Error {
        Error::Damaged(self.name.to_owned())
    }
}
