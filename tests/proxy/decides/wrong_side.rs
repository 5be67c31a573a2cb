//! A key for a stream that is plain: the client believes that the stream is encrypted, and nothing of the
//! request goes up.

use serde_json::{Value, json};
use streamseal::registry::rules::RuleCipher;

use super::{
    CLEAR, Served, append, basin_rule, bodies, body_of, is, keyed, never_plain, read, session_by,
    stream_rule,
};
use crate::harness::{Ask, KEY, Stack, records};

/// Every form of a request that moves records, with a key.
fn every_form(stream: &str) -> Vec<Ask> {
    let proto = crate::harness::append(
        stream,
        crate::harness::Encoding::Proto,
        crate::harness::Packed::Not,
        &crate::harness::input([crate::harness::record(&[], body_of(stream, &KEY))]),
    );
    vec![
        keyed(stream),
        proto,
        session_by(stream, &KEY),
        read(stream).key(&KEY),
        read(stream).key(&KEY).header("accept", "text/event-stream"),
        read(stream).key(&KEY).header("content-type", "s2s/proto"),
    ]
}

/// Requests of the upstream so far that move records or change something.
fn effects(stack: &Stack) -> Vec<String> {
    let lines = stack.lite.seen().into_iter().map(|seen| seen.line);
    let is_question = |line: &str| {
        let moves = line.contains("/records") && !line.contains("/records/tail");
        line.starts_with("GET ") && !moves
    };
    lines.filter(|line| !is_question(line)).collect()
}

async fn refuses_keys(stack: &Stack, stream: &str) {
    for client in [stack.h1().await, stack.h2().await] {
        let before = effects(stack);
        for ask in every_form(stream) {
            let refused = is(&client, ask, 422, "invalid").await;
            let text = refused.text();
            assert!(text.contains("not encrypted"), "{text}");
            assert!(text.contains("s2-encryption-key"), "{text}");
        }
        assert_eq!(effects(stack), before, "something went up");
    }
    never_plain(&stack.tap, stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn key_on_a_plain_stream_is_refused() {
    let mut declared = basin_rule("test-*");
    declared.stream_cipher = RuleCipher::None;
    for rules in [vec![], vec![declared]] {
        let stack = Stack::with(|config| config.basins = rules).await;
        plain_basin_refuses_keys(&stack).await;
    }
}

async fn plain_basin_refuses_keys(stack: &Stack) {
    stack.create_basin(None).await;
    let client = stack.h2().await;
    is(&client, append("known", CLEAR), 200, "").await;
    for stream in ["known", "not-there-yet"] {
        refuses_keys(stack, stream).await;
    }
    // Without a key it is the plain stream that it was.
    is(&client, append("known", CLEAR), 200, "").await;
    assert_eq!(bodies(&client.ask(read("known")).await), [CLEAR; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn key_on_a_stream_that_is_plain_by_rule_is_refused() {
    let rules = vec![stream_rule("test-basin/plain", RuleCipher::None)];
    let stack = Stack::with(|config| config.streams = rules).await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    is(&client, append("plain", CLEAR), 200, "").await;
    refuses_keys(&stack, "plain").await;
    is(&client, append("plain", CLEAR), 200, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn key_on_a_stream_from_before_the_cipher_is_refused() {
    let stack = Stack::start().await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    is(&client, append("seen", CLEAR), 200, "").await;
    super::set_cipher(&client, json!("aegis-256")).await;
    refuses_keys(&stack, "seen").await;
    is(&client, append("seen", CLEAR), 200, "").await;
}

/// Sends a key with two appends and a read of a plain stream, and returns the metric.
async fn with_keys(served: &Served, status: u16, code: &str) -> f64 {
    served.create_basin(None).await;
    let client = served.client().await;
    is(&client, append("plain", CLEAR), 200, "").await;
    for ask in [
        keyed("plain"),
        session_by("plain", &KEY),
        read("plain").key(&KEY),
    ] {
        is(&client, ask, status, code).await;
    }
    served.count("key_on_plain_total").await
}

#[tokio::test(flavor = "multi_thread")]
async fn key_on_a_plain_stream_is_counted_and_logged() {
    let served = Served::start(json!({})).await;
    assert_eq!(with_keys(&served, 422, "invalid").await, 3.0);
    let lines = served.logged(&["INFO", "WARN"], &["plain", "not encrypted"]);
    assert!(lines >= 3, "{}", served.program.log());
    never_plain(&served.tap, "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn key_on_a_plain_stream_passes_with_a_warning() {
    let served = Served::start(json!({ "keys": { "on_plain": "warn" } })).await;
    assert_eq!(with_keys(&served, 200, "").await, 3.0);
    let warnings = served.logged(&["WARN"], &["plain"]);
    assert!(warnings >= 1, "{}", served.program.log());
    let stored = served
        .client()
        .await
        .ask(Ask::get(records("plain") + "?seq_num=0"))
        .await;
    let sent = body_of("plain", &KEY);
    assert_eq!(bodies(&stored), [CLEAR, &*sent, &*sent]);
    // The key itself goes nowhere.
    for seen in served.lite.seen() {
        let headers = Value::from(seen.headers);
        assert!(!headers.to_string().contains("encryption-key"), "{headers}");
    }
}
