//! What a rebuild records, given what the config store still knows and what the upstream holds. Nothing
//! that is encrypted becomes plain by it.

use std::collections::HashMap;

use super::upstream::Found;
use crate::{
    crypto::Cipher,
    proxy::rules::Rules,
    store::{
        BasinEntry, Change, Incarnation, Origin, Recorded, RecordedBasin, Revision, StreamEntry,
        StreamState, Versioned,
    },
    stream::{BasinName, StreamPath},
};

/// What the records of a stream look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// There is no data record.
    Empty,
    /// None is encrypted.
    Plain,
    /// All are.
    Sealed(Cipher),
    /// Some are.
    Mixed(Cipher),
}

/// The changes to make, and a line for people on each.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    pub(super) report: Vec<String>,
}

/// What the config store holds so far.
pub(super) struct Known {
    basins: HashMap<BasinName, Versioned<BasinEntry>>,
    streams: HashMap<StreamPath, Versioned<StreamEntry>>,
}

impl Known {
    pub(super) fn new(basins: Vec<RecordedBasin>, streams: Vec<Recorded>) -> Self {
        Self {
            basins: basins.into_iter().collect(),
            streams: streams.into_iter().collect(),
        }
    }
}

/// Decides on one basin.
pub(super) fn basin(
    plan: &mut Plan,
    known: &Known,
    rules: &Rules,
    name: &BasinName,
    streams: &[Found],
) {
    let newest = streams
        .iter()
        .filter_map(|found| Some((&found.created_at, look(found).cipher()?)))
        .max_by(|one, other| one.0.cmp(other.0))
        .map(|(_, cipher)| cipher);
    let recorded = known.basins.get(name);
    let before = recorded.and_then(|found| found.entry.clone());
    let cipher_before = before.as_ref().and_then(|entry| entry.stream_cipher);
    let declared = rules.basin(name);
    let cipher = match declared {
        Some(declared) => declared,
        None => cipher_before.or(newest),
    };
    let entry = BasinEntry {
        stream_cipher: cipher,
        declared: declared.is_some(),
        deleted: false,
    };
    if cipher.is_some() && before.as_ref() != Some(&entry) {
        plan.report.push(format!(
            "basin {name}: encrypts new streams with {}",
            shown(cipher)
        ));
        plan.changes.push(Change::Basin {
            name: name.clone(),
            expected: recorded.map_or(Revision::NONE, |found| found.revision),
            entry: Some(entry),
        });
    } else if cipher.is_none() {
        plan.report.push(format!(
            "basin {name}: no encrypted stream found; if it had a cipher, set it again before anybody writes"
        ));
    }
    for found in streams {
        stream(plan, known, cipher, found);
    }
}

fn stream(plan: &mut Plan, known: &Known, basin: Option<Cipher>, found: &Found) {
    let path = &found.path;
    let recorded = known.streams.get(path);
    let entry = recorded.and_then(|found| found.entry.as_ref());
    let before = entry.map(|entry| entry.state.cipher());
    let (cipher, what) = match (look(found), before) {
        (Look::Sealed(cipher), Some(Some(before))) if cipher == before => return,
        (Look::Sealed(cipher), _) => (cipher, "its records are encrypted"),
        (Look::Mixed(cipher), None | Some(None)) => (
            cipher,
            "some of its records are encrypted, others are not: reads across those will fail",
        ),
        (Look::Empty, None) => match basin {
            Some(cipher) => (cipher, "it is empty, and its basin encrypts new streams"),
            None => return,
        },
        (Look::Plain, None) if basin.is_some() => {
            plan.report.push(format!(
                "stream {path}: its records are plain, but its basin encrypts new streams: left unknown, \
                 and so refused (see `store.unknown_streams`)"
            ));
            return;
        }
        (Look::Plain | Look::Mixed(_), Some(Some(cipher))) => {
            plan.report.push(format!(
                "stream {path}: stays encrypted with {cipher}, though it has plain records"
            ));
            return;
        }
        (Look::Plain, None | Some(None)) | (Look::Empty, Some(_)) => return,
    };
    plan.report
        .push(format!("stream {path}: encrypted with {cipher}; {what}"));
    let life = Incarnation {
        cipher: Some(cipher),
        created_at: Some(found.created_at.clone()),
    };
    plan.changes.push(Change::Stream {
        path: path.clone(),
        expected: recorded.map_or(Revision::NONE, |found| found.revision),
        entry: Some(StreamEntry {
            state: StreamState::Live(life),
            origin: Origin::Rebuilt,
            key_check: None,
        }),
    });
}

impl Look {
    fn cipher(self) -> Option<Cipher> {
        match self {
            Self::Sealed(cipher) | Self::Mixed(cipher) => Some(cipher),
            Self::Empty | Self::Plain => None,
        }
    }
}

fn look(found: &Found) -> Look {
    let data = found.records.iter().filter(|record| !record.is_command());
    let ciphers: Vec<_> = data.map(|record| record.looks_sealed()).collect();
    // The last one counts: a stream that was made anew may have replaced one of another cipher.
    match ciphers.iter().rev().find_map(|cipher| *cipher) {
        _ if ciphers.is_empty() => Look::Empty,
        None => Look::Plain,
        Some(cipher) if ciphers.iter().all(|other| *other == Some(cipher)) => Look::Sealed(cipher),
        Some(cipher) => Look::Mixed(cipher),
    }
}

fn shown(cipher: Option<Cipher>) -> &'static str {
    cipher.map_or("nothing", Cipher::as_str)
}
