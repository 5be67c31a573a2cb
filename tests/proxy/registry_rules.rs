//! What the configuration file declares holds: the API cannot change it, and it contradicts nothing
//! that is recorded.

use futures_util::FutureExt as _;
use serde_json::{Value, json};
use streamseal::registry::rules::{BasinRule, KeySource, RuleCipher, StreamRule};

use crate::harness::{Ask, BASIN, Client, KEY, Stack, records};

const SECRET: &str = "a body that nobody may see";

fn basin(glob: &str, cipher: RuleCipher) -> BasinRule {
    BasinRule {
        r#match: glob.to_owned(),
        stream_cipher: cipher,
    }
}

fn stream(glob: &str, cipher: RuleCipher) -> StreamRule {
    StreamRule {
        r#match: glob.to_owned(),
        cipher,
        key: KeySource::Header,
        key_file: Default::default(),
        header_overrides: false,
    }
}

fn append(stream: &str) -> Ask {
    append_plain(stream).key(&KEY)
}

/// An append without a key.
fn append_plain(stream: &str) -> Ask {
    let batch = json!({ "records": [{ "body": SECRET }] });
    Ask::post(records(stream)).json(&batch)
}

fn basin_path() -> String {
    format!("/v1/basins/{BASIN}")
}

async fn first_body(client: &Client, stream: &str) -> Value {
    first_of(client, stream, Ask::key).await
}

async fn first_plain_body(client: &Client, stream: &str) -> Value {
    first_of(client, stream, |ask, _| ask).await
}

async fn first_of(client: &Client, stream: &str, keyed: fn(Ask, &[u8]) -> Ask) -> Value {
    let ask = keyed(Ask::get(records(stream) + "?seq_num=0"), &KEY);
    let answer = client.ask(ask).await;
    assert_eq!(answer.status, 200, "{stream}: {}", answer.text());
    answer.json()["records"][0]["body"].clone()
}

