//! A batch that S2 takes in clear is taken encrypted: as it is, compressed, or in parts that follow each
//! other; and a batch that is appended in part is never said to be not appended.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use rand::Rng as _;
use s2_api::v1::stream::{proto::AppendInput, s2s::CompressionAlgorithm};
use s2_sdk::{producer::ProducerConfig, types::EncryptionKey};
use streamseal::wire::record::{OversizeBatches, RecordCompression};

use crate::harness::{
    Act, Answer, Ask, BASIN, CIPHERS, Encoding, Fake, Frame, KEY, Packed, Session, Stack, ack,
    append, input, read, record, records,
};

/// S2's limit of a batch, and so of a record.
pub const LIMIT: usize = 1 << 20;

pub fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

pub fn text(length: usize) -> Vec<u8> {
    b"all work and no play ".repeat(length / 21 + 1)[..length].to_vec()
}

/// A batch of exactly 1 MiB in clear.
pub fn full(count: usize, body: fn(usize) -> Vec<u8>) -> AppendInput {
    let total = LIMIT - 8 * count;
    let sizes = (0..count).map(|at| total / count + usize::from(at < total % count));
    input(sizes.map(|size| record(&[], body(size))))
}

pub async fn send(stack: &Stack, batch: &AppendInput) -> Answer {
    let ask = append("s", Encoding::Proto, Packed::Not, batch);
    stack.h2().await.ask(ask).await
}

/// Every body of the stream, in order.
pub async fn bodies(stack: &Stack) -> Vec<Bytes> {
    let ask = read("s", "seq_num=0&count=100000", Encoding::Frames);
    let answer = stack.h2().await.ask(ask).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let frames = Frame::all(&answer.body);
    let batches = frames.iter().map(Frame::batch);
    batches
        .flat_map(|batch| batch.records)
        .map(|record| record.body)
        .collect()
}

pub fn sent(batches: &[&AppendInput]) -> Vec<Bytes> {
    let records = batches.iter().flat_map(|batch| &batch.records);
    records.map(|record| record.body.clone()).collect()
}

