//! What may still be sealed under a stream's key before more is written down.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::outage::Outage;
use crate::{
    crypto::Digest,
    store::{DataKey, Sealing},
};

/// What is left of the blocks that were reserved durably for one stream's key. Several of one stream, as when
/// the bounded table of them forgot one, never count the same records: each has its own blocks.
#[derive(Debug, Default)]
pub struct Allowance {
    left: Mutex<Left>,
    /// Held while the stream's keys are changed, so that only one does it and the others wait.
    pub turn: tokio::sync::Mutex<()>,
    /// How it goes on without a new key.
    pub outage: Outage,
}

#[derive(Debug, Default)]
struct Left {
    /// Of which key: its epoch and commitment.
    of: Option<(u32, Digest)>,
    amount: Sealing,
}

impl Allowance {
    /// Takes so much, if it is left for this key.
    pub fn take(&self, key: &DataKey, wanted: Sealing) -> bool {
        let mut left = self.left();
        let Left { of, amount } = &mut *left;
        let enough = amount.records >= wanted.records && amount.bytes >= wanted.bytes;
        if *of != Some((key.epoch, key.commit)) || !enough {
            return false;
        }
        amount.records -= wanted.records;
        amount.bytes -= wanted.bytes;
        true
    }

    /// So much more is reserved for this key, and `taken` of it is used already.
    pub fn add(&self, key: &DataKey, reserved: Sealing, taken: Sealing) {
        let mut left = self.left();
        let of = Some((key.epoch, key.commit));
        if left.of != of {
            *left = Left {
                of,
                amount: Sealing::default(),
            };
        }
        let more = |left: u64, reserved: u64, taken: u64| {
            left.saturating_add(reserved).saturating_sub(taken)
        };
        left.amount = Sealing {
            records: more(left.amount.records, reserved.records, taken.records),
            bytes: more(left.amount.bytes, reserved.bytes, taken.bytes),
        };
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        // Set in one step, so whole whoever panics.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(epoch: u32, commit: u8) -> DataKey {
        DataKey {
            epoch,
            commit: Digest::from_bytes([commit; 32]),
            wrapped: None,
            created_at: 0,
            shredded_at: None,
            sealed: Sealing::default(),
            first_seq_num: None,
        }
    }

    fn amount(records: u64, bytes: u64) -> Sealing {
        Sealing { records, bytes }
    }

    #[test]
    fn no_more_is_taken_than_was_reserved_for_the_very_key() {
        let allowance = Allowance::default();
        let of = key(1, 1);
        assert!(!allowance.take(&of, amount(1, 1)));
        allowance.add(&of, amount(10, 100), amount(4, 10));
        assert!(!allowance.take(&of, amount(7, 1)));
        assert!(!allowance.take(&of, amount(1, 91)));
        assert!(!allowance.take(&key(2, 1), amount(1, 1)));
        assert!(!allowance.take(&key(1, 2), amount(1, 1)));
        assert!(allowance.take(&of, amount(6, 90)));
        assert!(!allowance.take(&of, amount(1, 0)));
        assert!(!allowance.take(&of, amount(0, 1)));
        allowance.add(&of, amount(2, 2), amount(0, 0));
        // Of another key, what is left counts no more.
        allowance.add(&key(2, 2), amount(1, 1), amount(1, 1));
        assert!(!allowance.take(&of, amount(1, 1)));
        assert!(!allowance.take(&key(2, 2), amount(1, 1)));
    }
}
