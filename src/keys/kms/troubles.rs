//! Which data keys could not be unwrapped, and whether the service answers at all: for `/ready`, and to leave a
//! service in peace.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{Error, cache::Slot};
use crate::stream::StreamPath;

/// Most keys that are remembered. Whoever has more has one trouble: the service.
const MAX_TROUBLES: usize = 1000;
/// Time without an answer of use after which the service is down, and calls fail with their first attempt. S2's
/// SDKs wait five seconds for an answer.
const DOWN_AFTER: Duration = Duration::from_secs(4);
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

/// A service that does not do its work, for no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// Why, as it was the last time: neither [`Error::Denied`] nor [`Error::InvalidCiphertext`].
    pub error: Error,
    /// When it was first so, without an answer since.
    pub since: SystemTime,
}

#[derive(Default)]
pub(super) struct Troubles {
    keys: Mutex<HashMap<Slot, Remembered>>,
    service: Mutex<Option<Failing>>,
}

/// Failures of the service in a row.
struct Failing {
    away: Away,
    /// The first of those that followed each other within [`DOWN_AFTER`].
    first: Instant,
    last: Instant,
}

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

    /// What went wrong with this key just now.
    pub(super) fn just_now(&self, slot: &Slot) -> Option<Error> {
        let known = self.known();
        let remembered = known.get(slot)?;
        let error = &remembered.trouble.error;
        (remembered.last.elapsed() < error.stands_for()).then(|| error.clone())
    }

    /// Remembers how an attempt of a call ended. The refusal of one key is an answer.
    pub(super) fn answered(&self, error: Option<&Error>) {
        let mut service = self.service();
        *service = match error {
            None | Some(Error::Denied(_) | Error::InvalidCiphertext(_)) => None,
            Some(
                error @ (Error::Unreachable(_) | Error::Unauthorized(_) | Error::Misconfigured(_)),
            ) => {
                let (now, before) = (Instant::now(), service.take());
                let since = before.as_ref().map(|failing| failing.away.since);
                let away = Away {
                    error: error.clone(),
                    since: since.unwrap_or_else(SystemTime::now),
                };
                let in_a_row = before.filter(|failing| failing.last.elapsed() < DOWN_AFTER);
                Some(Failing {
                    away,
                    first: in_a_row.map_or(now, |failing| failing.first),
                    last: now,
                })
            }
        };
    }

    pub(super) fn away(&self) -> Option<Away> {
        self.service().as_ref().map(|failing| failing.away.clone())
    }

    /// Whether nothing but failures came from the service for [`DOWN_AFTER`].
    pub(super) fn is_down(&self) -> bool {
        let service = self.service();
        let failing = service.as_ref();
        failing.is_some_and(|failing| failing.first.elapsed() >= DOWN_AFTER)
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
        self.service()
            .take_if(|failing| failing.last.elapsed() >= TOLD_FOR);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Slot, Remembered>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn service(&self) -> MutexGuard<'_, Option<Failing>> {
        self.service.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
