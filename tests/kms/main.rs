//! Data keys are wrapped by real key management services and open for their stream and epoch alone: OpenBao,
//! whose transit engine is Vault's, over TLS, and moto's server, which answers as AWS KMS does.
//!
//! Needs what `tests/kms/install` installs, and credentials that moto takes whatever they are:
//! `AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test cargo test --test kms`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "that is how a test fails"
)]
#![allow(missing_docs, reason = "tests are read, not linked to")]

mod aws;
mod gateway;
#[allow(dead_code, unused_imports, reason = "this needs a part of it")]
#[path = "../proxy/harness/mod.rs"]
mod harness;
mod openbao;
mod service;
mod vault;

use std::sync::Arc;

use streamseal::{
    crypto::Key,
    keys::kms::{Config, Error, Kms, WrappedDek},
    stream::StreamPath,
    telemetry::{
        label::{KmsOperation, KmsOutcome},
        metrics::Metrics,
    },
};

/// What uses a service, and what it counts.
struct Proxy {
    kms: Kms,
    metrics: Arc<Metrics>,
}

impl Proxy {
    async fn start(config: &Config) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let kms = Kms::start(config, Arc::clone(&metrics)).await.unwrap();
        Self {
            kms: kms.unwrap(),
            metrics,
        }
    }

    /// A key that the service wrapped for epoch 1 of this stream.
    async fn wrapped(&self, stream: &StreamPath) -> (Key, WrappedDek) {
        let dek = Key::generate().unwrap();
        let wrapped = self.kms.wrap(&dek, stream, 1).await.unwrap();
        (dek, wrapped)
    }

    async fn unwrap(&self, stream: &StreamPath, wrapped: &WrappedDek) -> Result<Key, Error> {
        let WrappedDek { key, blob } = wrapped;
        self.kms.unwrap(key, blob, stream, 1).await
    }

    fn unwraps(&self) -> u64 {
        let outcomes = &self.metrics.kms.calls.of(KmsOperation::Unwrap).outcomes;
        outcomes.of(KmsOutcome::Ok).get()
    }
}

fn stream(name: &str) -> StreamPath {
    format!("some-basin/{name}").parse().unwrap()
}

/// A wrapped key opens for its own stream and epoch, with one call, and nowhere else, and nothing else opens.
async fn is_bound(config: &Config) {
    let proxy = Proxy::start(config).await;
    let (own, other) = (stream("a/名前 😀?#%20"), stream("a"));
    let (dek, wrapped) = proxy.wrapped(&own).await;
    assert!(!contains(&wrapped.blob, dek.to_base64().as_bytes()));
    for _ in 0..100 {
        assert_eq!(proxy.unwrap(&own, &wrapped).await.unwrap(), dek);
    }
    assert_eq!(proxy.unwraps(), 1);
    let WrappedDek { key, blob } = &wrapped;
    for (stream, epoch) in [(&other, 1), (&own, 2), (&own, 0)] {
        let moved = proxy.kms.unwrap(key, blob, stream, epoch).await;
        is_invalid(moved);
    }
    let mut flipped = wrapped.clone();
    let last = flipped.blob.len() - 8;
    flipped.blob[last] ^= 1;
    is_invalid(proxy.unwrap(&own, &flipped).await);
    // Another process has nothing cached.
    let restarted = Proxy::start(config).await;
    assert_eq!(restarted.unwrap(&own, &wrapped).await.unwrap(), dek);
}

fn is_invalid(unwrapped: Result<Key, Error>) {
    let refused = unwrapped.unwrap_err();
    assert!(
        matches!(refused, Error::InvalidCiphertext(_)),
        "{refused:?}"
    );
}

fn is_denied<T: std::fmt::Debug>(answer: Result<T, Error>) {
    let refused = answer.unwrap_err();
    assert!(matches!(refused, Error::Denied(_)), "{refused:?}");
}

fn is_unauthorized<T: std::fmt::Debug>(answer: Result<T, Error>) {
    let refused = answer.unwrap_err();
    assert!(matches!(refused, Error::Unauthorized(_)), "{refused:?}");
}

fn is_unreachable<T: std::fmt::Debug>(answer: Result<T, Error>) {
    let refused = answer.unwrap_err();
    assert!(matches!(refused, Error::Unreachable(_)), "{refused:?}");
}

fn is_misconfigured<T: std::fmt::Debug>(answer: Result<T, Error>) {
    let refused = answer.unwrap_err();
    assert!(matches!(refused, Error::Misconfigured(_)), "{refused:?}");
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
