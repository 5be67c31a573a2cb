//! The keys that the proxy made for a stream are let go of when a client deletes the stream and the upstream
//! did it. Nothing else that the upstream says or fails to say costs a stream its keys.

use serde_json::json;
use streamseal::{
    crypto::{Digest, Wrapped},
    store::{
        Change, DataKey, DataKeys, Embedded, Holder, Sealing, Store as _, StreamEntry, WrappedKey,
    },
    stream::StreamPath,
};

use crate::{
    harness::{Act, Ask, BASIN, Call},
    registry_intents::{Scripted, text},
};

fn path(stream: &str) -> StreamPath {
    format!("{BASIN}/{stream}").parse().unwrap()
}

fn keys() -> DataKeys {
    let key = |epoch: u8| DataKey {
        epoch: epoch.into(),
        commit: Digest::from_bytes([epoch; 32]),
        wrapped: Some(WrappedKey::Master {
            mk_epoch: 1,
            wrapped: Wrapped::from_bytes([epoch; Wrapped::BYTES]),
        }),
        created_at: 1_767_225_600_000,
        shredded_at: None,
        sealed: Sealing {
            records: 10,
            bytes: 1000,
        },
        first_seq_num: Some(7),
    };
    DataKeys {
        holder: Holder::Project("payments".parse().unwrap()),
        keys: vec![key(1), key(2)],
    }
}

/// Gives these streams managed keys, while the proxy is stopped.
async fn with_keys(scripted: &mut Scripted, streams: &[&str]) {
    for stream in streams {
        assert_eq!(scripted.create(stream).await.status, 201);
    }
    scripted.stack.stop().await;
    let store = Embedded::open(&scripted.stack.config.store).unwrap();
    for stream in streams {
        let found = store.stream(&path(stream)).await.unwrap();
        let entry = StreamEntry {
            data_keys: Some(keys()),
            ..(*found.entry.unwrap()).clone()
        };
        let change = Change::Stream {
            path: path(stream),
            expected: found.revision,
            entry: Some(entry),
        };
        store.commit(vec![change]).await.unwrap();
    }
    drop(store);
    scripted.stack.go().await.unwrap();
}

/// What is recorded of a stream's keys now, but for the places of their records.
async fn recorded(scripted: &mut Scripted, stream: &str) -> Option<DataKeys> {
    scripted.stack.stop().await;
    let store = Embedded::open(&scripted.stack.config.store).unwrap();
    let found = store.stream(&path(stream)).await.unwrap();
    drop(store);
    scripted.stack.go().await.unwrap();
    found.entry?.data_keys.clone()
}

async fn are_kept(scripted: &mut Scripted, stream: &str, why: &str) {
    let found = recorded(scripted, stream).await;
    let found = found.unwrap_or_else(|| panic!("{why}: the keys of {stream} are gone"));
    assert_eq!(found.of_next_life(), keys().of_next_life(), "{why}");
}

async fn delete(scripted: &Scripted, stream: &str) -> u16 {
    let ask = Ask::new("DELETE", format!("/v1/streams/{stream}"));
    scripted.stack.h2().await.ask(ask).await.status
}

