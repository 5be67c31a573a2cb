//! An upstream that speaks HTTP/1.1: only a last chunk or a length says that an answer is whole.

use bytes::Bytes;
use prost::Message as _;
use s2_api::v1::stream::proto::{AppendAck, StreamPosition};
use streamseal::registry::rules::{KeySource, RuleCipher, StreamRule};

use super::exchange::{Mistakes, Relayed, Version};
use crate::harness::{
    Ask, Encoding, Packed, Peer, Raw, append, frame, input, read, record, sealed_batch,
};
use Version::{Http1, Http2};

type Row = (&'static str, fn(&str) -> Vec<u8>);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("no last chunk",          |head| answer(head, "transfer-encoding: chunked", |body| chunk(body, body.len()))),
    ("half a chunk",           |head| answer(head, "transfer-encoding: chunked", |body| chunk(body, body.len() / 2))),
    ("no chunk",               |head| answer(head, "transfer-encoding: chunked", |_| Vec::new())),
    ("a length that is longer", |head| answer(head, "content-length: 10000", <[u8]>::to_vec)),
    ("a length and no body",   |head| answer(head, "content-length: 10000", |_| Vec::new())),
    ("an end by closing",      |head| answer(head, "connection: close", <[u8]>::to_vec)),
    ("an end by closing, and no body", |head| answer(head, "connection: close", |_| Vec::new())),
];

/// An answer of the type that the request wants.
fn answer(head: &str, framing: &str, frame: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let head = head.to_ascii_lowercase();
    let (content_type, body) = body_for(&head);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n{framing}\r\n\r\n");
    [head.into_bytes(), frame(&body)].concat()
}

fn body_for(head: &str) -> (&'static str, Bytes) {
    const PLAIN_BATCH: &str = r#"{"records":[{"seq_num":0,"timestamp":1,"body":"x"}]}"#;
    const ACK: &str = r#"{"start":{"seq_num":0,"timestamp":1},"end":{"seq_num":1,"timestamp":1},"tail":{"seq_num":1,"timestamp":1}}"#;
    let at = |seq_num| {
        let timestamp = 1;
        Some(StreamPosition { seq_num, timestamp })
    };
    let ack = AppendAck {
        start: at(0),
        end: at(1),
        tail: at(1),
    };
    match (head.starts_with("get"), head) {
        (true, head) if head.contains("s2s/proto") => ("s2s/proto", frame(&sealed_batch("x"))),
        (true, head) if head.contains("text/event-stream") => {
            let event = format!("event: batch\nid: 0,1,9\ndata: {PLAIN_BATCH}\n\n");
            ("text/event-stream", event.into())
        }
        (true, _) => ("application/json", PLAIN_BATCH.into()),
        (false, head) if head.contains("s2s/proto") => ("s2s/proto", frame(&ack)),
        (false, head) if head.contains("protobuf") => {
            ("application/protobuf", ack.encode_to_vec().into())
        }
        (false, _) => ("application/json", ACK.into()),
    }
}

/// The first bytes of a chunk.
fn chunk(body: &[u8], sent: usize) -> Vec<u8> {
    let size = format!("{:x}\r\n", body.len());
    [size.as_bytes(), &body[..sent]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_over_http1_without_its_end_is_no_success() {
    let mut mistakes = Mistakes::default();
    for (name, says) in ROWS {
        let raw = Raw::start(Peer::Http1Closes(*says)).await;
        let dir = tempfile::tempdir().unwrap();
        let relayed = Relayed::without_basins(|config| {
            let rule = |glob: &str, cipher| StreamRule {
                r#match: glob.to_owned(),
                cipher,
                key: KeySource::Header,
                key_file: Default::default(),
                header_overrides: false,
            };
            config.streams = vec![
                rule("test-basin/plain*", RuleCipher::None),
                rule("test-basin/**", RuleCipher::Aegis256),
            ];
            raw.aim(config, dir.path());
        })
        .await;
        for (at, (version, encoding, is_plain, ask)) in asks().into_iter().enumerate() {
            let stream = if is_plain { "plain" } else { "s" };
            let ask = ask(&format!("{stream}{at}"), encoding);
            let ask = if is_plain {
                ask.without("s2-encryption-key")
            } else {
                ask
            };
            let outcome = relayed.see(version, ask).await;
            if outcome.is_success(encoding) || outcome.counted == "ok" {
                let kind = (version, encoding, is_plain);
                mistakes.add(format!("{name}, counted as {}", outcome.counted), kind);
            }
        }
    }
    mistakes.assert_none();
}

type MakeAsk = fn(&str, Encoding) -> Ask;

fn asks() -> Vec<(Version, Encoding, bool, MakeAsk)> {
    let get: MakeAsk = |stream, encoding| read(stream, "seq_num=0", encoding);
    let post: MakeAsk =
        |stream, encoding| append(stream, encoding, Packed::Not, &input([record(&[], "x")]));
    let reads = [Encoding::Frames, Encoding::Events, Encoding::Json];
    let appends = [Encoding::Frames, Encoding::Json, Encoding::Proto];
    let mut asks = Vec::new();
    for is_plain in [false, true] {
        for version in [Http1, Http2] {
            asks.extend(reads.map(|encoding| (version, encoding, is_plain, get)));
            asks.extend(appends.map(|encoding| (version, encoding, is_plain, post)));
        }
    }
    asks
}
