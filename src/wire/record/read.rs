//! Reads: the batch the upstream stored, and the opened batch a client may see.

use std::{collections::HashSet, fmt};

use bytes::{Bytes, BytesMut};

use super::{Command, Envelope, Header, MAX_BATCH_BYTES, Position, Record};
use crate::crypto::{Layout, OpenError, Opener, layout_of};

/// A record at its position, in clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequencedRecord {
    /// Sequence number.
    pub seq_num: u64,
    /// Timestamp.
    pub timestamp: u64,
    /// The record.
    pub record: Record,
}

/// The position of a record that does not open, and the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record decryption failed at seq_num {seq_num}")]
pub struct UnopenedRecord {
    /// Sequence number, as the upstream gave it.
    pub seq_num: u64,
    /// Why the record does not open.
    #[source]
    pub cause: OpenError,
}

/// What a client reads at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBatch {
    /// The records; none in a heartbeat.
    pub records: Vec<SequencedRecord>,
    /// The stream's tail, present when reading its newest records.
    pub tail: Option<Position>,
}

/// A record as the upstream sent it: not yet authenticated.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Sequence number.
    pub seq_num: u64,
    /// Timestamp.
    pub timestamp: u64,
    /// Headers; a sealed record has none.
    pub headers: Vec<Header>,
    /// Body; for a sealed record its bytes.
    pub body: Bytes,
}

impl StoredRecord {
    /// Whether it is a command record, which is never sealed.
    pub fn is_command(&self) -> bool {
        matches!(self.headers.as_slice(), [header] if header.name.is_empty())
    }

    /// The layout that it would have been sealed in, if it is a sealed record at all; see [`layout_of`].
    pub fn layout(&self) -> Option<Layout> {
        if self.headers.is_empty() {
            layout_of(&self.body)
        } else {
            None
        }
    }

    /// Opens the record into `arena`.
    fn open(&self, opener: &Opener, arena: &mut BytesMut) -> Result<SequencedRecord, OpenError> {
        let record = match self.headers.as_slice() {
            [] => Record::Data(Envelope::open(opener, &self.body, arena)?),
            [header] if header.name.is_empty() => {
                Command::from_parts(&header.value, self.body.clone())
                    .map(Record::Command)
                    .map_err(|_| OpenError::HeadersInClear)?
            }
            _ => return Err(OpenError::HeadersInClear),
        };
        Ok(SequencedRecord {
            seq_num: self.seq_num,
            timestamp: self.timestamp,
            record,
        })
    }
}

impl fmt::Debug for StoredRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredRecord")
            .field("seq_num", &self.seq_num)
            .field("timestamp", &self.timestamp)
            .field("headers", &self.headers.len())
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// A batch as the upstream sent it: not yet authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBatch {
    /// The records; none in a heartbeat.
    pub records: Vec<StoredRecord>,
    /// The stream's tail, present when reading its newest records.
    pub tail: Option<Position>,
}

impl StoredBatch {
    /// Opens every record; commands pass as they are.
    ///
    /// # Errors
    /// [`OpenError`] of the first record that is neither a valid command nor opens. Nothing of the
    /// batch comes out then.
    pub fn open(self, opener: &Opener) -> Result<ReadBatch, OpenError> {
        let stored_bytes = self.records.iter().map(|record| record.body.len()).sum();
        let mut arena = BytesMut::with_capacity(stored_bytes);
        let records = self
            .records
            .iter()
            .map(|record| record.open(opener, &mut arena))
            .collect::<Result<_, _>>()?;
        Ok(ReadBatch {
            records,
            tail: self.tail,
        })
    }
}

impl StoredBatch {
    /// Opens the batch a piece at a time.
    pub fn opening(self) -> Opening {
        Opening {
            records: self.records.into_iter(),
            tail: self.tail,
            carried: None,
            is_over: false,
        }
    }
}

/// A stored batch that is being opened a piece at a time: compressed records can hold far more than the
/// batch that they came in.
#[derive(Debug)]
pub struct Opening {
    records: std::vec::IntoIter<StoredRecord>,
    tail: Option<Position>,
    /// Opened, but too much for the piece before.
    carried: Option<SequencedRecord>,
    is_over: bool,
}

impl Opening {
    /// Opens as many records as make up one batch in clear; `None` after the last piece. The batch's tail
    /// comes with that one. A piece also ends before a record that does not open, so that the records before
    /// it come out first.
    ///
    /// # Errors
    /// [`UnopenedRecord`] when the next record is neither a valid command nor opens.
    pub fn next(&mut self, opener: &Opener) -> Result<Option<ReadBatch>, UnopenedRecord> {
        if self.is_over {
            return Ok(None);
        }
        let stored_bytes = self
            .records
            .as_slice()
            .iter()
            .map(|record| record.body.len());
        let mut arena = BytesMut::with_capacity(stored_bytes.sum());
        let mut records: Vec<_> = self.carried.take().into_iter().collect();
        let mut metered: usize = records
            .iter()
            .map(|record| record.record.metered_size())
            .sum();
        while let Some(stored) = self.records.as_slice().first() {
            let record = match stored.open(opener, &mut arena) {
                Ok(record) => record,
                Err(cause) if records.is_empty() => {
                    let seq_num = stored.seq_num;
                    return Err(UnopenedRecord { seq_num, cause });
                }
                Err(_) => break,
            };
            self.records.next();
            metered += record.record.metered_size();
            if metered > MAX_BATCH_BYTES && !records.is_empty() {
                self.carried = Some(record);
                break;
            }
            records.push(record);
        }
        self.is_over = self.carried.is_none() && self.records.as_slice().is_empty();
        Ok(Some(ReadBatch {
            records,
            tail: self.tail.filter(|_| self.is_over),
        }))
    }

    /// Whether the next record cannot be opened before `opener` has the key of its epoch.
    pub fn is_without_key(&self, opener: &Opener) -> bool {
        let next = self.records.as_slice().first();
        let next = next.filter(|record| self.carried.is_none() && !record.is_command());
        next.is_some_and(|record| opener.wants(&record.body).is_some())
    }

    /// Whether there are no records in it.
    pub fn is_heartbeat(&self) -> bool {
        self.carried.is_none() && self.records.as_slice().is_empty()
    }

    /// The key epochs that the records to come name, in the order of the records.
    pub fn epochs(&self) -> Vec<u32> {
        self.epochs_by(|stored| layout_of(stored)?.epoch)
    }

    /// Those of them whose keys `opener` does not have yet.
    pub fn wants(&self, opener: &Opener) -> Vec<u32> {
        self.epochs_by(|stored| opener.wants(stored))
    }

    fn epochs_by(&self, epoch: impl Fn(&[u8]) -> Option<u32>) -> Vec<u32> {
        let stored = self.records.as_slice().iter();
        let mut seen = HashSet::new();
        stored
            .filter(|record| !record.is_command())
            .filter_map(|record| epoch(&record.body))
            .filter(|epoch| seen.insert(*epoch))
            .collect()
    }

    /// Whether every record came out.
    pub fn is_over(&self) -> bool {
        self.is_over
    }
}
