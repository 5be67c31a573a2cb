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
    themselves are still stored upstream until the stream is deleted or trimmed. The records under these key epochs are \
    among those from from_seq_num up to, and without, until_seq_num, where the stream ended when this was issued: at \
    most these. With includes_others, records under other key epochs are among them, and still decrypt. With \
    appends_under_way, no range is certain yet, and none is given: issued again later, it is. An append that had no \
    answer when its connection broke may still be stored upstream after that; it cannot be decrypted either.";

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
    /// Every record that cannot be decrypted any more is among these; none when the upstream does not say where
    /// the stream ends, or appends are under way.
    pub records: Option<RecordRange>,
    /// Whether appends that had their key before it was shredded were still on their way, so that more records
    /// under it may come.
    pub appends_under_way: bool,
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
    /// The lowest sequence number that an ack gave a record under it. Records whose acks were lost may stand
    /// before, and be there where this is none.
    pub first_acked_seq_num: Option<u64>,
}

/// Records, the first included, the last not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RecordRange {
    /// The first sequence number.
    pub from_seq_num: u64,
    /// The sequence number after the last: the stream's tail.
    pub until_seq_num: u64,
    /// Whether records of other key epochs, which still decrypt, are among these.
    pub includes_others: bool,
}

/// Where the records of shredded epochs begin: the first epoch is always among them, and is made only for a stream
/// without records. Acks do not tell: the first may have been lost.
const BEGINNING: u64 = 0;

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
            appends_under_way: false,
            issued_at: clock::rfc3339(clock::now_ms()),
            statement: NOT_COVERED,
        }
    }

    /// The same with the records, given where the stream ends.
    pub(super) fn with_tail(self, tail: Option<u64>) -> Self {
        let includes_others = !self.whole_stream;
        let range = |until_seq_num| RecordRange {
            from_seq_num: BEGINNING,
            until_seq_num,
            includes_others,
        };
        Self {
            records: tail.map(range),
            ..self
        }
    }

    /// The same while more records may come under the shredded keys.
    pub(super) fn with_appends_under_way(self) -> Self {
        Self {
            records: None,
            appends_under_way: true,
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
        first_acked_seq_num: key.first_seq_num,
    }
}
