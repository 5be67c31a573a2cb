//! Who is appending under which key epoch right now, so that a key is not shredded under a batch on its way.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use crate::stream::StreamPath;

/// What a lease counts as before it is known which epoch it is of: older than all, so that nobody overlooks it.
const NOT_KNOWN: u32 = 0;

/// The appends that are on their way to the streams of this process.
#[derive(Debug, Clone, Default)]
pub struct Leases(Arc<Table>);

#[derive(Debug, Default)]
struct Table {
    /// How many there are of each stream and epoch; none of what has none.
    held: Mutex<HashMap<StreamPath, BTreeMap<u32, usize>>>,
    given_back: Notify,
}

/// One append on its way: from before its key epoch is looked up until its last ack, or its failure.
#[derive(Debug)]
pub struct Lease {
    table: Arc<Table>,
    path: StreamPath,
    epoch: u32,
}

impl Leases {
    /// Takes a lease before the epoch is looked up. Whoever waits for the leases of a stream after a change of
    /// its keys either waits for this one, or it sees the change.
    pub fn take(&self, path: &StreamPath) -> Lease {
        self.0.count(path, NOT_KNOWN);
        Lease {
            table: Arc::clone(&self.0),
            path: path.clone(),
            epoch: NOT_KNOWN,
        }
    }

    /// Waits until nothing is on its way to a stream under an epoch before this one; `false` when that takes
    /// longer than `limit`. An idle session is not waited for.
    pub async fn wait_until_none_below(
        &self,
        path: &StreamPath,
        epoch: u32,
        limit: Duration,
    ) -> bool {
        let none = async {
            loop {
                let mut given_back = std::pin::pin!(self.0.given_back.notified());
                // Counts from here on, so that nothing is missed between the look and the wait.
                given_back.as_mut().enable();
                if !self.0.has_below(path, epoch) {
                    return;
                }
                given_back.await;
            }
        };
        tokio::time::timeout(limit, none).await.is_ok()
    }
}

impl Lease {
    /// It is known which epoch it is of.
    pub fn is_of(&mut self, epoch: u32) {
        self.table.count(&self.path, epoch);
        self.table.discount(&self.path, self.epoch);
        self.epoch = epoch;
    }

    /// The stream that it is of.
    pub fn path(&self) -> &StreamPath {
        &self.path
    }

    /// The epoch that it is of.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.table.discount(&self.path, self.epoch);
    }
}

impl Table {
    fn count(&self, path: &StreamPath, epoch: u32) {
        let mut held = self.held();
        let epochs = match held.get_mut(path) {
            Some(epochs) => epochs,
            None => held.entry(path.clone()).or_default(),
        };
        *epochs.entry(epoch).or_default() += 1;
    }

    fn discount(&self, path: &StreamPath, epoch: u32) {
        let mut held = self.held();
        if let Some(epochs) = held.get_mut(path) {
            match epochs.get_mut(&epoch) {
                Some(count) if *count > 1 => *count -= 1,
                Some(_) | None => drop(epochs.remove(&epoch)),
            }
            if epochs.is_empty() {
                held.remove(path);
            }
        }
        drop(held);
        self.given_back.notify_waiters();
    }

    fn has_below(&self, path: &StreamPath, epoch: u32) -> bool {
        let held = self.held();
        let lowest = held.get(path).and_then(|epochs| epochs.keys().next());
        lowest.is_some_and(|lowest| *lowest < epoch)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<StreamPath, BTreeMap<u32, usize>>> {
        // Counts are whole whoever panics.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> StreamPath {
        format!("test-basin/{name}").parse().unwrap()
    }

    async fn is_free(leases: &Leases, name: &str, below: u32) -> bool {
        let limit = Duration::from_secs(3600);
        leases
            .wait_until_none_below(&path(name), below, limit)
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_below_is_waited_for_and_nobody_else() {
        let leases = Leases::default();
        assert!(is_free(&leases, "s", u32::MAX).await);
        let (mut old, mut new) = (leases.take(&path("s")), leases.take(&path("s")));
        old.is_of(3);
        new.is_of(4);
        assert!(is_free(&leases, "s", 3).await);
        assert!(is_free(&leases, "other", u32::MAX).await);
        assert!(!is_free(&leases, "s", 4).await);
        drop(old);
        assert!(is_free(&leases, "s", 4).await);
        assert!(!is_free(&leases, "s", 5).await);
        drop(new);
        assert!(is_free(&leases, "s", u32::MAX).await);
        assert!(leases.0.held().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_know_its_epoch_yet_is_waited_for() {
        let leases = Leases::default();
        let mut lease = leases.take(&path("s"));
        assert!(!is_free(&leases, "s", 1).await);
        let waits = leases.clone();
        let waits = tokio::spawn(async move { is_free(&waits, "s", 7).await });
        tokio::task::yield_now().await;
        lease.is_of(7);
        assert!(waits.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn all_of_several_are_waited_for() {
        let leases = Leases::default();
        let mut all: Vec<Lease> = (0..3).map(|_| leases.take(&path("s"))).collect();
        for lease in &mut all {
            lease.is_of(1);
        }
        while let Some(last) = all.pop() {
            assert!(!is_free(&leases, "s", 2).await);
            drop(last);
        }
        assert!(is_free(&leases, "s", 2).await);
    }
}
