//! Questions that the proxy can ask the upstream, and false answers to them.

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use s2_api::v1::stream::proto::{AppendAck, StreamPosition};
use serde_json::{Value, json};

use crate::harness::{AnyBody, Seen, frame};

/// A point in time at which no stream of these tests was made.
pub const LONG_AGO: &str = "2001-01-01T00:00:00Z";
/// Another one.
pub const NOT_YET: &str = "2999-01-01T00:00:00Z";

/// One call of the API, by method and path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    BasinProbe,
    BasinCreate,
    BasinEnsure,
    BasinPatch,
    BasinDelete,
    List,
    Create,
    Ensure,
    Delete,
    Tail,
    Append,
    Read,
}

/// A call as the upstream got it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub question: Question,
    /// Empty for a creation of a basin, which names it in the body.
    pub basin: String,
    /// Empty where the path names no stream.
    pub stream: String,
    pub is_session: bool,
    /// When the stream was made, if the test knows; else [`LONG_AGO`].
    pub made: String,
}

/// A false answer.
pub type Reply = Response<AnyBody>;
/// How a false answer is made.
pub type Liar = fn(&Asked) -> Reply;

impl Asked {
    /// Which question a request is. Names must be of letters, digits and hyphens.
    pub fn of(seen: &Seen) -> Option<Self> {
        let (method, uri) = seen.line.split_once(' ')?;
        let path = uri.split_once("/v1/")?.1;
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let parts: Vec<&str> = path.split('/').collect();
        let question = match (method, &*parts) {
            ("GET", ["basins", _]) => Question::BasinProbe,
            ("POST", ["basins"]) => Question::BasinCreate,
            ("PUT", ["basins", _]) => Question::BasinEnsure,
            ("PATCH", ["basins", _]) => Question::BasinPatch,
            ("DELETE", ["basins", _]) => Question::BasinDelete,
            ("GET", ["streams"]) => Question::List,
            ("POST", ["streams"]) => Question::Create,
            ("PUT", ["streams", _]) => Question::Ensure,
            ("DELETE", ["streams", _]) => Question::Delete,
            ("GET", ["streams", _, "records", "tail"]) => Question::Tail,
            ("POST", ["streams", _, "records"]) => Question::Append,
            ("GET", ["streams", _, "records"]) => Question::Read,
            _ => return None,
        };
        let header = |name: &str| {
            let mut headers = seen.headers.iter();
            headers.find_map(|header| header.strip_prefix(name)?.strip_prefix(": "))
        };
        let prefix = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("prefix="));
        let (basin, stream) = match parts[0] {
            "basins" => (parts.get(1).copied(), None),
            _ => (header("s2-basin"), parts.get(1).copied().or(prefix)),
        };
        let decode = |text: Option<&str>| text.unwrap_or_default().replace("%2D", "-");
        Some(Self {
            question,
            basin: decode(basin),
            stream: decode(stream),
            is_session: header("content-type") == Some("s2s/proto"),
            made: LONG_AGO.to_owned(),
        })
    }
}

/// An answer in JSON.
pub fn says(status: u16, json: &Value) -> Reply {
    let body = Full::new(Bytes::from(json.to_string())).map_err(|never| match never {});
    let response = Response::builder().status(status);
    let response = response.header("content-type", "application/json");
    response.body(body.boxed_unsync()).unwrap()
}

/// An error in S2's words.
pub fn fails(status: u16, code: &str) -> Reply {
    says(status, &json!({ "code": code, "message": "so it says" }))
}

/// The answer to a create or ensure, with this `s2-provision-result`.
pub fn provisions(status: u16, json: &Value, result: &str) -> Reply {
    let mut reply = says(status, json);
    let result = result.parse().unwrap();
    reply.headers_mut().insert("s2-provision-result", result);
    reply
}

/// A stream as S2 describes it.
pub fn stream(name: &str, created_at: &str) -> Value {
    json!({ "name": name, "created_at": created_at, "deleted_at": null, "cipher": null })
}

/// The same stream, being deleted.
pub fn deleted(name: &str, created_at: &str) -> Value {
    let mut stream = stream(name, created_at);
    stream["deleted_at"] = created_at.into();
    stream
}

/// A page of streams, the last one.
pub fn lists(streams: &[Value]) -> Reply {
    says(200, &json!({ "streams": streams, "has_more": false }))
}

/// A basin as S2 describes it.
pub fn basin(name: &str) -> Value {
    json!({ "name": name, "created_at": LONG_AGO, "deleted_at": null, "location": null,
        "scope": null, "state": "active" })
}

/// The answer to a check of the tail.
pub fn tail(seq_num: u64) -> Reply {
    says(
        200,
        &json!({ "tail": { "seq_num": seq_num, "timestamp": 1 } }),
    )
}

/// The refusal of an append whose `match_seq_num` is not the tail.
pub fn mismatch(seq_num: u64) -> Reply {
    says(412, &json!({ "seq_num_mismatch": seq_num }))
}

/// The ack of one record that was never stored.
pub fn acks(asked: &Asked, start: u64) -> Reply {
    let position = |seq_num| {
        Some(StreamPosition {
            seq_num,
            timestamp: 1,
        })
    };
    let ack = AppendAck {
        start: position(start),
        end: position(start + 1),
        tail: position(start + 1),
    };
    let (content_type, body) = match asked.is_session {
        true => ("s2s/proto", frame(&ack)),
        false => ("application/protobuf", Bytes::from(ack.encode_to_vec())),
    };
    let body = Full::new(body).map_err(|never| match never {});
    let response = Response::builder().header("content-type", content_type);
    response.body(body.boxed_unsync()).unwrap()
}