async fn set_cipher(scripted: &Scripted, cipher: serde_json::Value) {
    let patch = Ask::new("PATCH", format!("/v1/basins/{BASIN}"));
    let patch = patch.json(&json!({ "stream_cipher": cipher }));
    let answer = scripted.stack.h2().await.ask(patch).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

const ERROR: &str = r#"{"code":"other","message":"oops"}"#;
const NONE: &str = r#"{"streams":[],"has_more":false}"#;

/// The same stream, of another time.
fn made(stream: &str) -> String {
    json!({ "name": stream, "created_at": "2001-01-01T00:00:00Z", "deleted_at": null }).to_string()
}

fn is_look(call: &Call) -> bool {
    call.is("GET", "/v1/streams") && call.uri.contains("prefix=")
}

fn is_creation(call: &Call) -> bool {
    call.is("POST", "/v1/streams") || (call.method == "PUT" && !call.uri.contains("/records"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_of_a_stream_that_is_there_lets_go_of_no_key() {
    let mut scripted = Scripted::start().await;
    let streams = ["a", "b", "c", "d", "e"];
    with_keys(&mut scripted, &streams).await;
    for (stream, status) in streams.into_iter().zip([201, 200, 409, 404, 500]) {
        let answer = match status {
            200 | 201 => made(stream),
            _ => text(ERROR),
        };
        scripted.fake.script(move |call| match is_creation(call) {
            true => Act::Answer(status, answer.clone()),
            false => Act::Pass,
        });
        scripted.create(stream).await;
        let put = Ask::new("PUT", format!("/v1/streams/{stream}")).json(&json!({}));
        scripted.stack.h2().await.ask(put).await;
        scripted.fake.heal();
        scripted.append(stream).await;
        are_kept(&mut scripted, stream, &status.to_string()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_without_an_outcome_lets_go_of_no_key() {
    let mut scripted = Scripted::start().await;
    let deletions = [
        Act::Drop,
        Act::Answer(500, text(ERROR)),
        Act::Answer(404, text(ERROR)),
        Act::Answer(409, text(ERROR)),
        Act::Answer(403, text(ERROR)),
    ];
    // What it says when it is asked for the stream, and when it is to make it.
    let afterwards = [
        (None, None),
        (Some(text(NONE)), None),
        (Some(text(NONE)), Some(Act::Drop)),
        (Some(text(NONE)), Some(Act::Answer(201, made("s")))),
        (Some(text(NONE)), Some(Act::Answer(409, text(ERROR)))),
        (None, Some(Act::Answer(409, text(ERROR)))),
        (
            Some(format!(
                "{{\"streams\":[{}],\"has_more\":false}}",
                made("s")
            )),
            None,
        ),
    ];
    let cases = deletions
        .iter()
        .flat_map(|deletion| afterwards.iter().map(move |after| (deletion, after)));
    let cases: Vec<_> = cases.collect();
    let names: Vec<String> = (0..cases.len()).map(|at| format!("s-{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    with_keys(&mut scripted, &names).await;
    for (stream, (deletion, (look, creation))) in names.into_iter().zip(cases) {
        let why = format!("{deletion:?}, {look:?}, {creation:?}");
        let act = deletion.clone();
        scripted
            .fake
            .script(move |call| match call.method == "DELETE" {
                true => act.clone(),
                false => Act::Pass,
            });
        assert!(delete(&scripted, stream).await >= 400, "{why}");
        let (look, creation) = (look.clone(), creation.clone());
        let look = look.map(|look| look.replace("\"s\"", &format!("\"{stream}\"")));
        scripted.fake.script(move |call| match (&look, &creation) {
            (Some(list), _) if is_look(call) => Act::Answer(200, list.clone()),
            (_, Some(act)) if is_creation(call) => act.clone(),
            _ => Act::Pass,
        });
        scripted.append(stream).await;
        scripted.create(stream).await;
        scripted.fake.heal();
        scripted.append(stream).await;
        are_kept(&mut scripted, stream, &why).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_basin_lets_go_of_no_key() {
    let mut scripted = Scripted::start().await;
    with_keys(&mut scripted, &["s", "t"]).await;
    set_cipher(&scripted, json!(null)).await;
    // A deletion and a creation without an outcome, the latter of a plain stream.
    scripted.fake.script(|call| match call.method.as_str() {
        "DELETE" | "POST" => Act::Drop,
        _ => Act::Pass,
    });
    assert!(delete(&scripted, "s").await >= 400);
    assert!(scripted.create("s").await.status >= 400);
    scripted.fake.heal();
    set_cipher(&scripted, json!("aegis-256")).await;
    for stream in ["s", "t"] {
        are_kept(&mut scripted, stream, "the basin got a cipher again").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_deletion_of_the_basin_lets_go_of_no_key() {
    let mut scripted = Scripted::start().await;
    with_keys(&mut scripted, &["s"]).await;
    for act in [
        Act::Answer(403, text(ERROR)),
        Act::Answer(404, text(ERROR)),
        Act::Answer(500, text(ERROR)),
        Act::Drop,
    ] {
        let why = format!("{act:?}");
        scripted
            .fake
            .script(move |call| match call.method == "DELETE" {
                true => act.clone(),
                false => Act::Pass,
            });
        let ask = Ask::new("DELETE", format!("/v1/basins/{BASIN}"));
        assert!(
            scripted.stack.h2().await.ask(ask).await.status >= 400,
            "{why}"
        );
        scripted.fake.heal();
        scripted.append("s").await;
        are_kept(&mut scripted, "s", &why).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_deleted_begins_anew_without_keys() {
    for cipher in [json!("aegis-256"), json!(null)] {
        let mut scripted = Scripted::start().await;
        with_keys(&mut scripted, &["s"]).await;
        set_cipher(&scripted, cipher.clone()).await;
        are_kept(&mut scripted, "s", "nothing happened yet").await;
        assert_eq!(delete(&scripted, "s").await, 202);
        assert_eq!(recorded(&mut scripted, "s").await, None, "{cipher}");
        scripted.append("s").await;
        assert_eq!(recorded(&mut scripted, "s").await, None, "{cipher}");
    }
}
