//! An append to a plain stream breaks off when the stream is no longer plain under it: no byte that the
//! client sends after that reaches the upstream.

use bytes::Bytes;
use serde_json::json;

use crate::harness::{
    Ask, BASIN, Client, Frame, KEY, Session, Stack, channel, delete, frame, input, purged, record,
    records, until,
};

/// Sent while the stream is plain.
const IN_CLEAR: &str = "what anybody may see";
/// Sent once the stream is sealed.
const SECRET: &str = "what must not be seen upstream";

/// A deployment with a plain stream `s`, in a basin that encrypts new ones.
async fn plain_stream() -> Stack {
    let stack = Stack::start().await;
    stack.create_basin(None).await;
    make_plain(&stack).await;
    stack
}

/// Makes stream `s` while its basin has no cipher, and then gives it one.
async fn make_plain(stack: &Stack) {
    let made = stack.h2().await.ask(Ask::new("PUT", "/v1/streams/s")).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let change = Ask::new("PATCH", format!("/v1/basins/{BASIN}"));
    let change = change.json(&json!({ "stream_cipher": "aegis-256" }));
    let changed = stack.h2().await.ask(change).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
}

/// Deletes the stream and makes it anew, sealed.
async fn make_anew(stack: &Stack) {
    let client = stack.h2().await;
    delete(&client, "/v1/streams/s").await;
    purged(&stack.direct().await, "/v1/streams/s").await;
    until("it is made anew", async || {
        let made = client.ask(Ask::new("PUT", "/v1/streams/s")).await;
        [200, 201].contains(&made.status) && made.json()["cipher"] == "aegis-256"
    })
    .await;
}

/// Whether the stream takes sealed records now.
async fn sealed_append(stack: &Stack) -> u16 {
    let batch = json!({ "records": [{ "body": SECRET }] });
    let ask = Ask::post(records("s")).json(&batch).key(&KEY);
    let answer = stack.h2().await.ask(ask).await;
    assert!(!stack.tap.saw(SECRET.as_bytes()));
    answer.status
}

async fn session(client: &Client) -> Session {
    let mut session = Session::append(client, Ask::post(records("s"))).await;
    session.send(frame(&input([record(&[], IN_CLEAR)]))).await;
    session.live.frame().await.unwrap().unwrap().ack();
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_breaks_off_before_the_next_frame() {
    let stack = plain_stream().await;
    let mut session = session(&stack.h2().await).await;
    assert!(stack.tap.saw(IN_CLEAR.as_bytes()), "it is no plain stream");
    make_anew(&stack).await;
    session.send(frame(&input([record(&[], SECRET)]))).await;
    session.finish();
    // S2 may have ended the session of the deleted stream by itself.
    while let Ok(Some(frame)) = session.live.frame().await {
        assert!(matches!(frame, Frame::Terminal { .. }), "{frame:?}");
    }
    assert!(!stack.tap.saw(SECRET.as_bytes()));
    assert_eq!(sealed_append(&stack).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_body_breaks_off_in_its_middle() {
    for alpn in ["http/1.1", "h2"] {
        let stack = plain_stream().await;
        let client = Client::tls(stack.address, &stack.certificate, alpn).await;
        // Known to be plain from now on, so that bodies are passed on as they come.
        let batch = json!({ "records": [{ "body": IN_CLEAR }] });
        let first = client.ask(Ask::post(records("s")).json(&batch)).await;
        assert_eq!(first.status, 200, "{}", first.text());
        let before = stack.lite.seen().len();
        let (sender, body) = channel();
        let ask = Ask::post(records("s")).header("content-type", "application/json");
        let sending = tokio::spawn(async move { client.send(ask, body).await });
        let head = format!(r#"{{"records":[{{"body":"{IN_CLEAR}"}},{{"body":"#);
        sender.send(Ok(Bytes::from(head))).await.unwrap();
        let arrived = || {
            let mut seen = stack.lite.seen().split_off(before);
            seen.retain(|seen| seen.line.starts_with("POST"));
            seen.pop()
        };
        until("the beginning arrives", async || {
            arrived().is_some_and(|seen| !seen.body.is_empty())
        })
        .await;
        make_anew(&stack).await;
        let rest = Bytes::from(format!(r#""{SECRET}"}}]}}"#));
        sender.send(Ok(rest)).await.unwrap();
        drop(sender);
        if let Ok(answer) = sending.await.unwrap() {
            assert!(answer.status().as_u16() >= 400, "{}", answer.status());
        }
        assert!(!stack.tap.saw(SECRET.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_changes_elsewhere() {
    let stack = plain_stream().await;
    let mut session = session(&stack.h2().await).await;
    for at in 1..4 {
        // Another stream's first record changes the store.
        let batch = json!({ "records": [{ "body": "x" }] });
        let other = Ask::post(records(&format!("other-{at}"))).json(&batch);
        let other = stack.h2().await.ask(other.key(&KEY)).await;
        assert_eq!(other.status, 200, "{}", other.text());
        session.send(frame(&input([record(&[], IN_CLEAR)]))).await;
        let ack = session.live.frame().await.unwrap().unwrap().ack();
        assert_eq!(ack.start.unwrap().seq_num, at);
    }
    session.finish();
    assert_eq!(session.live.frame().await.unwrap(), None);
}
