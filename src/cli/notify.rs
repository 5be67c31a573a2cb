//! What the service manager is told: ready, reloading, stopping, alive (systemd's `sd_notify` protocol).
//!
//! Without a service manager that asks for it (`NOTIFY_SOCKET`), nothing here does anything. A message
//! that cannot be delivered is logged and changes nothing else: it is no reason to stop serving.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::{
    task,
    time::{MissedTickBehavior, interval},
};

/// How much longer than the drain a stop may take: for last words to clients, for a slow disk of the audit log, a
/// collector of traces that is gone, and the admin listener (19 seconds together), and for the store to close.
const STOP_MARGIN: Duration = Duration::from_secs(20);

/// A reload in progress, from [`reloading`] on. Dropping it says that the process is ready again, whether
/// the reload succeeded or not: a service manager that is not told waits until it gives up.
#[must_use = "dropping it ends the reload"]
pub struct Reloading(());

/// Says that connections are accepted, and shows `status` in `systemctl status`. One line.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says that a reload begins.
pub fn reloading() -> Reloading {
    match NotifyState::monotonic_usec_now() {
        // Both in one message: systemd takes the time to tell this reload from an earlier one.
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => {
            tracing::warn!(%error, "no clock to tell the service manager of a reload with")
        }
    }
    Reloading(())
}

impl Drop for Reloading {
    fn drop(&mut self) {
        tell(&[NotifyState::Ready]);
    }
}

/// Says that the process stops, and that this may take `drain_timeout` and a little longer, whatever the
/// service manager's own timeout is.
pub fn stopping(drain_timeout: Duration) {
    let time = drain_timeout.saturating_add(STOP_MARGIN).as_micros();
    // The crate's own variant ends at 71 minutes.
    let extend = format!("EXTEND_TIMEOUT_USEC={time}");
    tell(&[NotifyState::Stopping, NotifyState::Custom(&extend)]);
}

/// Says that the process is alive, twice as often as the service manager asks for, or never if it does
/// not ask (`WATCHDOG_USEC`). Said from the runtime that serves requests: a runtime that is stuck falls
/// silent, and the service manager starts the process again. Must be called inside a Tokio runtime.
pub fn watchdog() {
    let asked = sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero());
    let Some(timeout) = asked else {
        return;
    };
    let mut pulse = interval(timeout / 2);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::spawn(async move {
        loop {
            pulse.tick().await;
            // Sending waits for a service manager that does not read: not on a thread that serves.
            let told = task::spawn_blocking(|| tell(&[NotifyState::Watchdog])).await;
            if let Err(error) = told {
                tracing::warn!(%error, "the watchdog was not told");
            }
        }
    });
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}
