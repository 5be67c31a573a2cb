//! A key comes from the header or from the operator's file, and from nowhere else.

use std::path::PathBuf;

use serde_json::{Value, json};
use streamseal::{
    config::Config,
    keys::OnPlain,
    registry::rules::{KeySource, RuleCipher, StreamRule},
};

use crate::{
    harness::{
        Ask, BASIN, Encoding, KEY, Packed, Stack, ack, append as framed, base64, input, record,
        records,
    },
    keys::{OTHER, SECRET, append, every_form, is, moved, read, sealed_stack},
};

#[tokio::test(flavor = "multi_thread")]
async fn plain_streams_take_no_key_unless_the_operator_lets_them() {
    let mut stack = Stack::start().await;
    stack.create_basin(None).await;
    let keys = ["AAAA", "!!!!", &base64(&KEY)];
    let client = stack.h2().await;
    for key in keys {
        for ask in every_form("p") {
            let refused = client.ask(ask.header("s2-encryption-key", key)).await;
            is(&refused, 422, "invalid");
            let text = refused.text();
            assert!(
                text.is_empty() || text.contains("is not encrypted"),
                "{text}"
            );
            assert!(!text.contains(key), "{text}");
        }
    }
    assert_eq!(moved(&stack), 0);
    let warn = |config: &mut Config| config.keys.on_plain = OnPlain::Warn;
    stack.restart(warn).await;
    let client = stack.h2().await;
    for key in keys {
        for ask in [append("p"), read("p")] {
            let answer = client.ask(ask.header("s2-encryption-key", key)).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    let before = moved(&stack);
    for key in ["", &"A".repeat(45)] {
        for ask in every_form("p") {
            is(
                &client.ask(ask.header("s2-encryption-key", key)).await,
                422,
                "invalid",
            );
        }
    }
    assert_eq!(moved(&stack), before);
}

fn file_rule(dir: &tempfile::TempDir, name: &str, key: &[u8; 32], overrides: bool) -> StreamRule {
    let path: PathBuf = dir.path().join(format!("{name}.key"));
    std::fs::write(&path, format!("{}\n", base64(key))).unwrap();
    StreamRule {
        r#match: format!("test-basin/{name}"),
        cipher: RuleCipher::Aegis256,
        key: KeySource::File,
        key_file: path.into(),
        header_overrides: overrides,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_send_no_key_use_the_operators() {
    let dir = tempfile::tempdir().unwrap();
    let rules = vec![
        file_rule(&dir, "fixed", &KEY, false),
        file_rule(&dir, "default", &KEY, true),
    ];
    let mut stack = Stack::with(|config| config.streams = rules).await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    for stream in ["fixed", "default"] {
        assert_eq!(client.ask(append(stream)).await.status, 200);
        let read = client.ask(read(stream)).await;
        assert_eq!(read.json()["records"][0]["body"], SECRET);
        assert_eq!(read.json()["records"][1], Value::Null);
    }
    // The file is the only key: what the client sends is of no account.
    assert_eq!(client.ask(read("fixed").key(&OTHER)).await.status, 200);
    assert_eq!(
        client
            .ask(append("fixed").header("s2-encryption-key", "!!!!"))
            .await
            .status,
        200
    );
    // A client's own wins, and is not the stream's.
    is(
        &client.ask(read("default").key(&OTHER)).await,
        400,
        "decryption_failed",
    );
    is(
        &client.ask(append("default").key(&OTHER)).await,
        400,
        "decryption_failed",
    );
    is(
        &client
            .ask(append("default").header("s2-encryption-key", "!!!!"))
            .await,
        422,
        "invalid",
    );
    assert_eq!(client.ask(read("default").key(&KEY)).await.status, 200);
    // Without the rule the same key in the header opens the same records.
    stack.say_none();
    stack.restart(|config| config.streams.clear()).await;
    let client = stack.h2().await;
    is(&client.ask(read("fixed")).await, 422, "invalid");
    assert_eq!(
        client.ask(read("fixed").key(&KEY)).await.json()["records"][1]["body"],
        SECRET
    );
    assert!(!stack.tap.saw(SECRET.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_stream_is_created_by_the_first_append() {
    let dir = tempfile::tempdir().unwrap();
    for cipher in [RuleCipher::Aegis256, RuleCipher::Aes256Gcm] {
        let mut rule = file_rule(&dir, "*", &KEY, false);
        (rule.cipher, rule.r#match) = (cipher, "*/*".into());
        let stack = Stack::with(|config| config.streams = vec![rule]).await;
        let client = stack.h2().await;
        // Not by reads: a check of the tail is one.
        let config = json!({ "create_stream_on_append": true });
        let basin = json!({ "basin": BASIN, "config": config });
        client.ask(Ask::post("/v1/basins").json(&basin)).await;
        for name in ["unary", "again"] {
            assert_eq!(client.ask(append(name)).await.status, 200, "{cipher:?}");
        }
        let batch = input([record(&[], SECRET)]);
        let session = framed("session", Encoding::Frames, Packed::Not, &batch);
        ack(Encoding::Frames, &client.ask(session).await);
        for name in ["unary", "again", "session"] {
            let read = client.ask(read(name)).await;
            assert_eq!(read.json()["records"][0]["body"], SECRET, "{cipher:?}");
        }
        // Where nothing creates it, the answer is the upstream's.
        let elsewhere = append("unary").basin("no-such-basin");
        assert_eq!(client.ask(elsewhere).await.status, 404);
        assert!(!stack.tap.saw(SECRET.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_the_query_is_refused_everywhere() {
    let stack = sealed_stack("aegis-256").await;
    let client = stack.h2().await;
    let before = stack.lite.seen().len();
    let key = base64(&KEY);
    let names = [
        "s2-encryption-key",
        "S2-Encryption-Key",
        "s2%2Dencryption-key",
        "%732-encryption-key",
    ];
    for name in names {
        let query = format!("{name}={key}");
        for uri in [
            format!("{}?seq_num=0&{query}", records("s")),
            format!("{}/tail?{query}", records("s")),
            format!("/v1/streams?{query}"),
            format!("/v1/basins?prefix=a&{query}"),
            format!("/v1/metrics?{query}"),
        ] {
            let answer = client.ask(Ask::get(uri).key(&KEY)).await;
            is(&answer, 400, "bad_query");
            assert!(!answer.text().contains(&key));
        }
    }
    assert_eq!(stack.lite.seen().len(), before);
}
