//! What of an answer clients can tell apart, as JSON: what no two servers share is blanked, how a read is
//! cut into batches is not seen, and whatever encoding it came in is undone.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use prost::Message as _;
use s2_api::v1::stream::proto::{AppendAck, StreamPosition};
use serde_json::{Value, json};

use super::ops::{Call, Op};
use crate::harness::{Answer, Delivered, Encoding, Frame, delivered, gunzip, metered};

/// Headers of the connection, and those whose value is a matter of luck. `s2-request-id` and
/// `x-content-type-options` are streamseal's own: `s2-lite` answers without them. No S2 client looks at the latter;
/// it keeps browsers from taking text of records for a page.
const NOT_COMPARED: [&str; 6] = [
    "date",
    "connection",
    "transfer-encoding",
    "content-length",
    "s2-request-id",
    "x-content-type-options",
];

/// What only an answer to a preflight can vary with.
const PREFLIGHT: [&str; 2] = [
    "access-control-request-method",
    "access-control-request-headers",
];

/// S2 compresses answers from this size on. A list may be just below on one side: points in time are
/// written with as many digits as they need.
const COMPRESSED_FROM: std::ops::Range<usize> = 960..1100;

/// Codes of what does not parse. Their messages say how the parser put it.
const PARSER_CODES: [&str; 2] = ["bad_json", "bad_proto"];

/// Points in time from here on are those of arrival: no operation names one.
const ARRIVAL: std::ops::Range<u64> = 1_600_000_000_000..10_000_000_000_000;

/// An answer in a form that can be compared.
#[derive(Debug, PartialEq)]
pub struct Seen {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
    /// Acks in it. They are in the body as well.
    pub acks: Vec<AppendAck>,
}

impl Seen {
    /// The error code, be it in a body, an event, or a terminal frame.
    pub fn code(&self) -> &str {
        let in_body = self.body["code"].as_str();
        let in_end = self.body["end"]["code"].as_str();
        in_body.or(in_end).unwrap_or_default()
    }

    /// Reads an answer to an operation.
    pub fn of(op: &Op, answer: &Answer) -> Self {
        let mut answer = answer.clone();
        let headers = compared_headers(op, &answer);
        answer.body = match answer.header("content-encoding") {
            _ if answer.body.is_empty() => answer.body,
            Some("gzip") => gunzip(&answer.body).into(),
            Some("zstd") => zstd::decode_all(&*answer.body).unwrap().into(),
            _ => answer.body,
        };
        let mut acks = Vec::new();
        let kind = answer.header("content-type").unwrap_or_default();
        let mut body = match &op.call {
            Call::Read(read) if answer.status == 200 && !read.head => {
                let first = read
                    .last_event_id
                    .map_or((0, 0), |(_, count, bytes)| (count, bytes));
                read_body(read.encoding, &answer, first)
            }
            _ if kind == "s2s/proto" => session_body(&answer, &mut acks),
            _ if kind == "application/protobuf" => {
                acks.push(AppendAck::decode(answer.body.clone()).unwrap());
                ack(&acks[0])
            }
            _ => match serde_json::from_slice(&answer.body) {
                Ok(json) => json,
                Err(_) => json!(answer.text()),
            },
        };
        if answer.status == 200 && kind == "application/json" && matches!(op.call, Call::Append(_))
        {
            acks.push(crate::harness::ack(Encoding::Json, &answer));
        }
        normalise(&mut body);
        Self {
            status: answer.status,
            headers,
            body,
            acks,
        }
    }
}

fn compared_headers(op: &Op, answer: &Answer) -> BTreeMap<String, String> {
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in &answer.headers {
        let values = headers.entry(name.to_string()).or_default();
        let value = String::from_utf8_lossy(value.as_bytes());
        match name.as_str() {
            "vary" => values.extend(value.split(',').map(|name| name.trim().to_lowercase())),
            _ => values.push(value.into_owned()),
        }
    }
    let vary = headers.entry("vary".to_owned()).or_default();
    vary.retain(|name| op.is_preflight() || !PREFLIGHT.contains(&name.as_str()));
    vary.sort();
    vary.dedup();
    if !op.is_from_page() {
        headers.retain(|name, _| !name.starts_with("access-control-"));
        headers
            .entry("vary".to_owned())
            .or_default()
            .retain(|name| name != "origin");
    }
    // The head alone must tell how long the body is. Where a length depends on the clock, that it does.
    let is_head = matches!(&op.call, Call::Read(read) if read.head);
    // S2 does not know how long a compressed body will be.
    let tells_length = is_head && !headers.contains_key("content-encoding");
    let length = headers.get("content-length").filter(|_| tells_length);
    let length = length.cloned();
    headers.retain(|name, _| !NOT_COMPARED.contains(&name.as_str()));
    headers.extend(length.map(|length| ("content-length".to_owned(), length)));
    let is_list = matches!(op.call, Call::ListBasins(_) | Call::ListStreams { .. });
    if is_list && COMPRESSED_FROM.contains(&answer.body.len()) {
        headers.retain(|name, _| !["vary", "content-encoding"].contains(&name.as_str()));
    }
    let headers = headers.into_iter();
    headers
        .map(|(name, values)| (name, values.join(", ")))
        .collect()
}

