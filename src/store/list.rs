//! Lists of what the config store records, a page at a time, and what it says of itself.

use std::{io, path::PathBuf};

use super::Error;

/// Which part of a list is asked for. Lists are in byte order of the names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The list goes on behind this name, whether or not there is such a one.
    pub after: String,
    /// Only names with this in them, in upper or lower case; empty for all.
    pub filter: String,
    /// At most so many.
    pub limit: usize,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// What was found, in order. May be fewer than asked for, even none, with more to come.
    pub found: Vec<T>,
    /// What to go on after; `None` at the end of the list.
    pub next: Option<String>,
}

/// What a config store says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Where it is.
    pub path: PathBuf,
    /// Size of the file in bytes.
    pub size: u64,
    /// Basins that are recorded.
    pub basins: u64,
    /// Streams that are recorded.
    pub streams: u64,
    /// Projects that are recorded.
    pub projects: u64,
    /// How many times it was changed.
    pub generation: u64,
    /// The version of its format.
    pub format: u32,
    /// Whether its entries are authenticated with `store.key_file`.
    pub is_keyed: bool,
}

/// Why there is no whole export. What was written before has no last line, and no import takes it.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
    /// The lines cannot be written.
    #[error("cannot write the export: {0}")]
    Write(#[from] io::Error),
}
