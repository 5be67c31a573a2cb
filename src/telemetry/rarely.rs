//! Complaints that would fill the log if each were written.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Time between two complaints.
const INTERVAL: Duration = Duration::from_secs(10);

/// Lets a complaint through once in a while.
#[derive(Debug, Default)]
pub(super) struct Rarely(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    last: Option<Instant>,
    count: u64,
}

impl Rarely {
    /// It happened once more. Returns how often it happened since it was last told, when it is time to
    /// tell.
    pub(super) fn again(&self) -> Option<u64> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.count += 1;
        if held.last.is_some_and(|last| last.elapsed() < INTERVAL) {
            return None;
        }
        held.last = Some(Instant::now());
        Some(std::mem::take(&mut held.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_the_rest_are_counted() {
        let rarely = Rarely::default();
        assert_eq!(rarely.again(), Some(1));
        assert_eq!(rarely.again(), None);
        assert_eq!(rarely.again(), None);
        rarely.0.lock().unwrap().last = None;
        assert_eq!(rarely.again(), Some(3));
    }
}
