//! The config store: calls, their time, and how much it holds.

use prometheus::{Histogram, IntCounter, IntGauge, IntGaugeVec};

use super::{Each, register::Register};
use crate::telemetry::label::{Label as _, StoreOperation, StoreOutcome};

/// Upper bounds of calls to the config store, in seconds: from a cached look-up to a slow disk.
const STORE_SECONDS: [f64; 11] = [
    0.000_01, 0.000_1, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 5.0,
];

/// The config store.
pub struct StoreMetrics {
    /// Calls that came to an end.
    pub calls: Each<StoreOperation, StoreCall>,
    /// Size of the file.
    pub size: IntGauge,
    /// Entries, by kind.
    pub entries: IntGaugeVec,
}

/// Calls of one operation.
pub struct StoreCall {
    /// How many, by how they ended.
    pub outcomes: Each<StoreOutcome, IntCounter>,
    /// Their time.
    pub duration: Histogram,
}

impl StoreMetrics {
    pub(super) fn new(register: &Register) -> Result<Self, prometheus::Error> {
        let operations = register.counters(
            "store_operations_total",
            "Calls to the config store, by operation and outcome.",
            &["operation", "outcome"],
        )?;
        let duration = register.histograms(
            "store_operation_duration_seconds",
            "Time of calls to the config store.",
            &["operation"],
            &STORE_SECONDS,
        )?;
        let calls = Each::new(|operation: StoreOperation| {
            let name = operation.word();
            StoreCall {
                outcomes: Each::new(|outcome: StoreOutcome| {
                    operations.with_label_values(&[name, outcome.word()])
                }),
                duration: duration.with_label_values(&[name]),
            }
        });
        Ok(Self {
            calls,
            size: register.gauge("store_size_bytes", "Size of the config store.")?,
            entries: register.gauges("store_entries", "Entries of the config store.", &["kind"])?,
        })
    }
}
