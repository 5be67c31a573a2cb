//! When a data key has sealed enough, and how much of that is written down ahead.

use std::time::Duration;

use crate::{
    crypto::Cipher,
    keys::RotateAfter,
    store::{DataKey, Sealing},
    telemetry::label::KeyRotation,
    wire::record::{AppendInput, Record},
};

/// Most records that are reserved at once: a crash counts as many that were never sealed.
const RECORDS_AHEAD: u64 = 1 << 20;
/// Most bytes that are reserved at once.
const BYTES_AHEAD: u64 = 16 << 30;
/// A limit below this many records is reserved whole: with blocks it would be written down with each batch.
const FEW_RECORDS: u64 = 1 << 10;
/// The same for bytes.
const FEW_BYTES: u64 = 16 << 20;
/// Above that, a limit is reserved in so many blocks at least, so that a crash costs little of it.
const BLOCKS: u64 = 16;

/// What one key of a stream may seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    age: Option<Duration>,
    records: Option<u64>,
    bytes: Option<u64>,
}

/// What has to be written down before more is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// So much more is about to be sealed under the key.
    Reserve(Sealing),
    /// A new key takes its place.
    Rotate(KeyRotation),
}

impl Limits {
    /// The limits for keys of this cipher.
    pub fn new(rotate_after: &RotateAfter, cipher: Cipher) -> Self {
        let bytes = rotate_after.bytes.as_u64();
        Self {
            age: (!rotate_after.age.is_zero()).then_some(rotate_after.age),
            records: rotate_after.records_for(cipher),
            bytes: (bytes > 0).then_some(bytes),
        }
    }

    /// Whether the key is too old at this time, in milliseconds since the Unix epoch. A clock that was set back
    /// makes no key old.
    pub fn is_old(&self, key: &DataKey, now: u64) -> bool {
        let age = Duration::from_millis(now.saturating_sub(key.created_at));
        self.age.is_some_and(|most| age >= most)
    }

    /// What has to happen before `wanted` is sealed under `key`, beyond what is reserved of it.
    pub fn next(&self, key: &DataKey, wanted: Sealing, now: u64) -> Next {
        let Sealing { records, bytes } = key.sealed;
        // A new key takes one batch, however large, or none ever would.
        let is_new = key.sealed == Sealing::default();
        let passes = |limit: Option<u64>, sealed: u64, wanted: u64| {
            !is_new && limit.is_some_and(|limit| sealed.saturating_add(wanted) > limit)
        };
        if self.is_old(key, now) {
            return Next::Rotate(KeyRotation::Age);
        }
        if passes(self.records, records, wanted.records) {
            return Next::Rotate(KeyRotation::Records);
        }
        if passes(self.bytes, bytes, wanted.bytes) {
            return Next::Rotate(KeyRotation::Bytes);
        }
        Next::Reserve(self.block(key.sealed, wanted))
    }

    /// What is reserved at once for a key that `sealed` so much: at least what is wanted.
    pub fn block(&self, sealed: Sealing, wanted: Sealing) -> Sealing {
        let block = |limit: Option<u64>, few: u64, ahead: u64, sealed: u64, wanted: u64| {
            let limit = limit.unwrap_or(u64::MAX);
            let part = (limit / BLOCKS).max(few).min(ahead);
            part.min(limit.saturating_sub(sealed)).max(wanted)
        };
        let (records, bytes) = (wanted.records, wanted.bytes);
        Sealing {
            records: block(
                self.records,
                FEW_RECORDS,
                RECORDS_AHEAD,
                sealed.records,
                records,
            ),
            bytes: block(self.bytes, FEW_BYTES, BYTES_AHEAD, sealed.bytes, bytes),
        }
    }
}

/// What sealing a batch adds to a key's count. Commands are not sealed.
pub fn amount(input: &AppendInput) -> Sealing {
    let mut amount = Sealing::default();
    for record in input.records() {
        match &record.record {
            Record::Data(envelope) => {
                amount.records += 1;
                amount.bytes += envelope.metered_size() as u64;
            }
            Record::Command(_) => {}
        }
    }
    amount
}
