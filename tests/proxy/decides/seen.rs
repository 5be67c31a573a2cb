//! Streams that stay plain when their basin gets a cipher: those whose creation, or an acknowledged append,
//! this proxy forwarded before. Nothing else does.

use serde_json::{Value, json};

use super::{
    CLEAR, KEYED, Served, append, bodies, cipher_of, create, ensure, is, keyed, lies,
    lies::{Asked, Question},
    never_plain, read, session, set_cipher,
};
use crate::harness::{Ask, BASIN, Client, KEY, Stack, ask_until, delete, purged};

/// Every way in which the proxy can see that a stream is made.
const WAYS: [&str; 4] = ["created", "ensured", "appended", "session"];

/// Makes a stream of each way, through the proxy.
async fn make_streams(client: &Client) {
    is(client, create("created"), 201, "").await;
    is(client, ensure("ensured"), 201, "").await;
    is(client, append("appended", CLEAR), 200, "").await;
    is(client, session("session", CLEAR), 200, "").await;
}

async fn stay_plain(client: &Client) {
    for stream in WAYS {
        is(client, append(stream, CLEAR), 200, "").await;
        let stored = bodies(&client.ask(read(stream)).await);
        assert!(
            stored.iter().all(|body| body == CLEAR),
            "{stream}: {stored:?}"
        );
        assert_eq!(cipher_of(client, stream).await, Value::Null, "{stream}");
        is(client, keyed(stream), 422, "invalid").await;
    }
}

