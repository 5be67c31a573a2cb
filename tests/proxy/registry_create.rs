//! Streams that are created on demand are recorded with their basin's cipher before any record of theirs goes
//! upstream. A first append creates its stream by itself; for reads and tails the proxy creates it.

use serde_json::json;

use crate::{
    harness::{Ask, BASIN, KEY, Stack, records},
    registry::{SECRET, append, bodies, ciphers, read},
};

/// The first append of a stream took four calls and three commits once.
#[tokio::test(flavor = "multi_thread")]
async fn first_append_takes_one_call_and_two_commits() {
    for cipher in ["aegis-256", "aes-256-gcm"] {
        let stack = Stack::start().await;
        stack.create_basin(Some(cipher)).await;
        let client = stack.h2().await;
        stack.lite.quiet().await;
        let calls = stack.lite.seen().len();
        let generation = async || stack.config_store().summary().await.unwrap().generation;
        let commits = generation().await;
        assert_eq!(client.ask(append("s").key(&KEY)).await.status, 200);
        stack.lite.quiet().await;
        let seen = stack.lite.seen();
        let lines: Vec<&str> = seen[calls..].iter().map(|seen| &*seen.line).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(generation().await - commits, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_made_on_demand_are_sealed() {
    for cipher in ["aegis-256", "aes-256-gcm"] {
        let stack = Stack::start().await;
        stack.create_basin(Some(cipher)).await;
        let client = stack.h2().await;
        let config = r#"{"retention_policy":{"age":777}}"#;
        let asks = [
            ("append", append("append").key(&KEY), 200),
            ("read", read("read").key(&KEY), 416),
            ("tail", tail("tail"), 200),
        ];
        for (stream, ask, status) in asks {
            let answer = client.ask(ask.header("s2-stream-config", config)).await;
            assert_eq!(answer.status, status, "{stream}: {}", answer.text());
            let path = format!("/v1/streams/{stream}/records");
            let used = moved(&stack, "", &path)[0];
            let seen = stack.lite.seen();
            let made = (0..seen.len()).filter(|at| seen[*at].line.ends_with("/v1/streams"));
            let made: Vec<usize> = made.collect();
            let is_explicit = made.iter().any(|at| *at < used);
            assert_eq!(is_explicit, stream != "append", "{stream}");
            let stored = stack
                .direct()
                .await
                .ask(Ask::get(format!("/v1/streams/{stream}")))
                .await;
            // A check of the tail takes no configuration, as in S2.
            let honoured = stored.json()["retention_policy"]["age"] == 777;
            assert_eq!(honoured, stream != "tail", "{}", stored.text());
        }
        let all = ["append", "read", "tail"].map(|name| (name.to_owned(), json!(cipher)));
        assert_eq!(ciphers(&client).await, all);
        assert_eq!(
            bodies(&client.ask(read("append").key(&KEY)).await),
            [SECRET]
        );
        assert!(!stack.tap.saw(SECRET.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_refused_for_themselves_make_no_stream() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    let before = stack.lite.seen().len();
    let path = records("never");
    let asks = [
        (Ask::post(&path).body("application/json", "{"), "bad_json"),
        (Ask::post(&path).json(&json!({ "records": 1 })), "bad_json"),
        (Ask::post(&path).json(&json!({ "records": [] })), "invalid"),
        (Ask::post(&path).body("text/plain", "x"), "bad_json"),
        (
            Ask::post(&path).body("application/protobuf", "\u{7f}x"),
            "bad_proto",
        ),
        (append("never").header("s2-format", "hex"), "bad_header"),
        (
            append("never").header("s2-encryption-key", "x".repeat(45)),
            "invalid",
        ),
        (
            append("never").header("s2-stream-config", "{"),
            "bad_header",
        ),
        (
            append("never").header("s2-stream-config", "7"),
            "bad_header",
        ),
        (
            read("never").header("s2-stream-config", r#"{"retention_policy":7}"#),
            "bad_header",
        ),
        (Ask::get(format!("{path}?seq_num=x")), "bad_query"),
        (Ask::get(format!("{path}?seq_num=1&timestamp=1")), "invalid"),
        (Ask::get(format!("{path}?timestamp=2&until=1")), "invalid"),
        (
            read("never")
                .header("last-event-id", "x")
                .header("accept", "text/event-stream"),
            "bad_header",
        ),
    ];
    for (ask, code) in asks {
        let answer = client.ask(ask.clone()).await;
        assert_eq!(answer.code(), code, "{ask:?}: {}", answer.text());
    }
    let made = stack.lite.seen()[before..]
        .iter()
        .any(|seen| seen.line.contains("POST /v1/streams"));
    assert!(!made);
    assert_eq!(ciphers(&client).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_the_stream_is_made_and_the_request_refused() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    for (stream, ask) in [("a", append("a")), ("b", read("b"))] {
        let answer = client.ask(ask).await;
        assert_eq!((answer.status, &*answer.code()), (422, "invalid"));
        assert!(moved(&stack, "", &format!("/v1/streams/{stream}/records")).is_empty());
    }
    let made = ["a", "b"].map(|name| (name.to_owned(), json!("aegis-256")));
    assert_eq!(ciphers(&client).await, made);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_auto_creation_a_missing_stream_stays_missing() {
    let stack = Stack::start().await;
    let client = stack.h2().await;
    let nowhere = client.ask(read("a")).await;
    assert_eq!(nowhere.code(), "basin_not_found");
    let basin = json!({ "basin": BASIN, "config": { "stream_cipher": "aegis-256" } });
    client.ask(Ask::post("/v1/basins").json(&basin)).await;
    for ask in [append("a").key(&KEY), read("a").key(&KEY), tail("a")] {
        let answer = client.ask(ask).await;
        assert_eq!((answer.status, &*answer.code()), (404, "stream_not_found"));
    }
    assert_eq!(ciphers(&client).await, []);
    assert!(!stack.tap.saw(SECRET.as_bytes()));
}

fn tail(stream: &str) -> Ask {
    Ask::get(records(stream) + "/tail")
}

/// Requests that moved records of a stream, by their place among all requests upstream.
fn moved(stack: &Stack, method: &str, path: &str) -> Vec<usize> {
    let is = |line: &str| line.starts_with(method) && line.contains(path);
    let seen = stack.lite.seen();
    let found = seen.iter().enumerate().filter(|(_, seen)| is(&seen.line));
    found.map(|(at, _)| at).collect()
}
