//! An API key of the stream's project is all it takes, in every encoding; nothing less will do.

use std::sync::Arc;

use serde_json::json;
use streamseal::{
    project::{Scope, Scopes},
    store::{ApiKeyEntry, Holder, StreamState},
};
use tokio::sync::Notify;

use super::setup::{CIPHERS, Managed, SECRET, appends, path, reads};
use crate::harness::{Act, Ask, Encoding, Fake, KEY, Lite, delivered, input, record, until};

#[tokio::test(flavor = "multi_thread")]
async fn append_and_read_need_only_the_api_key() {
    for (rule, cipher) in CIPHERS {
        let managed = Managed::with(rule, |_| {}).await;
        let batch = input([record(&[(b"name", b"value")], SECRET)]);
        for encoding in Encoding::APPENDS {
            managed.append("s", encoding, &batch).await;
        }
        for encoding in Encoding::READS {
            let answer = managed.ask(reads("s", "seq_num=0&count=4", encoding)).await;
            let records = delivered(encoding, &answer).records();
            assert_eq!(records.len(), Encoding::APPENDS.len(), "{}", answer.text());
            for record in records {
                assert_eq!(record.body, SECRET, "{encoding:?}");
                assert_eq!(record.headers, batch.records[0].headers, "{encoding:?}");
            }
        }
        for layout in managed.layouts("s").await {
            assert_eq!((layout.cipher, layout.epoch), (cipher, Some(1)));
        }
        assert!(!managed.stack.tap.saw(SECRET.as_bytes()));
        assert!(!managed.stack.tap.saw(managed.token.text.as_bytes()));
        let keys = managed.data_keys("s").await.unwrap();
        assert_eq!(keys.holder, Holder::Project("payments".parse().unwrap()));
        assert_eq!(keys.keys.len(), 1);
        assert_eq!(keys.keys[0].first_seq_num, Some(0));
        assert_eq!(managed.entry("s").await.unwrap().key_check, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_key_is_there_with_the_stream() {
    let managed = Managed::start().await;
    let body = json!({ "stream": "made" });
    let made = managed.ask(Ask::post("/v1/streams").json(&body)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let first = managed.data_keys("made").await.unwrap();
    assert_eq!(first.keys.len(), 1);
    let ensured = managed.ask(Ask::new("PUT", "/v1/streams/ensured")).await;
    assert_eq!(ensured.status, 201, "{}", ensured.text());
    assert!(managed.data_keys("ensured").await.is_some());
    // What uses it does not make another.
    managed.put("made", SECRET).await;
    let keys = managed.data_keys("made").await.unwrap();
    assert_eq!(keys.keys.len(), 1);
    assert_eq!(keys.keys[0].commit, first.keys[0].commit);
    // Again is not another life.
    managed.ask(Ask::new("PUT", "/v1/streams/made")).await;
    assert_eq!(managed.data_keys("made").await.unwrap(), keys);
    assert_eq!(managed.bodies("made").await, [SECRET]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_made_anew_has_another_key() {
    let managed = Managed::start().await;
    managed.put("s", "before").await;
    let before = managed.data_keys("s").await.unwrap();
    let gone = managed.ask(Ask::new("DELETE", "/v1/streams/s")).await;
    assert_eq!(gone.status, 202, "{}", gone.text());
    let body = json!({ "stream": "s" });
    let client = managed.stack.h2().await;
    let again = managed.token.on(Ask::post("/v1/streams").json(&body));
    crate::harness::ask_until(&client, again, |answer| answer.status == 201).await;
    managed.put("s", "after").await;
    let after = managed.data_keys("s").await.unwrap();
    assert_ne!(before.keys[0].commit, after.keys[0].commit);
    assert_eq!(managed.bodies("s").await, ["after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_own_key_is_refused_and_not_ignored() {
    let managed = Managed::start().await;
    managed.put("s", SECRET).await;
    let before = managed.stack.stored("s").await.len();
    let batch = input([record(&[], "more")]);
    for ask in [
        appends("s", Encoding::Json, &batch),
        appends("s", Encoding::Frames, &batch),
        reads("s", "seq_num=0", Encoding::Json),
        reads("s", "seq_num=0", Encoding::Frames),
    ] {
        let answer = managed.ask(ask.key(&KEY)).await;
        assert_eq!((answer.status, &*answer.code()), (422, "invalid"));
        assert!(answer.text().contains("managed"), "{}", answer.text());
    }
    assert_eq!(managed.stack.stored("s").await.len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_without_the_master_key_may_neither_append_nor_read() {
    let managed = Managed::start().await;
    managed.put("s", SECRET).await;
    let before = managed.stack.lite.seen().len();
    // The API key stays good, and what is in it is not the project's master key any more.
    let other = streamseal::crypto::MasterKey::generate().unwrap();
    let stack = &managed.stack;
    stack
        .change_project("payments", |entry| {
            entry.mk_commit = other.commit("payments", 1);
        })
        .await;
    let batch = input([record(&[], "more")]);
    for stream in ["s", "new"] {
        for ask in [
            appends(stream, Encoding::Json, &batch),
            appends(stream, Encoding::Frames, &batch),
            reads(stream, "seq_num=0", Encoding::Json),
            reads(stream, "seq_num=0", Encoding::Events),
            reads(stream, "seq_num=0", Encoding::Frames),
        ] {
            let answer = managed.ask(ask).await;
            assert_eq!(
                (answer.status, &*answer.code()),
                (403, "permission_denied"),
                "{stream}: {}",
                answer.text()
            );
        }
    }
    assert_eq!(stack.lite.seen().len(), before, "the upstream was asked");
    assert!(managed.entry("new").await.is_none());
    let pass = stack.pass(&managed.token).await;
    let rotated = stack.proxy().rotate_key(&path("s"), &pass).await;
    assert_eq!(rotated.unwrap_err().code().as_str(), "permission_denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_that_is_over_rotates_nothing_any_more() {
    let managed = Managed::start().await;
    managed.put("s", SECRET).await;
    let stack = &managed.stack;
    for (id, scopes) in [("revoked", None), ("narrowed", Some(Scope::Append))] {
        let other = stack.issue(&managed.token, id, Scopes::all()).await;
        // Let in while it was good.
        let pass = stack.pass(&other).await;
        match scopes {
            None => stack.revoke(&other).await,
            Some(scope) => {
                let scopes: Scopes = [scope].into_iter().collect();
                let narrow = |row: &mut ApiKeyEntry| row.scopes = scopes.clone();
                stack.change_key(&other, narrow).await;
            }
        }
        let rotated = stack.proxy().rotate_key(&path("s"), &pass).await;
        assert_eq!(rotated.unwrap_err().code().as_str(), "authn", "{id}");
    }
    assert_eq!(managed.data_keys("s").await.unwrap().keys.len(), 1);
    assert_eq!(managed.rotate("s").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_once_agree_on_the_first_key() {
    let managed = Managed::start().await;
    for round in 0..5 {
        let stream = format!("s{round}");
        let appends = (0..8).map(|at| managed.put(&stream, format!("record {at}")));
        futures_util::future::join_all(appends).await;
        assert_eq!(managed.data_keys(&stream).await.unwrap().keys.len(), 1);
        let mut bodies = managed.bodies(&stream).await;
        bodies.sort();
        let all: Vec<String> = (0..8).map(|at| format!("record {at}")).collect();
        assert_eq!(bodies, all);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_made_before_its_stream_stays_with_it() {
    let managed = Managed::start().await;
    let config = json!({ "create_stream_on_append": false, "create_stream_on_read": false });
    let basin = json!({ "basin": "no-auto-create", "config": config });
    let made = managed.ask(Ask::post("/v1/basins").json(&basin)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let entry = async || {
        let path = "no-auto-create/s".parse().unwrap();
        let found = managed.stack.config_store().stream(&path).await.unwrap();
        found.entry.unwrap().data_keys.clone().unwrap()
    };
    let put = || appends("s", Encoding::Proto, &input([record(&[], SECRET)]));
    let refused = managed.ask(put().basin("no-auto-create")).await;
    assert_eq!(refused.status, 404, "{}", refused.text());
    // An append under it could be on its way still.
    let before = entry().await;
    let body = json!({ "stream": "s" });
    let create = Ask::post("/v1/streams").json(&body).basin("no-auto-create");
    assert_eq!(managed.ask(create).await.status, 201);
    assert_eq!(entry().await, before);
    let answer = managed.ask(put().basin("no-auto-create")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_lets_appends_on_their_way_go_first() {
    let lite = Arc::new(Lite::start().await);
    let fake = Fake::start(lite.address).await;
    let managed = Managed::over(lite, CIPHERS[0].0, |config| fake.aim(config)).await;
    managed.put("s", "first").await;
    let held = Arc::new(Notify::new());
    let hold = Arc::clone(&held);
    fake.script(move |call| match call.is("POST", "/v1/streams/s/records") {
        true => Act::Hold(Arc::clone(&hold)),
        false => Act::Pass,
    });
    let asked = |method: &str| {
        fake.calls()
            .iter()
            .filter(|call| call.method == method)
            .count()
    };
    let before = asked("POST");
    let append = managed.put("s", "second");
    let delete = async {
        until("the append is on its way", async || asked("POST") > before).await;
        let delete = managed.ask(Ask::new("DELETE", "/v1/streams/s"));
        let release = async {
            until("the deletion begins", async || {
                let entry = managed.entry("s").await.unwrap();
                matches!(entry.state, StreamState::Deleting(_))
            })
            .await;
            // Long enough for it to get there, if nothing kept it.
            for _ in 0..20 {
                managed.ask(Ask::get("/v1/streams")).await;
            }
            assert_eq!(asked("DELETE"), 0, "it did not wait");
            held.notify_one();
        };
        let (answer, ()) = tokio::join!(delete, release);
        assert_eq!(answer.status, 202, "{}", answer.text());
    };
    tokio::join!(append, delete);
    assert_eq!(asked("DELETE"), 1);
}
