//! Import, and the lines that an export is made of: the whole store as JSON, for backups and for moving. No secret is in it.
//!
//! ```text
//! {"export":3,"store_id":[…],"generation":17}
//! {"basin":"my-basin","revision":2,"entry":{…}}
//! {"project":"payments","revision":1,"entry":{…}}
//! {"stream":"my-basin/my/stream","revision":3,"entry":{…}}
//! {"rules":"in force","revision":4,"entry":{…}}
//! {"end":{"basins":1,"projects":1,"streams":1,"rules":1,"tag":"…"}}
//! ```
//! Version 1 knew no projects, version 2 no rules.
//!
//! The tag is over every byte before the last line, with `store.key_file` where there is one.

use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};

use super::{
    Embedded,
    file::{BASINS, File, IN_FORCE, PROJECTS, RULES, STREAMS},
    ledger::{Ledger, STORE_ID_BYTES},
    open::Trust,
};
use crate::{
    crypto::{Digest, Key, Purpose, StoreKey},
    project::ProjectName,
    store::{BasinEntry, Config, Error, ProjectEntry, Revision, RulesEntry, StreamEntry},
    stream::{BasinName, StreamPath},
};

/// The version of the lines. Any up to this one is read.
pub(super) const EXPORT: u32 = 3;

/// Longest line that is read. A stream with as many key epochs as there may be takes a tenth of it.
const MAX_LINE_BYTES: u64 = 64 * 1024 * 1024;

/// What came in with an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// How many basins.
    pub basins: u64,
    /// How many projects.
    pub projects: u64,
    /// How many streams.
    pub streams: u64,
}

/// What an import takes that it would refuse otherwise.
#[derive(Debug, Default)]
pub struct ImportOptions {
    /// An export that is older than the store that was in use here. `serve` goes on refusing what comes
    /// of it until its gaps are filled.
    pub allow_older: bool,
    /// With a key: an export that was made without one.
    pub unauthenticated: bool,
    /// The key of the store that was exported, if it is not the new one's.
    pub export_key: Option<Key>,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The export cannot be read.
    #[error("cannot read the export: {0}")]
    Read(#[from] io::Error),
    /// A line that no export has there.
    #[error("line {0} is not what an export has there: it is damaged or of a newer release")]
    Line(u64),
    /// The export stops before its last line, or its lines are not those it was made with.
    #[error(
        "the export is cut short or altered, or was made with another `store.key_file`: nothing is imported"
    )]
    Altered,
    /// Nothing proves what the export says, and a key is configured.
    #[error(
        "the export was made without a key, so nothing proves what it says; look at it, and import it with \
         `--unauthenticated`"
    )]
    Unauthenticated,
    /// The export is older than the store that was in use here.
    #[error(
        "the export is older than the config store that was in use here: streams encrypted since are not in \
         it; import it with `--allow-older`, then fill its gaps with `streamseal store rebuild`"
    )]
    Older,
    /// The new store cannot be made.
    #[error(transparent)]
    Store(Error),
}

