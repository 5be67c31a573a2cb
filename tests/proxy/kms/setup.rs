//! A gateway whose streams have keys of a key management service, and what its clients ask.

use std::sync::Arc;

use s2_api::v1::stream::proto::AppendInput;
use serde_json::json;
use streamseal::{
    config::Config,
    proxy::Authority,
    registry::rules::{KeySource, RuleCipher, StreamRule},
    store::{Change, DataKeys, StreamEntry},
    stream::StreamPath,
    telemetry::label::{KmsOperation, KmsOutcome},
};

use crate::harness::{
    Answer, Ask, BASIN, Encoding, Lite, Packed, Stack, Vault, ack, append, delivered, input, read,
    record, records,
};

/// What no upstream may see.
pub const SECRET: &str = "a secret of clients that have no key";

/// A rule that has the service hold the keys of these streams.
pub fn rule(glob: &str, cipher: RuleCipher) -> StreamRule {
    StreamRule {
        r#match: glob.to_owned(),
        cipher,
        key: KeySource::Kms,
        key_file: Default::default(),
        header_overrides: false,
    }
}

/// A deployment, and the service.
pub struct Gateway {
    pub stack: Stack,
    pub vault: Vault,
}

impl Gateway {
    pub async fn start() -> Self {
        Self::with(RuleCipher::Aegis256, |_| {}).await
    }

    pub async fn with(cipher: RuleCipher, change: impl FnOnce(&mut Config)) -> Self {
        let lite = Arc::new(Lite::start().await);
        let vault = Vault::start().await;
        let stack = Stack::over(lite, |config| {
            vault.aim(config);
            config.streams = vec![rule("*/**", cipher)];
            change(config);
        })
        .await;
        let config = json!({ "create_stream_on_append": true, "create_stream_on_read": true });
        let body = json!({ "basin": BASIN, "config": config });
        // Behind the proxy, which may ask for more than a test has to say here.
        let made = stack.direct().await;
        let made = made.ask(Ask::post("/v1/basins").json(&body)).await;
        assert_eq!(made.status, 201, "{}", made.text());
        Self { stack, vault }
    }

    pub async fn ask(&self, ask: Ask) -> Answer {
        self.stack.h2().await.ask(ask).await
    }

    /// Appends one batch, which must be acked.
    pub async fn append(&self, stream: &str, encoding: Encoding, batch: &AppendInput) {
        let answer = self.ask(appends(stream, encoding, batch)).await;
        ack(encoding, &answer);
    }

    /// Appends one record with this body.
    pub async fn put(&self, stream: &str, body: &str) {
        self.append(stream, Encoding::Proto, &one(body)).await;
    }

    /// The bodies that a read from the start delivers.
    pub async fn bodies(&self, stream: &str) -> Vec<String> {
        let answer = self.ask(reads(stream, "seq_num=0", Encoding::Proto)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let records = delivered(Encoding::Proto, &answer).records();
        let text = |body: bytes::Bytes| String::from_utf8(body.to_vec()).unwrap();
        records
            .into_iter()
            .map(|record| text(record.body))
            .collect()
    }

    /// Has the operator rotate a stream's key; the new epoch, or what is told of a failure.
    pub async fn rotate(&self, stream: &str) -> Result<u32, String> {
        let proxy = self.stack.proxy();
        let rotated = proxy.rotate_key(&path(stream), Authority::Operator).await;
        rotated.map(|to| to.to).map_err(|error| error.told())
    }

    /// What is recorded of a stream.
    pub async fn entry(&self, stream: &str) -> Option<StreamEntry> {
        let found = self.stack.config_store().stream(&path(stream)).await;
        found.unwrap().entry.map(|entry| entry.as_ref().clone())
    }

    /// Its data keys.
    pub async fn data_keys(&self, stream: &str) -> Option<DataKeys> {
        self.entry(stream).await?.data_keys
    }

    /// Changes its data keys, as somebody with the store's file could.
    pub async fn tamper(&self, stream: &str, change: impl FnOnce(&mut DataKeys)) {
        let store = self.stack.config_store();
        let found = store.stream(&path(stream)).await.unwrap();
        let mut entry = found.entry.unwrap().as_ref().clone();
        change(entry.data_keys.as_mut().unwrap());
        let change = Change::Stream {
            path: path(stream),
            expected: found.revision,
            entry: Some(entry),
        };
        store.commit(vec![change]).await.unwrap();
    }

    /// How many records the upstream has.
    pub async fn stored(&self, stream: &str) -> u64 {
        let tail = Ask::get(format!("{}/tail", records(stream))).basin(BASIN);
        let answer = self.stack.direct().await.ask(tail).await;
        answer.json()["tail"]["seq_num"]
            .as_u64()
            .unwrap_or_default()
    }

    /// How many calls of the service the proxy counted.
    pub fn counted(&self, operation: KmsOperation, outcome: KmsOutcome) -> u64 {
        let calls = self.stack.metrics().kms.calls.of(operation);
        calls.outcomes.of(outcome).get()
    }

    /// Another process with the same store and service: nothing is held.
    pub async fn restart(&mut self) {
        self.stack.restart(|_| {}).await;
    }
}

/// Turns the admin listener on.
pub fn with_admin(config: &mut Config) {
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    config.admin.address = any.into();
}

/// A batch of one record.
pub fn one(body: &str) -> AppendInput {
    input([record(&[], body.to_owned())])
}

/// An append without a key.
pub fn appends(stream: &str, encoding: Encoding, batch: &AppendInput) -> Ask {
    append(stream, encoding, Packed::Not, batch).without("s2-encryption-key")
}

/// A read without a key.
pub fn reads(stream: &str, query: &str, encoding: Encoding) -> Ask {
    read(stream, query, encoding).without("s2-encryption-key")
}

/// A stream in the basin for tests.
pub fn path(stream: &str) -> StreamPath {
    format!("{BASIN}/{stream}").parse().unwrap()
}
