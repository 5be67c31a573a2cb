//! A stream that is deleted and made anew behind the proxy's back, while it is used, never gets a record
//! in clear that it would not have got before.

use serde_json::{Value, json};

use crate::{
    harness::{Ask, KEY, Stack, delete, records, until},
    registry_collisions::shown_cipher,
    registry_races::{SECRET, append, patch},
};

/// Deletes a stream upstream, and appends a plain record there: to the stream that this makes, or to
/// the one that somebody else was faster to make.
async fn replace_behind(stack: &Stack, stream: &str) {
    let direct = stack.direct().await;
    delete(&direct, &format!("/v1/streams/{stream}")).await;
    let theirs = json!({ "records": [{ "body": "theirs" }] });
    until("it is replaced", async || {
        // The upstream looks for what to purge when something is deleted.
        for method in ["PUT", "DELETE"] {
            direct.ask(Ask::new(method, "/v1/streams/another")).await;
        }
        let made = direct.ask(Ask::post(records(stream)).json(&theirs)).await;
        made.status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_stream_that_is_replaced_while_it_is_used_stays_sealed() {
    for cipher in ["aegis-256", "aes-256-gcm"] {
        let stack = Stack::start().await;
        stack.create_basin(Some(cipher)).await;
        let client = stack.h2().await;
        assert_eq!(client.ask(append("s")).await.status, 200);
        let used = async {
            loop {
                let answer = client.ask(append("s")).await;
                assert!(
                    [200, 404, 409, 503].contains(&answer.status),
                    "{}",
                    answer.text()
                );
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = replace_behind(&stack, "s") => {}
            () = used => {}
        }
        assert_eq!(client.ask(append("s")).await.status, 200);
        assert_eq!(shown_cipher(&stack, "s").await, cipher);
        // Their record is no record of this stream.
        let read = client
            .ask(Ask::get(records("s") + "?seq_num=0").key(&KEY))
            .await;
        let stored = stack.stored("s").await;
        let theirs = stored.iter().any(|record| record.body == "theirs");
        assert_eq!(
            read.status,
            if theirs { 400 } else { 200 },
            "{}",
            read.text()
        );
        assert_eq!(
            client
                .ask(append("s").without("s2-encryption-key"))
                .await
                .status,
            422
        );
        assert!(!stack.tap.saw(SECRET.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_stream_replaced_with_records_takes_no_key() {
    let stack = Stack::start().await;
    stack.create_basin(None).await;
    let plain = || append("s").without("s2-encryption-key");
    assert_eq!(stack.h2().await.ask(plain()).await.status, 200);
    let changed = stack.h2().await.ask(patch(json!("aegis-256"))).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(stack.h2().await.ask(plain()).await.status, 200);
    replace_behind(&stack, "s").await;
    for _ in 0..2 {
        let refused = stack.h2().await.ask(append("s")).await;
        assert_eq!((refused.status, &*refused.code()), (422, "invalid"));
    }
    let stored = stack.stored("s").await;
    assert!(stored.iter().all(|record| record.body == "theirs"));
    assert_eq!(shown_cipher(&stack, "s").await, Value::Null);
}