impl From<Error> for ImportError {
    fn from(error: Error) -> Self {
        match error {
            Error::RolledBack { .. } => Self::Older,
            other => Self::Store(other),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) export: u32,
    pub(super) store_id: [u8; STORE_ID_BYTES],
    pub(super) generation: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    Basin(BasinLine),
    Project(ProjectLine),
    Stream(StreamLine),
    Rules(RulesLine),
    End { end: End },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BasinLine {
    pub(super) basin: String,
    pub(super) revision: Revision,
    pub(super) entry: BasinEntry,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProjectLine {
    pub(super) project: String,
    pub(super) revision: Revision,
    pub(super) entry: ProjectEntry,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamLine {
    pub(super) stream: String,
    pub(super) revision: Revision,
    pub(super) entry: StreamEntry,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RulesLine {
    pub(super) rules: String,
    pub(super) revision: Revision,
    pub(super) entry: RulesEntry,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    pub(super) basins: u64,
    #[serde(default)]
    pub(super) projects: u64,
    pub(super) streams: u64,
    #[serde(default)]
    pub(super) rules: u64,
    pub(super) tag: Digest,
}

/// A whole export, read and found to be whole.
struct Export {
    head: Head,
    basins: Vec<BasinLine>,
    projects: Vec<ProjectLine>,
    streams: Vec<StreamLine>,
    rules: Option<RulesLine>,
    is_authenticated: bool,
}

impl Embedded {
    /// Makes a new store from an export, as a whole or not at all.
    ///
    /// # Errors
    /// [`ImportError`]; there is no store then.
    pub fn import(
        config: &Config,
        input: impl BufRead,
        options: &ImportOptions,
    ) -> Result<Imported, ImportError> {
        let key = config.key()?;
        let export_key = options.export_key.as_ref().or(key.as_ref());
        let tag_key = export_key.map_or_else(StoreKey::public, StoreKey::new);
        let export = Export::read(input, &tag_key)?;
        if key.is_some() && !export.is_authenticated && !options.unauthenticated {
            return Err(ImportError::Unauthenticated);
        }
        let imported = Imported {
            basins: export.basins.len() as u64,
            projects: export.projects.len() as u64,
            streams: export.streams.len() as u64,
        };
        let trust = match options.allow_older {
            true => Trust::Older,
            false => Trust::Newest,
        };
        File::make(
            &config.path,
            key.as_ref(),
            export.head.store_id,
            trust,
            Some(&tag_key),
            |file| file.fill(&export),
        )?;
        Ok(imported)
    }
}

impl File {
    /// Writes the rows of an export into a file that has none.
    fn fill(&mut self, export: &Export) -> Result<(), Error> {
        let txn = self.db.begin_write().map_err(|e| self.storage(e))?;
        let mut ledger = Ledger::EMPTY;
        for line in &export.basins {
            let row = (BASINS, &*line.basin);
            self.insert(&txn, &mut ledger, row, line.revision, &line.entry)?;
        }
        for line in &export.projects {
            let row = (PROJECTS, &*line.project);
            self.insert(&txn, &mut ledger, row, line.revision, &line.entry)?;
        }
        for line in &export.streams {
            let row = (STREAMS, &*line.stream);
            self.insert(&txn, &mut ledger, row, line.revision, &line.entry)?;
        }
        if let Some(line) = &export.rules {
            let row = (RULES, IN_FORCE);
            self.insert(&txn, &mut ledger, row, line.revision, &line.entry)?;
        }
        ledger.generation = export.head.generation;
        self.write_ledger(&txn, &ledger)?;
        txn.commit().map_err(|e| self.storage(e))
    }
}

impl Export {
    fn read(mut input: impl BufRead, key: &StoreKey) -> Result<Self, ImportError> {
        let mut seen = Vec::new();
        let head = next_line(&mut input, &mut seen)?;
        let head: Head = serde_json::from_slice(&head).map_err(|_| ImportError::Line(1))?;
        if !(1..=EXPORT).contains(&head.export) {
            return Err(ImportError::Line(1));
        }
        let mut export = Self {
            head,
            basins: Vec::new(),
            projects: Vec::new(),
            streams: Vec::new(),
            rules: None,
            is_authenticated: false,
        };
        for number in 2.. {
            let before = seen.len();
            let line = next_line(&mut input, &mut seen)?;
            match serde_json::from_slice(&line).map_err(|_| ImportError::Line(number))? {
                Line::Basin(line) if line.basin.parse::<BasinName>().is_ok() => {
                    export.basins.push(line);
                }
                Line::Project(line) if line.project.parse::<ProjectName>().is_ok() => {
                    export.projects.push(line);
                }
                Line::Stream(line) if line.stream.parse::<StreamPath>().is_ok() => {
                    export.streams.push(line);
                }
                Line::Rules(line) if line.rules == IN_FORCE && export.rules.is_none() => {
                    export.rules = Some(line);
                }
                Line::Basin(_) | Line::Project(_) | Line::Stream(_) | Line::Rules(_) => {
                    return Err(ImportError::Line(number));
                }
                Line::End { end } => {
                    seen.truncate(before);
                    export.check(&end, &seen, key)?;
                    break;
                }
            }
        }
        if !input.fill_buf()?.is_empty() {
            return Err(ImportError::Altered);
        }
        Ok(export)
    }

    fn check(&mut self, end: &End, lines: &[u8], key: &StoreKey) -> Result<(), ImportError> {
        let rules = usize::from(self.rules.is_some());
        let count = [
            self.basins.len(),
            self.projects.len(),
            self.streams.len(),
            rules,
        ];
        let told = [end.basins, end.projects, end.streams, end.rules];
        self.is_authenticated = end.tag == key.digest(Purpose::Export, &[lines]);
        let is_whole = || end.tag == StoreKey::public().digest(Purpose::Export, &[lines]);
        if count.map(|count| count as u64) == told && (self.is_authenticated || is_whole()) {
            Ok(())
        } else {
            Err(ImportError::Altered)
        }
    }
}

/// The next line, which is also put behind what was `seen`.
fn next_line(input: &mut impl BufRead, seen: &mut Vec<u8>) -> Result<Vec<u8>, ImportError> {
    let mut line = Vec::new();
    io::Read::take(&mut *input, MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        return Err(ImportError::Altered);
    }
    seen.extend_from_slice(&line);
    Ok(line)
}
