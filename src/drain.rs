//! The way from serving to stopped, as everything that takes part in it sees it.

use tokio::sync::watch;

/// Tells the whole process how far a graceful stop has come. Clones are one and the same; it only moves on.
#[derive(Debug, Clone, Default)]
pub struct Drain(watch::Sender<Phase>);

/// How far a stop has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No stop was asked for.
    #[default]
    Serving,
    /// No new connections; what runs may finish, and sessions are advised to go elsewhere.
    Draining,
    /// The time for that is up: what still runs is ended.
    Over,
}

impl Drain {
    /// A process that serves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the stop, unless it has begun.
    pub fn begin(&self) {
        self.advance(Phase::Draining);
    }

    /// Ends the time for what still runs.
    pub fn end(&self) {
        self.advance(Phase::Over);
    }

    /// How far it has come.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Whether a stop was asked for: clients are better served elsewhere.
    pub fn is_draining(&self) -> bool {
        self.phase() >= Phase::Draining
    }

    /// Whether what still runs is to be ended.
    pub fn is_over(&self) -> bool {
        self.phase() == Phase::Over
    }

    /// Waits until the stop has begun.
    pub async fn begun(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits until what still runs is to be ended.
    pub async fn over(&self) {
        self.reached(Phase::Over).await;
    }

    /// Waits for the end of `work`, or for the end of the time for it: `None`.
    pub async fn before_over<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.over() => None,
        }
    }

    fn advance(&self, to: Phase) {
        self.0.send_if_modified(|phase| {
            let further = *phase < to;
            *phase = (*phase).max(to);
            further
        });
    }

    async fn reached(&self, wanted: Phase) {
        let mut phase = self.0.subscribe();
        // Not an error: the sender is in `self`.
        let _never_closed = phase.wait_for(|phase| *phase >= wanted).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_only_moves_on() {
        let drain = Drain::new();
        let elsewhere = drain.clone();
        assert_eq!(drain.before_over(async { 1 }).await, Some(1));
        assert!(!drain.is_draining());
        elsewhere.begin();
        drain.begun().await;
        assert!(drain.is_draining() && !drain.is_over());
        elsewhere.end();
        elsewhere.begin();
        drain.begun().await;
        assert_eq!(drain.before_over(std::future::pending::<()>()).await, None);
        assert_eq!(drain.phase(), Phase::Over);
    }
}
