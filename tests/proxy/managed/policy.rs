//! By the operator's policy keys rotate by themselves: no key seals more than it may, and no batch is under two.

use std::{collections::BTreeMap, time::Duration};

use bytesize::ByteSize;
use s2_api::v1::stream::proto::SequencedRecord;
use streamseal::{crypto::layout_of, project::Scope, registry::rules::RuleCipher};

use super::setup::{CIPHERS, Managed, appends, reads};
use crate::{
    ceiling::{LAST, Line, batch},
    harness::{
        Ask, Encoding, Frame, Session, Stack, ack, delivered, frame, input, record, records, until,
    },
};

/// Everything that the upstream has of a stream, past the proxy.
async fn all_stored(stack: &Stack, stream: &str) -> Vec<SequencedRecord> {
    let direct = stack.direct().await;
    let mut all: Vec<SequencedRecord> = Vec::new();
    loop {
        let query = format!("?seq_num={}&clamp=true", all.len());
        let ask = Ask::get(records(stream) + &query).header("accept", "application/protobuf");
        let answer = direct.ask(ask).await;
        let more = delivered(Encoding::Proto, &answer).records();
        if more.is_empty() {
            return all;
        }
        all.extend(more);
    }
}

fn epoch(stored: &SequencedRecord) -> u32 {
    layout_of(&stored.body).unwrap().epoch.unwrap()
}

/// What one producer was acked: where each batch is.
type Acked = Vec<(std::ops::Range<u64>, String)>;

