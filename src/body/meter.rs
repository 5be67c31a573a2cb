//! Sealing and opening, counted and timed.

use std::{sync::Arc, time::Instant};

use crate::{
    crypto::{Cipher, Opener, StreamCipher},
    stream::StreamPath,
    telemetry::{
        label::{CipherName, Direction},
        metrics::{CipherMetrics, Metrics, StreamCounters},
    },
    wire::record::{
        AppendInput, Fit, Opening, ReadBatch, Record, SealError, SealedInput, UnopenedRecord,
    },
};

/// Seals and opens the records of one stream, and counts them. Commands are not sealed and do not count.
#[derive(Clone)]
pub struct Meter {
    metrics: Arc<Metrics>,
    stream: Option<StreamCounters>,
}

impl Meter {
    /// A meter for this stream.
    pub fn new(metrics: &Arc<Metrics>, path: &StreamPath) -> Self {
        let streams = metrics.streams.as_ref();
        Self {
            stream: streams.map(|all| all.of(path.basin.as_str(), path.stream.as_str())),
            metrics: Arc::clone(metrics),
        }
    }

    /// Seals a batch in as few parts as fit upstream; see [`AppendInput::seal_to_fit`].
    ///
    /// # Errors
    /// As there; nothing is counted then.
    pub fn seal(
        &self,
        input: &AppendInput,
        cipher: &StreamCipher,
        fit: Fit,
    ) -> Result<Vec<SealedInput>, SealError> {
        let began = Instant::now();
        let parts = input.seal_to_fit(cipher, fit)?;
        let took = began.elapsed();
        let amount = Amount::of(input.records().iter().map(|record| &record.record));
        if amount.records > 0 {
            let of = self.cipher(cipher.cipher());
            of.seal_duration.observe(took.as_secs_f64());
            of.sealed.inc_by(amount.records);
            of.sealed_bytes.inc_by(amount.bytes);
            self.count_for_stream(Direction::Sealed, amount);
        }
        let records = &self.metrics.records;
        let compressed: usize = parts.iter().map(SealedInput::compressed).sum();
        if compressed > 0 {
            records.compressed.inc_by(compressed as u64);
        }
        if parts.len() > 1 {
            records.split_batches.inc();
            records.split_parts.inc_by(parts.len() as u64);
        }
        Ok(parts)
    }

    /// Opens the next piece of a batch; see [`Opening::next`].
    ///
    /// # Errors
    /// As there; nothing is counted then.
    pub fn open(
        &self,
        opening: &mut Opening,
        opener: &Opener,
    ) -> Result<Option<ReadBatch>, UnopenedRecord> {
        let began = Instant::now();
        let Some(batch) = opening.next(opener)? else {
            return Ok(None);
        };
        if batch.records.is_empty() {
            return Ok(Some(batch));
        }
        let took = began.elapsed();
        let amount = Amount::of(batch.records.iter().map(|record| &record.record));
        if amount.records > 0 {
            let of = self.cipher(opener.cipher());
            of.open_duration.observe(took.as_secs_f64());
            of.opened.inc_by(amount.records);
            of.opened_bytes.inc_by(amount.bytes);
            self.count_for_stream(Direction::Opened, amount);
        }
        Ok(Some(batch))
    }

    fn cipher(&self, cipher: Cipher) -> &CipherMetrics {
        self.metrics.records.ciphers.of(name(cipher))
    }

    fn count_for_stream(&self, direction: Direction, amount: Amount) {
        if let Some(stream) = &self.stream {
            let of = stream.of(direction);
            of.records.inc_by(amount.records);
            of.bytes.inc_by(amount.bytes);
        }
    }
}

/// Data records, and what S2 meters them as.
#[derive(Clone, Copy)]
struct Amount {
    records: u64,
    bytes: u64,
}

impl Amount {
    fn of<'a>(records: impl Iterator<Item = &'a Record>) -> Self {
        let mut amount = Self {
            records: 0,
            bytes: 0,
        };
        for record in records {
            match record {
                Record::Data(envelope) => {
                    amount.records += 1;
                    amount.bytes += envelope.metered_size() as u64;
                }
                Record::Command(_) => {}
            }
        }
        amount
    }
}

fn name(cipher: Cipher) -> CipherName {
    match cipher {
        Cipher::Aegis256 => CipherName::Aegis256,
        Cipher::Aes256Gcm => CipherName::Aes256Gcm,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::label::Label as _;

    #[test]
    fn ciphers_have_the_names_that_configurations_give_them() {
        for cipher in Cipher::ALL {
            assert_eq!(name(cipher).word(), cipher.as_str());
        }
    }
}
