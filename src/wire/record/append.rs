//! Appends: the batch a client sends, and the upstream's answer.

use std::fmt;

use bytes::Bytes;

use super::{
    Header, MAX_BATCH_BYTES, MAX_BATCH_RECORDS, Position, Record, command::check_token_length,
};
use crate::wire::DecodeError;

/// One record of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendRecord {
    /// The client's own timestamp, if it gave one.
    pub timestamp: Option<u64>,
    /// The record.
    pub record: Record,
}

impl AppendRecord {
    /// The record that these parts make.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] as for [`Record::from_parts`], or for more than 1 MiB.
    pub fn from_parts(
        timestamp: Option<u64>,
        headers: Vec<Header>,
        body: Bytes,
    ) -> Result<Self, DecodeError> {
        let record = Record::from_parts(headers, body)?;
        check_record_size(&record)?;
        Ok(Self { timestamp, record })
    }
}

/// A batch to append, within S2's limits.
#[derive(Clone, PartialEq, Eq)]
pub struct AppendInput {
    records: Vec<AppendRecord>,
    metered: usize,
    /// Append only if the first record would get this sequence number.
    pub match_seq_num: Option<u64>,
    /// Append only if the stream has this fencing token.
    pub fencing_token: Option<String>,
}

impl AppendInput {
    /// The batch of these records and conditions.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] for no records, more than 1000, more than 1 MiB, or a fencing
    /// token of more than 36 bytes.
    pub fn new(
        records: Vec<AppendRecord>,
        match_seq_num: Option<u64>,
        fencing_token: Option<String>,
    ) -> Result<Self, DecodeError> {
        let mut metered = 0;
        for AppendRecord { record, .. } in &records {
            check_record_size(record)?;
            metered += record.metered_size();
        }
        if records.is_empty() {
            return Err(DecodeError::invalid("record batch must not be empty"));
        }
        if records.len() > MAX_BATCH_RECORDS {
            return Err(too_many_records());
        }
        if metered > MAX_BATCH_BYTES {
            return Err(batch_too_large());
        }
        if let Some(token) = &fencing_token {
            check_token_length(token.len()).map_err(DecodeError::invalid)?;
        }
        Ok(Self {
            records,
            metered,
            match_seq_num,
            fencing_token,
        })
    }

    /// The records: 1 to 1000.
    pub fn records(&self) -> &[AppendRecord] {
        &self.records
    }

    /// Whether it has a record that is not a command.
    pub fn has_data(&self) -> bool {
        let mut records = self.records.iter();
        records.any(|record| matches!(record.record, Record::Data(_)))
    }

    /// Whether it may be appended to an empty stream: its conditions do not say otherwise.
    pub fn may_be_first(&self) -> bool {
        self.match_seq_num.unwrap_or_default() == 0 && self.fencing_token.is_none()
    }

    /// What S2 meters the batch as, in clear.
    pub fn metered_size(&self) -> usize {
        self.metered
    }
}

impl fmt::Debug for AppendInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (records, metered) = (self.records.len(), self.metered);
        write!(f, "AppendInput({records} records, {metered} bytes)")
    }
}

/// The upstream's answer to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendAck {
    /// The first record appended.
    pub start: Position,
    /// Sequence number after the last record appended, and that record's timestamp.
    pub end: Position,
    /// Next sequence number of the stream, and the timestamp of its last record.
    pub tail: Position,
}

/// S2's refusal of a batch with too many records.
pub(in crate::wire) fn too_many_records() -> DecodeError {
    DecodeError::invalid("record batch must not exceed 1000 records")
}

/// S2's refusal of a batch that is too large.
pub(in crate::wire) fn batch_too_large() -> DecodeError {
    DecodeError::invalid("record batch must not exceed a metered size of 1 MiB")
}

fn check_record_size(record: &Record) -> Result<(), DecodeError> {
    if record.metered_size() > MAX_BATCH_BYTES {
        // S2 says "less than", and takes exactly 1 MiB.
        return Err(DecodeError::invalid(
            "record must have metered size less than 1 MiB",
        ));
    }
    Ok(())
}
