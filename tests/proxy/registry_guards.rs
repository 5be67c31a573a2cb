//! What is known to be encrypted stays so whatever the upstream claims, and what is not known yet waits.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{sync::Notify, time::timeout};

use crate::{
    harness::{Act, Ask, Call, delete, purged, until},
    registry_collisions::shown_cipher,
    registry_intents::{Scripted, text},
    registry_races::patch,
};

/// Long enough for an append that does not wait to be answered. A slower machine misses the fault, but
/// sees none that is not there.
const NOT_WAITING: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn a_new_stream_waits_while_its_basin_gets_the_first_cipher() {
    let scripted = Scripted::start().await;
    let client = scripted.stack.h2().await;
    assert_eq!(client.ask(patch(Value::Null)).await.status, 200);
    let go = Arc::new(Notify::new());
    let hold = Arc::clone(&go);
    let lists = |call: &Call| call.uri.contains("start_after=");
    scripted.fake.script(move |call| match lists(call) {
        true => Act::Hold(Arc::clone(&hold)),
        false => Act::Pass,
    });
    let appended = async {
        until("the streams are being listed", async || {
            scripted.fake.calls().iter().any(lists)
        })
        .await;
        let mut append = std::pin::pin!(scripted.append("new"));
        let early = timeout(NOT_WAITING, &mut append).await;
        assert!(early.is_err(), "it did not wait");
        scripted.fake.heal();
        go.notify_one();
        append.await
    };
    let cipher = patch(json!("aegis-256"));
    let (changed, appended) = tokio::join!(client.ask(cipher), appended);
    assert_eq!((changed.status, appended.status), (200, 200));
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
    scripted.ends_sealed("s", "a claimed deletion").await;
}
