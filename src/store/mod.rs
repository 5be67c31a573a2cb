//! The config store: which basin seals new streams with which cipher, and which cipher every stream has.
//!
//! It is the trusted half of the product. The upstream is never asked whether a stream is encrypted:
//! what is recorded here decides, and a store that cannot answer makes the request fail.

mod embedded;
mod entry;
mod in_force;
mod keys;
mod list;
mod measured;
mod project;

use std::{io::Write, path::PathBuf, sync::Arc};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

pub use embedded::{Embedded, ImportError, ImportOptions, Imported};
pub use entry::{
    BasinEntry, FormerIncarnation, Incarnation, KeyKnown, MAX_FORMER, Origin, StreamEntry,
    StreamState,
};
pub use in_force::{RuleKind, RulesEntry, SealingRule};
pub use keys::{DataKey, DataKeys, Holder, MAX_KEY_EPOCHS, Sealing, WrappedKey};
pub use list::{ExportError, Listed, Page, Summary};
pub use measured::Measured;
pub use project::{ApiKeyEntry, ApiKeyState, MasterRotation, ProjectEntry};

use crate::{
    crypto::Key,
    file::{self, OptionalFile},
    project::ProjectName,
    stream::{BasinName, StreamPath},
};

/// The `[store]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which kind of store: `embedded` is one file beside the proxy.
    pub kind: Kind,
    /// The file of the embedded store.
    pub path: PathBuf,
    /// A file with a key of 32 bytes in base64 that every entry is authenticated with: whoever can write
    /// the store, but does not have the key, cannot change what it says. It belongs to a store for life.
    pub key_file: OptionalFile,
    /// Whether `serve` may make the store when the file is missing. Off, because a lost store must
    /// not turn encrypted streams into plain ones unnoticed.
    pub create: bool,
    /// What to do with a stream that was made around this proxy in a basin that has a cipher.
    pub unknown_streams: UnknownStreams,
    /// What to do with records of a stream that no rule calls plain. Left out, the rules decide: see
    /// [`Rules::plain_streams`](crate::registry::rules::Rules::plain_streams).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plain_streams: Option<PlainStreams>,
    /// Whether plain streams that the proxy itself saw made or written are recorded, so that they stay plain when
    /// their basin gets a cipher.
    pub remember_plain: bool,
    /// Whether an empty stream with another creation time is taken for a new stream of the same name. Otherwise
    /// only a DELETE through the proxy ends a sealed stream.
    pub trust_expiry: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::Embedded,
            path: PathBuf::from("streamseal.redb"),
            key_file: OptionalFile::default(),
            create: false,
            unknown_streams: UnknownStreams::Refuse,
            plain_streams: None,
            remember_plain: true,
            trust_expiry: true,
        }
    }
}

impl Config {
    /// What makes no sense in the section.
    pub fn problems(&self) -> Vec<String> {
        self.key()
            .err()
            .map(|error| error.to_string())
            .into_iter()
            .collect()
    }

    fn key(&self) -> Result<Option<Key>, Error> {
        let Some(path) = self.key_file.path() else {
            return Ok(None);
        };
        let text = file::read("store.key_file", path).map_err(Error::Key)?;
        Key::from_base64(&text).map(Some).map_err(|error| {
            let mistake = file::no_key(&text, error);
            Error::Key(format!("store.key_file: {}: {mistake}", path.display()))
        })
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

/// What to do with records of a stream that no rule calls plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlainStreams {
    /// Forward them in clear where neither the stream nor its basin has a cipher.
    Allow,
    /// Refuse them: only a rule with `cipher = "none"` lets records pass in clear.
    Refuse,
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
    /// The file is missing, and its witness says that it was there.
    #[error(
        "config store {path} was in use here and is gone; restore it from a backup, or make it anew from what \
         the upstream holds with `streamseal store rebuild`; to start with a store that knows no encrypted \
         stream, remove {witness}"
    )]
    Lost {
        /// Where it was.
        path: PathBuf,
        /// What remembers it.
        witness: PathBuf,
    },
    /// A store is already there.
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
    /// A store of an earlier format, which is not brought up to date for a look.
    #[error("config store {0} has an earlier format; `streamseal serve` brings it up to date")]
    Earlier(PathBuf),
    /// An older copy of the store that was in use here.
    #[error(
        "config store {path} is an older copy: it stands at change {found}, and {newest} were seen here; streams \
         encrypted since are unknown to it; restore the newest copy, or fill its gaps from what the upstream \
         holds with `streamseal store rebuild`"
    )]
    RolledBack {
        /// The file.
        path: PathBuf,
        /// Its generation.
        found: u64,
        /// The generation of the store that was in use here.
        newest: u64,
    },
    /// Another store than the one that was in use here.
    #[error(
        "config store {path} is not the one that was in use here; put that one back, or remove {witness} if \
         this one shall replace it"
    )]
    Replaced {
        /// The file.
        path: PathBuf,
        /// What remembers the other one.
        witness: PathBuf,
    },
    /// The witness beside the store cannot be read or written.
    #[error(
        "cannot use {path}, which tells an old config store from the newest: {reason}; free or repair the \
         disk, or remove it if the config store is certainly the newest"
    )]
    Witness {
        /// The witness.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file was moved, removed or replaced under the running process.
    #[error("config store {0} was moved or replaced while in use; put it back and restart")]
    Gone(PathBuf),
    /// `store.key_file` cannot be used.
    #[error("{0}")]
    Key(String),
    /// A key is configured, and the store was made without one.
    #[error(
        "config store {0} was made without a key, so nothing proves what it says; without `store.key_file`, \
         `streamseal store export` shows it: look at that, and import it into a new store"
    )]
    NotKeyed(PathBuf),
    /// The store was made with a key, and none is configured.
    #[error("config store {0} was made with `store.key_file`; name that file")]
    NeedsKey(PathBuf),
    /// What the file says as a whole does not fit what is in it.
    #[error(
        "config store {0} was changed by something else than streamseal, or `store.key_file` is not its key; \
         restore it from a backup, or move it away and run `streamseal store rebuild`"
    )]
    Altered(PathBuf),
    /// The file cannot be read or written, or is damaged.
    #[error("config store {path}: {source}; check the disk, or restore the file from a backup")]
    Storage {
        /// The file.
        path: PathBuf,
        /// What the database said.
        source: redb::Error,
    },
    /// What was removed may still be on the disk.
    #[error(
        "config store {path}: what was removed from it may still be on the disk: {reason}; free or repair the \
         disk and try again; the store does not open again before it is erased"
    )]
    Unerased {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The file was written anew, and the one that was being read is gone.
    #[error("config store {0} was written anew meanwhile, to erase a key: try again")]
    Rewritten(PathBuf),
    /// The file failed a moment ago and is tried again soon.
    #[error("config store {0} failed a moment ago; check the disk")]
    Failed(PathBuf),
    /// An entry that is not what streamseal wrote under this name.
    #[error("config store entry of {0} is damaged or altered; restore the store from a backup")]
    Damaged(String),
    /// Somebody else changed the entry first; read it again.
    #[error("config store entry of {0} changed meanwhile")]
    Conflict(String),
    /// The process is stopping, or the database gave up on a damaged file.
    #[error("config store is closed; see the log, and check the file")]
    Closed,
}

