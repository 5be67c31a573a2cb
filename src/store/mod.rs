//! The config store: which basin seals new streams with which cipher, and which cipher every stream has.
//!
//! It is the trusted half of the product. The upstream is never asked whether a stream is encrypted:
//! what is recorded here decides, and a store that cannot answer makes the request fail.

mod embedded;
mod entry;

use std::{path::PathBuf, sync::Arc};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

pub use embedded::Embedded;
pub use entry::{BasinEntry, Incarnation, Origin, StreamEntry, StreamState};

use crate::stream::{BasinName, StreamPath};

/// The `[store]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which kind of store: `embedded` is one file beside the proxy.
    pub kind: Kind,
    /// The file of the embedded store.
    pub path: PathBuf,
    /// Whether `serve` may make the store when the file is missing. Off, because a lost store must
    /// not turn encrypted streams into plain ones unnoticed.
    pub create: bool,
    /// What to do with a stream that was made around this proxy in a basin that has a cipher.
    pub unknown_streams: UnknownStreams,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::Embedded,
            path: PathBuf::from("streamseal.redb"),
            create: false,
            unknown_streams: UnknownStreams::Refuse,
        }
    }
}

/// Kinds of config store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One local file, one process.
    Embedded,
}

/// What to do with a stream that this proxy did not make, in a basin that has a cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownStreams {
    /// Refuse appends and reads with a clear error.
    Refuse,
    /// Forward it as a plain stream.
    Plain,
}

/// Why the store did not do what was asked. Whatever it is, nothing is assumed to be plain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is missing and may not be made.
    #[error(
        "config store {0} does not exist; restore it from a backup, or make a new one with `streamseal init` \
         (a new store knows no encrypted stream)"
    )]
    Missing(PathBuf),
    /// `init` on a store that is already there.
    #[error("config store {0} already exists")]
    Exists(PathBuf),
    /// Another process has the file open.
    #[error("config store {0} is in use by another process; stop it first")]
    Locked(PathBuf),
    /// A file that is no streamseal store.
    #[error("{0} is not a streamseal config store; check `store.path`")]
    Foreign(PathBuf),
    /// A store that a newer release wrote.
    #[error(
        "config store {path} has format {found}, this release knows up to {known}; run the release that wrote it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format version in the file.
        found: u32,
        /// The newest format version this release reads.
        known: u32,
    },
    /// The file cannot be read or written, or is damaged.
    #[error("config store {path}: {source}; check the disk, or restore the file from a backup")]
    Storage {
        /// The file.
        path: PathBuf,
        /// What the database said.
        source: redb::Error,
    },
    /// An entry that is not what this release writes.
    #[error("config store entry of {0} is damaged; restore the store from a backup")]
    Damaged(String),
    /// Somebody else changed the entry first; read it again.
    #[error("config store entry of {0} changed meanwhile")]
    Conflict(String),
    /// The worker that runs blocking store calls is gone: the process is stopping.
    #[error("config store is closed")]
    Closed,
}

/// Which version of an entry a change was decided on. `Revision::NONE` is "there is no entry".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision(u64);

impl Revision {
    /// The revision of an entry that does not exist.
    pub const NONE: Self = Self(0);

    fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// What is recorded under a name, and the revision a change must name. `entry` is `None` when
/// nothing is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<T> {
    /// Version to name in a [`Change`].
    pub revision: Revision,
    /// The entry, if there is one.
    pub entry: Option<T>,
}

impl<T> Versioned<T> {
    /// Nothing recorded.
    pub const fn none() -> Self {
        Self {
            revision: Revision::NONE,
            entry: None,
        }
    }
}

/// A stream and what is recorded of it.
pub type Recorded = (StreamPath, Versioned<StreamEntry>);

/// One entry to write or remove, if it is still at `expected`.
#[derive(Debug, Clone)]
pub enum Change {
    /// A basin's entry.
    Basin {
        /// Whose.
        name: BasinName,
        /// The revision the change was decided on.
        expected: Revision,
        /// The new entry; `None` removes it.
        entry: Option<BasinEntry>,
    },
    /// A stream's entry.
    Stream {
        /// Whose.
        path: StreamPath,
        /// The revision the change was decided on.
        expected: Revision,
        /// The new entry; `None` removes it.
        entry: Option<StreamEntry>,
    },
}

/// What the proxy needs of a config store.
///
/// Every change is durable before [`Store::commit`] returns, and happens as a whole or not at all.
pub trait Store: Send + Sync {
    /// What is recorded of a basin.
    fn basin<'a>(
        &'a self,
        name: &'a BasinName,
    ) -> BoxFuture<'a, Result<Versioned<Arc<BasinEntry>>, Error>>;

    /// What is recorded of a stream.
    fn stream<'a>(
        &'a self,
        path: &'a StreamPath,
    ) -> BoxFuture<'a, Result<Versioned<Arc<StreamEntry>>, Error>>;

    /// Every stream recorded in a basin.
    fn streams_of<'a>(
        &'a self,
        basin: &'a BasinName,
    ) -> BoxFuture<'a, Result<Vec<Recorded>, Error>>;

    /// Makes all changes durably, or none.
    ///
    /// # Errors
    /// [`Error::Conflict`] when one entry is no longer at the revision its change expects.
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>>;
}

#[cfg(test)]
mod tests;
