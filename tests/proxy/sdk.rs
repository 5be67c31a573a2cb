//! The real Rust SDK works through the proxy as it does with S2, at volume and in every way it has.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use s2_sdk::{
    S2Stream,
    append_session::AppendSessionConfig,
    batching::{BatchLimits, BatchingConfig},
    producer::ProducerConfig,
    read_session::ReadSession,
    types::{
        AppendInput, AppendRecord, AppendRecordBatch, EncryptionKey, FencingToken, Header,
        ReadFrom, ReadInput, ReadLimits, ReadSessionConfig, ReadStart, ReadStop, SequencedRecord,
    },
};

use crate::harness::{BASIN, CIPHERS, DEADLINE, KEY, Stack, leaks};

/// A batch that still fits upstream once each of its up to 1000 records has grown by 51 bytes.
const MAX_BATCH_BYTES: usize = (1 << 20) - 51 * 1000;

fn stream(stack: &Stack, name: &str) -> S2Stream {
    let basin = stack.sdk().basin(BASIN.parse().unwrap());
    basin
        .stream(name.parse().unwrap())
        .with_encryption_key(EncryptionKey::new(KEY))
}

fn from(seq_num: u64, count: usize) -> ReadInput {
    ReadInput::new()
        .with_start(ReadStart::new().with_from(ReadFrom::SeqNum(seq_num)))
        .with_stop(ReadStop::new().with_limits(ReadLimits::new().with_count(count)))
}

fn batch(bodies: &[&str]) -> AppendInput {
    let records = bodies
        .iter()
        .map(|body| AppendRecord::new(body.to_string()).unwrap());
    AppendInput::new(AppendRecordBatch::try_from_iter(records).unwrap())
}

/// Numbers that look random, and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// The record with this number: 64 B to 64 KiB, compressible or not, with headers or without.
fn mixed(number: u64) -> (Vec<Header>, Bytes) {
    let mut numbers = Numbers(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    numbers.next();
    let length = 64 + usize::try_from(numbers.next() % (64 * 1024 - 63)).unwrap();
    let body = match number % 2 {
        0 => numbers.bytes(length),
        _ => b"0123456789abcdef".repeat(length / 16 + 1)[..length].to_vec(),
    };
    let headers = (0..number % 4).map(|at| Header::new(format!("header-{at}"), numbers.bytes(20)));
    (headers.collect(), body.into())
}

fn mixed_record(number: u64) -> AppendRecord {
    let (headers, body) = mixed(number);
    AppendRecord::new(body)
        .unwrap()
        .with_headers(headers)
        .unwrap()
}

fn assert_mixed(record: &SequencedRecord) {
    let (headers, body) = mixed(record.seq_num);
    // No assert_eq: a message of 64 KiB helps nobody.
    assert!(
        record.headers == headers && record.body == body,
        "record {}",
        record.seq_num
    );
}

async fn next_batch(session: &mut ReadSession) -> Option<Vec<SequencedRecord>> {
    let batch = tokio::time::timeout(DEADLINE, session.next()).await;
    batch
        .expect("no batch in time")
        .map(|batch| batch.unwrap().records)
}

/// That no more than a few of them are in memory is shown in `flow`: here client, proxy and upstream
/// share one process, whose size says nothing of the proxy's.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_megabytes_come_back_identical_and_in_order() {
    const BYTES: usize = 50_000_000;
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let stream = stream(&stack, "volume");
    let limits = BatchLimits::new()
        .with_max_batch_bytes(MAX_BATCH_BYTES)
        .unwrap();
    let batching = BatchingConfig::new().with_limits(limits);
    let producer = stream.producer(ProducerConfig::new().with_batching(batching));
    let (mut sent, mut count) = (0, 0);
    let mut last = None;
    while sent < BYTES {
        let record = mixed_record(count);
        sent += record.body().len();
        last = Some(producer.submit(record).await.unwrap());
        count += 1;
    }
    producer.close().await.unwrap();
    assert_eq!(last.unwrap().await.unwrap().seq_num, count - 1);

    let input = from(0, usize::try_from(count).unwrap());
    let mut session = stream
        .read_session(input, ReadSessionConfig::new())
        .await
        .unwrap();
    let mut next = 0;
    while let Some(records) = next_batch(&mut session).await {
        for record in records {
            assert_eq!(record.seq_num, next);
            assert_mixed(&record);
            next += 1;
        }
    }
    assert_eq!(next, count);
}

