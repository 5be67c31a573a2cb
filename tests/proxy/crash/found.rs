//! What the random kills found, one by one and without a kill.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::{
    harness::{Act, Ask, BASIN, Call, ask_until, delete, purged},
    registry_collisions::shown_cipher,
    registry_intents::{Scripted, text},
    registry_races::{patch, stored_cipher},
};

/// A list that says that `s` is being deleted.
const GOING: &str = r#"{"streams":[{"name":"s","created_at":"2001-01-01T00:00:00Z",
    "deleted_at":"2001-01-02T00:00:00Z","cipher":null}],"has_more":false}"#;

const PENDING: &str = r#"{"code":"stream_deletion_pending","message":"going"}"#;

fn is_creation(call: &Call) -> bool {
    call.is("POST", "/v1/streams") && !call.uri.contains("/records")
}

async fn change_cipher(scripted: &Scripted) {
    let client = scripted.stack.h2().await;
    let changed = client.ask(patch(json!("aes-256-gcm"))).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
}

/// The next append makes `s` with the cipher that the basin has now.
async fn is_made_with_the_new_cipher(scripted: &Scripted) {
    let appended = scripted.append("s").await;
    assert_eq!(appended.status, 200, "{}", appended.text());
    assert_eq!(stored_cipher(&scripted.stack, "s").await, "aes-256-gcm");
    scripted.never_plain("made anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_creation_does_not_take_a_stream_that_is_going_for_its_own() {
    let scripted = Scripted::start().await;
    scripted.fake.script(|call| match call {
        call if is_creation(call) => Act::Drop,
        call if call.is("GET", "/v1/streams?prefix=s") => Act::Answer(200, text(GOING)),
        call if call.is("GET", "/v1/streams/s") => Act::Answer(409, text(PENDING)),
        call if call.is("POST", "/v1/streams/s/records") => Act::Answer(409, text(PENDING)),
        _ => Act::Pass,
    });
    assert_eq!(scripted.create("s").await.status, 500);
    assert_eq!(scripted.read("s").await.code(), "stream_deletion_pending");
    assert_eq!(scripted.append("s").await.code(), "stream_deletion_pending");
    scripted.fake.heal();
    change_cipher(&scripted).await;
    is_made_with_the_new_cipher(&scripted).await;
    assert_eq!(shown_cipher(&scripted.stack, "s").await, "aes-256-gcm");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_goes_between_two_looks_is_made_anew() {
    let scripted = Scripted::start().await;
    let looks = AtomicUsize::new(0);
    scripted.fake.script(move |call| {
        let is_look = call.is("GET", "/v1/streams?prefix=s");
        match is_look && looks.fetch_add(1, Ordering::SeqCst) == 0 {
            true => Act::Answer(200, text(GOING)),
            false => Act::Pass,
        }
    });
    // A read looks, and creates it.
    let read = scripted.read("s").await;
    assert_eq!(read.status, 416, "{}", read.text());
    scripted.ends_sealed("s", "gone between two looks").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_a_conflict_hides_leaves_no_cipher_behind() {
    let scripted = Scripted::start().await;
    assert_eq!(scripted.append("s").await.status, 200);
    let conflict = r#"{"code":"transaction_conflict","message":"try again"}"#;
    scripted
        .fake
        .script(move |call| match call.is("DELETE", "/v1/streams/s") {
            true => Act::Replace(409, text(conflict)),
            false => Act::Pass,
        });
    let client = scripted.stack.h2().await;
    let deleted = client.ask(Ask::new("DELETE", "/v1/streams/s")).await;
    assert_eq!(deleted.code(), "transaction_conflict");
    scripted.fake.heal();
    change_cipher(&scripted).await;
    purged(&scripted.stack.direct().await, "/v1/streams/s").await;
    is_made_with_the_new_cipher(&scripted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_deleted_behind_the_proxy_is_made_anew_whatever_its_cipher() {
    let scripted = Scripted::start().await;
    change_cipher(&scripted).await;
    // A look at the tail makes no stream here.
    let on_append = json!({ "create_stream_on_read": false });
    let change = Ask::new("PATCH", format!("/v1/basins/{BASIN}")).json(&on_append);
    assert_eq!(scripted.stack.h2().await.ask(change).await.status, 200);
    assert_eq!(scripted.create("s").await.status, 201);
    let direct = scripted.stack.direct().await;
    delete(&direct, "/v1/streams/s").await;
    purged(&direct, "/v1/streams/s").await;
    is_made_with_the_new_cipher(&scripted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_basin_whose_creation_failed_can_be_made_without_a_cipher() {
    let scripted = Scripted::start().await;
    let client = scripted.stack.h2().await;
    let make = |name: &str, cipher: Value| {
        let config = json!({ "stream_cipher": cipher, "create_stream_on_append": true });
        client.ask(Ask::post("/v1/basins").json(&json!({ "basin": name, "config": config })))
    };
    let shown = async |name: &str| {
        let config = client.ask(Ask::get(format!("/v1/basins/{name}"))).await;
        config.json()["stream_cipher"].clone()
    };
    for fault in [Act::Drop, Act::LoseAnswer] {
        let (name, was_made) = match fault {
            Act::Drop => ("not-made", false),
            _ => ("made-basin", true),
        };
        scripted
            .fake
            .script(move |call| match call.is("POST", "/v1/basins") {
                true => fault.clone(),
                false => Act::Pass,
            });
        assert_eq!(make(name, json!("aegis-256")).await.status, 500);
        scripted.fake.heal();
        // The one that is there has a cipher, and nobody takes it away by asking for another basin.
        let status = make(name, Value::Null).await.status;
        assert_eq!(status, if was_made { 409 } else { 201 });
        let cipher = if was_made {
            json!("aegis-256")
        } else {
            Value::Null
        };
        assert_eq!(shown(name).await, cipher);
    }

    let append = Ask::post("/v1/streams/s/records").basin("not-made");
    let append = append.json(&json!({ "records": [{ "body": "plain" }] }));
    ask_until(&client, append, |answer| answer.status == 200).await;
}
