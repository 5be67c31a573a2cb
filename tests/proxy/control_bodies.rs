//! Of a basin or stream call's body one field is the proxy's own; everything else, known or not, goes
//! through in both directions, however it is encoded.

use std::{collections::BTreeMap, sync::Arc};

use s2_sdk::types::{
    BasinConfig, BasinReconfiguration, CreateBasinInput, CreateStreamInput, DeleteBasinInput,
    DeleteStreamInput, EncryptionAlgorithm, EnsureBasinInput, EnsureOutput, EnsureStreamInput,
    ReconfigureBasinInput,
};
use serde_json::{Value, json};

use crate::harness::{Act, Ask, BASIN, Fake, Lite, Stack, Twin, gzip, zstd};

fn basin_path() -> String {
    format!("/v1/basins/{BASIN}")
}

fn create(config: &Value) -> Ask {
    Ask::post("/v1/basins").json(&json!({ "basin": BASIN, "config": config }))
}

/// The JSON bodies that the upstream got for a method and an end of path.
fn sent(stack: &Stack, method: &str, path: &str) -> Vec<Value> {
    let mut seen = stack.lite.seen();
    seen.retain(|seen| seen.line.starts_with(method) && seen.line.ends_with(path));
    let bodies = seen.iter().map(|seen| &seen.body);
    bodies
        .map(|body| serde_json::from_slice(body).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_the_proxy_does_not_know_reach_the_upstream() {
    let stack = Stack::start().await;
    let client = stack.h2().await;
    let extra = json!({ "tomorrow": [1, { "a": null }], "stream_cipher": "aegis-256" });
    let body = json!({ "basin": BASIN, "scope": "x", "config": extra });
    client.ask(Ask::post("/v1/basins").json(&body)).await;
    let body = json!({ "config": extra, "location": null, "later": true });
    client.ask(Ask::new("PUT", basin_path()).json(&body)).await;
    client
        .ask(Ask::new("PATCH", basin_path()).json(&extra))
        .await;
    let kept = json!({ "tomorrow": [1, { "a": null }] });
    assert_eq!(
        sent(&stack, "POST", "/v1/basins"),
        [json!({ "basin": BASIN, "scope": "x", "config": kept })]
    );
    assert_eq!(
        sent(&stack, "PUT", BASIN),
        [json!({ "config": kept, "location": null, "later": true })]
    );
    assert_eq!(sent(&stack, "PATCH", BASIN), [kept]);
    let stream = json!({ "stream": "s", "config": null, "tomorrow": 1 });
    client.ask(Ask::post("/v1/streams").json(&stream)).await;
    assert_eq!(sent(&stack, "POST", "/v1/streams"), [stream]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_the_proxy_does_not_know_reach_the_client() {
    let lite = Arc::new(Lite::start().await);
    let fake = Fake::start(lite.address).await;
    let stack = Stack::over(lite, |config| fake.aim(config)).await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    let stream = r#"{"name":"s","created_at":"2026-01-01T00:00:00Z","n":1e400,"x":[{}]}"#;
    let list = format!(r#"{{"streams":[{stream}],"has_more":false,"cursor":"c"}}"#);
    fake.script(
        move |call| match (call.method.as_str(), call.uri.as_str()) {
            ("GET", "/v1/streams") => Act::Answer(200, list.clone()),
            ("POST", "/v1/streams") => Act::Answer(201, stream.to_owned()),
            ("GET", _) => Act::Answer(200, r#"{"x":{"stream_cipher":1},"y":2.50}"#.to_owned()),
            _ => Act::Pass,
        },
    );
    let made = client
        .ask(Ask::post("/v1/streams").json(&json!({ "stream": "s" })))
        .await;
    let shown = stream.replace('}', r#","cipher":"aegis-256"}"#);
    let shown = shown.replacen(r#"[{,"cipher":"aegis-256"}]"#, "[{}]", 1);
    assert_eq!(made.text(), shown);
    let listed = client.ask(Ask::get("/v1/streams")).await;
    assert_eq!(
        listed.text(),
        format!(r#"{{"streams":[{shown}],"has_more":false,"cursor":"c"}}"#)
    );
    let config = client.ask(Ask::get(basin_path())).await;
    assert_eq!(
        config.text(),
        r#"{"x":{"stream_cipher":1},"y":2.50,"stream_cipher":"aegis-256"}"#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cipher_said_twice_is_refused() {
    let twin = Twin::start().await;
    let pair = r#""stream_cipher":"aegis-256","stream_cipher":null"#;
    let disguised = r#""stream_cipher":null,"stream\u005fcipher":"aegis-256""#;
    for fields in [pair, disguised] {
        let body = format!(r#"{{"basin":"{BASIN}","config":{{{fields}}}}}"#);
        let ask = Ask::post("/v1/basins").body("application/json", body);
        assert_eq!(twin.same_code(ask).await.code(), "bad_json");
    }
    let two = format!(r#"{{"basin":"{BASIN}","config":{{}},"config":{{"stream_cipher":null}}}}"#);
    let ask = Ask::post("/v1/basins").body("application/json", two);
    assert_eq!(twin.same_code(ask).await.code(), "bad_json");
    assert_eq!(twin.same(create(&json!({}))).await.status, 201);
    for fields in [pair, disguised] {
        let ask = Ask::new("PATCH", basin_path()).body("application/json", format!("{{{fields}}}"));
        assert_eq!(twin.same_code(ask).await.code(), "bad_json");
    }
    let changed = |seen: &crate::harness::Seen| seen.line.starts_with("PATCH");
    assert!(!twin.stack.lite.seen().iter().any(changed));
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_are_read() {
    let twin = Twin::start().await;
    let body = json!({ "basin": BASIN, "config": { "stream_cipher": "aes-256-gcm" } }).to_string();
    let made = Ask::post("/v1/basins")
        .header("content-encoding", "gzip")
        .body("application/json", gzip(body.as_bytes()));
    assert_eq!(twin.same(made).await.status, 201);
    let body = br#"{"stream_cipher":"aegis-256"}"#;
    let change = Ask::new("PATCH", basin_path())
        .header("content-encoding", "zstd")
        .body("application/json", zstd(body));
    assert_eq!(twin.same(change).await.json()["stream_cipher"], "aegis-256");
    let stream = Ask::post("/v1/streams")
        .header("content-encoding", "gzip")
        .body("application/json", gzip(br#"{"stream":"s"}"#));
    assert_eq!(twin.same(stream).await.json()["cipher"], "aegis-256");
    let broken = Ask::new("PATCH", basin_path())
        .header("content-encoding", "gzip")
        .body("application/json", &b"no gzip at all"[..]);
    assert_eq!(twin.same_code(broken).await.code(), "bad_json");
    let foreign = Ask::new("PATCH", basin_path())
        .header("content-encoding", "br")
        .body("application/json", &body[..]);
    assert_eq!(twin.same(foreign).await.status, 415);
    assert!(!twin.stack.tap.saw(b"aegis-256"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_not_json_are_refused_as_in_s2() {
    let twin = Twin::start().await;
    twin.same(create(&json!({ "stream_cipher": "aegis-256" })))
        .await;
    let calls = [
        ("POST", "/v1/basins"),
        ("PUT", &basin_path()),
        ("PATCH", &basin_path()),
    ]
    .map(|(method, path)| (method, path.to_owned()));
    let streams = [("POST", "/v1/streams"), ("PUT", "/v1/streams/new")];
    let streams = streams.map(|(method, path)| (method, path.to_owned()));
    for (method, path) in calls.into_iter().chain(streams) {
        for kind in ["text/plain", "application/protobuf", "application/json"] {
            for body in [
                "{",
                "7",
                r#"{"config":7,"stream_cipher":7,"storage_class":[]}"#,
            ] {
                let ask = Ask::new(method, &path).body(kind, body);
                let answer = twin.same_code(ask).await;
                assert!(answer.status >= 400, "{method} {path} {kind} {body}");
            }
        }
        if method != "PUT" {
            assert_eq!(twin.same(Ask::new(method, &path)).await.code(), "bad_json");
        }
    }
    let config = twin.same(Ask::get(basin_path())).await;
    assert_eq!(config.json()["stream_cipher"], "aegis-256");
    assert_eq!(twin.same(Ask::get("/v1/streams/new")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn head_tells_the_length_that_get_has() {
    let twin = Twin::start().await;
    twin.same(create(&json!({ "stream_cipher": "aegis-256" })))
        .await;
    let stream = json!({ "stream": "s" });
    twin.same(Ask::post("/v1/streams").json(&stream)).await;
    for path in ["/v1/basins", &basin_path(), "/v1/streams", "/v1/streams/s"] {
        for client in [twin.stack.h1().await, twin.stack.h2().await] {
            let head = client.ask(Ask::new("HEAD", path)).await;
            let get = client.ask(Ask::get(path)).await;
            assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
            let length = get.body.len().to_string();
            assert_eq!(head.header("content-length"), Some(&*length), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_lists_are_compressed_for_clients_that_ask() {
    let twin = Twin::start().await;
    twin.same(create(&json!({ "stream_cipher": "aegis-256" })))
        .await;
    for at in 0..20 {
        let stream = json!({ "stream": format!("a-stream-with-a-name-{at}") });
        twin.same(Ask::post("/v1/streams").json(&stream)).await;
    }
    let (ours, native) = twin
        .both(&Ask::get("/v1/streams").header("accept-encoding", "gzip"))
        .await;
    assert_eq!(ours.header("content-encoding"), Some("gzip"));
    assert_eq!(native.header("content-encoding"), Some("gzip"));
    let text = crate::harness::gunzip(&ours.body);
    let list: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(list["streams"].as_array().unwrap().len(), 20);
    assert_eq!(list["streams"][19]["cipher"], "aegis-256");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_sdk_manages_basins_and_streams() {
    let stack = Stack::start().await;
    let sdk = stack.sdk();
    let name: s2_sdk::types::BasinName = BASIN.parse().unwrap();
    let aegis = BasinConfig::new().with_stream_cipher(EncryptionAlgorithm::Aegis256);
    let input = CreateBasinInput::new(name.clone()).with_config(aegis.clone());
    sdk.create_basin(input.clone()).await.unwrap();
    // The same input carries the same token.
    sdk.create_basin(input).await.unwrap();
    let config = sdk.get_basin_config(name.clone()).await.unwrap();
    assert_eq!(config.stream_cipher, Some(EncryptionAlgorithm::Aegis256));
    let ensured = EnsureBasinInput::new(name.clone()).with_config(aegis);
    let ensured = sdk.ensure_basin(ensured).await.unwrap();
    assert!(
        matches!(ensured, EnsureOutput::ConfigUnchanged(_)),
        "{ensured:?}"
    );
    let gcm = BasinReconfiguration::new().with_stream_cipher(EncryptionAlgorithm::Aes256Gcm);
    let basin = sdk.basin(name.clone());
    let first = CreateStreamInput::new("first".parse().unwrap());
    let first = basin.create_stream(first).await.unwrap();
    assert_eq!(first.cipher, Some(EncryptionAlgorithm::Aegis256));
    let config = sdk
        .reconfigure_basin(ReconfigureBasinInput::new(name.clone(), gcm))
        .await;
    assert_eq!(
        config.unwrap().stream_cipher,
        Some(EncryptionAlgorithm::Aes256Gcm)
    );
    let second = EnsureStreamInput::new("second".parse().unwrap());
    let second = basin.ensure_stream(second).await.unwrap();
    assert!(matches!(second, EnsureOutput::Created(_)), "{second:?}");
    let listed = basin.list_streams(Default::default()).await.unwrap().values;
    let ciphers: BTreeMap<_, _> = listed
        .iter()
        .map(|s| (s.name.to_string(), s.cipher))
        .collect();
    assert_eq!(ciphers["first"], Some(EncryptionAlgorithm::Aegis256));
    assert_eq!(ciphers["second"], Some(EncryptionAlgorithm::Aes256Gcm));
    basin
        .get_stream_config("first".parse().unwrap())
        .await
        .unwrap();
    let doomed = DeleteStreamInput::new("first".parse().unwrap());
    basin.delete_stream(doomed).await.unwrap();
    sdk.delete_basin(DeleteBasinInput::new(name)).await.unwrap();
    assert!(!stack.tap.saw(b"aegis"));
}
