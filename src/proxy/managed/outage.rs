//! What appends do while a key management service makes no new key: they go on under the current one where that is
//! safe, and do not ask with every request.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::policy::{Limits, Next};
use crate::{
    crypto::{Cipher, Digest},
    keys::{RotateAfter, kms},
    store::{DataKey, Sealing},
};

/// How long a stream goes on under a key that is due before the next one is tried again.
const GO_ON: Duration = Duration::from_secs(30);

/// What one stream remembers of a service that made no key.
#[derive(Debug, Default)]
pub struct Outage(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// The key that goes on though it is due, by epoch and commitment, and since when.
    overdue: Option<((u32, Digest), Instant)>,
    failed: Option<(kms::Error, Instant)>,
}

impl Outage {
    /// Whether this key is due and goes on all the same.
    pub fn is_overdue(&self, key: &DataKey) -> bool {
        let memory = self.memory();
        memory.overdue.is_some_and(|(of, _)| of == id(key))
    }

    /// Whether it goes on without trying for the next one.
    pub fn goes_on(&self, key: &DataKey) -> bool {
        let memory = self.memory();
        memory
            .overdue
            .is_some_and(|(of, since)| of == id(key) && since.elapsed() < GO_ON)
    }

    /// The next key is being tried for: whoever comes meanwhile goes on under this one.
    pub fn tries(&self, key: &DataKey) {
        self.memory().overdue = Some((id(key), Instant::now()));
    }

    /// It needs to go on no more, or not for want of the service.
    pub fn ended(&self) {
        self.memory().overdue = None;
    }

    /// The service made no key.
    pub fn failed(&self, error: &kms::Error) {
        self.memory().failed = Some((error.clone(), Instant::now()));
    }

    /// Leaves the service in peace right after a failure.
    ///
    /// # Errors
    /// What it failed with.
    pub fn pause(&self) -> Result<(), kms::Error> {
        match &self.memory().failed {
            Some((error, at)) if at.elapsed() < error.stands_for() => Err(error.clone()),
            Some(_) | None => Ok(()),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Each of the two is set in one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What may be reserved under a key that is due by the configuration's policy: nothing once it is due by what the
/// cipher bears.
pub fn beyond_policy(cipher: Cipher, key: &DataKey, wanted: Sealing, now: u64) -> Option<Sealing> {
    let none = RotateAfter {
        age: Duration::ZERO,
        records: 0,
        bytes: bytesize::ByteSize::b(0),
    };
    match Limits::new(&none, cipher).next(key, wanted, now) {
        Next::Reserve(block) => Some(block),
        Next::Rotate(_) => None,
    }
}

fn id(key: &DataKey) -> (u32, Digest) {
    (key.epoch, key.commit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::MAX_GCM_RECORDS;

    fn key(epoch: u32, records: u64) -> DataKey {
        DataKey {
            epoch,
            commit: Digest::from_bytes([1; 32]),
            wrapped: None,
            created_at: 0,
            shredded_at: None,
            sealed: Sealing { records, bytes: 1 },
            first_seq_num: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_key_is_tried_for_again_later_and_not_with_each_request() {
        let outage = Outage::default();
        assert!(!outage.is_overdue(&key(1, 1)));
        outage.tries(&key(1, 1));
        assert!(outage.goes_on(&key(1, 1)) && outage.is_overdue(&key(1, 1)));
        assert!(!outage.goes_on(&key(2, 1)), "that is another key");
        tokio::time::advance(GO_ON - Duration::from_millis(1)).await;
        assert!(outage.goes_on(&key(1, 1)));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!outage.goes_on(&key(1, 1)) && outage.is_overdue(&key(1, 1)));
        outage.ended();
        assert!(!outage.is_overdue(&key(1, 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_stands_for_a_moment() {
        let outage = Outage::default();
        outage.pause().unwrap();
        let error = kms::Error::Unreachable("sealed".into());
        outage.failed(&error);
        assert_eq!(outage.pause(), Err(error));
        tokio::time::advance(Duration::from_millis(100)).await;
        outage.pause().unwrap();
    }

    #[test]
    fn what_a_cipher_bears_is_never_exceeded() {
        let wanted = Sealing {
            records: 1,
            bytes: 1,
        };
        let room = |cipher, records| {
            let old = u64::MAX;
            beyond_policy(cipher, &key(1, records), wanted, old).map(|block| block.records)
        };
        let most = MAX_GCM_RECORDS;
        assert_eq!(room(Cipher::Aes256Gcm, most), None);
        assert_eq!(room(Cipher::Aes256Gcm, u64::MAX), None);
        assert_eq!(room(Cipher::Aes256Gcm, most - 1), Some(1));
        assert!(room(Cipher::Aegis256, u64::MAX / 2).is_some());
    }
}