/// A basin that had streams before it got its cipher: `theirs` was made around the proxy, and has a record. (The
/// first append with a key to an empty one is a first use like any other, and seals it.)
async fn before_the_cipher(stack: &Stack) -> Client {
    stack.create_basin(None).await;
    let client = stack.h2().await;
    make_streams(&client).await;
    is(&stack.direct().await, append("theirs", CLEAR), 200, "").await;
    set_cipher(&client, json!("aegis-256")).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_from_before_the_cipher_stay_plain() {
    let mut stack = Stack::start().await;
    let client = before_the_cipher(&stack).await;
    stay_plain(&client).await;
    drop(client);
    stack.restart(|_| {}).await;
    let client = stack.h2().await;
    stay_plain(&client).await;
    is(&client, keyed("new"), 200, "").await;
    assert_eq!(cipher_of(&client, "new").await, "aegis-256");
    never_plain(&stack.tap, "before the cipher");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_basin_that_is_declared_later_stay_plain() {
    let mut stack = Stack::start().await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    make_streams(&client).await;
    drop(client);
    let rules = vec![super::basin_rule("test-*")];
    stack.restart(|config| config.basins = rules).await;
    let client = stack.h2().await;
    stay_plain(&client).await;
    is(&client, keyed("new"), 200, "").await;
    never_plain(&stack.tap, "declared later");
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_of_another_stream_does_not_hide_what_was_seen() {
    let stack = Stack::start().await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    is(&client, append("kept", CLEAR), 200, "").await;
    // At once: what was seen is written 100 ms later.
    let other = Ask::new("DELETE", "/v1/streams/never-made").basin(BASIN);
    is(&client, other, 404, "stream_not_found").await;
    set_cipher(&client, json!("aegis-256")).await;
    is(&client, append("kept", CLEAR), 200, "").await;
}

/// Every form of access to a stream that was made around the proxy.
fn every_access(stream: &str) -> Vec<Ask> {
    vec![
        append(stream, CLEAR),
        keyed(stream),
        read(stream),
        read(stream).key(&KEY),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_made_around_the_proxy_is_refused_by_name() {
    let mut stack = Stack::start().await;
    drop(before_the_cipher(&stack).await);
    for _ in 0..2 {
        let client = stack.h2().await;
        for ask in every_access("theirs") {
            let refused = client.ask(ask.clone()).await;
            let said = (refused.status, &*refused.code());
            assert_eq!(
                said,
                (403, "permission_denied"),
                "{ask:?}: {}",
                refused.text()
            );
            let command = format!("streamseal store admit s2://{BASIN}/theirs");
            assert!(refused.text().contains(&command), "{}", refused.text());
        }
        // An ensure changes nothing: it was there, and not by this proxy.
        is(&client, ensure("theirs"), 200, "").await;
        is(&client, append("theirs", CLEAR), 403, "permission_denied").await;
        drop(client);
        stack.restart(|_| {}).await;
    }
    never_plain(&stack.tap, "made around the proxy");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_streams_pass_with_a_warning_when_allowed() {
    let served = Served::start(json!({ "store": { "unknown_streams": "plain" } })).await;
    served.create_basin(Some("aegis-256")).await;
    is(
        &Client::plain(served.lite.address).await,
        create("theirs"),
        201,
        "",
    )
    .await;
    let client = served.client().await;
    for _ in 0..2 {
        is(&client, append("theirs", CLEAR), 200, "").await;
    }
    assert_eq!(bodies(&client.ask(read("theirs")).await), [CLEAR; 2]);
    let warnings = served.logged(&["WARN"], &["theirs"]);
    assert!(warnings >= 1, "{}", served.program.log());
    is(&client, keyed("theirs"), 422, "invalid").await;
    never_plain(&served.tap, "unknown streams");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_memory_streams_from_before_are_refused() {
    let stack = Stack::with(|config| config.store.remember_plain = false).await;
    let client = before_the_cipher(&stack).await;
    for stream in WAYS {
        let refused = is(&client, append(stream, CLEAR), 403, "permission_denied").await;
        let command = format!("streamseal store admit s2://{BASIN}/{stream}");
        assert!(refused.text().contains(&command), "{}", refused.text());
    }
    is(&client, keyed("new"), 200, "").await;
}

/// The stream is sealed: it takes [`KEY`], and nothing without a key.
async fn is_sealed(stack: &Stack, stream: &str, why: &str) {
    let client = stack.h2().await;
    is(&client, append(stream, CLEAR), 422, "invalid").await;
    is(&client, keyed(stream), 200, "").await;
    assert_eq!(cipher_of(&client, stream).await, "aegis-256", "{why}");
    let opened = bodies(&client.ask(read(stream).key(&KEY)).await);
    assert!(
        opened.iter().all(|body| body.starts_with(KEYED)),
        "{why}: {opened:?}"
    );
    never_plain(&stack.tap, why);
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_that_is_deleted_and_made_again_is_sealed() {
    let stack = Stack::start().await;
    let client = before_the_cipher(&stack).await;
    let direct = stack.direct().await;
    for stream in ["appended", "created"] {
        let path = format!("/v1/streams/{stream}");
        delete(&client, &path).await;
        purged(&direct, &path).await;
        if stream == "created" {
            ask_until(&client, create(stream), |answer| answer.status == 201).await;
        } else {
            let made = |answer: &crate::harness::Answer| answer.status == 200;
            ask_until(&client, keyed(stream), made).await;
        }
        is_sealed(&stack, stream, "deleted and made again").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn created_where_a_plain_stream_lived_is_sealed() {
    let stack = Stack::start().await;
    let client = before_the_cipher(&stack).await;
    let direct = stack.direct().await;
    for (stream, again) in [
        ("created", create("created")),
        ("ensured", ensure("ensured")),
    ] {
        let path = format!("/v1/streams/{stream}");
        delete(&direct, &path).await;
        purged(&direct, &path).await;
        ask_until(&client, again, |answer| answer.status == 201).await;
        is_sealed(&stack, stream, "made again behind the proxy").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn created_that_is_only_claimed_leaves_nothing_plain() {
    let mut stack = Stack::start().await;
    let client = before_the_cipher(&stack).await;
    stack.lite.lie(|seen| {
        let asked = Asked::of(seen)?;
        let made = lies::stream("created", lies::NOT_YET);
        let is_made = [Question::Create, Question::Ensure].contains(&asked.question);
        is_made.then(|| lies::provisions(201, &made, "created"))
    });
    is(&client, ensure("created"), 201, "").await;
    stack.lite.be_honest();
    drop(client);
    for _ in 0..2 {
        is_sealed(&stack, "created", "only claimed").await;
        stack.restart(|_| {}).await;
    }
}
