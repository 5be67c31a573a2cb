//! Once a stream's key is held, neither appends nor reads nor sessions ask the service.

use std::time::Duration;

use s2_api::v1::stream::s2s::CompressionAlgorithm;
use streamseal::{
    registry::rules::RuleCipher,
    telemetry::label::{KmsOperation, KmsOutcome},
};

use super::setup::{Gateway, SECRET, one, reads};
use crate::harness::{
    Ask, BASIN, Encoding, Frame, Live, Session, Transit, delivered, records, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_warm_asks_the_service() {
    let gateway = Gateway::start().await;
    gateway.put("s", SECRET).await;
    let counted = |operation| gateway.counted(operation, KmsOutcome::Ok);
    let both = || (counted(KmsOperation::Wrap), counted(KmsOperation::Unwrap));
    assert_eq!((gateway.vault.calls(), both()), (2, (1, 1)));
    let client = gateway.stack.h2().await;
    let mut session = Session::append(&client, Ask::post(records("s")).basin(BASIN)).await;
    let query = reads("s", "seq_num=0", Encoding::Frames);
    let mut tail = Live::new(client.open(query).await);
    for _ in 0..20 {
        for encoding in Encoding::APPENDS {
            gateway.append("s", encoding, &one(SECRET)).await;
        }
        for encoding in Encoding::READS {
            let answer = gateway.ask(reads("s", "seq_num=0&count=3", encoding)).await;
            assert!(!delivered(encoding, &answer).records().is_empty());
        }
        let frame = Frame::encode(CompressionAlgorithm::None, &one(SECRET));
        session.send(frame).await;
        session.live.frame().await.unwrap().unwrap().ack();
    }
    session.finish();
    let mut delivered = 0;
    while delivered < 101 {
        let batch = tail.frame().await.unwrap().unwrap().batch();
        assert!(batch.records.iter().all(|record| record.body == SECRET));
        delivered += batch.records.len();
    }
    assert_eq!((gateway.vault.calls(), both()), (2, (1, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn first_readers_at_once_share_one_call() {
    let mut gateway = Gateway::start().await;
    gateway.put("s", SECRET).await;
    gateway.restart().await;
    let (go, wait) = tokio::sync::watch::channel(false);
    gateway.vault.act(Transit::ServeOnce(wait));
    let before = gateway.vault.calls();
    let client = gateway.stack.h2().await;
    let readers = (0..50).map(|_| client.ask(reads("s", "seq_num=0", Encoding::Json)));
    let asked = gateway.stack.lite.seen().len();
    let all = futures_util::future::join_all(readers);
    let let_go = async {
        until("all are there and the service was asked", async || {
            gateway.stack.lite.seen().len() >= asked + 50 && gateway.vault.calls() > before
        })
        .await;
        go.send(true).unwrap();
    };
    let (answers, ()) = tokio::join!(all, let_go);
    for answer in answers {
        assert!(answer.text().contains(SECRET), "{}", answer.text());
    }
    assert_eq!(gateway.vault.calls(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_due_is_asked_for_once_again() {
    let gateway = Gateway::with(RuleCipher::Aegis256, |config| {
        config.kms.cache_ttl = Duration::from_millis(300);
    })
    .await;
    gateway.put("s", SECRET).await;
    for _ in 0..3 {
        let before = gateway.vault.count("decrypt");
        until("it is asked for again", async || {
            assert_eq!(gateway.bodies("s").await, [SECRET]);
            gateway.vault.count("decrypt") > before
        })
        .await;
        assert_eq!(gateway.vault.count("decrypt"), before + 1);
    }
    assert_eq!(gateway.vault.count("encrypt"), 1);
    // With nobody there, it is gone from memory.
    until("nothing is held", async || {
        gateway.stack.metrics().kms.cached_keys.get() == 0
    })
    .await;
}