/// Half of the producers append by themselves, the others in sessions.
async fn produce(managed: &Managed, producer: usize, batches: usize) -> Acked {
    let name = |at: usize| format!("producer {producer}, batch {at}");
    let size = |at: usize| 1 + (at + producer) % 5;
    let of = |at: usize| input((0..size(at)).map(|_| record(&[], name(at))));
    let range = |ack: s2_api::v1::stream::proto::AppendAck| {
        ack.start.unwrap().seq_num..ack.end.unwrap().seq_num
    };
    let mut acked = Vec::new();
    let client = managed.stack.h2().await;
    if producer.is_multiple_of(2) {
        for at in 0..batches {
            let ask = appends("s", Encoding::Proto, &of(at));
            let answer = client.ask(managed.token.on(ask)).await;
            acked.push((range(ack(Encoding::Proto, &answer)), name(at)));
        }
        return acked;
    }
    let ask = managed.token.on(Ask::post(records("s")));
    let mut session = Session::append(&client, ask).await;
    for at in 0..batches {
        session.send(frame(&of(at))).await;
    }
    for at in 0..batches {
        let next: Frame = session.live.frame().await.unwrap().unwrap();
        acked.push((range(next.ack()), name(at)));
    }
    acked
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_at_once_go_through_many_epochs_and_nothing_is_lost() {
    for (rule, _) in CIPHERS {
        let managed = Managed::with(rule, |config| config.keys.rotate_after.records = 5).await;
        managed.put("s", "the first").await;
        let producers = (0..6).map(|producer| produce(&managed, producer, 60));
        let acked = futures_util::future::join_all(producers).await.concat();
        let stored = all_stored(&managed.stack, "s").await;
        let total: u64 = acked.iter().map(|(range, _)| range.end - range.start).sum();
        assert_eq!(stored.len() as u64, total + 1);
        let mut sealed: BTreeMap<u32, u64> = BTreeMap::new();
        for record in &stored {
            *sealed.entry(epoch(record)).or_default() += 1;
        }
        for (epoch, records) in &sealed {
            assert!(*records <= 5, "epoch {epoch} sealed {records} records");
        }
        assert!(sealed.len() as u64 >= total / 5, "{} epochs", sealed.len());
        // A batch is under one epoch.
        for (range, name) in &acked {
            let of = |at: u64| epoch(&stored[usize::try_from(at).unwrap()]);
            let first = of(range.start);
            assert!(range.clone().all(|at| of(at) == first), "{name}");
        }
        // And everything reads back, in order.
        let answer = managed.ask(reads("s", "seq_num=0&count=10000&wait=0", Encoding::Frames));
        let read = delivered(Encoding::Frames, &answer.await).records();
        assert_eq!(read.len(), stored.len());
        for (range, name) in &acked {
            for at in range.clone() {
                assert_eq!(read[usize::try_from(at).unwrap()].body, *name);
            }
        }
        let keys = managed.data_keys("s").await.unwrap().keys;
        for (epoch, records) in sealed {
            let key = keys.iter().find(|key| key.epoch == epoch).unwrap();
            assert!(key.sealed.records >= records, "{key:?} sealed {records}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_no_key_has_room_for_gets_one_of_its_own() {
    let managed = Managed::with(CIPHERS[0].0, |config| config.keys.rotate_after.records = 5).await;
    let large = input((0..12).map(|_| record(&[], "one of twelve")));
    for _ in 0..3 {
        managed.append("s", Encoding::Proto, &large).await;
    }
    let epochs: Vec<_> = managed.layouts("s").await.iter().map(|l| l.epoch).collect();
    let wanted: Vec<_> = (1..=3).flat_map(|epoch| [Some(epoch); 12]).collect();
    assert_eq!(epochs, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_and_age_make_a_key_due() {
    let managed = Managed::with(CIPHERS[0].0, |config| {
        config.keys.rotate_after.bytes = ByteSize::b(100);
    })
    .await;
    for _ in 0..4 {
        managed.put("s", "x".repeat(40)).await;
    }
    // 48 metered bytes each: two to a key.
    let epochs: Vec<_> = managed.layouts("s").await.iter().map(|l| l.epoch).collect();
    assert_eq!(epochs, [Some(1), Some(1), Some(2), Some(2)]);
    let metrics = managed.stack.metrics().render();
    assert!(metrics.contains(r#"streamseal_key_rotations_total{reason="bytes"} 1"#));

    let managed = Managed::with(CIPHERS[0].0, |config| {
        config.keys.rotate_after.age = Duration::from_millis(50);
    })
    .await;
    until("a key gets old", async || {
        managed.put("s", "x").await;
        managed.data_keys("s").await.unwrap().keys.len() >= 3
    })
    .await;
    let bodies = managed.bodies("s").await;
    assert!(bodies.iter().all(|body| body == "x"));
    let metrics = managed.stack.metrics().render();
    assert!(metrics.contains(r#"streamseal_key_rotations_total{reason="age"}"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_needs_no_more_than_an_append() {
    let managed = Managed::with(CIPHERS[0].0, |config| config.keys.rotate_after.records = 1).await;
    let scopes = [Scope::Append].into_iter().collect();
    let weak = managed.stack.issue(&managed.token, "weak", scopes).await;
    for _ in 0..3 {
        let ask = appends("s", Encoding::Proto, &input([record(&[], "x")]));
        let answer = managed.stack.h2().await.ask(weak.on(ask)).await;
        ack(Encoding::Proto, &answer);
    }
    assert_eq!(managed.data_keys("s").await.unwrap().keys.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_gcm_goes_on_beyond_the_numbers_of_one_key() {
    let managed = Managed::with(RuleCipher::Aes256Gcm, |_| {}).await;
    let line = std::sync::Arc::<Line>::default();
    let answers = std::sync::Arc::clone(&line);
    managed
        .stack
        .lite
        .lie(move |seen| answers.answer(&seen.line));
    let size = |records: u64| {
        line.size
            .store(records, std::sync::atomic::Ordering::SeqCst)
    };
    size(1);
    managed.put("s", "the first").await;
    for tail in [LAST - 1, LAST, LAST + 1, 1 << 40] {
        line.tail.store(tail, std::sync::atomic::Ordering::SeqCst);
        for encoding in [Encoding::Proto, Encoding::Json] {
            size(2);
            managed.append("s", encoding, &batch("dd")).await;
        }
    }
    let tails = managed.stack.lite.seen();
    let tails = tails.iter().filter(|seen| seen.line.ends_with("/tail"));
    assert_eq!(
        tails.count(),
        1,
        "the tail was asked for more than the first key"
    );
}
