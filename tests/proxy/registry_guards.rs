//! What is known to be encrypted stays so whatever the upstream claims, and what is not known yet waits.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    harness::{Act, Ask, Call, delete, purged, until},
    registry_collisions::shown_cipher,
    registry_intents::{Scripted, text},
    registry_races::patch,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_append_with_a_key_is_never_plain_while_a_cipher_comes() {
    let scripted = Scripted::start().await;
    let client = scripted.stack.h2().await;
    assert_eq!(client.ask(patch(Value::Null)).await.status, 200);
    let go = Arc::new(Notify::new());
    let hold = Arc::clone(&go);
    let changes = |call: &Call| call.is("PATCH", "/v1/basins/");
    scripted.fake.script(move |call| match changes(call) {
        true => Act::Hold(Arc::clone(&hold)),
        false => Act::Pass,
    });
    let before = scripted.fake.calls().len();
    let appended = async {
        until("the cipher is being changed", async || {
            scripted.fake.calls()[before..].iter().any(changes)
        })
        .await;
        // The basin has no cipher until the upstream answered.
        let early = scripted.append("new").await;
        scripted.fake.heal();
        go.notify_one();
        early
    };
    let cipher = patch(json!("aegis-256"));
    let (changed, early) = tokio::join!(client.ask(cipher), appended);
    assert_eq!((changed.status, early.status), (200, 422));
    assert_eq!(scripted.append("new").await.status, 200);
    assert_eq!(shown_cipher(&scripted.stack, "new").await, "aegis-256");
    scripted.never_plain("appended while the cipher was set");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_stream_made_again_behind_the_proxy_stays_so_where_plain_ones_are_made() {
    let scripted = Scripted::start().await;
    let stack = &scripted.stack;
    assert_eq!(scripted.append("s").await.status, 200);
    let client = stack.h2().await;
    assert_eq!(client.ask(patch(Value::Null)).await.status, 200);
    let direct = stack.direct().await;
    delete(&direct, "/v1/streams/s").await;
    purged(&direct, "/v1/streams/s").await;
    // To the upstream it is new, and the basin makes plain streams. Here nobody deleted it.
    let made = client.ask(Ask::new("PUT", "/v1/streams/s")).await;
    assert_eq!(made.header("s2-provision-result"), Some("created"));
    assert_eq!(made.json()["cipher"], "aegis-256", "{}", made.text());
    scripted
        .ends_sealed("s", "made again behind the proxy")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_is_only_claimed_leaves_nothing_plain_where_plain_ones_are_made() {
    let scripted = Scripted::start().await;
    assert_eq!(scripted.append("s").await.status, 200);
    let client = scripted.stack.h2().await;
    assert_eq!(client.ask(patch(Value::Null)).await.status, 200);
    scripted.fake.script(|call| match call.method == "DELETE" {
        true => Act::Answer(202, text("")),
        false => Act::Pass,
    });
    let deleted = client.ask(Ask::new("DELETE", "/v1/streams/s")).await;
    assert_eq!(deleted.status, 202);
    // To the proxy it is gone, and the basin makes plain streams: a client that sends a key is refused.
    scripted.fake.heal();
    let keyed = scripted.append("s").await;
    assert_eq!((keyed.status, &*keyed.code()), (422, "invalid"));
    scripted.never_plain("a claimed deletion");
}
