//! A batch is cut where it must be and nowhere else, on the byte, for both ciphers and whatever is configured;
//! and a reply is as long as native S2's, although what is stored is longer.

use prost::Message as _;
use s2_api::v1::stream::{
    proto::{AppendInput, ReadBatch},
    s2s::CompressionAlgorithm,
};
use serde_json::json;
use streamseal::wire::record::{OversizeBatches, RecordCompression};

use crate::{
    harness::{
        Ask, Encoding, Frame, KEY, Packed, Session, Stack, Twin, ack, append, input, metered, read,
        record, records,
    },
    oversize::{LIMIT, bodies, full, noise, send, sent, text},
};

/// Cipher, what it adds to a record without headers, and what to one with a short header.
const GROWTH: [(&str, usize, usize); 2] = [("aegis-256", 50, 51), ("aes-256-gcm", 30, 31)];

/// The shortest header.
const HEADER: (&[u8], &[u8]) = (b"n", b"v");

/// `count` records that meter `total` together, with a header each or without.
fn batch(count: usize, total: usize, has_header: bool) -> AppendInput {
    let headers: &[_] = if has_header { &[HEADER] } else { &[] };
    let bare = metered(&record(headers, "").headers, b"");
    let rest = total - bare * count;
    let sizes = (0..count).map(|at| rest / count + usize::from(at < rest % count));
    input(sizes.map(|size| record(headers, noise(size))))
}

/// How large each batch was that the upstream got, as it meters them.
fn uploads(stack: &Stack) -> Vec<usize> {
    let seen = stack.lite.seen();
    let appends = seen
        .iter()
        .filter(|seen| seen.line.starts_with("POST") && seen.line.ends_with("/records"));
    let inputs = appends.flat_map(|seen| {
        let is_session = seen
            .headers
            .iter()
            .any(|at| at == "content-type: s2s/proto");
        match is_session {
            true => Frame::all(&seen.body).iter().map(input_of).collect(),
            false => vec![AppendInput::decode(&*seen.body).unwrap()],
        }
    });
    let size = |input: AppendInput| {
        let sizes = input.records.iter().map(|r| metered(&r.headers, &r.body));
        sizes.sum()
    };
    inputs.map(size).collect()
}

fn input_of(frame: &Frame) -> AppendInput {
    match frame {
        Frame::Message { payload, .. } => AppendInput::decode(payload.clone()).unwrap(),
        Frame::Terminal { .. } => panic!("a terminal frame in a request"),
    }
}

async fn stack(cipher: &str, fit: (OversizeBatches, RecordCompression)) -> Stack {
    let stack = Stack::with(|config| {
        (config.limits.oversize_batches, config.limits.compression) = fit;
    })
    .await;
    stack.create_basin(Some(cipher)).await;
    stack
}

const DEFAULT: (OversizeBatches, RecordCompression) =
    (OversizeBatches::Split, RecordCompression::WhenNeeded);

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_just_fits_is_not_cut_and_one_byte_more_is() {
    for (cipher, bare, with_header) in GROWTH {
        let stack = stack(cipher, DEFAULT).await;
        let mut all = Vec::new();
        for count in [1, 2, 37, 1000] {
            for (has_header, growth) in [(false, bare), (true, with_header)] {
                let before = uploads(&stack).len();
                let edge = batch(count, LIMIT - growth * count, has_header);
                ack(Encoding::Proto, &send(&stack, &edge).await);
                assert_eq!(uploads(&stack)[before..], [LIMIT], "{count} {has_header}");
                all.push(edge);

                let more = batch(count, LIMIT - growth * count + 1, has_header);
                let answer = send(&stack, &more).await;
                if count == 1 {
                    assert_eq!((answer.status, answer.code().as_str()), (422, "invalid"));
                    assert_eq!(uploads(&stack).len(), before + 1);
                    continue;
                }
                ack(Encoding::Proto, &answer);
                // One record is over, and no more than that goes into a second part.
                let last = more.records.last().unwrap();
                let last = metered(&last.headers, &last.body) + growth;
                let parts = [LIMIT + 1 - last, last];
                assert_eq!(uploads(&stack)[before + 1..], parts, "{count} {has_header}");
                all.push(more);
            }
        }
        let all: Vec<&AppendInput> = all.iter().collect();
        assert!(bodies(&stack).await == sent(&all), "records differ");
    }
}

