//! What is counted and measured, by Prometheus' conventions. One set for each proxy.

use std::time::Duration;

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder, core::Collector, process_collector::ProcessCollector,
};

use super::label::{Encoding, Operation};

/// Upper bounds of requests, in seconds. Unary calls to a near store take about a millisecond, the longest
/// waits in the proxy are a minute.
const REQUEST_SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];

/// Upper bounds of sealing or opening one batch, in seconds: from one small record to 1 MiB.
const BATCH_SECONDS: [f64; 12] = [
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_025,
    0.000_05,
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.0025,
    0.01,
];

/// Upper bounds of calls to the config store, in seconds: from a cached look-up to a slow disk.
const STORE_SECONDS: [f64; 11] = [
    0.000_01, 0.000_1, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 5.0,
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
    /// The upstream.
    pub upstream: UpstreamMetrics,
    /// The process as a whole.
    pub process: ProcessMetrics,
}

/// Requests of clients.
pub struct Requests {
    total: IntCounterVec,
    active: IntGaugeVec,
    sessions: IntGaugeVec,
    duration: HistogramVec,
}

/// Records and keys.
pub struct Records {
    /// Records sealed, by cipher.
    pub sealed: IntCounterVec,
    /// Metered bytes sealed, in clear, by cipher.
    pub sealed_bytes: IntCounterVec,
    /// Records opened, by cipher.
    pub opened: IntCounterVec,
    /// Metered bytes opened, in clear, by cipher.
    pub opened_bytes: IntCounterVec,
    /// Time to seal a batch, by cipher.
    pub seal_duration: HistogramVec,
    /// Time to open a batch, by cipher.
    pub open_duration: HistogramVec,
    /// Records that did not open, by reason.
    pub decryption_failures: IntCounterVec,
    /// Requests without a usable key, by reason.
    pub key_errors: IntCounterVec,
    /// Batches that went up in parts.
    pub split_batches: IntCounter,
    /// Their parts.
    pub split_parts: IntCounter,
    /// Records compressed before they were sealed.
    pub compressed: IntCounter,
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
    pub handshake_failures: IntCounterVec,
    /// Bytes of requests held now.
    pub inflight: IntGauge,
    /// `limits.max_inflight_bytes`.
    pub inflight_limit: IntGauge,
    /// Requests that found no room in time.
    pub inflight_refused: IntCounter,
}

/// The config store.
pub struct StoreMetrics {
    /// Calls, by operation and outcome.
    pub operations: IntCounterVec,
    /// Their time, by operation.
    pub duration: HistogramVec,
    /// Size of the file.
    pub size: IntGauge,
    /// Entries, by kind.
    pub entries: IntGaugeVec,
}

/// The upstream.
pub struct UpstreamMetrics {
    /// Time to the head of an answer, by operation.
    pub duration: HistogramVec,
    /// Exchanges that failed, by kind.
    pub errors: IntCounterVec,
    /// Connections now, by protocol.
    pub connections: IntGaugeVec,
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
        let register = Register(Registry::new());
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
            upstream: UpstreamMetrics::new(&register)?,
            process: ProcessMetrics::new(&register)?,
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
        Ok(Self {
            total: register.counters(
                "requests_total",
                "Requests that ended, by operation, encoding, and code: ok, an error code of the proxy, or the \
                 status of an error of the upstream.",
                &["operation", "encoding", "code"],
            )?,
            active: register.gauges("requests_active", "Requests running.", &["operation"])?,
            sessions: register.gauges("sessions", "Sessions running.", &["operation"])?,
            duration: register.histograms(
                "request_duration_seconds",
                "Time from a request's head to the end of its answer; for sessions, to the answer's head.",
                &["operation"],
                &REQUEST_SECONDS,
            )?,
        })
    }

    /// A request that is known to be of this operation began.
    pub fn began(&self, operation: Operation) {
        let name = [operation.as_str()];
        self.active.with_label_values(&name).inc();
        if operation.is_session() {
            self.sessions.with_label_values(&name).inc();
        }
    }

    /// A request ended.
    pub fn ended(&self, operation: Operation, encoding: Encoding, code: &str, took: Duration) {
        let name = [operation.as_str()];
        self.active.with_label_values(&name).dec();
        if operation.is_session() {
            self.sessions.with_label_values(&name).dec();
        }
        let labels = [operation.as_str(), encoding.as_str(), code];
        self.total.with_label_values(&labels).inc();
        let duration = self.duration.with_label_values(&name);
        duration.observe(took.as_secs_f64());
    }
}

