//! Records and keys: what is sealed and opened, and what is not.

use prometheus::{Histogram, IntCounter};

use super::{Each, register::Register};
use crate::telemetry::label::{
    ApiKeyRefusal, CipherName, KeyFailure, KeyRotation, Label as _, OpenFailure,
};

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

/// Records and keys.
pub struct Records {
    /// What each cipher does.
    pub ciphers: Each<CipherName, CipherMetrics>,
    /// Records that did not open: one for each request that met some.
    pub decryption_failures: Each<OpenFailure, IntCounter>,
    /// Requests without a usable key.
    pub key_errors: Each<KeyFailure, IntCounter>,
    /// New data keys of streams, by what made them due.
    pub key_rotations: Each<KeyRotation, IntCounter>,
    /// Requests and sessions whose API key was refused, or did not allow them.
    pub api_key_refusals: Each<ApiKeyRefusal, IntCounter>,
    /// Requests with a key for a stream that is not encrypted, refused or not.
    pub key_on_plain: IntCounter,
    /// Appends forwarded in clear.
    pub plain_appends: IntCounter,
    /// Batches that went up in parts.
    pub split_batches: IntCounter,
    /// Their parts.
    pub split_parts: IntCounter,
    /// Records compressed before they were sealed.
    pub compressed: IntCounter,
}

/// What one cipher does. Commands are never sealed, and not counted.
pub struct CipherMetrics {
    /// Records sealed.
    pub sealed: IntCounter,
    /// Their metered bytes, in clear.
    pub sealed_bytes: IntCounter,
    /// Records opened.
    pub opened: IntCounter,
    /// Their metered bytes, in clear.
    pub opened_bytes: IntCounter,
    /// Time to seal a batch.
    pub seal_duration: Histogram,
    /// Time to open a batch.
    pub open_duration: Histogram,
}

impl Records {
    pub(super) fn new(register: &Register) -> Result<Self, prometheus::Error> {
        let failures = register.counters(
            "decryption_failures_total",
            "Requests that met a record that did not decrypt, by reason.",
            &["reason"],
        )?;
        let key_errors = register.counters(
            "key_errors_total",
            "Requests without a usable key, by reason.",
            &["reason"],
        )?;
        let key_rotations = register.counters(
            "key_rotations_total",
            "New data keys of streams with managed keys, by reason.",
            &["reason"],
        )?;
        let refusals = register.counters(
            "api_key_refusals_total",
            "Requests and sessions whose API key was refused, or whose API key or client certificate did not allow \
             them, by reason.",
            &["reason"],
        )?;
        Ok(Self {
            ciphers: ciphers(register)?,
            key_rotations: Each::of_counters(&key_rotations),
            decryption_failures: Each::of_counters(&failures),
            key_errors: Each::of_counters(&key_errors),
            api_key_refusals: Each::of_counters(&refusals),
            key_on_plain: register.counter(
                "key_on_plain_total",
                "Requests with an encryption key for a stream that is not encrypted.",
            )?,
            plain_appends: register.counter(
                "plain_appends_total",
                "Appends and append sessions forwarded in clear.",
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

fn ciphers(register: &Register) -> Result<Each<CipherName, CipherMetrics>, prometheus::Error> {
    let by = &["cipher"];
    let counters = |name, help| register.counters(name, help, by);
    let times = |name, help| register.histograms(name, help, by, &BATCH_SECONDS);
    let sealed = counters("sealed_records_total", "Records encrypted.")?;
    let sealed_bytes = counters(
        "sealed_bytes_total",
        "Metered bytes of records encrypted, in clear.",
    )?;
    let opened = counters("opened_records_total", "Records decrypted.")?;
    let opened_bytes = counters(
        "opened_bytes_total",
        "Metered bytes of records decrypted, in clear.",
    )?;
    let seal_duration = times("seal_duration_seconds", "Time to encrypt a batch.")?;
    let open_duration = times("open_duration_seconds", "Time to decrypt a batch.")?;
    Ok(Each::new(|cipher: CipherName| {
        let name = [cipher.word()];
        CipherMetrics {
            sealed: sealed.with_label_values(&name),
            sealed_bytes: sealed_bytes.with_label_values(&name),
            opened: opened.with_label_values(&name),
            opened_bytes: opened_bytes.with_label_values(&name),
            seal_duration: seal_duration.with_label_values(&name),
            open_duration: open_duration.with_label_values(&name),
        }
    }))
}
