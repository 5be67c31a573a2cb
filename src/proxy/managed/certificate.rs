//! What says that keys were shredded: which, when, and what it does not cover.

use serde::Serialize;

use crate::{
    clock,
    crypto::Cipher,
    store::{DataKey, DataKeys, Holder},
    stream::StreamPath,
};

/// What shredding does not reach.
const NOT_COVERED: &str = "The wrapped data keys of these key epochs were removed from the config store of this proxy and \
    its file was written anew without them; the records that were encrypted under them cannot be decrypted with what the \
    proxy has. Not covered: backups and exports of the config store from before, snapshots and remains of the disk below \
    its file system, copies of the records that were decrypted before, and the memory of clients. The encrypted records \
    themselves are still stored upstream until the stream is deleted or trimmed.";

/// Says that data keys of a stream were shredded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// The stream, as `basin/stream`.
    pub stream: String,
    /// The project whose keys they were; none where a key management service held them.
    pub project: Option<String>,
    /// The stream's cipher.
    pub cipher: Option<Cipher>,
    /// Whether no key of the stream is left.
    pub whole_stream: bool,
    /// The key epochs that are shredded.
    pub epochs: Vec<ShreddedEpoch>,
    /// Every record that cannot be decrypted any more is among these.
    pub records: Option<RecordRange>,
    /// When this was written.
    pub issued_at: String,
    /// What it says, and what it does not.
    pub statement: &'static str,
}

/// One key epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShreddedEpoch {
    /// Its number.
    pub epoch: u32,
    /// When its key was made.
    pub created_at: String,
    /// When its key was shredded.
    pub shredded_at: Option<String>,
    /// The commitment to its key: whoever kept a copy of the key can be told by it.
    pub commitment: String,
    /// The sequence number before which it has no record; none if no record is known to be under it.
    pub first_seq_num: Option<u64>,
}

/// Records, the first included, the last not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RecordRange {
    /// The first sequence number.
    pub from_seq_num: u64,
    /// The sequence number after the last: the stream's tail.
    pub until_seq_num: u64,
}

impl Certificate {
    /// Of the keys of a stream that are shredded, among those before an epoch.
    pub(super) fn new(
        path: &StreamPath,
        before: Option<u32>,
        cipher: Option<Cipher>,
        keys: &DataKeys,
    ) -> Self {
        let covered = |key: &&DataKey| {
            key.wrapped.is_none() && before.is_none_or(|before| key.epoch < before)
        };
        Self {
            stream: path.to_string(),
            project: match &keys.holder {
                Holder::Project(name) => Some(name.to_string()),
                Holder::Kms => None,
            },
            cipher,
            whole_stream: keys.is_shredded(),
            epochs: keys.keys.iter().filter(covered).map(epoch).collect(),
            records: None,
            issued_at: clock::rfc3339(clock::now_ms()),
            statement: NOT_COVERED,
        }
    }

    /// The same with the records, given where the stream ends.
    pub(super) fn with_tail(self, tail: Option<u64>) -> Self {
        let firsts = self.epochs.iter().filter_map(|epoch| epoch.first_seq_num);
        let range = firsts.min().zip(tail);
        Self {
            records: range.map(|(from_seq_num, until_seq_num)| RecordRange {
                from_seq_num,
                until_seq_num: until_seq_num.max(from_seq_num),
            }),
            ..self
        }
    }
}

fn epoch(key: &DataKey) -> ShreddedEpoch {
    ShreddedEpoch {
        epoch: key.epoch,
        created_at: clock::rfc3339(key.created_at),
        shredded_at: key.shredded_at.map(clock::rfc3339),
        commitment: key.commit.to_string(),
        first_seq_num: key.first_seq_num,
    }
}
