//! A stream of a basin with a cipher is never plain unless the config store says so: whoever makes it,
//! however it comes to be, and whatever is forgotten in between.

use std::time::Duration;

use serde_json::{Value, json};
use streamseal::{cli::serve, store::UnknownStreams};

use crate::harness::{Answer, Ask, BASIN, Client, KEY, Stack, ask_until, delete, purged, records};

pub const SECRET: &str = "a body that nobody may see";

pub fn append(stream: &str) -> Ask {
    let batch = json!({ "records": [{ "body": SECRET }] });
    Ask::post(records(stream)).json(&batch)
}

pub fn read(stream: &str) -> Ask {
    Ask::get(records(stream) + "?seq_num=0")
}

fn patch(config: &Value) -> Ask {
    Ask::new("PATCH", format!("/v1/basins/{BASIN}")).json(config)
}

/// Every stream with its cipher, as the proxy lists them.
pub async fn ciphers(client: &Client) -> Vec<(String, Value)> {
    let list = client.ask(Ask::get("/v1/streams")).await.json();
    let streams = list["streams"].as_array().unwrap().iter();
    streams
        .map(|stream| {
            let name = stream["name"].as_str().unwrap().to_owned();
            (name, stream["cipher"].clone())
        })
        .collect()
}

pub fn bodies(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    let records = json["records"].as_array().unwrap().iter();
    records
        .map(|record| record["body"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_cipher_leaves_the_streams_that_were_seen_plain() {
    for call in ["PATCH", "PUT"] {
        let stack = Stack::start().await;
        stack.create_basin(None).await;
        let client = stack.h2().await;
        for stream in ["old/1", "old/2"] {
            assert_eq!(client.ask(append(stream)).await.status, 200);
        }
        let config = json!({ "stream_cipher": "aegis-256", "create_stream_on_append": true });
        let body = if call == "PUT" {
            json!({ "config": config })
        } else {
            config
        };
        let change = Ask::new(call, format!("/v1/basins/{BASIN}")).json(&body);
        assert_eq!(client.ask(change).await.status, 200);
        for ask in [append("old/1"), append("old/2"), append("new").key(&KEY)] {
            let appended = client.ask(ask).await;
            assert_eq!(appended.status, 200, "{}", appended.text());
        }
        // Plain ones take no key, and the upstream itself can read them.
        let keyed = client.ask(append("old/1").key(&KEY)).await;
        assert_eq!((keyed.status, &*keyed.code()), (422, "invalid"));
        assert_eq!(bodies(&client.ask(read("old/1")).await), [SECRET, SECRET]);
        let direct = stack.direct().await;
        assert_eq!(bodies(&direct.ask(read("old/2")).await), [SECRET, SECRET]);
        assert_ne!(bodies(&direct.ask(read("new")).await), [SECRET]);
        assert_eq!(bodies(&client.ask(read("new").key(&KEY)).await), [SECRET]);
        let shown = [
            ("new", json!("aegis-256")),
            ("old/1", Value::Null),
            ("old/2", Value::Null),
        ];
        assert_eq!(
            ciphers(&client).await,
            shown.map(|(name, cipher)| (name.to_owned(), cipher))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_made_around_the_proxy_is_refused() {
    let mut stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let direct = stack.direct().await;
    for stream in ["behind", "behind-too"] {
        let theirs = json!({ "records": [{ "body": "theirs" }] });
        let made = direct.ask(Ask::post(records(stream)).json(&theirs)).await;
        assert_eq!(made.status, 200);
    }
    let client = stack.h2().await;
    let session = Ask::post(records("behind")).body("s2s/proto", "");
    for ask in [
        append("behind").key(&KEY),
        read("behind"),
        Ask::get(records("behind") + "/tail"),
        session,
    ] {
        let answer = client.ask(ask).await;
        assert_eq!((answer.status, &*answer.code()), (403, "permission_denied"));
        assert!(
            answer.text().contains("streamseal store admit"),
            "{}",
            answer.text()
        );
    }
    // Ensuring it does not make it ours, nor plain.
    let ensured = client.ask(Ask::new("PUT", "/v1/streams/behind")).await;
    assert_eq!(ensured.header("s2-provision-result"), Some("noop"));
    assert_eq!(client.ask(append("behind").key(&KEY)).await.status, 403);
    assert!(!stack.tap.saw(SECRET.as_bytes()));
    stack
        .restart(|config| config.store.unknown_streams = UnknownStreams::Plain)
        .await;
    let client = stack.h2().await;
    assert_eq!(client.ask(append("behind")).await.status, 200);
    assert_eq!(
        bodies(&client.ask(read("behind")).await),
        ["theirs", SECRET]
    );
    assert_eq!(
        client.ask(append("of-the-proxy").key(&KEY)).await.status,
        200
    );
    assert_ne!(bodies(&direct.ask(read("of-the-proxy")).await), [SECRET]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_stream_made_around_the_proxy_is_taken_over_sealed() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let direct = stack.direct().await;
    for stream in ["read", "appended"] {
        let made = Ask::post("/v1/streams").json(&json!({ "stream": stream }));
        assert_eq!(direct.ask(made).await.status, 201);
    }
    let client = stack.h2().await;
    // Whoever only reads learns that it is not known.
    let refused = client.ask(read("read").key(&KEY)).await;
    assert_eq!(refused.code(), "permission_denied");
    let without = client.ask(append("appended")).await;
    assert_eq!(without.code(), "permission_denied");
    for stream in ["read", "appended"] {
        assert_eq!(client.ask(append(stream).key(&KEY)).await.status, 200);
        assert_eq!(bodies(&client.ask(read(stream).key(&KEY)).await), [SECRET]);
    }
    let sealed = ["appended", "read"].map(|name| (name.to_owned(), json!("aegis-256")));
    assert_eq!(ciphers(&client).await, sealed);
    assert!(!stack.tap.saw(SECRET.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_stream_made_again_behind_the_proxy_is_sealed_for_keys() {
    let stack = Stack::start().await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    assert_eq!(client.ask(append("old")).await.status, 200);
    client
        .ask(patch(&json!({ "stream_cipher": "aegis-256" })))
        .await;
    assert_eq!(client.ask(append("old")).await.status, 200);
    let direct = stack.direct().await;
    delete(&direct, "/v1/streams/old").await;
    purged(&direct, "/v1/streams/old").await;
    let made = Ask::post("/v1/streams").json(&json!({ "stream": "old" }));
    ask_until(&direct, made, |answer| answer.status == 201).await;
    // As in S2: the new one is the basin's, and a client that sends a key means that one.
    let before = stack.tap.bytes().len();
    assert_eq!(client.ask(append("old").key(&KEY)).await.status, 200);
    assert_eq!(bodies(&client.ask(read("old").key(&KEY)).await), [SECRET]);
    assert_ne!(bodies(&direct.ask(read("old")).await), [SECRET]);
    // Sealed from then on, for everybody.
    assert_eq!(client.ask(append("old")).await.status, 422);
    assert_eq!(
        ciphers(&client).await,
        [("old".to_owned(), json!("aegis-256"))]
    );
    assert!(!crate::harness::contains(
        &stack.tap.bytes()[before..],
        SECRET.as_bytes()
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_stream_made_again_behind_the_proxy_stays_sealed() {
    let mut stack = Stack::start().await;
    stack.create_basin(Some("aes-256-gcm")).await;
    let client = stack.h2().await;
    assert_eq!(client.ask(append("s").key(&KEY)).await.status, 200);
    let direct = stack.direct().await;
    delete(&direct, "/v1/streams/s").await;
    purged(&direct, "/v1/streams/s").await;
    let made = Ask::post("/v1/streams").json(&json!({ "stream": "s" }));
    ask_until(&direct, made, |answer| answer.status == 201).await;
    for _ in 0..2 {
        let client = stack.h2().await;
        assert_eq!(client.ask(append("s").key(&KEY)).await.status, 200);
        assert_eq!(client.ask(append("s")).await.status, 422);
        stack.restart(|_| {}).await;
    }
    assert!(!stack.tap.saw(SECRET.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_neither_ciphers_nor_keys() {
    let mut stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    assert_eq!(client.ask(append("s").key(&KEY)).await.status, 200);
    client
        .ask(patch(&json!({ "stream_cipher": "aes-256-gcm" })))
        .await;
    drop(client);
    stack
        .restart(|config| config.limits.drain_timeout = Duration::from_secs(1))
        .await;
    let client = stack.h2().await;
    let config = client.ask(Ask::get(format!("/v1/basins/{BASIN}"))).await;
    assert_eq!(config.json()["stream_cipher"], "aes-256-gcm");
    assert_eq!(
        ciphers(&client).await,
        [("s".to_owned(), json!("aegis-256"))]
    );
    assert_eq!(
        client.ask(append("s").key(&[7; 32])).await.code(),
        "decryption_failed"
    );
    assert_eq!(bodies(&client.ask(read("s").key(&KEY)).await), [SECRET]);
    assert_eq!(client.ask(append("t").key(&KEY)).await.status, 200);
    assert!(!stack.tap.saw(SECRET.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_store_is_not_replaced_by_an_empty_one() {
    let stack = Stack::start().await;
    let mut config = stack.config.clone();
    config.store.create = false;
    config.store.path.set_extension("lost");
    let error = serve::start(&config)
        .await
        .err()
        .expect("started without its store");
    assert!(error.to_string().contains("does not exist"), "{error}");
    let mut config = stack.config.clone();
    config.listen.address.set_port(0);
    let error = serve::start(&config)
        .await
        .err()
        .expect("two processes on one store");
    assert!(error.to_string().contains("in use"), "{error}");
}
