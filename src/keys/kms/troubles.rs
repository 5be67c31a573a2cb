//! Which data keys could not be unwrapped, and why: for `/ready`, and to leave a service in peace.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::{Error, cache::Slot};
use crate::stream::StreamPath;

/// Most keys that are remembered. Whoever has more has one trouble: the service.
const MAX_TROUBLES: usize = 1000;
/// How long the same key is not asked for again after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a trouble is told of that nobody runs into any more.
const TOLD_FOR: Duration = Duration::from_secs(600);

/// A stream whose key could not be unwrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The stream.
    pub stream: StreamPath,
    /// The epoch of the key.
    pub epoch: u32,
    /// Why, as it was the last time.
    pub error: Error,
    /// When it was first so, without a success since.
    pub since: SystemTime,
}

#[derive(Default)]
pub(super) struct Troubles(Mutex<HashMap<Slot, Remembered>>);

struct Remembered {
    trouble: Trouble,
    last: Instant,
}

impl Troubles {
    /// Remembers how unwrapping ended.
    pub(super) fn note(&self, slot: &Slot, stream: &StreamPath, error: Option<&Error>) {
        let mut known = self.known();
        let Some(error) = error else {
            known.remove(slot);
            return;
        };
        let last = Instant::now();
        if let Some(again) = known.get_mut(slot) {
            again.trouble.error = error.clone();
            again.last = last;
        } else if known.len() < MAX_TROUBLES {
            let trouble = Trouble {
                stream: stream.clone(),
                epoch: slot.epoch,
                error: error.clone(),
                since: SystemTime::now(),
            };
            known.insert(slot.clone(), Remembered { trouble, last });
        }
    }

    /// What went wrong with this key less than [`PAUSE`] ago.
    pub(super) fn just_now(&self, slot: &Slot) -> Option<Error> {
        let known = self.known();
        let remembered = known.get(slot)?;
        (remembered.last.elapsed() < PAUSE).then(|| remembered.trouble.error.clone())
    }

    pub(super) fn forget(&self, stream: &StreamPath) {
        self.known()
            .retain(|_, remembered| remembered.trouble.stream != *stream);
    }

    pub(super) fn list(&self) -> Vec<Trouble> {
        let known = self.known();
        let mut list: Vec<_> = known.values().map(|of| of.trouble.clone()).collect();
        list.sort_by_cached_key(|trouble| (trouble.stream.to_string(), trouble.epoch));
        list
    }

    /// Leaves out what nobody ran into for long.
    pub(super) fn sweep(&self) {
        self.known()
            .retain(|_, remembered| remembered.last.elapsed() < TOLD_FOR);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Slot, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