#[tokio::test(flavor = "multi_thread")]
async fn unary_calls_work() {
    for cipher in CIPHERS {
        let stack = Stack::start().await;
        stack.create_basin(Some(cipher)).await;
        let stream = stream(&stack, "unary");
        let ack = stream
            .append(batch(&["one", "two", "three"]))
            .await
            .unwrap();
        assert_eq!((ack.start.seq_num, ack.end.seq_num), (0, 3));
        assert_eq!(stream.check_tail().await.unwrap().seq_num, 3);
        let read = stream.read(from(1, 10)).await.unwrap();
        let bodies: Vec<_> = read.records.iter().map(|record| &record.body[..]).collect();
        assert_eq!(bodies, [&b"two"[..], b"three"]);

        let token: FencingToken = "token".parse().unwrap();
        let fence = s2_sdk::types::CommandRecord::fence(token.clone());
        let records = AppendRecordBatch::try_from_iter([fence.into()]).unwrap();
        stream.append(AppendInput::new(records)).await.unwrap();
        stream
            .append(batch(&["x"]).with_fencing_token("other".parse().unwrap()))
            .await
            .unwrap_err();
        stream
            .append(batch(&["x"]).with_match_seq_num(1))
            .await
            .unwrap_err();
        let right = batch(&["four"])
            .with_fencing_token(token)
            .with_match_seq_num(4);
        assert_eq!(stream.append(right).await.unwrap().start.seq_num, 4);
        let read = stream
            .read(from(3, 10).with_ignore_command_records(true))
            .await
            .unwrap();
        assert_eq!(read.records.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_session_and_a_follower_work_together() {
    for cipher in CIPHERS {
        let stack = Stack::start().await;
        stack.create_basin(Some(cipher)).await;
        let stream = stream(&stack, "live");
        let input = ReadInput::new();
        let mut follower = stream
            .read_session(input, ReadSessionConfig::new())
            .await
            .unwrap();
        let session = stream.append_session(AppendSessionConfig::new());
        let mut tickets = Vec::new();
        for number in 0..50 {
            let secret = format!("a body that only the reader may see {number}");
            tickets.push(
                session
                    .submit(batch(&[&secret, "and another"]))
                    .await
                    .unwrap(),
            );
        }
        for (ticket, number) in tickets.into_iter().zip(0..) {
            assert_eq!(ticket.await.unwrap().start.seq_num, 2 * number);
        }
        session.close().await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < 100 {
            seen.extend(next_batch(&mut follower).await.unwrap());
        }
        for (record, seq_num) in seen.iter().zip(0..) {
            assert_eq!(record.seq_num, seq_num);
        }
        assert_eq!(seen[98].body, "a body that only the reader may see 49");
        assert!(!leaks(
            &stack.tap.bytes(),
            b"a body that only the reader may see"
        ));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_the_key_fails_for_good() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let keyless = stack
        .sdk()
        .basin(BASIN.parse().unwrap())
        .stream("keyless".parse().unwrap());
    let failing = async {
        keyless.append(batch(&["x"])).await.unwrap_err();
        let session = keyless.append_session(AppendSessionConfig::new());
        let error = match session.submit(batch(&["x"])).await {
            Ok(ticket) => ticket.await.unwrap_err(),
            Err(error) => error,
        };
        assert!(!error.is_retryable(), "{error}");
        assert!(error.to_string().contains("s2-encryption-key"), "{error}");
    };
    // At once, and not after retries.
    tokio::time::timeout(Duration::from_secs(5), failing)
        .await
        .unwrap();
}
