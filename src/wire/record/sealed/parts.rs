//! Batches that outgrow the upstream's limit once sealed: compressed, then split, then refused.

use bytes::{BufMut as _, BytesMut};
use serde::{Deserialize, Serialize};

use super::{SealError, SealedInput, SealedRecord};
use crate::{
    crypto::{StreamCipher, Text},
    wire::record::{
        AppendInput, AppendRecord, Command, MAX_BATCH_BYTES, RECORD_BASE_BYTES, Record,
    },
};

/// What to do so that sealed batches fit upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fit {
    /// What happens to a batch that does not fit.
    pub oversize_batches: OversizeBatches,
    /// Which records are compressed.
    pub compression: RecordCompression,
}

/// What happens to a batch that does not fit upstream, compressed or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OversizeBatches {
    /// It goes up in several batches, one right after the other.
    #[default]
    Split,
    /// It is refused.
    Reject,
}

/// Which records are compressed before they are sealed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordCompression {
    /// Those of a batch that does not fit otherwise.
    #[default]
    WhenNeeded,
    /// All that become smaller. The upstream then learns how well each record compresses.
    Always,
    /// None.
    Never,
}

impl AppendInput {
    /// Seals the batch in as few parts as fit upstream, mostly one.
    ///
    /// Every part after the first must be appended right after the one before it:
    /// [`SealedInput::following`] says so once that one is acked. The client's condition on the sequence
    /// number goes with the first part, its fencing token with all, as fence commands on the way change it.
    ///
    /// # Errors
    /// [`SealError::Oversize`] for a single record that does not fit, and for a batch that does not fit
    /// and must not be split.
    pub fn seal_to_fit(
        &self,
        cipher: &StreamCipher,
        fit: Fit,
    ) -> Result<Vec<SealedInput>, SealError> {
        let refused = match fit.compression {
            RecordCompression::Always => None,
            RecordCompression::WhenNeeded | RecordCompression::Never => match self.seal(cipher) {
                Ok(whole) => return Ok(vec![whole]),
                Err(error) => Some(error),
            },
        };
        let compress = fit.compression != RecordCompression::Never;
        let records: Vec<_> = self
            .records()
            .iter()
            .map(|record| Planned::new(record, cipher, compress))
            .collect();
        let metered: usize = records.iter().map(|record| record.metered).sum();
        if metered > MAX_BATCH_BYTES && fit.oversize_batches == OversizeBatches::Reject {
            return Err(refused.unwrap_or(SealError::Oversize {
                records: records.len(),
                metered,
                limit: MAX_BATCH_BYTES,
                plain: self.metered_size(),
            }));
        }
        self.seal_parts(cipher, &records)
    }

    /// Fills one part after the other: no other way of cutting in order makes fewer.
    fn seal_parts(
        &self,
        cipher: &StreamCipher,
        mut records: &[Planned<'_>],
    ) -> Result<Vec<SealedInput>, SealError> {
        let mut parts: Vec<SealedInput> = Vec::new();
        let mut fencing_token = self.fencing_token.clone();
        while let Some(first) = records.first() {
            let mut metered = 0;
            let fits = records.iter().take_while(|record| {
                metered += record.metered;
                metered <= MAX_BATCH_BYTES
            });
            let (part, rest) = records.split_at_checked(fits.count()).unwrap_or_default();
            if part.is_empty() {
                return Err(first.oversize(cipher));
            }
            parts.push(SealedInput {
                records: seal_all(cipher, part)?,
                metered: part.iter().map(|record| record.metered).sum(),
                compressed: part.iter().filter(|r| r.compressed.is_some()).count(),
                match_seq_num: self.match_seq_num.filter(|_| parts.is_empty()),
                fencing_token: fencing_token.clone(),
            });
            if fencing_token.is_some() {
                fencing_token = last_fence(part).or(fencing_token);
            }
            records = rest;
        }
        Ok(parts)
    }
}

/// A record and how it will be sealed.
struct Planned<'a> {
    record: &'a AppendRecord,
    compressed: Option<Vec<u8>>,
    /// Size once sealed, as the upstream meters it.
    metered: usize,
}

impl<'a> Planned<'a> {
    fn new(record: &'a AppendRecord, cipher: &StreamCipher, compress: bool) -> Self {
        let Record::Data(envelope) = &record.record else {
            return Self {
                record,
                compressed: None,
                metered: record.record.metered_size(),
            };
        };
        let native = envelope.encoded_len() + cipher.overhead(Text::Encoded);
        let sealed_size = |frame: &Vec<u8>| frame.len() + cipher.overhead(Text::Zstd);
        let compressed = compress.then(|| envelope.compress()).flatten();
        let compressed = compressed.filter(|frame| sealed_size(frame) < native);
        let sealed = compressed.as_ref().map_or(native, sealed_size);
        Self {
            record,
            compressed,
            metered: RECORD_BASE_BYTES + sealed,
        }
    }

    fn seal(&self, cipher: &StreamCipher, arena: &mut BytesMut) -> Result<SealedRecord, SealError> {
        Ok(match (&self.record.record, &self.compressed) {
            (Record::Command(command), _) => SealedRecord::Command(command.clone()),
            (Record::Data(envelope), None) => SealedRecord::Data(envelope.seal(cipher, arena)?),
            (Record::Data(_), Some(frame)) => {
                let sealed = cipher.seal(Text::Zstd, arena, |out| out.put_slice(frame));
                SealedRecord::Data(sealed.map_err(|_| SealError::TooLong)?)
            }
        })
    }

    /// The refusal of this record, in terms of the native layout.
    fn oversize(&self, cipher: &StreamCipher) -> SealError {
        let sealed = match &self.record.record {
            Record::Command(_) => self.metered,
            Record::Data(envelope) => {
                RECORD_BASE_BYTES + envelope.encoded_len() + cipher.overhead(Text::Encoded)
            }
        };
        SealError::Oversize {
            records: 1,
            metered: sealed,
            limit: MAX_BATCH_BYTES,
            plain: self.record.record.metered_size(),
        }
    }
}

fn seal_all(
    cipher: &StreamCipher,
    records: &[Planned<'_>],
) -> Result<Vec<(Option<u64>, SealedRecord)>, SealError> {
    let bytes = records.iter().map(|record| record.metered).sum();
    let mut arena = BytesMut::with_capacity(bytes);
    records
        .iter()
        .map(|record| Ok((record.record.timestamp, record.seal(cipher, &mut arena)?)))
        .collect()
}

/// The token that the stream has after these records, if they set one.
fn last_fence(records: &[Planned<'_>]) -> Option<String> {
    let mut fences = records
        .iter()
        .rev()
        .filter_map(|record| match &record.record.record {
            Record::Command(Command::Fence(token)) => Some(token),
            Record::Command(Command::Trim(_)) | Record::Data(_) => None,
        });
    fences.next().map(|token| token.as_str().to_owned())
}

#[cfg(test)]
mod tests;
