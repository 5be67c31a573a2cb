//! The system's clock, as it is recorded, compared and shown.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use humantime_serde::re::humantime;

/// What says how late it is, in milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Milliseconds since the Unix epoch; 0 before it.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, in_ms)
}

/// A clock that starts with the system's and never goes back, nor stands still, whatever that one does.
pub fn steady() -> Clock {
    let (began, begun_at) = (Instant::now(), now_ms());
    Arc::new(move || now_ms().max(begun_at.saturating_add(in_ms(began.elapsed()))))
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
}
