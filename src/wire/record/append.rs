//! Appends: the batch a client sends, and the sealed batch that may go upstream.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::{
    Command, Header, MAX_BATCH_BYTES, MAX_BATCH_RECORDS, Position, RECORD_BASE_BYTES, Record,
    command::check_token_length,
};
use crate::{
    crypto::{Sealed, StreamCipher},
    wire::DecodeError,
};

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

    /// What S2 meters the batch as, in clear.
    pub fn metered_size(&self) -> usize {
        self.metered
    }

    /// Seals the batch: every data record, each under its own nonce. Commands stay as they are.
    ///
    /// # Errors
    /// [`SealError::Oversize`] when the upstream would not take the sealed batch.
    pub fn seal(&self, cipher: &StreamCipher) -> Result<SealedInput, SealError> {
        let (mut metered, mut sealed_bytes) = (0, 0);
        for AppendRecord { record, .. } in &self.records {
            metered += match record {
                Record::Command(command) => command.metered_size(),
                Record::Data(envelope) => {
                    let sealed = envelope.encoded_len() + cipher.overhead();
                    sealed_bytes += sealed;
                    RECORD_BASE_BYTES + sealed
                }
            };
        }
        if metered > MAX_BATCH_BYTES {
            return Err(SealError::Oversize {
                records: self.records.len(),
                metered,
                limit: MAX_BATCH_BYTES,
                plain: self.metered,
            });
        }
        let mut arena = BytesMut::with_capacity(sealed_bytes);
        let records = self
            .records
            .iter()
            .map(|record| record.seal(cipher, &mut arena))
            .collect::<Result<_, _>>()?;
        Ok(SealedInput {
            records,
            metered,
            match_seq_num: self.match_seq_num,
            fencing_token: self.fencing_token.clone(),
        })
    }
}

impl fmt::Debug for AppendInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (records, metered) = (self.records.len(), self.metered);
        write!(f, "AppendInput({records} records, {metered} bytes)")
    }
}

impl AppendRecord {
    fn seal(
        &self,
        cipher: &StreamCipher,
        arena: &mut BytesMut,
    ) -> Result<(Option<u64>, SealedRecord), SealError> {
        let sealed = match &self.record {
            Record::Command(command) => SealedRecord::Command(command.clone()),
            Record::Data(envelope) => SealedRecord::Data(envelope.seal(cipher, arena)?),
        };
        Ok((self.timestamp, sealed))
    }
}

/// A record that may go upstream on a sealed stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealedRecord {
    /// A command, in clear.
    Command(Command),
    /// A sealed record: the body of an upstream record without headers.
    Data(Sealed),
}

impl SealedRecord {
    /// What the upstream meters it as.
    pub fn metered_size(&self) -> usize {
        match self {
            Self::Command(command) => command.metered_size(),
            Self::Data(sealed) => RECORD_BASE_BYTES + sealed.as_bytes().len(),
        }
    }

    /// The headers of the upstream record.
    pub fn headers(&self) -> &[Header] {
        match self {
            Self::Command(command) => command.headers(),
            Self::Data(_) => &[],
        }
    }

    /// The body of the upstream record.
    pub fn body(&self) -> &Bytes {
        match self {
            Self::Command(command) => command.payload(),
            Self::Data(sealed) => sealed.as_bytes(),
        }
    }
}

/// A batch that may go upstream on a sealed stream. Only [`AppendInput::seal`] makes one.
#[derive(Clone)]
pub struct SealedInput {
    records: Vec<(Option<u64>, SealedRecord)>,
    metered: usize,
    match_seq_num: Option<u64>,
    fencing_token: Option<String>,
}

impl SealedInput {
    /// The records with their timestamps.
    pub fn records(&self) -> &[(Option<u64>, SealedRecord)] {
        &self.records
    }

    /// What the upstream meters the batch as.
    pub fn metered_size(&self) -> usize {
        self.metered
    }

    /// The client's condition on the sequence number.
    pub fn match_seq_num(&self) -> Option<u64> {
        self.match_seq_num
    }

    /// The client's condition on the fencing token.
    pub fn fencing_token(&self) -> Option<&str> {
        self.fencing_token.as_deref()
    }
}

impl fmt::Debug for SealedInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (records, metered) = (self.records.len(), self.metered);
        write!(f, "SealedInput({records} records, {metered} bytes)")
    }
}

/// Why a batch cannot be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealError {
    /// Sealing makes it larger than the upstream takes.
    Oversize {
        /// Records in the batch.
        records: usize,
        /// Metered size of the batch once sealed.
        metered: usize,
        /// Largest metered size that the upstream takes.
        limit: usize,
        /// Metered size of the batch as the client sent it.
        plain: usize,
    },
    /// A record beyond the cipher's own limit. The record limits are far below it.
    TooLong,
}

impl std::error::Error for SealError {}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Oversize {
                records: 1,
                metered,
                limit,
                plain,
            } => {
                let largest = limit.saturating_sub(metered.saturating_sub(plain));
                write!(
                    f,
                    "record of metered size {plain} bytes does not fit once encrypted: \
                     the largest that fits is {largest} bytes"
                )
            }
            Self::Oversize {
                records,
                metered,
                limit,
                plain,
            } => write!(
                f,
                "batch of {records} records with a metered size of {plain} bytes takes {metered} bytes \
                 once encrypted, more than the limit of {limit} bytes"
            ),
            Self::TooLong => f.write_str("record too long for its cipher"),
        }
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