/// A read as one sequence of records. The ids of events are checked here: where a batch ends, its id must
/// be the sum of all records so far.
fn read_body(encoding: Encoding, answer: &Answer, (count, bytes): (u64, u64)) -> Value {
    let got: Delivered = delivered(encoding, answer);
    let (mut count, mut bytes) = (count as usize, bytes as usize);
    for (at, batch) in got.batches.iter().enumerate() {
        count += batch.records.len();
        let sizes = batch
            .records
            .iter()
            .map(|record| metered(&record.headers, &record.body));
        // Text shows bytes that are none as U+FFFD: there only the sum can be compared.
        bytes += sizes.sum::<usize>();
        if encoding == Encoding::EventsBase64 {
            let seq_num = batch.records.last().unwrap().seq_num;
            assert_eq!(
                got.ids[at],
                format!("{seq_num},{count},{bytes}"),
                "event {at}"
            );
        }
    }
    let tail = got.batches.last().and_then(|batch| batch.tail);
    let end = match &got.end {
        crate::harness::End::Failed { status, code } => json!({ "status": status, "code": code }),
        end => json!(format!("{end:?}")),
    };
    let unary = match encoding {
        Encoding::Json | Encoding::Base64 => answer.json(),
        _ => Value::Null,
    };
    json!({
        "records": got.records().iter().map(|record| json!({
            "seq_num": record.seq_num,
            "timestamp": record.timestamp,
            "headers": record.headers.iter().map(|header| [short(&header.name), short(&header.value)]).collect::<Vec<_>>(),
            "body": short(&record.body),
        })).collect::<Vec<_>>(),
        "last_id": got.ids.last(),
        "tail": tail.map(position),
        "end": end,
        "unary": unary,
    })
}

/// Frames of an append session, or of a session that was not asked for.
fn session_body(answer: &Answer, acks: &mut Vec<AppendAck>) -> Value {
    let frames = Frame::all(&answer.body);
    let frames = frames.iter().map(|frame| match frame {
        Frame::Terminal { status, json } => {
            let mut json = json.clone();
            normalise(&mut json);
            json!({ "terminal": status, "json": json })
        }
        Frame::Message { .. } => {
            acks.push(frame.ack());
            ack(&frame.ack())
        }
    });
    json!({ "frames": frames.collect::<Vec<_>>() })
}

fn ack(ack: &AppendAck) -> Value {
    json!({
        "start": ack.start.map(position),
        "end": ack.end.map(position),
        "tail": ack.tail.map(position),
    })
}

fn position(position: StreamPosition) -> Value {
    json!({ "seq_num": position.seq_num, "timestamp": position.timestamp })
}

/// Bytes that a person can compare.
fn short(bytes: &[u8]) -> Value {
    if bytes.len() <= 80 {
        return json!(bytes.escape_ascii().to_string());
    }
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    json!(format!("{} bytes, {:x}", bytes.len(), hasher.finish()))
}

/// Blanks points in time that are this side's own, and what a parser says.
fn normalise(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            let code = fields
                .get("code")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if PARSER_CODES.contains(&code) {
                fields.remove("message");
            }
            for (name, value) in fields {
                match (name.as_str(), value.as_u64()) {
                    ("created_at" | "deleted_at", _) if value.is_string() => {
                        *value = json!("some time")
                    }
                    ("timestamp", Some(at)) if ARRIVAL.contains(&at) => *value = json!("arrival"),
                    _ => normalise(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(normalise),
        Value::String(text) if text.len() > 200 => *json = short(text.as_bytes()),
        _ => {}
    }
}
