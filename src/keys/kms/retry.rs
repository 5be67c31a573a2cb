//! Failed attempts of a call to a key management service: which are repeated, when, and over which connection.

use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

use super::{Error, error::Reason};

/// Pause before the second attempt. Each pause is twice the one before, and up to twice as long by jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause without its jitter.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A failed attempt of a call.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    retry: Retry,
}

#[derive(Debug, Clone, Copy)]
enum Retry {
    /// Another attempt would fail as well.
    Never,
    /// The service refused for now, and named the shortest pause or none.
    Later(Option<Duration>),
    /// The connection was lost or is silent.
    Reconnect,
}

/// The connection that an attempt uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    /// A kept one, where there is one.
    Kept,
    /// A new one: kept ones may be as dead as the one before.
    New,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let retry = Retry::Never;
        Self { error, retry }
    }
}

impl Failed {
    /// The service cannot answer now. A `Retry-After` header may say how long.
    pub(super) fn later(reason: Reason, retry_after: Option<&str>) -> Self {
        Self {
            error: Error::Unreachable(reason),
            retry: Retry::Later(retry_after.and_then(delay)),
        }
    }

    /// No answer came, for there is no connection or a silent one.
    pub(super) fn lost(reason: Reason) -> Self {
        Self {
            error: Error::Unreachable(reason),
            retry: Retry::Reconnect,
        }
    }

    /// Turns the refusal of a key into an error of the configuration: new data keys are wrapped under the
    /// configured key, whatever the stream.
    pub(super) fn of_wrapping(self) -> Self {
        match self.error {
            Error::Denied(reason) => Error::Misconfigured(reason).into(),
            error => Self { error, ..self },
        }
    }

    /// Pause before the next attempt, at least `pause`; `None` when there is none.
    pub(super) fn pause(&self, pause: Duration) -> Option<Duration> {
        match self.retry {
            Retry::Never => None,
            Retry::Later(Some(after)) => after.checked_add(pause),
            Retry::Later(None) | Retry::Reconnect => Some(pause),
        }
    }

    /// Connection for the next attempt.
    pub(super) fn next_connection(&self) -> Connection {
        match self.retry {
            Retry::Reconnect => Connection::New,
            Retry::Never | Retry::Later(_) => Connection::Kept,
        }
    }
}

/// Returns the pauses between the attempts of one call.
pub(super) fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .with_jitter()
        .build()
}

/// Reads the value of `Retry-After`: seconds or a date (RFC 9110, 10.2.3).
fn delay(value: &str) -> Option<Duration> {
    match value.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(value.trim()).ok()?;
            Some(date.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}
