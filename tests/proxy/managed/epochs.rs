//! A key rotates in place: a new epoch from the next append on, and readers cross epochs without noticing.

use streamseal::{
    project::Scope,
    proxy::Error,
    registry::rules::RuleCipher,
    store::{DataKey, MAX_KEY_EPOCHS, StreamEntry},
};

use super::setup::{CIPHERS, Managed, appends, path, reads};
use crate::harness::{Encoding, delivered, input, record};

#[tokio::test(flavor = "multi_thread")]
async fn readers_cross_epochs_in_every_encoding() {
    for (rule, _) in CIPHERS {
        let managed = Managed::with(rule, |_| {}).await;
        for epoch in 1..=4 {
            for encoding in Encoding::APPENDS {
                let body = format!("epoch {epoch}, {encoding:?}");
                let batch = input([record(&[], body.clone()), record(&[], body)]);
                managed.append("s", encoding, &batch).await;
            }
            assert_eq!(managed.rotate("s").await, epoch + 1);
        }
        let epochs: Vec<_> = managed.layouts("s").await.iter().map(|l| l.epoch).collect();
        let wanted: Vec<_> = (1..=4).flat_map(|epoch| [Some(epoch); 8]).collect();
        assert_eq!(epochs, wanted);
        for encoding in Encoding::READS {
            // From the start, and from the middle of an epoch to the middle of another.
            for (from, count) in [(0, 32), (5, 20), (31, 1)] {
                let query = format!("seq_num={from}&count={count}");
                let answer = managed.ask(reads("s", &query, encoding)).await;
                let records = delivered(encoding, &answer).records();
                assert_eq!(records.len(), count, "{encoding:?}: {}", answer.text());
                for (at, record) in records.iter().enumerate() {
                    let epoch = (from + at) / 8 + 1;
                    let text = String::from_utf8_lossy(&record.body);
                    assert!(text.starts_with(&format!("epoch {epoch},")), "{text}");
                }
            }
        }
        let metrics = managed.stack.metrics().render();
        assert!(metrics.contains(r#"streamseal_key_rotations_total{reason="request"} 4"#));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_epoch_has_a_key_of_its_own_and_is_recorded_with_its_first_record() {
    let managed = Managed::start().await;
    for at in 0..3 {
        managed.put("s", format!("{at}")).await;
        managed.rotate("s").await;
    }
    managed.put("s", "last").await;
    let keys = managed.data_keys("s").await.unwrap().keys;
    let epochs: Vec<_> = keys.iter().map(|key| key.epoch).collect();
    assert_eq!(epochs, [1, 2, 3, 4]);
    let first: Vec<_> = keys.iter().map(|key| key.first_seq_num).collect();
    assert_eq!(first, [Some(0), Some(1), Some(2), Some(3)]);
    for (at, key) in keys.iter().enumerate() {
        for other in &keys[..at] {
            assert_ne!(key.commit, other.commit);
            assert_ne!(key.wrapped, other.wrapped);
        }
        assert!(key.sealed.records >= 1 && key.sealed.bytes >= 4);
    }
    // Two in a row without a record between are two epochs.
    assert_eq!(managed.rotate("s").await, 5);
    assert_eq!(managed.rotate("s").await, 6);
    assert_eq!(managed.bodies("s").await, ["0", "1", "2", "last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_rotations_at_once_one_wins() {
    let managed = Managed::start().await;
    managed.put("s", "first").await;
    let (proxy, path) = (managed.stack.proxy(), path("s"));
    let pass = managed.stack.pass(&managed.token).await;
    let mut raced = 0;
    for _ in 0..20 {
        let before = managed.data_keys("s").await.unwrap().keys.len();
        let both = tokio::join!(
            proxy.rotate_key(&path, &pass),
            proxy.rotate_key(&path, &pass)
        );
        let outcomes = [both.0, both.1];
        let won = outcomes.iter().filter(|one| one.is_ok()).count();
        let lost = |one: &&Result<_, Error>| matches!(one, Err(Error::Raced(_)));
        let lost = outcomes.iter().filter(lost).count();
        assert_eq!(won + lost, 2);
        assert!(won >= 1);
        raced += lost;
        let after = managed.data_keys("s").await.unwrap().keys.len();
        assert_eq!(after, before + won);
    }
    assert!(raced > 0, "they never met");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_on_a_busy_stream_is_not_in_its_way() {
    let managed = Managed::start().await;
    managed.put("s", "0").await;
    let producer = async {
        for at in 1..60 {
            managed.put("s", at.to_string()).await;
        }
    };
    let rotations = async {
        for _ in 0..10 {
            managed.rotate("s").await;
        }
    };
    tokio::join!(producer, rotations);
    let wanted: Vec<_> = (0..60).map(|at| at.to_string()).collect();
    assert_eq!(managed.bodies("s").await, wanted);
    assert_eq!(managed.data_keys("s").await.unwrap().keys.len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_takes_the_scope_the_project_and_a_managed_stream() {
    let managed = Managed::with(CIPHERS[0].0, |config| {
        crate::harness::project(config, "other", &["elsewhere-*/**"]);
        config.streams.insert(
            0,
            streamseal::registry::rules::StreamRule {
                key: streamseal::registry::rules::KeySource::Header,
                ..super::setup::rule("test-basin/own", CIPHERS[0].0)
            },
        );
    })
    .await;
    managed.put("s", "first").await;
    let stack = &managed.stack;
    let code = async |stream: &str, token: &crate::harness::Token| {
        let pass = stack.pass(token).await;
        let rotated = stack.proxy().rotate_key(&path(stream), &pass).await;
        rotated.map(|_| ()).map_err(|error| error.code().as_str())
    };
    let other = stack.create_project("other").await;
    assert_eq!(code("s", &other).await, Err("permission_denied"));
    let scopes = [Scope::Append, Scope::Read].into_iter().collect();
    let weak = stack.issue(&managed.token, "weak", scopes).await;
    assert_eq!(code("s", &weak).await, Err("permission_denied"));
    assert_eq!(code("own", &managed.token).await, Err("invalid"));
    assert_eq!(code("missing", &managed.token).await, Err("invalid"));
    assert!(managed.entry("missing").await.is_none());
    assert_eq!(managed.data_keys("s").await.unwrap().keys.len(), 1);
    assert_eq!(code("s", &managed.token).await, Ok(()));
    // One that is there and has no key yet gets its first.
    managed.put("empty", "x").await;
    managed
        .change("empty", |entry| entry.data_keys = None)
        .await;
    assert_eq!(
        code("empty", &managed.token).await,
        Err("invalid"),
        "it has a record"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_epoch_comes_after_the_last() {
    let managed = Managed::start().await;
    managed.put("s", "first").await;
    managed
        .change("s", |entry| {
            // As if there had been so many.
            let keys = &mut entry.data_keys.as_mut().unwrap().keys;
            let mut last = keys[0].clone();
            (last.epoch, last.wrapped) = (u32::MAX, None);
            last.wrapped.clone_from(&keys[0].wrapped);
            keys.push(last);
        })
        .await;
    let pass = managed.stack.pass(&managed.token).await;
    let rotated = managed.stack.proxy().rotate_key(&path("s"), &pass).await;
    assert_eq!(rotated.unwrap_err().code().as_str(), "invalid");
}

/// As if a stream had had all the keys that it may have.
async fn use_up(managed: &Managed, stream: &str, sealed: u64) {
    let fill = |entry: &mut StreamEntry| {
        let keys = &mut entry.data_keys.as_mut().unwrap().keys;
        let before = MAX_KEY_EPOCHS - u32::try_from(keys.len()).unwrap();
        let last = keys[0].clone();
        // Those that are gone come first; the key that is there keeps its number, which it is bound to.
        let epochs = (last.epoch + 1..).take(before as usize);
        keys.extend(epochs.map(|epoch| DataKey {
            epoch,
            wrapped: None,
            ..last.clone()
        }));
        keys[0].sealed.records = sealed;
    };
    managed.change(stream, fill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_room_for_another_key_the_last_one_goes_on_as_long_as_it_is_safe() {
    const SAFE: u64 = 1 << 30;
    for (cipher, _) in CIPHERS {
        let managed = Managed::with(cipher, |config| config.keys.rotate_after.records = 1).await;
        let is_gcm = cipher == RuleCipher::Aes256Gcm;
        for (stream, sealed, goes_on) in [("early", 10, true), ("late", SAFE, !is_gcm)] {
            managed.put(stream, "first").await;
            use_up(&managed, stream, sealed).await;
            let pass = managed.stack.pass(&managed.token).await;
            let rotated = managed.stack.proxy().rotate_key(&path(stream), &pass).await;
            let told = rotated.unwrap_err().told();
            assert!(told.contains("has used up its key epochs"), "{told}");
            for _ in 0..3 {
                let batch = input([record(&[], "more".to_owned())]);
                let answer = managed.ask(appends(stream, Encoding::Proto, &batch)).await;
                assert_eq!(answer.status == 200, goes_on, "{}", answer.text());
            }
            let keys = managed.data_keys(stream).await.unwrap().keys;
            assert_eq!(keys.len(), MAX_KEY_EPOCHS as usize);
            let records = keys[0].sealed.records;
            assert!(!is_gcm || records <= SAFE, "{records}");
            let read = managed.bodies(stream).await;
            assert_eq!(read.len(), if goes_on { 4 } else { 1 });
        }
    }
}
