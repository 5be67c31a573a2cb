//! How much memory clients' bodies may take over all connections, and who waits when it is taken.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::telemetry::metrics::Metrics;

/// Bodies and frames up to this size are not counted: small traffic goes on whatever the large one does,
/// and no connection has more than 200 of them (6 MiB).
pub const FREE_BYTES: usize = 32 * 1024;

/// What a body takes while it is worked on: itself, its records sealed or opened, and what is sent on.
const COPIES: usize = 3;

/// Permits are in KiB: a count of bytes would not fit in all places.
const UNIT: usize = 1024;

/// How long a unary request waits for room.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long an input of a session waits for room: as long as for its bytes. It is in memory, uncounted.
const INPUT_PATIENCE: Duration = Duration::from_secs(60);

/// How often who waits for room looks for a client that keeps some and does not go on.
const LOOK: Duration = Duration::from_secs(1);

/// How long such a client is let be while others wait.
const STALLED: Duration = Duration::from_secs(10);

/// The smallest budget: each half has room for the largest body, 2 MiB and its copies.
pub const MIN_BUDGET_BYTES: u64 = 16 * 1024 * 1024;

/// The memory for the bodies of all connections. Half of it is for what clients send, half for what they
/// read: neither can shut the other out.
///
/// Nothing that holds a part of it waits for more of it, or for a client to send, without an end: what a
/// session sends takes its part once it is here, and whole bodies are given up on after a time.
#[derive(Clone)]
pub struct Budget {
    uploads: Arc<Pool>,
    reads: Arc<Pool>,
}

/// One half.
struct Pool {
    permits: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    resting: Mutex<Resting>,
}

/// All that waits for a client to go on, the oldest first.
#[derive(Default)]
struct Resting {
    next: u64,
    all: BTreeMap<u64, (Instant, Cutoff)>,
}

/// Something that waits for its client to go on, until it is dropped.
pub struct Rest {
    pool: Arc<Pool>,
    number: u64,
    cutoff: Cutoff,
}

/// Cuts one client off: its connection, or a body that it sends. Clones are one and the same.
#[derive(Clone, Default)]
pub struct Cutoff(Arc<Notify>);

/// Where one request takes its part of the budget.
#[derive(Clone)]
pub struct Room {
    pool: Arc<Pool>,
    patience: Option<Duration>,
    cutoff: Option<Cutoff>,
    early: bool,
}

/// No part of the budget came free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests at once; try again")]
pub struct NoRoom;

/// A part of the budget, given back when dropped.
pub struct Charge {
    permit: OwnedSemaphorePermit,
    pool: Arc<Pool>,
    /// While its client can be cut off for it.
    rest: Option<Rest>,
}

impl Budget {
    /// A budget of `bytes`, which must be at least [`MIN_BUDGET_BYTES`].
    pub fn new(bytes: u64, metrics: &Arc<Metrics>) -> Self {
        let bytes = bytes.max(MIN_BUDGET_BYTES);
        let clients = &metrics.clients;
        clients
            .inflight_limit
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
        // A reservation counts units in 32 bits.
        let units = u32::try_from(bytes / 2 / UNIT as u64).unwrap_or(u32::MAX) as usize;
        let pool = || {
            Arc::new(Pool {
                permits: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))),
                metrics: Arc::clone(metrics),
                resting: Mutex::default(),
            })
        };
        Self {
            uploads: pool(),
            reads: pool(),
        }
    }

    /// For what a session sends: it waits for room for a minute, and its client with it.
    pub fn sending(&self) -> Room {
        Room::of(&self.uploads, Some(INPUT_PATIENCE), None)
    }

    /// For a whole body: refused when there is no room in time.
    pub fn whole_body(&self) -> Room {
        Room::of(&self.uploads, Some(PATIENCE), None)
    }

    /// What an append session has for its client rests until it is dropped: while others wait for room to
    /// send, the client's connection may be cut off.
    pub fn untaken(&self, cutoff: &Cutoff) -> Rest {
        self.uploads.rest(cutoff.clone())
    }

    /// For what a session reads. Its connection is cut off when it takes nothing while others wait.
    pub fn reading(&self, cutoff: Option<Cutoff>) -> Room {
        Room {
            early: true,
            ..Room::of(&self.reads, None, cutoff)
        }
    }

    /// For a whole answer: refused when there is no room in time.
    pub fn whole_answer(&self, cutoff: Option<Cutoff>) -> Room {
        Room {
            early: true,
            ..Room::of(&self.reads, Some(PATIENCE), cutoff)
        }
    }
}

impl Room {
    fn of(pool: &Arc<Pool>, patience: Option<Duration>, cutoff: Option<Cutoff>) -> Self {
        Self {
            pool: Arc::clone(pool),
            patience,
            cutoff,
            early: false,
        }
    }

    /// Whether it is taken before the most of a frame is read.
    ///
    /// Not for what clients send. All that one client sends on a connection shares one window: those frames
    /// that wait for room would fill it, and one that has its room would never get its rest.
    pub(super) fn is_taken_early(&self) -> bool {
        self.early
    }

    /// Something that takes of this room and waits for its client, which `cutoff` ends.
    pub(super) fn rest(&self, cutoff: &Cutoff) -> Rest {
        self.pool.rest(cutoff.clone())
    }

