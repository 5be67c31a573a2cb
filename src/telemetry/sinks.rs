//! Where it is written what became of requests: the log, the audit log, traces, the status page.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{audit::Audit, recent::Recent, report::Report, traces::Traces};

/// Longest wait at a stop for what belongs to requests that are over.
const LAST_REQUESTS: Duration = Duration::from_secs(1);
/// Longest wait at a stop for the disk of the audit log.
const LAST_LINES: Duration = Duration::from_secs(5);
/// Longest wait at a stop for the collector of traces.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// Where the reports on requests go. One for each proxy.
pub struct Sinks {
    /// The last requests that failed.
    pub recent: Arc<Recent>,
    /// The audit log, if there is one.
    pub audit: Option<Audit>,
    /// Traces, if they are on.
    pub traces: Option<Traces>,
    running: watch::Sender<()>,
}

impl Sinks {
    /// These, and the log.
    pub fn new(audit: Option<Audit>, traces: Option<Traces>) -> Self {
        Self {
            recent: Arc::default(),
            audit,
            traces,
            running: watch::Sender::new(()),
        }
    }

    /// A request begins. It is held open with what this returns: [`Sinks::close`] waits for its report.
    pub fn open(&self) -> watch::Receiver<()> {
        self.running.subscribe()
    }

    /// A session begins.
    pub fn begun(&self, report: &Report<'_>) {
        if let Some(audit) = &self.audit {
            audit.write(report);
        }
    }

    /// A request is over.
    pub fn over(&self, report: &Report<'_>) {
        report.log();
        self.recent.add(report);
        if let Some(audit) = &self.audit {
            audit.write(report);
        }
    }

    /// Waits until everything about the requests so far is written, for a few seconds at most.
    pub async fn close(&self) {
        let _late = tokio::time::timeout(LAST_REQUESTS, self.running.closed()).await;
        if let Some(audit) = &self.audit {
            audit.flush(LAST_LINES).await;
        }
        if let Some(traces) = &self.traces {
            traces.close(LAST_SPANS).await;
        }
    }
}
