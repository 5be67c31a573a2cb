//! Appends and reads in every encoding that S2 has, in terms of `s2-api`'s own protobuf types.

use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use prost::Message as _;
use s2_api::v1::stream::{
    proto::{AppendAck, AppendInput, AppendRecord, Header, StreamPosition},
    s2s::CompressionAlgorithm,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Answer, Ask, KEY, frames::Frame, records};

/// How records are written on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    Json,
    Base64,
    Proto,
    Events,
    EventsBase64,
    Frames,
}

impl Encoding {
    /// What appends can be written in.
    pub const APPENDS: [Self; 4] = [Self::Json, Self::Base64, Self::Proto, Self::Frames];
    /// What reads can be answered in.
    pub const READS: [Self; 6] = [
        Self::Json,
        Self::Base64,
        Self::Proto,
        Self::Events,
        Self::EventsBase64,
        Self::Frames,
    ];

    /// Whether bytes that are no text survive it.
    pub fn is_binary(self) -> bool {
        !matches!(self, Self::Json | Self::Events)
    }

    fn is_base64(self) -> bool {
        matches!(self, Self::Base64 | Self::EventsBase64)
    }

    fn text(self, bytes: &[u8]) -> String {
        match self.is_base64() {
            true => STANDARD.encode(bytes),
            false => String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    /// The bytes that a JSON string stands for.
    pub fn bytes(self, text: &Value) -> Bytes {
        let text = text.as_str().unwrap_or_default();
        match self.is_base64() {
            true => STANDARD.decode(text).unwrap().into(),
            false => text.to_owned().into(),
        }
    }
}

/// How a request is compressed: its body, or the frame in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packed {
    Not,
    Gzip,
    Zstd,
}

impl Packed {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Not, Self::Gzip, Self::Zstd];

    /// The same for a frame.
    pub fn frames(self) -> CompressionAlgorithm {
        match self {
            Self::Not => CompressionAlgorithm::None,
            Self::Gzip => CompressionAlgorithm::Gzip,
            Self::Zstd => CompressionAlgorithm::Zstd,
        }
    }

    /// Adds a body, packed.
    pub fn pack(self, ask: Ask, content_type: &str, body: Vec<u8>) -> Ask {
        match self {
            Self::Not => ask.body(content_type, body),
            Self::Gzip => {
                let mut out = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                out.write_all(&body).unwrap();
                let body = out.finish().unwrap();
                ask.header("content-encoding", "gzip")
                    .body(content_type, body)
            }
            Self::Zstd => {
                let body = zstd::encode_all(&*body, 0).unwrap();
                ask.header("content-encoding", "zstd")
                    .body(content_type, body)
            }
        }
    }
}

/// A record to append.
pub fn record(headers: &[(&[u8], &[u8])], body: impl Into<Bytes>) -> AppendRecord {
    let header = |(name, value): &(&[u8], &[u8])| Header {
        name: Bytes::copy_from_slice(name),
        value: Bytes::copy_from_slice(value),
    };
    AppendRecord {
        timestamp: None,
        headers: headers.iter().map(header).collect(),
        body: body.into(),
    }
}

/// A batch to append without conditions.
pub fn input(records: impl IntoIterator<Item = AppendRecord>) -> AppendInput {
    AppendInput {
        records: records.into_iter().collect(),
        ..AppendInput::default()
    }
}

/// S2's metered size of a record in clear.
pub fn metered(headers: &[Header], body: &[u8]) -> usize {
    let of = |header: &Header| 2 + header.name.len() + header.value.len();
    8 + headers.iter().map(of).sum::<usize>() + body.len()
}

/// An append with [`KEY`].
pub fn append(stream: &str, encoding: Encoding, packed: Packed, input: &AppendInput) -> Ask {
    let ask = Ask::post(records(stream)).key(&KEY);
    match encoding {
        Encoding::Json => packed.pack(ask, "application/json", json_input(encoding, input)),
        Encoding::Base64 => {
            let ask = ask.header("s2-format", "base64");
            packed.pack(ask, "application/json", json_input(encoding, input))
        }
        Encoding::Proto => {
            let ask = ask.header("accept", "application/protobuf");
            packed.pack(ask, "application/protobuf", input.encode_to_vec())
        }
        Encoding::Frames => {
            let frame = Frame::encode(packed.frames(), input);
            ask.body("s2s/proto", frame)
        }
        Encoding::Events | Encoding::EventsBase64 => panic!("not for appends"),
    }
}

/// A batch to append as JSON has it.
pub fn json_input(encoding: Encoding, input: &AppendInput) -> Vec<u8> {
    let record = |record: &AppendRecord| {
        let pair =
            |header: &Header| json!([encoding.text(&header.name), encoding.text(&header.value)]);
        json!({
            "timestamp": record.timestamp,
            "headers": record.headers.iter().map(pair).collect::<Vec<_>>(),
            "body": encoding.text(&record.body),
        })
    };
    let input = json!({
        "records": input.records.iter().map(record).collect::<Vec<_>>(),
        "match_seq_num": input.match_seq_num,
        "fencing_token": input.fencing_token,
    });
    input.to_string().into_bytes()
}

/// The ack in the answer to an append.
pub fn ack(encoding: Encoding, answer: &Answer) -> AppendAck {
    assert_eq!(answer.status, 200, "{encoding:?}: {}", answer.text());
    match encoding {
        Encoding::Proto => AppendAck::decode(answer.body.clone()).unwrap(),
        Encoding::Frames => match Frame::all(&answer.body).as_slice() {
            [frame] => frame.ack(),
            frames => panic!("{frames:?}"),
        },
        _ => {
            let json = answer.json();
            AppendAck {
                start: position(&json["start"]),
                end: position(&json["end"]),
                tail: position(&json["tail"]),
            }
        }
    }
}

/// A read with [`KEY`]; `query` comes without its question mark.
pub fn read(stream: &str, query: &str, encoding: Encoding) -> Ask {
    let ask = Ask::get(format!("{}?{query}", records(stream))).key(&KEY);
    ask.reading(encoding)
}

impl Ask {
    /// Says in which encoding a read is to be answered.
    pub fn reading(self, encoding: Encoding) -> Self {
        match encoding {
            Encoding::Json => self,
            Encoding::Base64 => self.header("s2-format", "base64"),
            Encoding::Proto => self.header("accept", "application/protobuf"),
            Encoding::Events => self.header("accept", "text/event-stream"),
            Encoding::EventsBase64 => self
                .header("accept", "text/event-stream")
                .header("s2-format", "base64"),
            Encoding::Frames => self.header("content-type", "s2s/proto"),
        }
    }
}

/// A position as JSON has it.
pub fn position(json: &Value) -> Option<StreamPosition> {
    Some(StreamPosition {
        seq_num: json["seq_num"].as_u64()?,
        timestamp: json["timestamp"].as_u64()?,
    })
}
