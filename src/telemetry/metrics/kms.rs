//! The key management service: calls, their time, and the keys that are held.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::{Each, register::Register};
use crate::telemetry::label::{KmsOperation, KmsOutcome, Label as _};

/// Upper bounds of calls to the key management service, in seconds: from one on the same host to the time
/// after which the proxy gives up.
const KMS_SECONDS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0,
];

/// The key management service.
pub struct KmsMetrics {
    /// Calls that came to an end.
    pub calls: Each<KmsOperation, KmsCall>,
    /// Attempts that followed a failed one of the same call.
    pub retries: IntCounter,
    /// Data keys held unwrapped.
    pub cached_keys: IntGauge,
}

/// Calls of one operation.
pub struct KmsCall {
    /// How many, by how they ended.
    pub outcomes: Each<KmsOutcome, IntCounter>,
    /// Their time.
    pub duration: Histogram,
}

impl KmsMetrics {
    pub(super) fn new(register: &Register) -> Result<Self, prometheus::Error> {
        let requests = register.counters(
            "kms_requests_total",
            "Calls to the key management service, by operation and outcome.",
            &["operation", "outcome"],
        )?;
        let duration = register.histograms(
            "kms_request_duration_seconds",
            "Time of calls to the key management service.",
            &["operation"],
            &KMS_SECONDS,
        )?;
        let calls = Each::new(|operation: KmsOperation| {
            let name = operation.word();
            KmsCall {
                outcomes: Each::new(|outcome: KmsOutcome| {
                    requests.with_label_values(&[name, outcome.word()])
                }),
                duration: duration.with_label_values(&[name]),
            }
        });
        Ok(Self {
            calls,
            retries: register.counter(
                "kms_retries_total",
                "Repeated attempts of calls to the key management service.",
            )?,
            cached_keys: register.gauge("kms_cached_keys", "Data keys held unwrapped.")?,
        })
    }
}
