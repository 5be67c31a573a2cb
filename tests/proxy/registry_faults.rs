//! Deletions and changes of cipher that go wrong upstream leave every stream as sealed as it was.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    harness::{Act, Ask, BASIN, Fake, Lite, Stack, ask_until, purged, records, until},
    registry_intents::{SECRET, Scripted, text},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_did_not_happen_leaves_the_stream_sealed() {
    let scripted = Scripted::start().await;
    let error = r#"{"code":"other","message":"oops"}"#;
    let faults = [
        Act::Drop,
        Act::Answer(500, text(error)),
        Act::Answer(403, text(error)),
        Act::Answer(404, text(error)),
    ];
    for (at, fault) in faults.into_iter().enumerate() {
        let (stream, why) = (format!("kept-{at}"), format!("{fault:?}"));
        assert_eq!(scripted.append(&stream).await.status, 200);
        scripted
            .fake
            .script(move |call| match call.method == "DELETE" {
                true => fault.clone(),
                false => Act::Pass,
            });
        let client = scripted.stack.h2().await;
        client
            .ask(Ask::new("DELETE", format!("/v1/streams/{stream}")))
            .await;
        scripted.fake.heal();
        let none = json!({ "stream_cipher": null });
        client
            .ask(Ask::new("PATCH", format!("/v1/basins/{BASIN}")).json(&none))
            .await;
        scripted.ends_sealed(&stream, &why).await;
        let again = json!({ "stream_cipher": "aegis-256" });
        client
            .ask(Ask::new("PATCH", format!("/v1/basins/{BASIN}")).json(&again))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_the_upstream_only_claims_leaves_nothing_plain() {
    let scripted = Scripted::start().await;
    assert_eq!(scripted.append("s").await.status, 200);
    scripted.fake.script(|call| match call.method == "DELETE" {
        true => Act::Answer(202, text("")),
        false => Act::Pass,
    });
    let client = scripted.stack.h2().await;
    let deleted = client.ask(Ask::new("DELETE", "/v1/streams/s")).await;
    assert_eq!(deleted.status, 202);
    scripted.fake.heal();
    let answer = scripted.append("s").await;
    assert!([200, 403].contains(&answer.status), "{}", answer.text());
    scripted.never_plain("a claimed deletion");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_whose_answer_was_lost_makes_room_for_a_new_life() {
    let scripted = Scripted::start().await;
    assert_eq!(scripted.append("s").await.status, 200);
    scripted.fake.script(|call| match call.method == "DELETE" {
        true => Act::LoseAnswer,
        false => Act::Pass,
    });
    let client = scripted.stack.h2().await;
    let direct = scripted.stack.direct().await;
    until("the stream is deleted", async || {
        let lost = client.ask(Ask::new("DELETE", "/v1/streams/s")).await;
        assert_eq!((lost.status, &*lost.code()), (500, "other"));
        direct.ask(Ask::get("/v1/streams/s")).await.status != 200
    })
    .await;
    purged(&direct, "/v1/streams/s").await;
    scripted.fake.heal();
    let gcm = json!({ "stream_cipher": "aes-256-gcm" });
    client
        .ask(Ask::new("PATCH", format!("/v1/basins/{BASIN}")).json(&gcm))
        .await;
    let other = Ask::post(records("s")).json(&json!({ "records": [{ "body": SECRET }] }));
    let other = ask_until(&client, other.key(&[7; 32]), |answer| answer.status == 200).await;
    assert_eq!(other.json()["start"]["seq_num"], 0);
    let list = client.ask(Ask::get("/v1/streams")).await.json();
    assert_eq!(list["streams"][0]["cipher"], "aes-256-gcm");
    scripted.never_plain("deletion");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_cipher_that_went_wrong_never_unseals() {
    let scripted = Scripted::start().await;
    let client = scripted.stack.h2().await;
    let basin = format!("/v1/basins/{BASIN}");
    let null = || Ask::new("PATCH", &basin).json(&json!({ "stream_cipher": null }));
    for fault in [
        Act::Drop,
        Act::Answer(500, text("{}")),
        Act::Answer(403, text("{}")),
    ] {
        let why = format!("{fault:?}");
        scripted
            .fake
            .script(move |call| match call.method == "PATCH" {
                true => fault.clone(),
                false => Act::Pass,
            });
        assert!(client.ask(null()).await.status >= 400, "{why}");
        scripted.fake.heal();
        let config = client.ask(Ask::get(&basin)).await;
        assert_eq!(config.json()["stream_cipher"], "aegis-256", "{why}");
    }
    scripted.fake.script(|call| match call.method == "DELETE" {
        true => Act::Answer(403, text(r#"{"code":"permission_denied","message":"no"}"#)),
        false => Act::Pass,
    });
    assert_eq!(client.ask(Ask::new("DELETE", &basin)).await.status, 403);
    scripted.ends_sealed("after", "a refused deletion").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_basin_in_use_keeps_its_cipher_though_its_creation_never_had_an_answer() {
    let scripted = Scripted::start().await;
    let client = scripted.stack.h2().await;
    let basin = |cipher: Value| {
        let config = json!({ "stream_cipher": cipher, "create_stream_on_append": true });
        Ask::post("/v1/basins").json(&json!({ "basin": "other-basin", "config": config }))
    };
    let append = |stream: &str| {
        let batch = json!({ "records": [{ "body": SECRET }] });
        let ask = Ask::post(records(stream)).basin("other-basin");
        ask.json(&batch).key(&crate::harness::KEY)
    };
    let creates = |call: &crate::harness::Call| call.is("POST", "/v1/basins");
    scripted.fake.script(move |call| match creates(call) {
        true => Act::Replace(500, text("{}")),
        false => Act::Pass,
    });
    assert_eq!(client.ask(basin(json!("aegis-256"))).await.status, 500);
    assert_eq!(client.ask(append("first")).await.status, 200);
    // "Create it if it is missing", as a client does that knows of no cipher; and the upstream lies.
    let made = r#"{"name":"other-basin","created_at":"2026-01-01T00:00:00Z","deleted_at":null,"state":"active","location":null}"#;
    scripted.fake.script(move |call| match creates(call) {
        true => Act::Answer(201, text(made)),
        false => Act::Pass,
    });
    client.ask(basin(Value::Null)).await;
    scripted.fake.heal();
    let config = client.ask(Ask::get("/v1/basins/other-basin")).await;
    assert_eq!(config.json()["stream_cipher"], "aegis-256");
    assert_eq!(client.ask(append("second")).await.status, 200);
    scripted.never_plain("a basin that is said to be made again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_cipher_asks_for_no_list_and_believes_none() {
    let lite = Arc::new(Lite::start().await);
    let fake = Fake::start(lite.address).await;
    let stack = Stack::over(lite, |config| fake.aim(config)).await;
    stack.create_basin(None).await;
    let theirs = Ask::post(records("theirs")).json(&json!({ "records": [{ "body": "theirs" }] }));
    assert_eq!(stack.direct().await.ask(theirs).await.status, 200);
    let client = stack.h2().await;
    assert_eq!(
        client.ask(Ask::new("PUT", "/v1/streams/ours")).await.status,
        201
    );
    let list = r#"{"streams":[{"name":"new","created_at":"2001-01-01T00:00:00Z","deleted_at":null,"cipher":null}],"has_more":false}"#;
    fake.script(|call| match call.is("GET", "/v1/streams?") {
        true => Act::Answer(200, text(list)),
        false => Act::Pass,
    });
    let before = fake.calls().len();
    let change = Ask::new("PATCH", format!("/v1/basins/{BASIN}"));
    let change = change.json(&json!({ "stream_cipher": "aegis-256" }));
    assert_eq!(client.ask(change).await.status, 200);
    let listed = |call: &crate::harness::Call| call.is("GET", "/v1/streams?");
    assert!(!fake.calls()[before..].iter().any(listed));
    let batch = json!({ "records": [{ "body": SECRET }] });
    let append = |stream: &str| Ask::post(records(stream)).json(&batch);
    for stream in ["new", "theirs"] {
        let refused = client.ask(append(stream)).await;
        assert!(refused.status >= 400, "{stream}: {}", refused.text());
    }
    fake.heal();
    let refused = client.ask(append("theirs")).await;
    assert_eq!(refused.code(), "permission_denied");
    assert!(!stack.tap.saw(SECRET.as_bytes()));
    // What the proxy itself saw created stays plain.
    let plain = json!({ "records": [{ "body": "plain" }] });
    let plain = client.ask(Ask::post(records("ours")).json(&plain)).await;
    assert_eq!(plain.status, 200, "{}", plain.text());
}