/// Whether the batch was looked at record by record, as always when records are compressed, or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_cuts_at_the_same_byte() {
    let always = (OversizeBatches::Split, RecordCompression::Always);
    for ((cipher, growth, _), fit) in GROWTH.into_iter().zip([always, DEFAULT]) {
        let stack = stack(cipher, fit).await;
        let edge = batch(37, LIMIT - growth * 37, false);
        let more = batch(37, LIMIT - growth * 37 + 1, false);
        let last = metered(&[], &more.records[36].body) + growth;
        let client = stack.h2().await;
        let mut session = Session::append(&client, Ask::post(records("s")).key(&KEY)).await;
        for (at, batch) in [&edge, &more].into_iter().enumerate() {
            let frame = Frame::encode(CompressionAlgorithm::None, batch);
            session.send(frame).await;
            let ack = session.live.frame().await.unwrap().unwrap().ack();
            assert_eq!(ack.end.unwrap().seq_num, 37 * (at as u64 + 1));
        }
        session.finish();
        assert!(session.live.frame().await.unwrap().is_none());
        assert_eq!(uploads(&stack), [LIMIT, LIMIT + 1 - last, last]);
        assert!(bodies(&stack).await == sent(&[&edge, &more]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rejecting_refuses_only_what_would_be_cut() {
    for (cipher, growth, _) in GROWTH {
        let reject = (OversizeBatches::Reject, RecordCompression::WhenNeeded);
        let stack = stack(cipher, reject).await;
        let edge = batch(2, LIMIT - 2 * growth, false);
        let more = batch(2, LIMIT - 2 * growth + 1, false);
        ack(Encoding::Proto, &send(&stack, &edge).await);
        // What fits once it is compressed is not cut either.
        let soft = full(37, text);
        ack(Encoding::Proto, &send(&stack, &soft).await);
        let before = uploads(&stack);
        let answer = send(&stack, &more).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "invalid"));
        let ask = append("s", Encoding::Frames, Packed::Not, &more);
        let answer = stack.h2().await.ask(ask).await;
        let [end] = &Frame::all(&answer.body)[..] else {
            panic!("{}", answer.text());
        };
        assert_eq!(end.failure(), (422, "invalid".to_owned()));
        assert!(bodies(&stack).await == sent(&[&edge, &soft]));
        let after: usize = uploads(&stack).len();
        assert_eq!(after, before.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_is_used_as_configured() {
    use RecordCompression::{Always, Never, WhenNeeded};
    let small = || input([record(&[], text(5000)), record(&[], noise(5000))]);
    for (cipher, native) in [("aegis-256", 1), ("aes-256-gcm", 2)] {
        let packed = native | 0x80;
        for (compression, small_ids, full_ids, uploaded) in [
            (Always, [packed, native], packed, 2),
            (WhenNeeded, [native, native], packed, 2),
            (Never, [native, native], native, 3),
        ] {
            let stack = stack(cipher, (OversizeBatches::Split, compression)).await;
            let batches = [small(), full(37, text)];
            for batch in &batches {
                ack(Encoding::Proto, &send(&stack, batch).await);
            }
            let stored = stack.stored("s").await;
            let ids: Vec<u8> = stored.iter().map(|record| record.body[0]).collect();
            assert_eq!(ids[..2], small_ids, "{cipher} {compression:?}");
            assert!(ids[2..].iter().all(|id| *id == full_ids), "{ids:?}");
            assert_eq!(uploads(&stack).len(), uploaded, "{cipher} {compression:?}");
            assert!(bodies(&stack).await == sent(&[&batches[0], &batches[1]]));
        }
    }
}

/// Two full batches, and reads that start in and between them.
#[tokio::test(flavor = "multi_thread")]
async fn a_unary_read_is_as_long_as_native_s2_s() {
    for (cipher, count) in [("aegis-256", 1000), ("aes-256-gcm", 2), ("aegis-256", 37)] {
        let twin = Twin::start().await;
        let config = json!({ "stream_cipher": cipher, "create_stream_on_append": true });
        let basin = json!({ "basin": crate::harness::BASIN, "config": config });
        twin.same(Ask::post("/v1/basins").json(&basin)).await;
        for body in [noise as fn(usize) -> Vec<u8>, text] {
            let mut batch = full(count, body);
            for record in &mut batch.records {
                record.timestamp = Some(1);
            }
            twin.same(append("s", Encoding::Proto, Packed::Not, &batch))
                .await;
        }
        let half = count / 2;
        for query in [
            "seq_num=0".to_owned(),
            format!("seq_num={half}"),
            format!("seq_num={count}"),
            format!("tail_offset={}", half + count),
            "seq_num=0&bytes=1048576".to_owned(),
            "seq_num=0&bytes=1048575".to_owned(),
            format!("seq_num={half}&bytes=1048577&count=1000"),
        ] {
            let (ours, native) = twin.both(&read("s", &query, Encoding::Proto)).await;
            let [ours, native] =
                [ours, native].map(|answer| ReadBatch::decode(answer.body).unwrap());
            let counts = [&ours, &native].map(|batch| batch.records.len());
            assert_eq!(counts[0], counts[1], "{count} {query}");
            assert!(counts[0] > 0, "{count} {query}");
            assert!(ours == native, "{count} {query}: other records");
        }
    }
}
