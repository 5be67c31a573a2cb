//! The last requests that failed, for the status page.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use humantime_serde::re::humantime::format_rfc3339_millis;
use serde::Serialize;

use super::{label::Fault, report::Report};

/// How many are kept.
const CAPACITY: usize = 100;
/// Longest text kept of each, in bytes: names and causes may be long, and clients choose them.
const MAX_TEXT: usize = 500;

/// The last 100 requests that failed, in at most a few hundred kilobytes.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<Failed>>);

/// One request that failed. Each text is cut to 500 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// When, as RFC 3339 in UTC.
    pub time: String,
    /// Its id.
    pub request_id: String,
    /// What it was for.
    pub operation: &'static str,
    /// The basin it names.
    pub basin: Option<String>,
    /// The stream it names.
    pub stream: Option<String>,
    /// The client's address and port.
    pub client: String,
    /// Status of the answer, if there was one.
    pub status: Option<u16>,
    /// Error code of the proxy, or status of the upstream's error.
    pub code: String,
    /// `client`, `upstream` or `proxy`.
    pub fault: &'static str,
    /// Why.
    pub cause: String,
}

impl Recent {
    /// Keeps it if it failed, in place of the oldest.
    pub fn add(&self, report: &Report<'_>) {
        let Some(fault) = report.fault else {
            return;
        };
        // What the upstream refuses a client is everyday business; its code is a status.
        if fault == Fault::Client && report.code.parse::<u16>().is_ok() {
            return;
        }
        let failed = Failed {
            time: format_rfc3339_millis(SystemTime::now()).to_string(),
            request_id: bounded(report.id.as_str()),
            operation: report.operation.as_str(),
            basin: report.basin.map(bounded),
            stream: report.stream.map(bounded),
            client: report.client.address.to_string(),
            status: report.status,
            code: bounded(report.code),
            fault: fault.as_str(),
            cause: bounded(report.cause.unwrap_or_default()),
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == CAPACITY {
            kept.pop_back();
        }
        kept.push_front(failed);
    }

    /// What is kept, the latest first.
    pub fn snapshot(&self) -> Vec<Failed> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().cloned().collect()
    }
}

fn bounded(text: &str) -> String {
    super::bounded(text, MAX_TEXT).to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{
            label::{Encoding, Fault, Operation},
            report::Client,
            request_id::RequestId,
        },
        *,
    };

    fn add(recent: &Recent, fault: Option<Fault>, cause: &str) {
        recent.add(&Report {
            id: &RequestId::fresh(),
            upstream_id: None,
            what: "GET /",
            client: Client {
                address: "127.0.0.1:1".parse().unwrap(),
                certificate: None,
                token: None,
                project: None,
                api_key: None,
            },
            operation: Operation::Read,
            encoding: Encoding::Json,
            basin: Some("basin"),
            stream: None,
            status: Some(400),
            code: "invalid",
            fault,
            cause: Some(cause),
            key: None,
            records: None,
            answered_after: None,
            took: Duration::ZERO,
        });
    }

    #[test]
    fn the_last_hundred_failures_are_kept_and_cut_to_size() {
        let recent = Recent::default();
        add(&recent, None, "no failure");
        assert_eq!(recent.snapshot(), []);
        for n in 0..=CAPACITY {
            add(&recent, Some(Fault::Proxy), &format!("failure {n}"));
        }
        let kept = recent.snapshot();
        assert_eq!(kept.len(), CAPACITY);
        assert_eq!(kept[0].cause, "failure 100");
        assert_eq!(kept[CAPACITY - 1].cause, "failure 1");
        assert!(kept[0].time.ends_with('Z'), "{}", kept[0].time);

        add(&recent, Some(Fault::Client), &"\u{1f511}".repeat(1000));
        assert_eq!(recent.snapshot()[0].cause.len(), MAX_TEXT);
    }
}
