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

use super::{Config, Error};
use crate::{crypto::Key, stream::StreamId, telemetry::metrics::Held};

/// Time between two searches for keys that are due.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Bytes that a held key takes, at most, besides its wrapped form and the name of the service's key.
const ENTRY_BYTES: usize = 512;

/// How long keys are held, and how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Longest time, used or not.
    pub(super) live: Duration,
    /// Longest time without use.
    pub(super) idle: Duration,
    /// Time between two searches for keys that are due.
    pub(super) sweep: Duration,
    /// Most bytes that all of them take.
    pub(super) bytes: u64,
}

impl Bounds {
    pub(super) fn new(config: &Config) -> Self {
        let (live, idle) = (config.cache_ttl, config.cache_idle);
        Self {
            live,
            idle: if idle.is_zero() { live } else { idle },
            sweep: SWEEP_EVERY,
            bytes: config.cache_bytes.as_u64(),
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

    /// Bytes that it takes with its key in the cache.
    fn bytes(&self) -> u32 {
        let bytes = ENTRY_BYTES + self.key.len() + self.blob.len();
        u32::try_from(bytes).unwrap_or(u32::MAX)
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
    pub(super) fn new(bounds: &Bounds, held: &IntGauge) -> Self {
        let places = future::Cache::builder()
            .max_capacity(bounds.bytes)
            .weigher(|slot: &Slot, _| slot.bytes())
            // The least recently used goes first; by default a new one might not get in.
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(bounds.live)
            .time_to_idle(bounds.idle)
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
        key.ok_or_else(|| Error::Unreachable("the key was dropped at the same time".into()))
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
