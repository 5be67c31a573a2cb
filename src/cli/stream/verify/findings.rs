//! What reading a stream has shown so far.

use s2_sdk::types::SequencedRecord;
use serde::Serialize;

use super::{
    super::{hash::RunningHash, range::Ranges},
    view::{Kind, Layout, View},
};

/// Nothing to be said of a range but that it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Nothing {}

/// Why records do not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Reason {
    /// For people.
    pub(super) reason: &'static str,
}

/// The records of one stream, as one endpoint gave them.
#[derive(Default)]
pub(super) struct Findings {
    /// Records that are there, whether or not they open.
    pub(super) records: u64,
    /// The first and the last sequence number.
    pub(super) first: Option<u64>,
    pub(super) last: Option<u64>,
    pub(super) commands: u64,
    /// Sequence numbers after the first that nothing is at.
    pub(super) gaps: Ranges<Nothing>,
    pub(super) unreadable: Ranges<Reason>,
    /// Records in the store that are not encrypted.
    pub(super) plain: Ranges<Nothing>,
    /// How the encrypted ones are stored, where that is seen.
    pub(super) layouts: Ranges<Layout>,
    /// Records in clear that look as if they were encrypted.
    pub(super) look_sealed: u64,
    hash: Option<RunningHash>,
}

impl Findings {
    /// Takes a record that was read.
    pub(super) fn record(&mut self, view: &View, record: &SequencedRecord) {
        let (seq_num, time) = (record.seq_num, record.timestamp);
        self.at(seq_num);
        let first = self.first.unwrap_or(seq_num);
        let hash = self.hash.get_or_insert_with(|| RunningHash::new(first));
        match view.judge(record) {
            Kind::Command => {
                self.commands += 1;
                hash.add(seq_num, time, &record.headers, &record.body);
            }
            Kind::Clear { looks_sealed } => {
                self.look_sealed += u64::from(looks_sealed);
                hash.add(seq_num, time, &record.headers, &record.body);
            }
            Kind::Sealed(layout, open) => {
                self.layouts.add(seq_num, seq_num, layout);
                if let Some(open) = open {
                    hash.add(seq_num, time, &open.headers, &open.body);
                }
            }
            Kind::Plain => self.plain.add(seq_num, seq_num, Nothing {}),
            Kind::Closed(layout, reason) => {
                self.layouts.add(seq_num, seq_num, layout);
                self.unreadable.add(seq_num, seq_num, Reason { reason });
            }
        }
    }

    /// Takes a record that the endpoint cannot open.
    pub(super) fn unreadable(&mut self, seq_num: u64, reason: &'static str) {
        self.at(seq_num);
        self.unreadable.add(seq_num, seq_num, Reason { reason });
    }

    /// Nothing is there any more before `tail`.
    pub(super) fn end(&mut self, tail: u64) {
        let next = self.last.and_then(|last| last.checked_add(1));
        if let Some(next) = next.filter(|next| *next < tail) {
            self.gaps.add(next, tail - 1, Nothing {});
        }
    }

    /// The hash of what opened, in hexadecimal.
    pub(super) fn hash(&self) -> Option<String> {
        self.hash.as_ref().map(RunningHash::hex)
    }

    fn at(&mut self, seq_num: u64) {
        self.records += 1;
        self.first.get_or_insert(seq_num);
        // What is gone before the first one was trimmed, or has expired: that is no gap.
        self.end(seq_num);
        self.last = Some(seq_num);
    }
}
