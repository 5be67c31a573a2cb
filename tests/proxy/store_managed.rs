//! Managed keys that are lost with the config store are never taken for keys that never were.

use base64ct::{Base64, Encoding as _};
use bytes::BytesMut;
use serde_json::json;
use streamseal::{
    crypto::{Cipher, Digest, Key, StreamCipher, Text, Wrapped},
    keys::ProjectRule,
    registry::rules::{KeySource, RuleCipher, StreamRule},
    server::Authenticate,
    store::{
        Change, DataKey, DataKeys, Embedded, Holder, Origin, Revision, Sealing, Store as _,
        StreamEntry, WrappedKey,
    },
    stream::{StreamId, StreamPath},
};

use crate::{
    harness::{Ask, BASIN, Encoding, Stack, base64, delivered, records},
    managed::setup::{Managed, reads},
};

fn path(stream: &str) -> StreamPath {
    format!("{BASIN}/{stream}").parse().unwrap()
}

/// Stores records of these key epochs, as a proxy with managed keys does.
async fn store(stack: &Stack, stream: &str, epochs: &[u32]) {
    let direct = stack.direct().await;
    let id = StreamId::new(&path(stream).basin, &path(stream).stream);
    for epoch in epochs {
        let key = Key::from_bytes([7; 32]);
        let cipher = StreamCipher::of_epoch(Cipher::Aegis256, &key, id, *epoch);
        let sealed = cipher.seal(Text::Encoded, &mut BytesMut::new(), |text| {
            text.extend_from_slice(b"whatever");
        });
        let body = Base64::encode_string(sealed.unwrap().as_bytes());
        let batch = json!({ "records": [{ "body": body }] });
        let ask = Ask::post(records(stream)).json(&batch);
        let answer = direct.ask(ask.header("s2-format", "base64")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// A project that one stream of two belongs to, as a rule says.
fn declare(stack: &mut Stack) {
    let pepper = stack.config.store.path.with_file_name("pepper");
    std::fs::write(&pepper, base64(&[9; 32])).unwrap();
    stack.config.listen.authenticate = Authenticate::ApiKey;
    stack.config.projects = vec![ProjectRule {
        name: "payments".parse().unwrap(),
        r#match: vec!["*/declared*".to_owned()],
        access_token_file: Default::default(),
        pepper_file: pepper.into(),
    }];
    stack.config.streams = vec![StreamRule {
        r#match: "*/declared*".to_owned(),
        cipher: RuleCipher::Aegis256,
        key: KeySource::Managed,
        key_file: Default::default(),
        header_overrides: false,
    }];
}

async fn entry(stack: &Stack, stream: &str) -> (Revision, Option<StreamEntry>) {
    let store = Embedded::open(&stack.config.store).unwrap();
    let found = store.stream(&path(stream)).await.unwrap();
    (found.revision, found.entry.map(|entry| (*entry).clone()))
}

fn gone(epoch: u32) -> DataKey {
    DataKey {
        epoch,
        commit: Digest::ZERO,
        wrapped: None,
        created_at: 0,
        shredded_at: None,
        sealed: Sealing::default(),
        first_seq_num: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_says_which_managed_keys_are_lost_and_records_that() {
    let mut stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    store(&stack, "found", &[1, 3]).await;
    store(&stack, "declared", &[2]).await;
    store(&stack, "declared-empty", &[]).await;
    stack.stop().await;
    let _none = std::fs::remove_file(&stack.config.store.path);
    declare(&mut stack);
    let said = stack.command(&["store", "rebuild"]).ok();
    for (stream, epochs) in [("found", "[1, 3]"), ("declared", "[2]")] {
        let line = said
            .lines()
            .find(|line| line.contains(&format!("/{stream}: has records")));
        let line = line.unwrap_or_else(|| panic!("{stream}: {said}"));
        assert!(
            line.contains(epochs) && line.contains("cannot be opened"),
            "{line}"
        );
    }
    let (_, found) = entry(&stack, "found").await;
    let keys = found.unwrap().data_keys.unwrap();
    assert_eq!(keys.keys, [gone(1), gone(3)]);
    assert!(keys.current().is_none());
    let (_, declared) = entry(&stack, "declared").await;
    let declared = declared.unwrap();
    assert_eq!(declared.origin, Origin::Rebuilt);
    let keys = DataKeys {
        holder: Holder::Project("payments".parse().unwrap()),
        keys: vec![gone(2)],
    };
    assert_eq!(declared.data_keys, Some(keys));
    assert_eq!(entry(&stack, "declared-empty").await.1, None);
    // Once is enough.
    let again = stack.command(&["store", "rebuild"]).ok();
    assert!(!again.contains("has records"), "{again}");
    assert!(again.contains(": 0 entries recorded"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_keeps_the_keys_that_an_older_copy_has() {
    let mut stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    for stream in ["found", "declared"] {
        let create = Ask::post("/v1/streams").json(&json!({ "stream": stream }));
        assert_eq!(stack.h2().await.ask(create).await.status, 201);
        store(&stack, stream, &[1, 1, 2]).await;
    }
    stack.stop().await;
    let kept = DataKey {
        wrapped: Some(WrappedKey::Master {
            mk_epoch: 1,
            wrapped: Wrapped::from_bytes([5; Wrapped::BYTES]),
        }),
        ..gone(1)
    };
    for stream in ["found", "declared"] {
        let (expected, before) = entry(&stack, stream).await;
        let keys = DataKeys {
            holder: Holder::Project("payments".parse().unwrap()),
            keys: vec![kept.clone()],
        };
        let change = Change::Stream {
            path: path(stream),
            expected,
            entry: Some(StreamEntry {
                data_keys: Some(keys),
                ..before.unwrap()
            }),
        };
        let store = Embedded::open(&stack.config.store).unwrap();
        store.commit(vec![change]).await.unwrap();
    }
    declare(&mut stack);
    stack.command(&["store", "rebuild"]).ok();
    for stream in ["found", "declared"] {
        let (_, after) = entry(&stack, stream).await;
        let keys = after.unwrap().data_keys.unwrap();
        // It goes on, but nobody knows how much it sealed since the copy, and 2 is not made again.
        let kept = DataKey {
            sealed: Sealing {
                records: u64::MAX,
                bytes: u64::MAX,
            },
            ..kept.clone()
        };
        assert_eq!(keys.keys, [kept.clone(), gone(2)], "{stream}");
        assert_eq!(keys.current(), Some(&kept), "{stream}");
    }
}

/// Whatever somebody stored: it names this key epoch, and nothing opens it.
async fn forge(managed: &Managed, stream: &str, epoch: u32) {
    store(&managed.stack, stream, &[epoch]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_record_takes_no_managed_key_away() {
    let mut managed = Managed::start().await;
    for stream in ["far", "near", "far-and-near"] {
        managed.put(stream, "first").await;
        managed.rotate(stream).await;
        managed.put(stream, "second").await;
    }
    forge(&managed, "far", u32::MAX).await;
    forge(&managed, "near", 5).await;
    forge(&managed, "far-and-near", u32::MAX - 1).await;
    forge(&managed, "far-and-near", 3).await;
    managed.stack.stop().await;
    let said = managed.stack.command(&["store", "rebuild"]).ok();
    for stream in ["far", "far-and-near"] {
        let forged =
            |line: &&str| line.contains(&format!("/{stream}:")) && line.contains("look forged");
        assert!(said.lines().any(|line| forged(&line)), "{said}");
    }
    managed.stack.go().await.unwrap();
    for (stream, next) in [("far", 3), ("near", 6), ("far-and-near", 4)] {
        managed.put(stream, "third").await;
        managed.rotate(stream).await;
        managed.put(stream, "fourth").await;
        let keys = managed.data_keys(stream).await.unwrap();
        assert!(keys.current().unwrap().epoch >= next, "{stream}: {keys:?}");
        let lost = keys.keys.iter().filter(|key| key.is_lost());
        assert!(
            lost.map(|key| key.epoch).all(|epoch| epoch < next),
            "{keys:?}"
        );
        // Whatever was stored under a key that is there opens.
        let answer = managed
            .ask(reads(stream, "seq_num=0&count=2", Encoding::Proto))
            .await;
        let read = delivered(Encoding::Proto, &answer).records();
        assert_eq!(read.len(), 2, "{stream}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_record_makes_no_managed_stream_of_one_with_a_key_of_its_own() {
    let mut stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let key = base64(&[3; 32]);
    let append = |stream: &str| {
        let ask = Ask::post(records(stream)).json(&json!({ "records": [{ "body": "mine" }] }));
        ask.header("s2-encryption-key", key.clone())
    };
    let streams = ["checked", "ruled", "unchecked"];
    for stream in streams {
        let create = Ask::post("/v1/streams").json(&json!({ "stream": stream }));
        assert_eq!(stack.h2().await.ask(create).await.status, 201);
        assert_eq!(stack.h2().await.ask(append(stream)).await.status, 200);
        store(&stack, stream, &[1]).await;
    }
    stack.config.streams = vec![StreamRule {
        r#match: "*/ruled".to_owned(),
        cipher: RuleCipher::Aegis256,
        key: KeySource::Header,
        key_file: Default::default(),
        header_overrides: false,
    }];
    stack.stop().await;
    // First with the store that knows them, then without it.
    for is_lost in [false, true] {
        if is_lost {
            std::fs::remove_file(&stack.config.store.path).unwrap();
        }
        stack.command(&["store", "rebuild"]).ok();
        for stream in streams {
            let (_, entry) = entry(&stack, stream).await;
            assert_eq!(entry.and_then(|entry| entry.data_keys), None, "{stream}");
        }
        stack.go().await.unwrap();
        for stream in streams {
            let answer = stack.h2().await.ask(append(stream)).await;
            assert_eq!(answer.status, 200, "{stream}: {}", answer.text());
        }
        stack.stop().await;
    }
}