    /// Takes room to work on a body of `bytes`, which is at most 2 MiB.
    ///
    /// # Errors
    /// [`NoRoom`] for who waited in vain. Only what a session reads waits without an end.
    pub(super) async fn reserve(&self, bytes: usize) -> Result<Charge, NoRoom> {
        let units = u32::try_from((bytes * COPIES).div_ceil(UNIT)).unwrap_or(u32::MAX);
        let Some(patience) = self.patience else {
            return self.wait_for(units).await;
        };
        let waited = timeout(patience, self.wait_for(units)).await;
        waited.unwrap_or(Err(NoRoom)).inspect_err(|_| {
            self.pool.metrics.clients.inflight_refused.inc();
        })
    }

    async fn wait_for(&self, units: u32) -> Result<Charge, NoRoom> {
        if let Ok(permit) = Arc::clone(&self.pool.permits).try_acquire_many_owned(units) {
            return Ok(self.charge(permit));
        }
        // In a task of its own: what is written to a client is not polled while the client takes nothing, and
        // would be given room without being seen to have it.
        let mut waiting = JoinSet::new();
        let room = self.clone();
        waiting.spawn(async move { room.queue(units).await });
        match waiting.join_next().await {
            Some(Ok(charge)) => charge,
            Some(Err(_)) | None => Err(NoRoom),
        }
    }

    async fn queue(self, units: u32) -> Result<Charge, NoRoom> {
        let permits = Arc::clone(&self.pool.permits);
        let mut permit = std::pin::pin!(permits.acquire_many_owned(units));
        loop {
            match timeout(LOOK, &mut permit).await {
                // It is never closed.
                Ok(permit) => return Ok(self.charge(permit.map_err(|_| NoRoom)?)),
                Err(_) => self.pool.cut_stalled(),
            }
        }
    }

    fn charge(&self, permit: OwnedSemaphorePermit) -> Charge {
        self.pool.count(permit.num_permits(), 0);
        let cutoff = self.cutoff.clone();
        Charge {
            permit,
            pool: Arc::clone(&self.pool),
            rest: cutoff.map(|cutoff| self.pool.rest(cutoff)),
        }
    }
}

impl Pool {
    /// Counts units that were taken, and given back.
    fn count(&self, taken: usize, given: usize) {
        let bytes = |units: usize| i64::try_from(units * UNIT).unwrap_or(i64::MAX);
        self.metrics
            .clients
            .inflight
            .add(bytes(taken) - bytes(given));
    }

    /// Cuts off the client that has not gone on for longest, if that is too long.
    fn cut_stalled(&self) {
        let mut resting = self.resting();
        let Some(oldest) = resting.all.first_entry() else {
            return;
        };
        if oldest.get().0.elapsed() >= STALLED {
            tracing::warn!(
                "cutting off a client that keeps room and does not go on, for others wait"
            );
            oldest.remove().1.0.notify_one();
        }
    }

    fn resting(&self) -> MutexGuard<'_, Resting> {
        // A map is whole whoever panics.
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rest(self: &Arc<Self>, cutoff: Cutoff) -> Rest {
        Rest {
            pool: Arc::clone(self),
            number: self.resting().add(cutoff.clone()),
            cutoff,
        }
    }
}

impl Resting {
    fn add(&mut self, cutoff: Cutoff) -> u64 {
        // Never one that was there before: who was cut off still drops it.
        let number = self.next;
        self.next += 1;
        self.all.insert(number, (Instant::now(), cutoff));
        number
    }
}

impl Rest {
    /// The client went on: its time begins again.
    pub(super) fn renew(&mut self) {
        let mut resting = self.pool.resting();
        resting.all.remove(&self.number);
        self.number = resting.add(self.cutoff.clone());
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.pool.resting().all.remove(&self.number);
    }
}

impl Cutoff {
    /// Waits until it is to be cut off.
    pub async fn cut(&self) {
        self.0.notified().await;
    }
}

impl Charge {
    /// Adds another charge on the same room.
    pub fn merge(&mut self, other: Charge) {
        let mut other = other;
        if let Some(more) = other.permit.split(other.permit.num_permits()) {
            self.permit.merge(more);
        }
        self.renew();
    }

    /// The client went on: its time to go on again begins anew.
    pub(super) fn renew(&mut self) {
        if let Some(rest) = &mut self.rest {
            rest.renew();
        }
    }

    /// Keeps all of it until the last slice of `bytes` is dropped: they are still worked on.
    pub(super) fn carried_by_work(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Carried {
            bytes,
            _charge: self,
        })
    }

    /// Keeps no more than `bytes` themselves: the work on them is done. They give it back when their last
    /// slice is dropped: when they went out.
    pub fn carried_by(mut self, bytes: Bytes) -> Bytes {
        let spare = self
            .permit
            .num_permits()
            .saturating_sub(bytes.len().div_ceil(UNIT));
        if let Some(spare) = self.permit.split(spare) {
            self.pool.count(0, spare.num_permits());
        }
        self.renew();
        Bytes::from_owner(Carried {
            bytes,
            _charge: self,
        })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.pool.count(0, self.permit.num_permits());
    }
}

/// Bytes with the charge for them.
struct Carried {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Carried {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests;
