//! The whole proxy between clients without a key and `s2-lite`, with a real service that holds the keys of streams.

use streamseal::{
    keys::kms,
    proxy::Authority,
    registry::rules::{KeySource, RuleCipher, StreamRule},
    telemetry::label::{KmsOperation, KmsOutcome},
};

use crate::harness::{
    Answer, Ask, BASIN, Encoding, Packed, Stack, append, delivered, input, read, record,
};

/// What no upstream may see.
const SECRET: &str = "a secret of clients that have no key";

/// A deployment whose streams have keys that the service holds.
pub struct Gateway {
    stack: Stack,
}

impl Gateway {
    pub async fn start(service: &kms::Config) -> Self {
        let stack = Stack::with(|config| {
            config.kms = service.clone();
            config.streams = vec![StreamRule {
                r#match: "*/**".to_owned(),
                cipher: RuleCipher::Aegis256,
                key: KeySource::Kms,
                key_file: Default::default(),
                header_overrides: false,
            }];
        })
        .await;
        let config = serde_json::json!({ "create_stream_on_append": true });
        let body = serde_json::json!({ "basin": BASIN, "config": config });
        let client = stack.h2().await;
        let made = client.ask(Ask::post("/v1/basins").json(&body)).await;
        assert_eq!(made.status, 201, "{}", made.text());
        Self { stack }
    }

    async fn append(&self, stream: &str, body: &str) -> Answer {
        let batch = input([record(&[], body.to_owned())]);
        let ask = append(stream, Encoding::Proto, Packed::Not, &batch);
        let client = self.stack.h2().await;
        client.ask(ask.without("s2-encryption-key")).await
    }

    async fn bodies(&self, stream: &str) -> Vec<bytes::Bytes> {
        let ask = read(stream, "seq_num=0", Encoding::Proto).without("s2-encryption-key");
        let answer = self.stack.h2().await.ask(ask).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let records = delivered(Encoding::Proto, &answer).records();
        records.into_iter().map(|record| record.body).collect()
    }

    fn unwraps(&self) -> u64 {
        let calls = self.stack.metrics().kms.calls.of(KmsOperation::Unwrap);
        calls.outcomes.of(KmsOutcome::Ok).get()
    }
}

/// Append, read, rotate, restart, read: with as many calls as there are keys.
pub async fn serves(service: &kms::Config) -> Gateway {
    let mut gateway = Gateway::start(service).await;
    let path = format!("{BASIN}/s").parse().unwrap();
    for epoch in 1..=3 {
        for _ in 0..10 {
            assert_eq!(gateway.append("s", SECRET).await.status, 200);
        }
        assert_eq!(gateway.bodies("s").await, vec![SECRET; 10 * epoch]);
        let proxy = gateway.stack.proxy();
        let rotated = proxy.rotate_key(&path, Authority::Operator).await;
        let to = u32::try_from(epoch).unwrap() + 1;
        assert_eq!(rotated.map_err(|error| error.told()).unwrap().to, to);
    }
    assert_eq!(gateway.unwraps(), 4);
    gateway.stack.restart(|_| {}).await;
    assert_eq!(gateway.append("s", SECRET).await.status, 200);
    assert_eq!(gateway.bodies("s").await, [SECRET; 31]);
    assert_eq!(gateway.unwraps(), 4);
    assert!(!gateway.stack.tap.saw(SECRET.as_bytes()));
    gateway
}

/// Streams whose keys are held go on, others are refused, while the service is away.
pub async fn survives(gateway: &Gateway) {
    assert_eq!(gateway.append("s", SECRET).await.status, 200);
    assert_eq!(gateway.bodies("s").await, [SECRET; 32]);
    let refused = gateway.append("new", SECRET).await;
    let told = (refused.status, &*refused.code());
    assert_eq!(told, (502, "hot_server"), "{}", refused.text());
}
