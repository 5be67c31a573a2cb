//! Whether the proxy can do its work: the config store, the upstream, the certificates, the key management service,
//! each with its reason.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;
use tokio::sync::Mutex;

use super::{certificates, kms::KmsCheck};
use crate::{
    drain::Drain,
    keys::kms::Kms,
    server::Reloads,
    store::{Store, Summary},
    telemetry::metrics::Metrics,
    upstream::{Probed, Upstream},
};

/// How long a look is good for: whoever asks more often gets the same answer, and the upstream no more
/// calls.
const FRESH: Duration = Duration::from_secs(2);
/// Longest wait for the config store, which others may be waiting for as well.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// Looks whether the proxy can do its work.
pub struct Readiness {
    store: Arc<dyn Store>,
    upstream: Upstream,
    kms: Option<Kms>,
    reloads: Arc<Reloads>,
    drain: Drain,
    metrics: Arc<Metrics>,
    /// The last look. Held while there is a new one, so that there is one at a time.
    last: Mutex<Option<(Instant, Arc<Look>)>>,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) store: Result<Summary, String>,
    pub(super) upstream: [Probed; 2],
}

/// What `/ready` answers.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) ready: bool,
    checks: Checks,
}

#[derive(Debug, Serialize)]
struct Checks {
    store: Check,
    upstream: Check,
    certificates: Check,
    #[serde(skip_serializing_if = "Option::is_none")]
    kms: Option<KmsCheck>,
    #[serde(skip_serializing_if = "Option::is_none")]
    draining: Option<Check>,
}

#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) ok: bool,
    reason: String,
}

impl Readiness {
    /// Looks at these parts of a proxy, and lets `metrics` know what it finds.
    pub fn new(
        store: Arc<dyn Store>,
        upstream: Upstream,
        kms: Option<Kms>,
        reloads: Arc<Reloads>,
        drain: Drain,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            store,
            upstream,
            kms,
            reloads,
            drain,
            metrics,
            last: Mutex::default(),
        }
    }

    /// A look that is at most two seconds old. It goes on when whoever asked for it leaves, so that
    /// impatient callers do not begin one after another.
    pub(super) async fn look(self: &Arc<Self>) -> Option<Arc<Look>> {
        let this = Arc::clone(self);
        let looked = tokio::spawn(async move {
            let mut last = this.last.lock().await;
            if let Some((at, look)) = &*last
                && at.elapsed() < FRESH
            {
                return Arc::clone(look);
            }
            let (store, upstream) = tokio::join!(this.ask_store(), this.upstream.probe());
            let look = Arc::new(Look { store, upstream });
            *last = Some((Instant::now(), Arc::clone(&look)));
            look
        });
        looked.await.ok()
    }

    /// Whether the proxy is ready, and why.
    pub(super) async fn report(self: &Arc<Self>) -> Report {
        let report = match self.look().await {
            Some(look) => self.report_of(&look),
            None => self.report_of_nothing(),
        };
        self.measure(&report);
        report
    }

    async fn ask_store(&self) -> Result<Summary, String> {
        match tokio::time::timeout(STORE_TIMEOUT, self.store.summary()).await {
            Ok(Ok(summary)) => Ok(summary),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {STORE_TIMEOUT:?}")),
        }
    }

    fn report_of(&self, look: &Look) -> Report {
        let store = match &look.store {
            Ok(_) => Ok("open".to_owned()),
            Err(why) => Err(why.clone()),
        };
        self.with(store, reach(&look.upstream))
    }

    fn report_of_nothing(&self) -> Report {
        let failed = || Err("the check itself failed; see the log".to_owned());
        self.with(failed(), failed())
    }

    fn with(&self, store: Result<String, String>, upstream: Result<String, String>) -> Report {
        let is_draining = self.drain.is_draining();
        let checks = Checks {
            store: Check::of(store),
            upstream: Check::of(upstream),
            certificates: Check::of(certificates::check(
                &self.reloads.certificates(),
                SystemTime::now(),
            )),
            kms: self.kms.as_ref().map(KmsCheck::of),
            draining: is_draining.then(|| Check::of(Err("the proxy is stopping".to_owned()))),
        };
        let is_well = checks.store.ok && checks.upstream.ok && checks.certificates.ok;
        Report {
            ready: is_well && !is_draining,
            checks,
        }
    }

    fn measure(&self, report: &Report) {
        let process = &self.metrics.process;
        process.ready.set(report.ready.into());
        process.draining.set(self.drain.is_draining().into());
        certificates::measure(&self.reloads.certificates(), &process.certificate_expiry);
        let checks = &report.checks;
        let kms = checks.kms.as_ref().map(|kms| ("kms", &kms.check));
        let always = [
            ("store", &checks.store),
            ("upstream", &checks.upstream),
            ("certificates", &checks.certificates),
        ];
        for (name, check) in always.into_iter().chain(kms) {
            let gauge = process.ready_check.with_label_values(&[name]);
            gauge.set(check.ok.into());
        }
    }
}

impl Check {
    pub(super) fn of(outcome: Result<String, String>) -> Self {
        let ok = outcome.is_ok();
        let (Ok(reason) | Err(reason)) = outcome;
        Self { ok, reason }
    }
}

fn reach(probed: &[Probed]) -> Result<String, String> {
    let reasons = probed
        .iter()
        .map(|one| format!("{} {}", one.key, one.outcome.reason()));
    let reason = reasons.collect::<Vec<_>>().join("; ");
    match probed.iter().all(|one| one.outcome.is_well()) {
        true => Ok(reason),
        false => Err(reason),
    }
}
