//! Time as it passes is recorded, so that a clock that is set back revives no API key.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior};

use super::{ProjectError, Roster, rules};
use crate::proxy::Proxy;

/// How often projects are looked at. So long after its end an API key may still be revived by setting the
/// clock back.
const EVERY: Duration = Duration::from_secs(15);

impl Roster {
    /// Marks every API key whose time is over, and moves the recorded time of each project along.
    ///
    /// # Errors
    /// The store's. What was done before stays.
    pub(super) async fn sweep(&self) -> Result<(), ProjectError> {
        let projects = self.store.projects().await?;
        // From the latest time that any of them saw, for all of them.
        for (_, found) in &projects {
            self.clock
                .since(found.entry.as_ref().map_or(0, |entry| entry.seen_at));
        }
        for (name, found) in projects {
            let Some(mut entry) = found.entry else {
                continue;
            };
            let now = self.clock.now();
            if !rules::is_due(&entry, now, self.clock.is_ahead()) {
                continue;
            }
            rules::settle(&mut entry, now);
            match self.commit(&name, found.revision, entry).await {
                // Whoever was quicker did the same.
                Ok(()) | Err(ProjectError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn sweep_or_say(&self) {
        if let Err(error) = self.sweep().await {
            tracing::warn!(%error, "the time cannot be recorded in the projects");
        }
    }
}

impl Proxy {
    /// Records the time in the projects, now and for as long as the proxy is in use. Does nothing when clients
    /// do not come in with API keys.
    pub async fn keep_time(self: &Arc<Self>) {
        if self.gate.is_none() {
            return;
        }
        self.roster.sweep_or_say().await;
        let proxy = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval_at(Instant::now() + EVERY, EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(proxy) = proxy.upgrade() else { return };
                proxy.roster.sweep_or_say().await;
            }
        });
    }
}