/// Appends that reached the upstream.
fn appends(stack: &Stack) -> usize {
    let seen = stack.lite.seen();
    let posts = seen
        .iter()
        .filter(|seen| seen.line.starts_with("POST") && seen.line.ends_with("/records"));
    posts.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn full_batches_land_whole_and_in_order() {
    for cipher in CIPHERS {
        let stack = Stack::start().await;
        stack.create_basin(Some(cipher)).await;
        let mut all = Vec::new();
        for (count, body, parts) in [
            (1, text as fn(usize) -> Vec<u8>, 1),
            (2, text, 1),
            (37, text, 1),
            (1000, text, 1),
            (2, noise, 2),
            (37, noise, 2),
            (1000, noise, 2),
        ] {
            let before = appends(&stack);
            let start = all
                .iter()
                .map(|batch: &AppendInput| batch.records.len())
                .sum::<usize>();
            let batch = full(count, body);
            let ack = ack(Encoding::Proto, &send(&stack, &batch).await);
            let (first, end) = (ack.start.unwrap(), ack.end.unwrap());
            assert_eq!(first.seq_num, start as u64);
            assert_eq!(end.seq_num, (start + count) as u64);
            assert_eq!(ack.tail.unwrap().seq_num, end.seq_num);
            assert_eq!(appends(&stack) - before, parts, "{count} records");
            all.push(batch);
        }
        let all: Vec<&AppendInput> = all.iter().collect();
        assert!(bodies(&stack).await == sent(&all), "records differ");
        let alone = send(&stack, &full(1, noise)).await;
        assert_eq!((alone.status, alone.code().as_str()), (422, "invalid"));
        let largest = if cipher == "aegis-256" {
            "1048526"
        } else {
            "1048546"
        };
        assert!(alone.text().contains("1048576") && alone.text().contains(largest));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_to_be_rejected_is_rejected() {
    let stack = Stack::with(|config| {
        config.limits.oversize_batches = OversizeBatches::Reject;
        config.limits.compression = RecordCompression::Never;
    })
    .await;
    stack.create_basin(Some("aegis-256")).await;
    let before = appends(&stack);
    let answer = send(&stack, &full(37, text)).await;
    assert_eq!((answer.status, answer.code().as_str()), (422, "invalid"));
    assert_eq!(appends(&stack), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_inside_a_split_batch_holds_for_the_rest() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let fence = |token: &'static str| record(&[(b"", b"fence")], token);
    ack(Encoding::Proto, &send(&stack, &input([fence("old")])).await);
    let mut batch = full(900, noise);
    batch.records.truncate(880);
    batch.records.insert(10, fence("new"));
    batch
        .records
        .extend((0..100).map(|_| record(&[], noise(200))));
    let token = |token: &str, seq_num| AppendInput {
        fencing_token: Some(token.into()),
        match_seq_num: seq_num,
        ..batch.clone()
    };
    let wrong = send(&stack, &token("new", None)).await;
    assert_eq!(wrong.status, 412, "{}", wrong.text());
    let late = send(&stack, &token("old", Some(7))).await;
    assert_eq!(late.json()["seq_num_mismatch"], 1, "{}", late.text());
    let ack = ack(Encoding::Proto, &send(&stack, &token("old", Some(1))).await);
    assert_eq!(ack.start.unwrap().seq_num, 1);
    assert_eq!(ack.end.unwrap().seq_num, 982);
    // In a session, too: the second part needs the token that the first one set.
    batch.records[10] = fence("newer");
    batch.fencing_token = Some("new".into());
    let ask = append("s", Encoding::Frames, Packed::Not, &batch);
    let ack = self::ack(Encoding::Frames, &stack.h2().await.ask(ask).await);
    assert_eq!(ack.end.unwrap().seq_num, 982 + 981);
    assert_eq!(bodies(&stack).await.len(), 982 + 981);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_after_the_first_part_promises_nothing() {
    let lite = Arc::new(crate::harness::Lite::start().await);
    let fake = Fake::start(lite.address).await;
    let stack = Stack::over(lite, |config| fake.aim(config)).await;
    stack.create_basin(Some("aegis-256")).await;
    for (act, status, code) in [
        (
            Act::Answer(412, r#"{"seq_num_mismatch":7}"#.into()),
            500,
            "other",
        ),
        (
            Act::Answer(502, r#"{"code":"hot_server","message":""}"#.into()),
            500,
            "other",
        ),
        (Act::Drop, 500, "other"),
        (Act::LoseAnswer, 500, "other"),
    ] {
        let posts = AtomicUsize::new(0);
        fake.script(move |call| {
            let is_append = call.is("POST", "/v1/streams/s/records");
            match is_append.then(|| posts.fetch_add(1, Ordering::Relaxed)) {
                Some(1) => act.clone(),
                _ => Act::Pass,
            }
        });
        let answer = send(&stack, &full(37, noise)).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        fake.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_acks_each_input_once_whatever_its_parts() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aes-256-gcm")).await;
    let client = stack.h2().await;
    let mut session = Session::append(&client, Ask::post(records("s")).key(&KEY)).await;
    let batches = [
        input([record(&[], "before")]),
        full(500, noise),
        input([record(&[], "between")]),
        full(999, noise),
        full(1000, text),
        input([record(&[], "after")]),
    ];
    for batch in &batches {
        session
            .send(Frame::encode(CompressionAlgorithm::None, batch))
            .await;
    }
    session.finish();
    let mut next = 0;
    for batch in &batches {
        let ack = session.live.frame().await.unwrap().unwrap().ack();
        assert_eq!(ack.start.unwrap().seq_num, next);
        next += batch.records.len() as u64;
        assert_eq!(ack.end.unwrap().seq_num, next);
    }
    assert!(session.live.frame().await.unwrap().is_none());
    let batches: Vec<&AppendInput> = batches.iter().collect();
    assert!(bodies(&stack).await == sent(&batches), "records differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_between_the_parts_breaks_the_batch_not_the_stream() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    ack(
        Encoding::Proto,
        &send(&stack, &input([record(&[], "first")])).await,
    );
    let writers = (0..4).map(|_| async {
        let mut lost = 0;
        for _ in 0..6 {
            let answer = send(&stack, &full(37, noise)).await;
            match answer.status {
                200 => {
                    let ack = ack(Encoding::Proto, &answer);
                    assert_eq!(ack.end.unwrap().seq_num - ack.start.unwrap().seq_num, 37);
                }
                _ => {
                    assert_eq!(answer.code(), "other", "{}", answer.text());
                    lost += 1;
                }
            }
        }
        lost
    });
    let lost: usize = futures_util::future::join_all(writers)
        .await
        .into_iter()
        .sum();
    let stored = bodies(&stack).await.len() - 1;
    // An acked batch is there whole. Of the others the first part is.
    assert!(
        stored >= (24 - lost) * 37 && stored < 24 * 37 + 1,
        "{stored} after {lost} lost"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_s_producer_at_full_rate_loses_and_repeats_nothing() {
    const COUNT: u64 = 6000;
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let stream = stack
        .sdk()
        .basin(BASIN.parse().unwrap())
        .stream("s".parse().unwrap())
        .with_encryption_key(EncryptionKey::new(KEY));
    let producer = stream.producer(ProducerConfig::new());
    let mut sent: Vec<Vec<u8>> = Vec::new();
    let mut tickets = Vec::new();
    for _ in 0..COUNT {
        let body = noise(2048);
        let record = s2_sdk::types::AppendRecord::new(body.clone()).unwrap();
        tickets.push(producer.submit(record).await.unwrap());
        sent.push(body);
    }
    producer.close().await.unwrap();
    for (ticket, seq_num) in tickets.into_iter().zip(0..) {
        assert_eq!(ticket.await.unwrap().seq_num, seq_num);
    }
    let stored = bodies(&stack).await;
    assert!(stored.iter().eq(sent.iter()), "records differ");
    assert_eq!(stored.len() as u64, COUNT);
}
