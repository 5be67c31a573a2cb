//! Sessions take the newest key for each input, and end when the stream is not the one that they began with.

use std::sync::Arc;

use s2_api::v1::stream::proto::AppendInput;
use streamseal::{crypto::layout_of, registry::rules::RuleCipher};
use tokio::sync::Notify;

use super::setup::{CIPHERS, Managed, SECRET, appends, reads};
use crate::harness::{
    Act, Ask, Encoding, Fake, Lite, Live, Session, Way, delivered, frame, input, record, records,
    until,
};

async fn session(managed: &Managed) -> Session {
    let ask = managed.token.on(Ask::post(records("s")));
    Session::append(&managed.stack.h2().await, ask).await
}

async fn put(session: &mut Session, body: &str) -> u64 {
    session
        .send(frame(&input([record(&[], body.to_owned())])))
        .await;
    let ack = session.live.frame().await.unwrap().unwrap().ack();
    ack.start.unwrap().seq_num
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_session_takes_the_new_key_with_its_next_input() {
    let managed = Managed::start().await;
    let mut session = session(&managed).await;
    for (at, body) in ["one", "two", "three"].into_iter().enumerate() {
        assert_eq!(put(&mut session, body).await, at as u64);
        managed.rotate("s").await;
    }
    session.finish();
    assert_eq!(session.live.frame().await.unwrap(), None);
    let epochs: Vec<_> = managed.layouts("s").await.iter().map(|l| l.epoch).collect();
    assert_eq!(epochs, [Some(1), Some(2), Some(3)]);
    assert_eq!(managed.bodies("s").await, ["one", "two", "three"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_at_the_tail_follows_into_the_next_epoch() {
    let managed = Managed::start().await;
    managed.put("s", "one").await;
    let ask = managed.token.on(reads("s", "seq_num=0", Encoding::Frames));
    let mut live = Live::new(managed.stack.h2().await.open(ask).await);
    let mut next = async || loop {
        let batch = live.frame().await.unwrap().unwrap().batch();
        if let Some(record) = batch.records.first() {
            return record.body.clone();
        }
    };
    assert_eq!(next().await, "one");
    for body in ["two", "three"] {
        managed.rotate("s").await;
        managed.put("s", body).await;
        assert_eq!(next().await, body);
    }
}

/// A batch that goes up in two parts, for noise does not compress.
fn full() -> AppendInput {
    let noise = |at: u64| -> Vec<u8> {
        let mut out = vec![0; 1040];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&at.to_be_bytes());
        hasher.finalize_xof().fill(&mut out);
        out
    };
    input((0..1000).map(|at| record(&[], noise(at))))
}

/// The key epochs of all records, by the upstream's own bytes.
async fn epochs(managed: &Managed) -> Vec<u32> {
    let direct = managed.stack.direct().await;
    let mut epochs = Vec::new();
    loop {
        let from = records("s") + &format!("?seq_num={}&clamp=true", epochs.len());
        let ask = Ask::get(from).header("accept", "application/protobuf");
        let stored = delivered(Encoding::Proto, &direct.ask(ask).await).records();
        if stored.is_empty() {
            return epochs;
        }
        let epoch = |body: &[u8]| layout_of(body).expect("a record in clear").epoch.unwrap();
        epochs.extend(stored.iter().map(|record| epoch(&record.body)));
    }
}

/// Rotates when the first part of the batch is stored, and before the proxy hears of it.
async fn rotate_between_parts(managed: &Managed) {
    let mut stored = 0;
    until("the first part is stored", async || {
        stored = epochs(managed).await.len();
        stored > 1
    })
    .await;
    assert!(stored < 1001, "one part");
    assert_eq!(managed.rotate("s").await, 2);
}

async fn is_under_one_key_and_the_next_under_another(managed: &Managed) {
    managed.put("s", "next").await;
    let epochs = epochs(managed).await;
    let next = epochs.iter().position(|epoch| *epoch != 1);
    assert_eq!((epochs.len(), next), (1002, Some(1001)));
    assert_eq!(epochs[1001], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_under_one_key_though_it_rotates_between_its_parts() {
    let lite = Arc::new(Lite::start().await);
    let fake = Fake::start(lite.address).await;
    let managed = Managed::over(lite, RuleCipher::Aegis256, |config| fake.aim(config)).await;
    managed.put("s", "first").await;
    let go_on = Arc::new(Notify::new());
    let (hold, target) = (Arc::clone(&go_on), records("s"));
    fake.script(move |call| match call.is("POST", &target) {
        true => Act::HoldAnswer(Arc::clone(&hold)),
        false => Act::Pass,
    });
    let (client, batch) = (managed.stack.h2().await, full());
    let ask = managed.token.on(appends("s", Encoding::Proto, &batch));
    let appending = tokio::spawn(async move { client.ask(ask).await });
    rotate_between_parts(&managed).await;
    fake.heal();
    go_on.notify_one();
    let answer = appending.await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    is_under_one_key_and_the_next_under_another(&managed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sessions_batch_is_under_one_key_though_it_rotates_between_its_parts() {
    let managed = Managed::start().await;
    let mut session = session(&managed).await;
    put(&mut session, "first").await;
    managed.stack.tap.hold_after(Way::Down, 1);
    session.send(frame(&full())).await;
    rotate_between_parts(&managed).await;
    managed.stack.tap.release();
    let ack = session.live.frame().await.unwrap().unwrap().ack();
    assert_eq!(ack.end.unwrap().seq_num, 1001);
    is_under_one_key_and_the_next_under_another(&managed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_batch_is_under_one_key() {
    let managed = Managed::start().await;
    let full = full();
    let mut session = session(&managed).await;
    for epoch in 1..=2 {
        session.send(frame(&full)).await;
        let ack = session.live.frame().await.unwrap().unwrap().ack();
        assert_eq!(ack.end.unwrap().seq_num, epoch * 1000);
        managed.rotate("s").await;
    }
    let answer = managed
        .ask(reads("s", "seq_num=0&count=2000", Encoding::Frames))
        .await;
    assert_eq!(delivered(Encoding::Frames, &answer).records().len(), 2000);
    let splits = managed.stack.metrics().render();
    assert!(
        splits.contains("streamseal_split_batches_total 2"),
        "nothing was split"
    );
    let keys = managed.data_keys("s").await.unwrap().keys;
    let first: Vec<_> = keys.iter().map(|key| key.first_seq_num).collect();
    assert_eq!(first, [Some(0), Some(1000), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_streams_keys_are_shredded() {
    for (rule, _) in CIPHERS {
        let managed = Managed::with(rule, |_| {}).await;
        let mut session = session(&managed).await;
        put(&mut session, "one").await;
        managed
            .change("s", |entry| {
                let keys = &mut entry.data_keys.as_mut().unwrap().keys;
                keys.iter_mut().for_each(|key| key.wrapped = None);
            })
            .await;
        session.send(frame(&input([record(&[], SECRET)]))).await;
        let (status, code) = session.live.frame().await.unwrap().unwrap().failure();
        assert_eq!((status, &*code), (403, "permission_denied"));
        assert_eq!(managed.stack.stored("s").await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_stream_is_another() {
    let managed = Managed::start().await;
    managed.put("other", "x").await;
    let other = managed.data_keys("other").await.unwrap();
    type Change<'a> = &'a dyn Fn(&mut streamseal::store::StreamEntry);
    let changes: [(&str, Change<'_>); 3] = [
        ("made anew", &|entry| entry.data_keys = Some(other.clone())),
        ("made anew, without a key yet", &|entry| {
            entry.data_keys = None
        }),
        ("about to be deleted", &|entry| {
            let streamseal::store::StreamState::Live(life) = entry.state.clone() else {
                panic!("{entry:?}");
            };
            entry.state = streamseal::store::StreamState::Deleting(life);
        }),
    ];
    for (at, (what, change)) in changes.into_iter().enumerate() {
        let stream = format!("s{at}");
        let ask = managed.token.on(Ask::post(records(&stream)));
        let mut session = Session::append(&managed.stack.h2().await, ask).await;
        put(&mut session, "one").await;
        managed.change(&stream, change).await;
        session.send(frame(&input([record(&[], SECRET)]))).await;
        let (status, code) = session.live.frame().await.unwrap().unwrap().failure();
        assert_eq!((status, &*code), (502, "hot_server"), "{what}");
        assert_eq!(managed.stack.stored(&stream).await.len(), 1, "{what}");
    }
}
