//! What a read delivered, whatever it was written in, in terms of `s2-api`'s own protobuf types.

use prost::Message as _;
use s2_api::v1::stream::proto::{Header, ReadBatch, SequencedRecord};
use serde_json::Value;

use super::{Answer, Encoding, encoding::position, frames::Frame};

/// What a read delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivered {
    /// Batches with records, in order.
    pub batches: Vec<ReadBatch>,
    /// Ids of server-sent events.
    pub ids: Vec<String>,
    /// How it ended.
    pub end: End,
}

/// How a read ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Clean,
    /// With an error; server-sent events carry no status.
    Failed { status: u16, code: String },
    /// Server-sent events without `[DONE]` or an error.
    Open,
}

impl Delivered {
    /// Every record of every batch.
    pub fn records(&self) -> Vec<SequencedRecord> {
        self.batches
            .iter()
            .flat_map(|batch| batch.records.clone())
            .collect()
    }
}

/// Reads a whole answer.
pub fn delivered(encoding: Encoding, answer: &Answer) -> Delivered {
    let mut delivered = Delivered {
        batches: Vec::new(),
        ids: Vec::new(),
        end: End::Clean,
    };
    if answer.status != 200 {
        let (status, code) = (answer.status, answer.code());
        delivered.end = End::Failed { status, code };
        return delivered;
    }
    match encoding {
        Encoding::Json | Encoding::Base64 => {
            delivered.batches.push(batch(encoding, &answer.json()));
        }
        Encoding::Proto => {
            let batch = ReadBatch::decode(answer.body.clone()).unwrap();
            delivered.batches.push(batch);
        }
        Encoding::Frames => frames(&mut delivered, &answer.body),
        Encoding::Events | Encoding::EventsBase64 => {
            events(&mut delivered, encoding, &answer.text());
        }
    }
    delivered.batches.retain(|batch| !batch.records.is_empty());
    delivered
}

fn frames(delivered: &mut Delivered, body: &[u8]) {
    for frame in Frame::all(body) {
        assert_eq!(delivered.end, End::Clean, "a frame after the end");
        match frame {
            Frame::Message { .. } => delivered.batches.push(frame.batch()),
            Frame::Terminal { .. } => {
                let (status, code) = frame.failure();
                delivered.end = End::Failed { status, code };
            }
        }
    }
}

fn events(delivered: &mut Delivered, encoding: Encoding, text: &str) {
    delivered.end = End::Open;
    for event in text.split_terminator("\n\n") {
        assert_eq!(delivered.end, End::Open, "an event after the end");
        let field = |name: &str| {
            let line = event.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.strip_prefix(": "))
                .unwrap_or_default()
        };
        match field("event") {
            "batch" => {
                let json: Value = serde_json::from_str(field("data")).unwrap();
                delivered.batches.push(batch(encoding, &json));
                delivered.ids.push(field("id").to_owned());
            }
            "error" => {
                let json: Value = serde_json::from_str(field("data")).unwrap();
                let code = json["code"].as_str().unwrap().to_owned();
                delivered.end = End::Failed { status: 0, code };
            }
            "" if field("data") == "[DONE]" => delivered.end = End::Clean,
            "ping" => {}
            other => panic!("{other}"),
        }
    }
}

/// A batch as JSON has it.
pub fn batch(encoding: Encoding, json: &Value) -> ReadBatch {
    let record = |json: &Value| {
        let pairs = json["headers"].as_array().cloned().unwrap_or_default();
        let header = |pair: &Value| Header {
            name: encoding.bytes(&pair[0]),
            value: encoding.bytes(&pair[1]),
        };
        SequencedRecord {
            seq_num: json["seq_num"].as_u64().unwrap(),
            timestamp: json["timestamp"].as_u64().unwrap(),
            headers: pairs.iter().map(header).collect(),
            body: encoding.bytes(&json["body"]),
        }
    };
    ReadBatch {
        records: json["records"]
            .as_array()
            .unwrap()
            .iter()
            .map(record)
            .collect(),
        tail: position(&json["tail"]),
    }
}
