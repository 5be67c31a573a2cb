//! What is counted and measured, by Prometheus' conventions. One set for each proxy.

mod each;
mod kms;
mod records;
mod register;
mod store;
mod streams;
mod upstream;

use std::time::Duration;

use prometheus::{
    Encoder as _, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder, process_collector::ProcessCollector,
};

use self::register::Register;
pub use self::{
    each::{Each, Held},
    kms::{KmsCall, KmsMetrics},
    records::{CipherMetrics, Records},
    store::{StoreCall, StoreMetrics},
    streams::{Amount, StreamCounters, StreamMetrics},
    upstream::UpstreamMetrics,
};
use super::label::{Encoding, HandshakeFailure, Label as _, Operation};

/// Upper bounds of requests, in seconds. Unary calls to a near store take about a millisecond, the longest
/// waits in the proxy are a minute.
const REQUEST_SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];

/// Everything that is counted and measured.
pub struct Metrics {
    registry: Registry,
    /// Requests of clients.
    pub requests: Requests,
    /// Records and keys.
    pub records: Records,
    /// Client connections, and what they make the proxy hold.
    pub clients: Clients,
    /// The config store.
    pub store: StoreMetrics,
    /// The key management service.
    pub kms: KmsMetrics,
    /// The upstream.
    pub upstream: UpstreamMetrics,
    /// The process as a whole.
    pub process: ProcessMetrics,
    /// Each stream; `None` unless that is turned on.
    pub streams: Option<StreamMetrics>,
}

/// Requests of clients.
pub struct Requests {
    total: IntCounterVec,
    by: Each<Operation, OperationMetrics>,
}

/// Requests of one operation.
struct OperationMetrics {
    active: IntGauge,
    /// `None` for what is no session.
    sessions: Option<IntGauge>,
    duration: Histogram,
}

/// Client connections, and what they make the proxy hold.
pub struct Clients {
    /// Connections now.
    pub connections: IntGauge,
    /// `limits.max_connections`.
    pub connections_limit: IntGauge,
    /// Connections ever accepted.
    pub accepted: IntCounter,
    /// TLS handshakes that came to nothing, by reason.
    pub handshake_failures: Each<HandshakeFailure, IntCounter>,
    /// Bytes of requests held now.
    pub inflight: IntGauge,
    /// `limits.max_inflight_bytes`.
    pub inflight_limit: IntGauge,
    /// Requests that found no room in time.
    pub inflight_refused: IntCounter,
}

/// The process as a whole.
pub struct ProcessMetrics {
    /// When a certificate ends, in seconds since the Unix epoch.
    pub certificate_expiry: IntGaugeVec,
    /// Reloads, by outcome.
    pub reloads: IntCounterVec,
    /// Whether the last reload took effect.
    pub last_reload_successful: IntGauge,
    /// Whether the proxy is ready.
    pub ready: IntGauge,
    /// Each part of that.
    pub ready_check: IntGaugeVec,
    /// Whether it is stopping.
    pub draining: IntGauge,
    /// Lines written to the audit log.
    pub audit_lines: IntCounter,
    /// Lines that could not be written to it.
    pub audit_failures: IntCounter,
}

impl Metrics {
    /// A set of its own, all at zero.
    ///
    /// # Errors
    /// When two metrics have one name, or one has a bad name: never, once the tests have run.
    pub fn new() -> Result<Self, prometheus::Error> {
        Self::made(None)
    }

    /// The same, and each stream's records and bytes, in at most this many series. What streams beyond
    /// that do is counted as basin `other`, stream `other`.
    ///
    /// # Errors
    /// As [`Metrics::new`].
    pub fn with_streams(max_series: usize) -> Result<Self, prometheus::Error> {
        Self::made(Some(max_series))
    }