async fn cipher_of(client: &Client, stream: &str) -> Value {
    let list = client
        .ask(Ask::get(format!("/v1/streams?prefix={stream}")))
        .await;
    list.json()["streams"][0]["cipher"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_basin_cannot_be_changed_by_calls() {
    let rule = basin("test-*", RuleCipher::Aegis256);
    let stack = Stack::with(|config| config.basins = vec![rule]).await;
    let client = stack.h2().await;
    let create =
        |config: Value| Ask::post("/v1/basins").json(&json!({ "basin": BASIN, "config": config }));
    let ensure = |config: Value| Ask::new("PUT", basin_path()).json(&json!({ "config": config }));
    let patch = |config: Value| Ask::new("PATCH", basin_path()).json(&config);
    let gcm = || json!({ "stream_cipher": "aes-256-gcm" });
    let none = || json!({ "stream_cipher": null });
    for refused in [create(gcm()), ensure(gcm()), patch(gcm()), patch(none())] {
        let answer = client.ask(refused).await;
        assert_eq!((answer.status, &*answer.code()), (403, "permission_denied"));
        assert!(answer.text().contains("configuration"), "{}", answer.text());
    }
    assert!(stack.lite.seen().is_empty());
    let same = || json!({ "stream_cipher": "aegis-256", "create_stream_on_append": true });
    let auto = || json!({ "create_stream_on_append": true });
    // No cipher and `null` both leave the choice to the declaration, as clients send both without meaning it.
    let auto_null = || json!({ "stream_cipher": null, "create_stream_on_append": true });
    assert_eq!(client.ask(create(auto_null())).await.status, 201);
    for fine in [
        ensure(same()),
        ensure(auto()),
        ensure(auto_null()),
        ensure(none()),
        ensure(auto()),
        patch(same()),
        patch(json!({})),
    ] {
        assert_eq!(client.ask(fine).await.status, 200);
        let config = client.ask(Ask::get(basin_path())).await;
        assert_eq!(config.json()["stream_cipher"], "aegis-256");
    }
    let other = json!({ "basin": "other-basin", "config": gcm() });
    assert_eq!(
        client
            .ask(Ask::post("/v1/basins").json(&other))
            .await
            .status,
        201
    );
    assert_eq!(client.ask(append("s")).await.status, 200);
    assert_eq!(cipher_of(&client, "s").await, "aegis-256");
    assert!(!stack.tap.saw(SECRET.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_basin_declared_later_keeps_its_old_streams_plain() {
    let mut stack = Stack::start().await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    assert_eq!(client.ask(append_plain("old")).await.status, 200);
    let rule = basin(BASIN, RuleCipher::Aes256Gcm);
    stack.restart(|config| config.basins = vec![rule]).await;
    let client = stack.h2().await;
    // A read is the first that is heard of the basin.
    assert_eq!(first_plain_body(&client, "old").await, SECRET);
    assert_eq!(client.ask(append_plain("old")).await.status, 200);
    // Who sends a key takes it for encrypted.
    assert_eq!(client.ask(append("old")).await.code(), "invalid");
    assert_eq!(client.ask(append("new")).await.status, 200);
    assert_eq!(cipher_of(&client, "old").await, Value::Null);
    assert_eq!(cipher_of(&client, "new").await, "aes-256-gcm");
    assert_eq!(first_body(&client, "new").await, SECRET);
    assert_ne!(first_body(&stack.direct().await, "new").await, SECRET);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_before_a_declaration_are_refused_unless_empty() {
    let stack = Stack::start().await;
    let direct = stack.direct().await;
    let made = json!({ "basin": BASIN, "config": { "create_stream_on_append": true } });
    direct.ask(Ask::post("/v1/basins").json(&made)).await;
    direct
        .ask(Ask::post("/v1/streams").json(&json!({ "stream": "empty" })))
        .await;
    let theirs = Ask::post(records("old")).json(&json!({ "records": [{ "body": "theirs" }] }));
    assert_eq!(direct.ask(theirs).await.status, 200);
    let rule = basin(BASIN, RuleCipher::Aegis256);
    let stack = Stack::over(stack.lite.clone(), |config| config.basins = vec![rule]).await;
    let client = stack.h2().await;
    let made = client
        .ask(Ask::post("/v1/streams").json(&json!({ "stream": "new" })))
        .await;
    assert_eq!(made.json()["cipher"], "aegis-256");
    for ask in [append("old"), append_plain("old")] {
        let refused = client.ask(ask).await;
        assert_eq!(refused.code(), "permission_denied");
        assert!(refused.text().contains("streamseal store admit"));
    }
    assert_eq!(cipher_of(&client, "old").await, Value::Null);
    // What is empty is taken over, encrypted.
    assert_eq!(client.ask(append("empty")).await.status, 200);
    assert_eq!(cipher_of(&client, "empty").await, "aegis-256");
    assert_eq!(first_body(&client, "empty").await, SECRET);
    assert!(!stack.tap.saw(SECRET.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_rules_win_over_the_basin() {
    let rules = vec![
        stream("test-basin/gcm/*", RuleCipher::Aes256Gcm),
        stream("test-basin/plain", RuleCipher::None),
        stream("test-basin/**", RuleCipher::Aegis256),
    ];
    let stack = Stack::with(|config| config.streams = rules).await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    let direct = stack.direct().await;
    for (name, cipher) in [
        ("gcm/a", json!("aes-256-gcm")),
        ("gcm/a/b", json!("aegis-256")),
        ("other", json!("aegis-256")),
        ("plain", Value::Null),
    ] {
        let (append, first): (Ask, _) = match cipher.is_null() {
            true => (append_plain(name), first_plain_body(&client, name).boxed()),
            false => (append(name), first_body(&client, name).boxed()),
        };
        assert_eq!(client.ask(append).await.status, 200, "{name}");
        assert_eq!(first.await, SECRET, "{name}");
        assert_eq!(cipher_of(&client, name).await, cipher, "{name}");
        let behind = first_body(&direct, name).await;
        assert_eq!(behind == SECRET, cipher.is_null(), "{name}");
    }
    let path = "/v1/streams/gcm%2Fmade";
    let made = client.ask(Ask::new("PUT", path)).await.json();
    assert_eq!(made["cipher"], "aes-256-gcm");
    assert_eq!(client.ask(append("gcm/made")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_contradicts_the_record_is_refused_at_use() {
    let mut stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    assert_eq!(client.ask(append("s")).await.status, 200);
    for cipher in [RuleCipher::None, RuleCipher::Aes256Gcm] {
        let rule = stream("test-basin/s", cipher);
        stack.restart(|config| config.streams = vec![rule]).await;
        let client = stack.h2().await;
        for ask in [append("s"), Ask::get(records("s") + "?seq_num=0").key(&KEY)] {
            let answer = client.ask(ask).await;
            assert_eq!((answer.status, &*answer.code()), (422, "invalid"));
            assert!(answer.text().contains("aegis-256"), "{}", answer.text());
        }
        assert_eq!(cipher_of(&client, "s").await, "aegis-256");
    }
    let rule = stream("test-basin/s", RuleCipher::Aegis256);
    stack.restart(|config| config.streams = vec![rule]).await;
    let client = stack.h2().await;
    assert_eq!(first_body(&client, "s").await, SECRET);
    assert!(!stack.tap.saw(SECRET.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_is_gone_leaves_its_streams_as_they_are() {
    let rules = vec![stream("test-basin/s", RuleCipher::Aegis256)];
    let mut stack = Stack::with(|config| config.streams = rules).await;
    stack.create_basin(None).await;
    assert_eq!(stack.h2().await.ask(append("s")).await.status, 200);
    stack.say_none();
    stack.restart(|config| config.streams.clear()).await;
    let client = stack.h2().await;
    assert_eq!(client.ask(append("s")).await.status, 200);
    assert_eq!(first_body(&client, "s").await, SECRET);
    assert!(!stack.tap.saw(SECRET.as_bytes()));
}
