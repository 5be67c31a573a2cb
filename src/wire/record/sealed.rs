//! Sealed batches: the only thing that goes upstream on a sealed stream.

mod parts;

use std::fmt;

pub use parts::{Fit, OversizeBatches, RecordCompression};

use bytes::{Bytes, BytesMut};

use super::{
    AppendInput, AppendRecord, Command, Header, MAX_BATCH_BYTES, RECORD_BASE_BYTES, Record,
};
use crate::crypto::{Sealed, StreamCipher, Text};

impl AppendInput {
    /// Seals the batch in the native layout: every data record, each under its own nonce. Commands stay
    /// as they are.
    ///
    /// # Errors
    /// [`SealError::Oversize`] when the upstream would not take the sealed batch.
    pub fn seal(&self, cipher: &StreamCipher) -> Result<SealedInput, SealError> {
        let (mut metered, mut sealed_bytes) = (0, 0);
        for AppendRecord { record, .. } in self.records() {
            metered += match record {
                Record::Command(command) => command.metered_size(),
                Record::Data(envelope) => {
                    let sealed = envelope.encoded_len() + cipher.overhead(Text::Encoded);
                    sealed_bytes += sealed;
                    RECORD_BASE_BYTES + sealed
                }
            };
        }
        if metered > MAX_BATCH_BYTES {
            return Err(SealError::Oversize {
                records: self.records().len(),
                metered,
                limit: MAX_BATCH_BYTES,
                plain: self.metered_size(),
            });
        }
        let mut arena = BytesMut::with_capacity(sealed_bytes);
        let records = self
            .records()
            .iter()
            .map(|record| record.seal(cipher, &mut arena))
            .collect::<Result<_, _>>()?;
        Ok(SealedInput {
            records,
            metered,
            compressed: 0,
            match_seq_num: self.match_seq_num,
            fencing_token: self.fencing_token.clone(),
        })
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

/// A batch that may go upstream on a sealed stream. Only sealing an
/// [`AppendInput`] makes one.
#[derive(Clone)]
pub struct SealedInput {
    records: Vec<(Option<u64>, SealedRecord)>,
    metered: usize,
    compressed: usize,
    match_seq_num: Option<u64>,
    fencing_token: Option<String>,
}

impl SealedInput {
    /// The records with their timestamps.
    pub fn records(&self) -> &[(Option<u64>, SealedRecord)] {
        &self.records
    }

    /// Whether any of it is sealed. Commands alone say nothing of the key.
    pub fn has_data(&self) -> bool {
        let mut records = self.records.iter();
        records.any(|(_, record)| matches!(record, SealedRecord::Data(_)))
    }

    /// What the upstream meters the batch as.
    pub fn metered_size(&self) -> usize {
        self.metered
    }

    /// How many of its records were compressed before they were sealed.
    pub fn compressed(&self) -> usize {
        self.compressed
    }

    /// The client's condition on the sequence number.
    pub fn match_seq_num(&self) -> Option<u64> {
        self.match_seq_num
    }

    /// The same, to be appended right after the record before `seq_num` and nowhere else.
    #[must_use]
    pub fn following(mut self, seq_num: u64) -> Self {
        self.match_seq_num = Some(seq_num);
        self
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

#[cfg(test)]
mod tests;
