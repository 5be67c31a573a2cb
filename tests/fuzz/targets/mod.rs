//! What no bytes from the network may break: one function for each kind of bytes, driven by libFuzzer and
//! by plain tests alike.
//!
//! A function panics when a promise is broken. None of them only runs the code: each compares with S2's own
//! crates, with the same bytes cut otherwise, or with what was put in.

mod json;
mod protobuf;
mod request;
mod s2s;
mod sealed;
mod sse;

use bytes::Bytes;
use s2_common::{encryption::EncryptionSpec, record as s2};
use streamseal::{
    crypto::{Cipher, Key, StreamCipher},
    stream::{StreamId, StreamPath},
    wire::record::{AppendInput, Header, Position, ReadBatch, Record, SequencedRecord},
};

pub use self::{
    json::json_body, protobuf::protobuf, request::request, s2s::s2s_frames, sealed::sealed_record,
    sse::sse,
};

/// A function that every input must pass.
pub type Target = fn(&[u8]);

/// Every target, under the name of its corpus.
pub const ALL: [(&str, Target); 6] = [
    ("json_body", json_body),
    ("protobuf", protobuf),
    ("request", request),
    ("s2s_frames", s2s_frames),
    ("sealed_record", sealed_record),
    ("sse", sse),
];

/// The key of the test vectors, so that real sealed records are part of the corpus.
const KEY: [u8; 32] = {
    let mut key = [0; 32];
    let mut at = 0;
    while at < key.len() {
        key[at] = at as u8 + 1;
        at += 1;
    }
    key
};

/// The stream of the test vectors.
fn stream_id() -> StreamId {
    let path = StreamPath {
        basin: "test-basin".parse().unwrap(),
        stream: "test-stream".parse().unwrap(),
    };
    path.id()
}

fn stream_cipher(cipher: Cipher) -> StreamCipher {
    StreamCipher::new(cipher, &Key::from_bytes(KEY), stream_id())
}

/// The same key and cipher for S2's own crates.
fn spec(cipher: Cipher) -> EncryptionSpec {
    match cipher {
        Cipher::Aegis256 => EncryptionSpec::aegis256(KEY),
        Cipher::Aes256Gcm => EncryptionSpec::aes256_gcm(KEY),
    }
}

/// The record as S2's own type, which checks it once more.
fn s2_record(record: &Record) -> s2::Record {
    let headers = record.headers().iter().map(|header| s2::Header {
        name: header.name.clone(),
        value: header.value.clone(),
    });
    s2::Record::try_from_parts(headers.collect(), record.body().clone()).expect("S2 refuses it")
}

/// Asserts that both read the same batch.
fn assert_same_input(ours: &AppendInput, theirs: s2_common::stream::AppendInput) {
    assert_eq!(ours.match_seq_num, theirs.match_seq_num);
    let token = theirs.fencing_token.as_deref();
    assert_eq!(ours.fencing_token.as_deref(), token);
    assert_eq!(ours.records().len(), theirs.records.len());
    let mut metered = 0;
    for (ours, theirs) in ours.records().iter().zip(theirs.records) {
        let theirs = theirs.into_parts();
        assert_eq!(ours.timestamp, theirs.timestamp);
        let theirs = theirs.record.into_inner();
        metered += ours.record.metered_size();
        assert_eq!(s2_record(&ours.record), theirs);
    }
    assert_eq!(ours.metered_size(), metered);
}

/// Reads structure out of an input, and zeros after its end.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or_default()
    }

    fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// As many bytes as the next one says.
    fn text(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        self.0.split_off(..length).unwrap_or_default()
    }

    /// Up to three headers with names.
    fn headers(&mut self) -> Vec<Header> {
        let count = self.byte() % 4;
        (0..count)
            .map(|_| {
                let (name, value) = (self.text(), self.text());
                Header {
                    name: Bytes::copy_from_slice(if name.is_empty() { b"n" } else { name }),
                    value: Bytes::copy_from_slice(value),
                }
            })
            .collect()
    }

    /// A data record.
    fn record(&mut self) -> Record {
        let headers = self.headers();
        let body = Bytes::copy_from_slice(self.text());
        Record::from_parts(headers, body).expect("its headers have names")
    }

    /// A batch of up to three records, with or without a tail.
    fn batch(&mut self) -> ReadBatch {
        let shape = self.byte();
        let records = (0..shape % 4).map(|_| SequencedRecord {
            seq_num: self.number(),
            timestamp: u64::from(self.byte()),
            record: self.record(),
        });
        let records = records.collect();
        let tail = (shape & 0x80 != 0).then(|| Position {
            seq_num: self.number(),
            timestamp: self.number(),
        });
        ReadBatch { records, tail }
    }
}