impl Records {
    fn new(register: &Register) -> Result<Self, prometheus::Error> {
        let by = &["cipher"];
        let counters = |name, help| register.counters(name, help, by);
        let times = |name, help| register.histograms(name, help, by, &BATCH_SECONDS);
        Ok(Self {
            sealed: counters("sealed_records_total", "Records encrypted.")?,
            sealed_bytes: counters(
                "sealed_bytes_total",
                "Metered bytes of records encrypted, in clear.",
            )?,
            opened: counters("opened_records_total", "Records decrypted.")?,
            opened_bytes: counters(
                "opened_bytes_total",
                "Metered bytes of records decrypted, in clear.",
            )?,
            seal_duration: times("seal_duration_seconds", "Time to encrypt a batch.")?,
            open_duration: times("open_duration_seconds", "Time to decrypt a batch.")?,
            decryption_failures: register.counters(
                "decryption_failures_total",
                "Stored records that could not be decrypted, by reason.",
                &["reason"],
            )?,
            key_errors: register.counters(
                "key_errors_total",
                "Requests refused for their key, by reason.",
                &["reason"],
            )?,
            split_batches: register.counter("split_batches_total", "Batches sent in parts.")?,
            split_parts: register.counter("split_parts_total", "Parts of such batches.")?,
            compressed: register.counter(
                "compressed_records_total",
                "Records compressed before they were encrypted.",
            )?,
        })
    }
}

impl Clients {
    fn new(register: &Register) -> Result<Self, prometheus::Error> {
        Ok(Self {
            connections: register.gauge("connections", "Client connections open.")?,
            connections_limit: register.gauge("connections_limit", "limits.max_connections.")?,
            accepted: register
                .counter("connections_accepted_total", "Client connections accepted.")?,
            handshake_failures: register.counters(
                "handshake_failures_total",
                "TLS handshakes with clients that failed, by reason.",
                &["reason"],
            )?,
            inflight: register.gauge("inflight_bytes", "Bytes held for running requests.")?,
            inflight_limit: register.gauge("inflight_limit_bytes", "limits.max_inflight_bytes.")?,
            inflight_refused: register.counter(
                "inflight_refused_total",
                "Requests refused because limits.max_inflight_bytes was reached.",
            )?,
        })
    }
}

impl StoreMetrics {
    fn new(register: &Register) -> Result<Self, prometheus::Error> {
        Ok(Self {
            operations: register.counters(
                "store_operations_total",
                "Calls to the config store, by operation and outcome.",
                &["operation", "outcome"],
            )?,
            duration: register.histograms(
                "store_operation_duration_seconds",
                "Time of calls to the config store.",
                &["operation"],
                &STORE_SECONDS,
            )?,
            size: register.gauge("store_size_bytes", "Size of the config store.")?,
            entries: register.gauges("store_entries", "Entries of the config store.", &["kind"])?,
        })
    }
}

impl UpstreamMetrics {
    fn new(register: &Register) -> Result<Self, prometheus::Error> {
        Ok(Self {
            duration: register.histograms(
                "upstream_duration_seconds",
                "Time from sending a request upstream to the head of its answer.",
                &["operation"],
                &REQUEST_SECONDS,
            )?,
            errors: register.counters(
                "upstream_errors_total",
                "Exchanges with the upstream that failed, by kind.",
                &["kind"],
            )?,
            connections: register.gauges(
                "upstream_connections",
                "Connections to the upstream.",
                &["protocol"],
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

/// Makes metrics and registers them, all with the project's prefix.
struct Register(Registry);

impl Register {
    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(name, help).namespace("streamseal")
    }

    fn add<C: Collector + Clone + 'static>(&self, made: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::with_opts(Self::opts(name, help))?)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        by: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Self::opts(name, help), by)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::with_opts(Self::opts(name, help))?)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        by: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(Self::opts(name, help), by)?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        by: &[&str],
        bounds: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(bounds.to_vec());
        self.add(HistogramVec::new(opts, by)?)
    }
}

/// Measures the time of a step into a histogram.
pub fn observe<T>(histogram: &Histogram, step: impl FnOnce() -> T) -> T {
    let timer = histogram.start_timer();
    let done = step();
    timer.observe_duration();
    done
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
