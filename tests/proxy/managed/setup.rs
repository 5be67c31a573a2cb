//! A proxy whose streams have managed keys, and what its clients ask.

use std::sync::Arc;

use s2_api::v1::stream::proto::{AppendInput, SequencedRecord};
use streamseal::{
    config::Config,
    crypto::{Cipher, Layout, layout_of},
    registry::rules::{KeySource, RuleCipher, StreamRule},
    store::{DataKeys, StreamEntry},
    stream::StreamPath,
};

use crate::harness::{
    Answer, Ask, BASIN, Encoding, Lite, Packed, Stack, Token, ack, append, delivered, input,
    project, read, record,
};

/// What no upstream may see.
pub const SECRET: &str = "a secret that only clients know";

/// A rule that makes the keys of these streams managed.
pub fn rule(glob: &str, cipher: RuleCipher) -> StreamRule {
    StreamRule {
        r#match: glob.to_owned(),
        cipher,
        key: KeySource::Managed,
        key_file: Default::default(),
        header_overrides: false,
    }
}

/// A deployment with one project, `payments`, that has every stream, and its first API key.
pub struct Managed {
    pub stack: Stack,
    pub token: Token,
}

impl Managed {
    pub async fn start() -> Self {
        Self::with(RuleCipher::Aegis256, |_| {}).await
    }

    pub async fn with(cipher: RuleCipher, change: impl FnOnce(&mut Config)) -> Self {
        let lite = Arc::new(Lite::start().await);
        Self::over(lite, cipher, change).await
    }

    pub async fn over(
        lite: Arc<Lite>,
        cipher: RuleCipher,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let stack = Stack::over(lite, |config| {
            project(config, "payments", &["*/**"]);
            config.streams = vec![rule("*/**", cipher)];
            change(config);
        })
        .await;
        let token = stack.create_project("payments").await;
        let made = Self { stack, token };
        made.create_basin().await;
        made
    }

    async fn create_basin(&self) {
        let config = serde_json::json!({
            "create_stream_on_append": true,
            "create_stream_on_read": true,
        });
        let body = serde_json::json!({ "basin": BASIN, "config": config });
        let answer = self.ask(Ask::post("/v1/basins").json(&body)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }

    /// Asks with the API key.
    pub async fn ask(&self, ask: Ask) -> Answer {
        self.stack.h2().await.ask(self.token.on(ask)).await
    }

    /// Appends one batch, which must be acked; where it begins.
    pub async fn append(&self, stream: &str, encoding: Encoding, batch: &AppendInput) -> u64 {
        let answer = self.ask(appends(stream, encoding, batch)).await;
        ack(encoding, &answer).start.unwrap().seq_num
    }

    /// Appends one record with this body.
    pub async fn put(&self, stream: &str, body: impl Into<String>) {
        let batch = input([record(&[], body.into())]);
        self.append(stream, Encoding::Proto, &batch).await;
    }

    /// What a read from the start delivers.
    pub async fn read(&self, stream: &str) -> Vec<SequencedRecord> {
        let answer = self.ask(reads(stream, "seq_num=0", Encoding::Proto)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        delivered(Encoding::Proto, &answer).records()
    }

    /// The bodies of it.
    pub async fn bodies(&self, stream: &str) -> Vec<String> {
        let text = |record: SequencedRecord| String::from_utf8(record.body.to_vec()).unwrap();
        self.read(stream).await.into_iter().map(text).collect()
    }

    /// Rotates a stream's key; the new epoch.
    pub async fn rotate(&self, stream: &str) -> u32 {
        let pass = self.stack.pass(&self.token).await;
        let rotated = self.stack.proxy().rotate_key(&path(stream), &pass).await;
        rotated.map_err(|error| error.told()).unwrap().to
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

    /// Changes what is recorded of a stream, as another command would.
    pub async fn change(&self, stream: &str, change: impl FnOnce(&mut StreamEntry)) {
        let store = self.stack.config_store();
        let found = store.stream(&path(stream)).await.unwrap();
        let mut entry = found.entry.unwrap().as_ref().clone();
        change(&mut entry);
        let change = streamseal::store::Change::Stream {
            path: path(stream),
            expected: found.revision,
            entry: Some(entry),
        };
        store.commit(vec![change]).await.unwrap();
    }

    /// The layouts of the data records that the upstream has.
    pub async fn layouts(&self, stream: &str) -> Vec<Layout> {
        let stored = self.stack.stored(stream).await;
        let stored = stored.iter().filter(|stored| stored.headers.is_empty());
        stored
            .map(|stored| layout_of(&stored.body).expect("a record in clear"))
            .collect()
    }
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

/// Both ciphers, as rules and as records write them.
pub const CIPHERS: [(RuleCipher, Cipher); 2] = [
    (RuleCipher::Aegis256, Cipher::Aegis256),
    (RuleCipher::Aes256Gcm, Cipher::Aes256Gcm),
];
