//! The system's clock, as it is recorded, compared and shown.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use humantime_serde::re::humantime;

/// What says how late it is, in milliseconds since the Unix epoch: what the system's clock says, but time runs
/// on from the latest that is known, whatever that clock does. It neither goes back behind that nor stands still
/// until the system's clock comes there. Clones are one and the same.
#[derive(Clone)]
pub struct Clock(Arc<Hands>);

struct Hands {
    system: Reading,
    /// How much time passed; never goes back.
    passed: Reading,
    /// How late it was, at least, when nothing had passed.
    began: AtomicU64,
}

type Reading = Box<dyn Fn() -> u64 + Send + Sync>;

/// So much ahead of the system's clock is no matter of rounding, in milliseconds.
const AHEAD_MS: u64 = 1000;

/// Milliseconds since the Unix epoch; 0 before it.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, in_ms)
}

impl Clock {
    /// A clock that starts with the system's.
    pub fn system() -> Self {
        let begun = Instant::now();
        let clock = Self::of(now_ms, move || in_ms(begun.elapsed()));
        clock.since(now_ms());
        clock
    }

    /// A clock by other readings, in milliseconds: of the system's clock, and of how much time passed.
    pub fn of(
        system: impl Fn() -> u64 + Send + Sync + 'static,
        passed: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Hands {
            system: Box::new(system),
            passed: Box::new(passed),
            began: AtomicU64::new(0),
        }))
    }

    /// How late it is.
    pub fn now(&self) -> u64 {
        (self.0.system)().max(self.running())
    }

    /// How late it is, given that it was as late as `seen` once. From here on it is never earlier, and time runs
    /// on from there.
    pub fn since(&self, seen: u64) -> u64 {
        let began = seen.saturating_sub((self.0.passed)());
        self.0.began.fetch_max(began, SeqCst);
        // It passed on since it was read.
        self.now().max(seen)
    }

    /// Whether the system's clock is behind.
    pub fn is_ahead(&self) -> bool {
        self.running() > (self.0.system)().saturating_add(AHEAD_MS)
    }

    fn running(&self) -> u64 {
        let began = self.0.began.load(SeqCst);
        began.saturating_add((self.0.passed)())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// A time span in milliseconds, or the longest there is.
pub fn in_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A time in milliseconds since the Unix epoch as RFC 3339 writes it, to the second.
pub fn rfc3339(ms: u64) -> String {
    // What is after the year 9999 has no such form, and the formatter would panic.
    const LAST_MS: u64 = 253_402_300_799_999;
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(ms));
    match at.filter(|_| ms <= LAST_MS) {
        Some(at) => humantime::format_rfc3339_seconds(at).to_string(),
        None => "out of range".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_without_a_form_do_no_harm() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(253_402_300_799_999), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(253_402_300_800_000), "out of range");
        assert_eq!(rfc3339(u64::MAX), "out of range");
        assert_eq!(in_ms(Duration::MAX), u64::MAX);
    }

    #[test]
    fn time_runs_on_from_the_latest_that_is_known() {
        let (system, passed) = (Arc::new(AtomicU64::new(1000)), Arc::new(AtomicU64::new(7)));
        let read = |hand: &Arc<AtomicU64>| {
            let hand = Arc::clone(hand);
            move || hand.load(SeqCst)
        };
        let clock = Clock::of(read(&system), read(&passed));
        assert_eq!((clock.now(), clock.is_ahead()), (1000, false));
        assert_eq!((clock.since(900), clock.now()), (1000, 1000));
        // Far ahead, then time passes, on both hands or while the system's is set back.
        assert_eq!((clock.since(90_000), clock.is_ahead()), (90_000, true));
        passed.fetch_add(10, SeqCst);
        system.fetch_add(10, SeqCst);
        assert_eq!((clock.now(), clock.since(90_000)), (90_010, 90_010));
        system.store(0, SeqCst);
        passed.fetch_add(10, SeqCst);
        assert_eq!(clock.now(), 90_020);
        // The system's clock is ahead again: what was added to it before does not count twice.
        system.store(100_000, SeqCst);
        assert_eq!((clock.now(), clock.is_ahead()), (100_000, false));
        assert_eq!(clock.since(u64::MAX), u64::MAX);
    }
}
