//! When a data key has sealed enough, and how much of that is written down ahead.

use std::time::Duration;

use bytesize::ByteSize;

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

    /// What keys of this cipher may seal at all, whatever the operator wants.
    pub fn hard(cipher: Cipher) -> Self {
        let never = RotateAfter {
            age: Duration::ZERO,
            records: 0,
            bytes: ByteSize::b(0),
        };
        Self::new(&never, cipher)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Digest;

    fn key(records: u64, bytes: u64) -> DataKey {
        DataKey {
            epoch: 1,
            commit: Digest::from_bytes([1; 32]),
            wrapped: None,
            created_at: 1000,
            shredded_at: None,
            sealed: Sealing { records, bytes },
            first_seq_num: None,
        }
    }

    fn limits(age: u64, records: u64, bytes: u64, cipher: Cipher) -> Limits {
        let rotate_after = RotateAfter {
            age: Duration::from_millis(age),
            records,
            bytes: ByteSize::b(bytes),
        };
        Limits::new(&rotate_after, cipher)
    }

    fn next(limits: &Limits, sealed: (u64, u64), wanted: (u64, u64)) -> Next {
        let (records, bytes) = wanted;
        limits.next(&key(sealed.0, sealed.1), Sealing { records, bytes }, 1000)
    }

    fn reserved(records: u64, bytes: u64) -> Next {
        Next::Reserve(Sealing { records, bytes })
    }

    #[test]
    fn no_key_is_counted_beyond_its_limit() {
        let few = limits(0, 5, 0, Cipher::Aegis256);
        assert_eq!(next(&few, (0, 0), (1, 9)), reserved(5, BYTES_AHEAD));
        assert_eq!(next(&few, (3, 9), (2, 9)), reserved(2, BYTES_AHEAD));
        let due = Next::Rotate(KeyRotation::Records);
        assert_eq!(next(&few, (3, 9), (3, 9)), due);
        assert_eq!(next(&few, (5, 9), (1, 9)), due);
        // A batch that is larger than a key may seal gets a key of its own.
        assert_eq!(next(&few, (0, 0), (7, 9)), reserved(7, BYTES_AHEAD));
        let bytes = limits(0, 0, 1000, Cipher::Aegis256);
        let block = reserved(RECORDS_AHEAD, 1000);
        assert_eq!(next(&bytes, (0, 0), (1, 400)), block);
        let due = Next::Rotate(KeyRotation::Bytes);
        assert_eq!(next(&bytes, (1, 601), (1, 400)), due);
    }

    #[test]
    fn a_gcm_key_never_seals_more_than_is_safe() {
        for records in [0, 1 << 31, u64::MAX] {
            let limits = limits(0, records, 0, Cipher::Aes256Gcm);
            let due = Next::Rotate(KeyRotation::Records);
            assert_eq!(next(&limits, (1 << 30, 1), (1, 1)), due);
            let last = reserved(1000, BYTES_AHEAD);
            assert_eq!(next(&limits, ((1 << 30) - 1000, 1), (1000, 1)), last);
            assert_eq!(next(&limits, ((1 << 30) - 999, 1), (1000, 1)), due);
        }
        let endless = limits(0, 0, 0, Cipher::Aegis256);
        let block = reserved(RECORDS_AHEAD, BYTES_AHEAD);
        assert_eq!(next(&endless, (1 << 40, 1 << 60), (1, 1)), block);
    }

    #[test]
    fn blocks_are_small_beside_their_limit_and_never_smaller_than_a_batch() {
        let limits = limits(0, 1 << 20, 0, Cipher::Aegis256);
        assert_eq!(
            next(&limits, (1, 1), (1, 1)),
            reserved(1 << 16, BYTES_AHEAD)
        );
        let most = 1 << 40;
        assert_eq!(next(&limits, (1, 1), (1, most)), reserved(1 << 16, most),);
    }

    #[test]
    fn age_makes_a_key_old_and_a_clock_set_back_does_not() {
        let limits = limits(500, 0, 0, Cipher::Aegis256);
        let wanted = Sealing {
            records: 1,
            bytes: 1,
        };
        for (now, is_old) in [(0, false), (1000, false), (1499, false), (1500, true)] {
            assert_eq!(limits.is_old(&key(1, 1), now), is_old, "{now}");
            let rotates = limits.next(&key(1, 1), wanted, now) == Next::Rotate(KeyRotation::Age);
            assert_eq!(rotates, is_old, "{now}");
        }
    }
}