    fn made(max_stream_series: Option<usize>) -> Result<Self, prometheus::Error> {
        let register = Register(Registry::new());
        let streams = max_stream_series.map(|max| StreamMetrics::new(&register, max));
        let build = register.gauges(
            "build_info",
            "The release that runs; always 1.",
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Self {
            requests: Requests::new(&register)?,
            records: Records::new(&register)?,
            clients: Clients::new(&register)?,
            store: StoreMetrics::new(&register)?,
            kms: KmsMetrics::new(&register)?,
            upstream: UpstreamMetrics::new(&register)?,
            process: ProcessMetrics::new(&register)?,
            streams: streams.transpose()?,
            registry: register.0,
        };
        let process = ProcessCollector::for_self();
        metrics.registry.register(Box::new(process))?;
        Ok(metrics)
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%error, "metrics not rendered");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Requests {
    fn new(register: &Register) -> Result<Self, prometheus::Error> {
        let by = &["operation"];
        let active = register.gauges("requests_active", "Requests running.", by)?;
        let sessions = register.gauges("sessions", "Sessions running.", by)?;
        let duration = register.histograms(
            "request_duration_seconds",
            "Time from a request's head to the end of its answer; for sessions, to the answer's head.",
            by,
            &REQUEST_SECONDS,
        )?;
        let by = Each::new(|operation: Operation| {
            let name = [operation.word()];
            OperationMetrics {
                active: active.with_label_values(&name),
                sessions: operation
                    .is_session()
                    .then(|| sessions.with_label_values(&name)),
                duration: duration.with_label_values(&name),
            }
        });
        Ok(Self {
            total: register.counters(
                "requests_total",
                "Requests that ended, by operation, encoding, and code: ok, an error code of the proxy, or the \
                 status of an error of the upstream.",
                &["operation", "encoding", "code"],
            )?,
            by,
        })
    }

    /// A request that is known to be of this operation began.
    pub fn began(&self, operation: Operation) {
        let of = self.by.of(operation);
        of.active.inc();
        if let Some(sessions) = &of.sessions {
            sessions.inc();
        }
    }

    /// A request ended.
    pub fn ended(&self, operation: Operation, encoding: Encoding, code: &str, took: Duration) {
        let of = self.by.of(operation);
        of.active.dec();
        if let Some(sessions) = &of.sessions {
            sessions.dec();
        }
        of.duration.observe(took.as_secs_f64());
        let labels = [operation.as_str(), encoding.as_str(), code];
        self.total.with_label_values(&labels).inc();
    }
}

impl Clients {
    fn new(register: &Register) -> Result<Self, prometheus::Error> {
        let handshake_failures = register.counters(
            "handshake_failures_total",
            "TLS handshakes with clients that failed, by reason.",
            &["reason"],
        )?;
        Ok(Self {
            connections: register.gauge("connections", "Client connections open.")?,
            connections_limit: register.gauge("connections_limit", "limits.max_connections.")?,
            accepted: register
                .counter("connections_accepted_total", "Client connections accepted.")?,
            handshake_failures: Each::of_counters(&handshake_failures),
            inflight: register.gauge("inflight_bytes", "Bytes held for running requests.")?,
            inflight_limit: register.gauge("inflight_limit_bytes", "limits.max_inflight_bytes.")?,
            inflight_refused: register.counter(
                "inflight_refused_total",
                "Requests that found no room within limits.max_inflight_bytes in time.",
            )?,
        })
    }
}

impl ProcessMetrics {
    fn new(register: &Register) -> Result<Self, prometheus::Error> {
        Ok(Self {
            certificate_expiry: register.gauges(
                "certificate_expiry_timestamp_seconds",
                "When a certificate ends, in seconds since the Unix epoch.",
                &["certificate"],
            )?,
            reloads: register.counters(
                "reloads_total",
                "Reloads of the configuration and its files, by outcome.",
                &["outcome"],
            )?,
            last_reload_successful: register.gauge(
                "last_reload_successful",
                "Whether the last reload took effect.",
            )?,
            ready: register.gauge("ready", "Whether the proxy is ready, as /ready says.")?,
            ready_check: register.gauges("ready_check", "Each check of /ready.", &["check"])?,
            draining: register.gauge("draining", "Whether the proxy is stopping.")?,
            audit_lines: register
                .counter("audit_lines_total", "Lines written to the audit log.")?,
            audit_failures: register.counter(
                "audit_failures_total",
                "Lines that could not be written to the audit log.",
            )?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_and_rendered_as_text() {
        let metrics = Metrics::new().unwrap();
        metrics.requests.began(Operation::AppendSession);
        let running = metrics.render();
        assert!(
            running.contains("streamseal_sessions{operation=\"append_session\"} 1"),
            "{running}"
        );
        let took = Duration::from_millis(2);
        metrics
            .requests
            .ended(Operation::AppendSession, Encoding::S2s, "ok", took);
        let text = metrics.render();
        for line in [
            "# TYPE streamseal_requests_total counter",
            "streamseal_requests_total{code=\"ok\",encoding=\"s2s\",operation=\"append_session\"} 1",
            "streamseal_sessions{operation=\"append_session\"} 0",
            "streamseal_request_duration_seconds_count{operation=\"append_session\"} 1",
            "streamseal_build_info{version=\"",
            "process_open_fds",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }
}
