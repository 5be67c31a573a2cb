//! What is no session but takes its time does not outlive its API key either: a read that waits delivers nothing,
//! and a body that comes late does nothing.

use std::sync::Arc;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use streamseal::project::Scopes;
use tokio::{sync::Notify, task::JoinHandle};

use crate::{
    gate_sessions::{SOON, STREAMS, keyed, stack, tail},
    harness::{
        Act, Answer, Ask, BASIN, Call, Client, Encoding, Fake, KEY, Lite, Packed, Stack, Token,
        append, channel, input, project, read, record, records, until,
    },
};

/// A read at the tail that waits for a minute, once the upstream has it.
async fn waiting(stack: &Stack, token: &Token, stream: &str) -> JoinHandle<Answer> {
    let asked = || {
        let seen = stack.lite.seen();
        let reads = seen.iter().filter(|seen| seen.line.contains("wait=60"));
        reads.count()
    };
    let before = asked();
    let client = stack.h2().await;
    let ask = token.on(keyed(
        stream,
        read(stream, "seq_num=1&wait=60", Encoding::Json),
    ));
    let read = tokio::spawn(async move { client.ask(ask).await });
    until("the upstream has it", async || asked() > before).await;
    read
}

fn is_refused(answer: &Answer) {
    let refused = (answer.status, answer.code());
    assert_eq!(refused, (401, "authn".to_owned()), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_waits_ends_with_its_api_key() {
    let (stack, token) = stack().await;
    let other = stack.issue(&token, "other", Scopes::all()).await;
    let mut reads = Vec::new();
    for stream in STREAMS {
        reads.push(waiting(&stack, &other, stream).await);
    }
    stack.revoke(&other).await;
    for (stream, read) in STREAMS.iter().zip(reads) {
        let answer = tokio::time::timeout(SOON, read).await;
        is_refused(
            &answer
                .unwrap_or_else(|_| panic!("{stream} waits on"))
                .unwrap(),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_after_its_api_key_is_over_is_not_delivered() {
    let (stack, token) = stack().await;
    let client = stack.h2().await;
    for stream in STREAMS {
        let other = stack.issue(&token, stream, Scopes::all()).await;
        let read = waiting(&stack, &other, stream).await;
        stack.revoke(&other).await;
        // Before anybody looked.
        let late = json!({ "records": [{ "body": "late" }] });
        let put = keyed(stream, Ask::post(records(stream)).json(&late));
        assert_eq!(client.ask(token.on(put)).await.status, 200);
        is_refused(&read.await.unwrap());
        let read = waiting(&stack, &token, stream);
        assert!(read.await.await.unwrap().text().contains("late"));
    }
}

/// Sends the head and half of the body, revokes the API key, and sends the rest.
async fn revoked_halfway(stack: &Stack, client: &Client, token: &Token, ask: Ask, body: &Value) {
    let (sender, feed) = channel();
    let ask = token.on(ask.header("content-type", "application/json"));
    let body = body.to_string();
    let (half, rest) = body.split_at(body.len() / 2);
    let active = || stack.counts().only(&["requests_active"]).sum();
    until("nothing else is going on", async || active() == 0.0).await;
    let sending = client.send(ask.clone(), feed);
    let feeding = async {
        sender.send(Ok(half.to_owned().into())).await.unwrap();
        until("it is let in", async || active() == 1.0).await;
        stack.revoke(token).await;
        sender.send(Ok(rest.to_owned().into())).await.unwrap();
        drop(sender);
    };
    let (answer, ()) = tokio::join!(sending, feeding);
    let (head, body) = answer.unwrap().into_parts();
    is_refused(&Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.collect().await.unwrap().to_bytes(),
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_api_key_ends_before_its_body_is_not_stored() {
    let (stack, token) = stack().await;
    stack.lite.quiet().await;
    let asked = stack.lite.seen().len();
    let batch = json!({ "records": [{ "body": "late" }] });
    for (at, client) in [stack.h1().await, stack.h2().await].iter().enumerate() {
        // Whether there is such a stream the upstream would have to say, and might make it.
        for stream in ["sealed", "new"] {
            let id = format!("{stream}-{at}");
            let other = stack.issue(&token, &id, Scopes::all()).await;
            let ask = Ask::post(records(stream)).key(&KEY);
            revoked_halfway(&stack, client, &other, ask, &batch).await;
        }
    }
    assert_eq!(stack.lite.seen().len(), asked);
    assert_eq!(tail(&stack, "sealed").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_api_key_ends_while_it_is_prepared_is_not_stored() {
    let lite = Arc::new(Lite::start().await);
    let fake = Fake::start(lite.address).await;
    let stack = Stack::over(lite, |config| {
        project(config, "tests", &["test-*/**"]);
        fake.aim(config);
    })
    .await;
    let token = stack.create_project("tests").await;
    let client = stack.h2().await;
    let config = json!({ "stream_cipher": "aes-256-gcm" });
    let make = Ask::post("/v1/basins").json(&json!({ "basin": BASIN, "config": config }));
    assert_eq!(client.ask(token.on(make)).await.status, 201);
    let make = Ask::post("/v1/streams").json(&json!({ "stream": "s" }));
    assert_eq!(client.ask(token.on(make)).await.status, 201);
    let held = Arc::new(Notify::new());
    let hold = Arc::clone(&held);
    fake.script(
        move |call| match call.is("GET", "/v1/streams/s/records/tail") {
            true => Act::Hold(Arc::clone(&hold)),
            false => Act::Pass,
        },
    );
    let other = stack.issue(&token, "other", Scopes::all()).await;
    let batch = input([record(&[], "late")]);
    let append = other.on(append("s", Encoding::Proto, Packed::Not, &batch));
    let revoke = async {
        let asks = |call: &Call| call.is("GET", "/v1/streams/s/records/tail");
        until("its place is asked for", async || {
            fake.calls().iter().any(asks)
        })
        .await;
        stack.revoke(&other).await;
        held.notify_one();
    };
    let (answer, ()) = tokio::join!(client.ask(append), revoke);
    is_refused(&answer);
    let stores = |call: &Call| call.is("POST", "/v1/streams/s/records");
    assert!(!fake.calls().iter().any(stores));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_api_key_ends_before_its_body_does_nothing() {
    let (stack, token) = stack().await;
    let client = stack.h2().await;
    stack.lite.quiet().await;
    let asked = stack.lite.seen().len();
    let own = format!("/v1/basins/{BASIN}");
    for (at, (method, path, body)) in [
        ("POST", "/v1/streams", json!({ "stream": "made" })),
        (
            "PUT",
            "/v1/streams/made",
            json!({ "retention_policy": { "age": 3600 } }),
        ),
        ("DELETE", "/v1/streams/sealed", json!({ "no": "reason" })),
        (
            "POST",
            "/v1/basins",
            json!({ "basin": "test-basin-2", "config": null }),
        ),
        (
            "PUT",
            "/v1/basins/test-basin-2",
            json!({ "config": { "stream_cipher": null } }),
        ),
        ("PATCH", &*own, json!({ "stream_cipher": "aes-256-gcm" })),
        ("DELETE", &*own, json!({ "no": "reason" })),
    ]
    .into_iter()
    .enumerate()
    {
        let other = stack
            .issue(&token, &format!("other-{at}"), Scopes::all())
            .await;
        let ask = Ask::new(method, path);
        revoked_halfway(&stack, &client, &other, ask, &body).await;
    }
    assert_eq!(stack.lite.seen().len(), asked);
    let config = client.ask(token.on(Ask::get(&own))).await;
    assert_eq!(config.json()["stream_cipher"], "aegis-256");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_stream_that_is_still_on_its_way_is_not_made() {
    let (stack, token) = stack().await;
    let client = stack.h2().await;
    let uri = "/v1/streams/plain";
    let before = stack.direct().await.ask(Ask::get(uri)).await.json();
    let other = stack.issue(&token, "other", Scopes::all()).await;
    let (sender, feed) = channel();
    let ask = other.on(Ask::new("PATCH", uri).header("content-type", "application/json"));
    let sending = client.send(ask, feed);
    let revoke = async {
        let half = r#"{"retention_policy":{"age":"#;
        sender.send(Ok(half.into())).await.unwrap();
        until("it is on its way", async || stack.tap.saw(half.as_bytes())).await;
        stack.revoke(&other).await;
        sender.closed().await;
    };
    let answered = tokio::time::timeout(SOON, async { tokio::join!(sending, revoke) }).await;
    let (answer, ()) = answered.expect("it goes on");
    assert!(answer.is_err() || !answer.unwrap().status().is_success());
    assert_eq!(stack.direct().await.ask(Ask::get(uri)).await.json(), before);
}
