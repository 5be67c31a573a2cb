//! The lies themselves: answers that no honest upstream gives.

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message as _;
use s2_api::v1::stream::{
    proto::{AppendAck, AppendRecord, ReadBatch, SequencedRecord, StreamPosition},
    s2s::{SessionMessage, TerminalMessage},
};

use crate::harness::{AnyBody, KEY, frame, gzip, record, seal, zstd};

/// An answer of the upstream.
pub type Reply = Response<AnyBody>;

/// What a forger would have clients read.
pub const FORGED: &str = "what a forger wrote";
/// The same as records in JSON.
pub const FORGED_JSON: &str =
    r#"{"records":[{"seq_num":0,"timestamp":1,"body":"what a forger wrote"}]}"#;
/// What stands in sealed records that a forger moves about.
pub const SEALED: [&str; 3] = ["the first record", "the second record", "the third record"];

/// A reply of these chunks, which breaks off after them or not.
fn reply(status: u16, content_type: &str, chunks: Vec<Bytes>, breaks: bool) -> Reply {
    let mut items: Vec<Result<_, Box<dyn std::error::Error + Send + Sync>>> = Vec::new();
    items.extend(
        chunks
            .into_iter()
            .map(|chunk| Ok(http_body::Frame::data(chunk))),
    );
    if breaks {
        items.push(Err("broken off".into()));
    }
    let body = StreamBody::new(stream::iter(items)).boxed_unsync();
    let mut response = Response::builder().status(status);
    if !content_type.is_empty() {
        response = response.header("content-type", content_type);
    }
    response.body(body).unwrap()
}

/// Another status with plain records, and with all that leads a client elsewhere.
pub fn status(status: u16) -> Reply {
    let body = match status {
        204 | 304 => Vec::new(),
        _ => vec![Bytes::from_static(FORGED_JSON.as_bytes())],
    };
    let mut reply = reply(status, "application/json", body, false);
    for (name, value) in super::leads::LEADS {
        reply.headers_mut().insert(*name, value.parse().unwrap());
    }
    reply
}

/// Plain records of this type.
pub fn typed(status: u16, content_type: &str) -> Reply {
    let body = match content_type {
        "application/protobuf" => clear_batch().encode_to_vec().into(),
        "text/event-stream" => format!("event: batch\nid: 0,1,27\ndata: {FORGED_JSON}\n\n").into(),
        _ => Bytes::from_static(FORGED_JSON.as_bytes()),
    };
    reply(status, content_type, vec![body], false)
}

/// A unary answer in protobuf.
pub fn unary_ack(bytes: &[u8]) -> Reply {
    let body = Bytes::copy_from_slice(bytes);
    reply(200, "application/protobuf", vec![body], false)
}

/// A session's answer in S2S frames.
pub fn frames(frames: &[&[u8]]) -> Reply {
    let frames = frames.iter().map(|frame| Bytes::copy_from_slice(frame));
    reply(200, "s2s/proto", frames.collect(), false)
}

/// An answer that breaks off after these bytes.
pub fn broken(bytes: &[u8]) -> Reply {
    reply(200, "s2s/proto", vec![Bytes::copy_from_slice(bytes)], true)
}

fn position(seq_num: u64) -> Option<StreamPosition> {
    Some(StreamPosition {
        seq_num,
        timestamp: 1,
    })
}

/// An ack in protobuf.
pub fn ack_bytes(start: u64, end: u64) -> Vec<u8> {
    let ack = AppendAck {
        start: position(start),
        end: position(end),
        tail: position(end),
    };
    ack.encode_to_vec()
}

/// An ack in a frame.
pub fn ack(start: u64, end: u64) -> Bytes {
    frame(&AppendAck::decode(&*ack_bytes(start, end)).unwrap())
}

/// A session's answer of acks.
pub fn acks(acks: &[(u64, u64)]) -> Reply {
    let all: Vec<Bytes> = acks.iter().map(|(start, end)| ack(*start, *end)).collect();
    frames(&all.iter().map(|ack| &**ack).collect::<Vec<_>>())
}

/// A frame that is small and holds 64 MiB.
pub fn bomb(compression: &str) -> Reply {
    let zeros = vec![0; 64 << 20];
    let (flag, packed) = match compression {
        "gzip" => (0x40, gzip(&zeros)),
        "zstd" => (0x20, zstd(&zeros)),
        other => panic!("{other}"),
    };
    let length = u32::try_from(packed.len() + 1).unwrap().to_be_bytes();
    let frame = [&length[1..], &[flag], &packed].concat();
    assert!(frame.len() < 1 << 20, "{} bytes", frame.len());
    frames(&[&frame])
}

/// A last frame.
pub fn terminal(status: u16, body: &str) -> Reply {
    let terminal = TerminalMessage {
        status,
        body: body.to_owned(),
    };
    frames(&[&SessionMessage::from(terminal).encode()])
}

fn batch(records: impl IntoIterator<Item = (u64, AppendRecord)>) -> ReadBatch {
    let record = |(seq_num, stored): (u64, AppendRecord)| SequencedRecord {
        seq_num,
        timestamp: seq_num,
        headers: stored.headers,
        body: stored.body,
    };
    ReadBatch {
        records: records.into_iter().map(record).collect(),
        tail: None,
    }
}

fn sealed(at: usize) -> AppendRecord {
    seal("aegis-256", KEY, "s", &record(&[], SEALED[at]))
}

fn read(batch: &ReadBatch) -> Reply {
    frames(&[&frame(batch)])
}

fn clear_batch() -> ReadBatch {
    batch([(0, record(&[], FORGED))])
}

pub fn plain() -> Reply {
    read(&clear_batch())
}

pub fn other_stream() -> Reply {
    let moved = seal("aegis-256", KEY, "another", &record(&[], FORGED));
    read(&batch([(0, moved)]))
}

pub fn other_cipher() -> Reply {
    let other = seal("aes-256-gcm", KEY, "s", &record(&[], FORGED));
    read(&batch([(0, other)]))
}

/// Half a million records of no bytes.
pub fn many_records() -> Reply {
    let empty = SequencedRecord::default();
    let many = ReadBatch {
        records: vec![empty; 500_000],
        tail: None,
    };
    read(&many)
}

pub fn reordered() -> Reply {
    read(&batch([(0, sealed(2)), (1, sealed(0)), (2, sealed(1))]))
}

pub fn repeated() -> Reply {
    read(&batch([(0, sealed(0)), (1, sealed(0)), (2, sealed(0))]))
}

/// Records of a stream of the same name and key that is no more: nothing in them tells which of the two
/// they were sealed for.
pub fn replayed() -> Reply {
    read(&batch([(0, sealed(0)), (1, sealed(1)), (2, sealed(2))]))
}

pub fn renumbered() -> Reply {
    read(&batch([(7, sealed(0)), (5, sealed(1)), (5, sealed(2))]))
}

pub fn huge_numbers() -> Reply {
    let max = u64::MAX;
    read(&batch([
        (max, sealed(0)),
        (max, sealed(1)),
        (max, sealed(2)),
    ]))
}
