//! Unwrapped data keys, for a bounded time: each is unwrapped once however many requests want it, and gone
//! from memory when it is due.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::{future, policy::EvictionPolicy};
use prometheus::IntGauge;

use super::Error;
use crate::{crypto::Key, stream::StreamId, telemetry::metrics::Held};

/// Most keys held. Each takes less than a kilobyte, its wrapped form included.
const MAX_KEYS: u64 = 10_000;
/// How often keys that are due are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How long a key is held that nobody needs: a minute at most, the time to its next sweep included.
const IDLE: Duration = Duration::from_secs(60 - SWEEP_EVERY.as_secs());

/// How long keys are held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ages {
    /// At most, used or not.
    pub(super) live: Duration,
    /// At most without use.
    pub(super) idle: Duration,
    /// Between looking for what is due.
    pub(super) sweep: Duration,
}

impl Ages {
    pub(super) fn with_ttl(live: Duration) -> Self {
        Self {
            live,
            idle: IDLE,
            sweep: SWEEP_EVERY,
        }
    }
}

/// Which wrapped key it is. What was wrapped is part of it: another text for the same epoch is another key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    stream: StreamId,
    pub(super) epoch: u32,
    pub(super) key: Box<str>,
    pub(super) blob: Box<[u8]>,
}

impl Slot {
    pub(super) fn new(stream: StreamId, epoch: u32, key: &str, blob: &[u8]) -> Self {
        Self {
            stream,
            epoch,
            key: key.into(),
            blob: blob.into(),
        }
    }
}

/// A place for a key. The cache frees what it removed some time later, so that the key is taken out of its
/// place at the removal itself.
struct Place(Mutex<Option<(Key, Held)>>);

impl Place {
    fn new(key: Key, held: &IntGauge) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some((key, Held::new(held))))))
    }

    fn key(&self) -> Option<Key> {
        let place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        place.as_ref().map(|(key, _)| key.clone())
    }

    fn empty(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

pub(super) struct Cache {
    places: future::Cache<Slot, Arc<Place>>,
    /// How often keys were forgotten: one that was being unwrapped then must not stay.
    forgotten: AtomicU64,
    held: IntGauge,
}

impl Cache {
    pub(super) fn new(ages: &Ages, held: &IntGauge) -> Self {
        let places = future::Cache::builder()
            .max_capacity(MAX_KEYS)
            // The least recently used goes first; by default a new one might not get in.
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(ages.live)
            .time_to_idle(ages.idle)
            .eviction_listener(|_, place: Arc<Place>, _| place.empty())
            .build();
        Self {
            places,
            forgotten: AtomicU64::new(0),
            held: held.clone(),
        }
    }

    /// The key, if it is held.
    pub(super) async fn held(&self, slot: &Slot) -> Option<Key> {
        self.places.get(slot).await?.key()
    }

    /// The key from `unwrapping`, or from whoever unwraps it already. Must run to its end.
    pub(super) async fn load(
        &self,
        slot: &Slot,
        unwrapping: impl Future<Output = Result<Key, Error>>,
    ) -> Result<Key, Error> {
        let before = self.forgotten.load(Ordering::SeqCst);
        let place = async { Ok(Place::new(unwrapping.await?, &self.held)) };
        let place = self.places.try_get_with_by_ref(slot, place).await;
        let place = place.map_err(|error: Arc<Error>| Error::clone(&error))?;
        let key = place.key();
        if self.forgotten.load(Ordering::SeqCst) != before {
            self.places.invalidate(slot).await;
        }
        key.ok_or_else(|| Error::Unreachable("the key was dropped meanwhile".into()))
    }

    /// Drops the keys of a stream, or all.
    pub(super) async fn forget(&self, stream: Option<StreamId>) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        let is_meant = |slot: &Slot| stream.is_none_or(|stream| stream == slot.stream);
        let meant = self.places.iter().map(|(slot, _)| slot);
        let meant: Vec<_> = meant.filter(|slot| is_meant(slot)).collect();
        for slot in meant {
            self.places.invalidate(&*slot).await;
        }
    }

    /// Drops the keys that are due. The cache itself looks for them only when it is used.
    pub(super) async fn sweep(&self) {
        self.places.run_pending_tasks().await;
    }
}
