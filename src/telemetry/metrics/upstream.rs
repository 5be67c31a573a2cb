//! The upstream: how long it takes, how it fails, and the connections to it.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::{Each, REQUEST_SECONDS, register::Register};
use crate::telemetry::label::{Label as _, Operation, Protocol, UpstreamFailure};

/// The upstream.
pub struct UpstreamMetrics {
    /// Time to the head of an answer.
    pub duration: Each<Operation, Histogram>,
    /// Exchanges that failed.
    pub errors: Each<UpstreamFailure, IntCounter>,
    /// Connections now.
    pub connections: Each<Protocol, IntGauge>,
}

impl UpstreamMetrics {
    pub(super) fn new(register: &Register) -> Result<Self, prometheus::Error> {
        let duration = register.histograms(
            "upstream_duration_seconds",
            "Time from sending a request upstream to the head of its answer, by the operation it is for.",
            &["operation"],
            &REQUEST_SECONDS,
        )?;
        let errors = register.counters(
            "upstream_errors_total",
            "Exchanges with the upstream that failed, by kind.",
            &["kind"],
        )?;
        let connections = register.gauges(
            "upstream_connections",
            "Connections to the upstream.",
            &["protocol"],
        )?;
        Ok(Self {
            duration: Each::new(|of: Operation| duration.with_label_values(&[of.word()])),
            errors: Each::of_counters(&errors),
            connections: Each::new(|of: Protocol| connections.with_label_values(&[of.word()])),
        })
    }
}
