//! What a rebuild records, given what the config store still knows and what the upstream holds. Nothing
//! that is encrypted becomes plain by it.

use std::collections::HashMap;

use super::{lost, upstream::Found};
use crate::{
    crypto::Cipher,
    registry::rules::Rules,
    store::{
        BasinEntry, Change, Incarnation, Origin, Recorded, RecordedBasin, Revision, StreamEntry,
        StreamState, Versioned,
    },
    stream::{BasinName, StreamPath},
};

/// What the records of a stream look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// There is no data record.
    Empty,
    /// None is encrypted.
    Plain,
    /// All are.
    Sealed(Cipher),
    /// Some are.
    Mixed(Cipher),
}

impl Look {
    /// Whether some records look encrypted.
    pub(super) fn is_sealed(self) -> bool {
        matches!(self, Self::Sealed(_) | Self::Mixed(_))
    }

    /// One word for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Plain => "plain",
            Self::Sealed(_) => "encrypted",
            Self::Mixed(_) => "mixed",
        }
    }
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
    pub(super) streams: HashMap<StreamPath, Versioned<StreamEntry>>,
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
    let recorded = known.basins.get(name);
    let before = recorded.and_then(|found| found.entry.clone());
    let declared = rules.basin(name);
    let cipher = match declared {
        Some(declared) => declared,
        None => before
            .as_ref()
            .and_then(|entry| entry.stream_cipher)
            .or(newest_cipher(streams)),
    };
    let entry = BasinEntry {
        stream_cipher: cipher,
        declared: declared.is_some(),
        deleted: false,
    };
    match cipher {
        Some(cipher) if before.as_ref() != Some(&entry) => {
            plan.say(format!("basin {name}: encrypts new streams with {cipher}"));
            plan.changes.push(Change::Basin {
                name: name.clone(),
                expected: recorded.map_or(Revision::NONE, |found| found.revision),
                entry: Some(entry),
            });
        }
        Some(_) => {}
        None if declared.is_some() => {
            plan.say(format!("basin {name}: declared to make plain streams"));
        }
        None => plan.say(format!(
            "basin {name}: no encrypted stream found; if it had a cipher, set it again before anybody writes"
        )),
    }
    let mut left_plain = 0_usize;
    for found in streams {
        if rules.stream(&found.path).is_some() {
            plan.say(format!(
                "stream {}: declared in the configuration",
                found.path
            ));
        } else if stream(plan, known, cipher, found) == Outcome::LeftPlain {
            left_plain += 1;
        }
        lost::keys(plan, known, rules, found);
    }
    if left_plain > 0 {
        plan.say(format!(
            "basin {name}: {left_plain} streams are plain, as nothing shows that they were encrypted"
        ));
    }
}

/// The cipher of the newest stream of a basin of which every record looks encrypted.
fn newest_cipher(streams: &[Found]) -> Option<Cipher> {
    let sealed = streams.iter().filter_map(|found| match look(found) {
        Look::Sealed(cipher) => Some((&found.created_at, cipher)),
        Look::Empty | Look::Plain | Look::Mixed(_) => None,
    });
    let newest = sealed.max_by(|one, other| one.0.cmp(other.0));
    newest.map(|(_, cipher)| cipher)
}

/// What a stream comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It is encrypted, or refused, or is what the store says already.
    Settled,
    /// It is plain.
    LeftPlain,
}

fn stream(plan: &mut Plan, known: &Known, basin: Option<Cipher>, found: &Found) -> Outcome {
    let path = &found.path;
    let recorded = known.streams.get(path);
    let entry = recorded.and_then(|found| found.entry.as_ref());
    let before = entry.map(|entry| entry.state.cipher());
    let is_same_life = entry.is_some_and(|entry| match &entry.state {
        // Of a stream that was seen plain, the time may be unknown.
        StreamState::Live(life) => match &life.created_at {
            Some(created_at) => *created_at == found.created_at,
            None => life.cipher.is_none(),
        },
        StreamState::Creating { .. } | StreamState::Deleting(_) => false,
    });
    let (cipher, what) = match (look(found), before) {
        (Look::Sealed(cipher), Some(Some(before))) if cipher == before => return Outcome::Settled,
        (Look::Sealed(_) | Look::Mixed(_), Some(None)) if is_same_life => {
            plan.say(format!(
                "stream {path}: recorded as plain, and left so, though its records look encrypted"
            ));
            return Outcome::Settled;
        }
        (Look::Sealed(cipher), _) => (cipher, "its records are encrypted"),
        (Look::Mixed(cipher), None | Some(None)) => (
            cipher,
            "some of its records are encrypted, others are not: reads across those will fail",
        ),
        (Look::Empty, None) => match basin {
            Some(cipher) => (cipher, "it is empty, and its basin encrypts new streams"),
            None => return Outcome::LeftPlain,
        },
        (Look::Plain, None) if basin.is_some() => {
            plan.say(format!(
                "stream {path}: its records are plain, but its basin encrypts new streams: left unknown, \
                 and so refused; a `[[streams]]` rule with `cipher = \"none\"` makes it plain"
            ));
            return Outcome::Settled;
        }
        (Look::Plain | Look::Mixed(_), Some(Some(cipher))) => {
            plan.say(format!(
                "stream {path}: stays encrypted with {cipher}, though it has plain records"
            ));
            return Outcome::Settled;
        }
        (Look::Plain, None) => return Outcome::LeftPlain,
        (Look::Plain, Some(None)) | (Look::Empty, Some(_)) => return Outcome::Settled,
    };
    plan.say(format!("stream {path}: encrypted with {cipher}; {what}"));
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
            key_unconfirmed: false,
            former: Vec::new(),
            data_keys: entry.and_then(StreamEntry::inherited),
        }),
    });
    Outcome::Settled
}

impl Plan {
    pub(super) fn say(&mut self, line: String) {
        self.report.push(line);
    }
}

pub(super) fn look(found: &Found) -> Look {
    // The last one counts: a stream that was made anew may have replaced one of another cipher.
    match found.looks.iter().rev().find_map(|cipher| *cipher) {
        _ if found.looks.is_empty() => Look::Empty,
        None => Look::Plain,
        Some(cipher) if found.looks.iter().all(|other| *other == Some(cipher)) => {
            Look::Sealed(cipher)
        }
        Some(cipher) => Look::Mixed(cipher),
    }
}