/// Which version of an entry a change was decided on. `Revision::NONE` is "there is no entry".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision(u64);

impl Revision {
    /// The revision of an entry that does not exist.
    pub const NONE: Self = Self(0);

    /// The revision after this one.
    pub(crate) fn next(self) -> Self {
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

impl<T> Versioned<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Versioned<U> {
        Versioned {
            revision: self.revision,
            entry: self.entry.map(change),
        }
    }
}

/// A basin and what is recorded of it.
pub type RecordedBasin = (BasinName, Versioned<BasinEntry>);

/// A stream and what is recorded of it.
pub type Recorded = (StreamPath, Versioned<StreamEntry>);

/// A project and what is recorded of it.
pub type RecordedProject = (ProjectName, Versioned<ProjectEntry>);

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
    /// A project's entry.
    Project {
        /// Whose.
        name: ProjectName,
        /// The revision the change was decided on.
        expected: Revision,
        /// The new entry; `None` removes it.
        entry: Option<ProjectEntry>,
    },
    /// Nothing: the other changes are made only if the entry of a project is still this one. What was decided
    /// by its master key goes together with it.
    SameProject {
        /// Whose.
        name: ProjectName,
        /// The revision the others were decided on.
        expected: Revision,
    },
    /// The rules in force.
    Rules {
        /// The revision the change was decided on.
        expected: Revision,
        /// The new entry; `None` removes it.
        entry: Option<RulesEntry>,
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

/// How much a config store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Basins that are recorded.
    pub basins: u64,
    /// Streams that are recorded.
    pub streams: u64,
    /// Projects that are recorded.
    pub projects: u64,
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

    /// What is recorded of a project.
    fn project<'a>(
        &'a self,
        name: &'a ProjectName,
    ) -> BoxFuture<'a, Result<Versioned<Arc<ProjectEntry>>, Error>>;

    /// Every project that is recorded.
    fn projects(&self) -> BoxFuture<'_, Result<Vec<RecordedProject>, Error>>;

    /// What is recorded of the rules that were in force last.
    fn rules(&self) -> BoxFuture<'_, Result<Versioned<RulesEntry>, Error>>;

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

    /// Makes all changes durably, or none, and then makes sure that nothing of what they replaced or removed
    /// is kept anywhere: the store is written anew without it, and the old copy is zeroed. Others wait for it,
    /// and exports under way fail. Without changes it brings an earlier erasing to its end, if one is pending.
    ///
    /// That holds for the store's own files. What a backup, a snapshot of the disk, or the disk itself below its
    /// file system keeps is out of its reach.
    ///
    /// # Errors
    /// [`Error::Conflict`] as [`Store::commit`], and nothing is changed. [`Error::Unerased`] when the changes were
    /// made, but what they left may still be there: the next call, or the next time the store is opened, goes on
    /// with it before anything else. After any other error it is not known whether the changes were made.
    fn erase(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>>;

    /// How much it held after its last change. Costs no I/O.
    fn holdings(&self) -> Holdings;

    /// A page of the basins that are recorded.
    fn basins_page(&self, page: Page) -> BoxFuture<'_, Result<Listed<RecordedBasin>, Error>>;

    /// A page of the streams that are recorded, of one basin or of all, by `basin/stream`.
    fn streams_page(
        &self,
        basin: Option<BasinName>,
        page: Page,
    ) -> BoxFuture<'_, Result<Listed<Recorded>, Error>>;

    /// What the store says of itself, read from where it is kept and not from memory alone.
    fn summary(&self) -> BoxFuture<'_, Result<Summary, Error>>;

    /// Writes everything that is recorded at one moment to `out`, on a thread that may wait. Others go on
    /// using the store meanwhile.
    fn export(&self, out: Box<dyn Write + Send>) -> BoxFuture<'_, Result<(), ExportError>>;
}

#[cfg(test)]
mod tests;
