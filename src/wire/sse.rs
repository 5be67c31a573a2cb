//! Server-sent events of a read session, and the id that lets a client resume one.
//!
//! ```text
//! event: batch⏎ id: <seq_num>,<count>,<bytes>⏎ data: {"records":[…],"tail":{…}}⏎ ⏎
//! event: ping⏎  data: {"timestamp":…,"tail":{…}}⏎ ⏎
//! event: error⏎ data: {"code":…,"message":…}⏎ ⏎     ends the session
//! data: [DONE]⏎ ⏎                                   ends the session
//! ```

use std::{fmt, fmt::Display, str::FromStr};

use bytes::Bytes;

use super::{
    json::{Format, batch_json_bytes, put_json_position, put_json_read_batch},
    record::{Position, ReadBatch},
};

/// `content-type` of an event stream.
pub const CONTENT_TYPE: &str = "text/event-stream";

/// `cache-control` that S2 sends with every session.
pub const CACHE_CONTROL: &str = "no-cache, no-transform";

/// Room for an event besides its data.
const EVENT_BYTES: usize = 96;

/// How far a session got: the id of its last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastEventId {
    /// Sequence number of the last record delivered.
    pub seq_num: u64,
    /// Records delivered.
    pub count: usize,
    /// Metered bytes delivered.
    pub bytes: usize,
}

/// A `last-event-id` that is not three numbers. The text is S2's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidLastEventId(String);

impl Display for LastEventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.seq_num, self.count, self.bytes)
    }
}

impl FromStr for LastEventId {
    type Err = InvalidLastEventId;

    fn from_str(id: &str) -> Result<Self, InvalidLastEventId> {
        let mut parts = id.splitn(3, ',');
        Ok(Self {
            seq_num: number(parts.next(), "seq_num")?,
            count: number(parts.next(), "count")?,
            bytes: number(parts.next(), "bytes")?,
        })
    }
}

fn number<T: FromStr<Err: Display>>(
    part: Option<&str>,
    field: &str,
) -> Result<T, InvalidLastEventId> {
    part.ok_or_else(|| InvalidLastEventId(format!("missing {field} in Last-Event-Id")))?
        .parse()
        .map_err(|e| InvalidLastEventId(format!("invalid {field} in Last-Event-ID: {e}")))
}

/// A batch; `id` counts what was delivered with it.
pub fn batch(batch: &ReadBatch, format: Format, id: &LastEventId) -> Bytes {
    let mut out = Vec::with_capacity(EVENT_BYTES + batch_json_bytes(batch));
    out.extend_from_slice(format!("event: batch\nid: {id}\ndata: ").as_bytes());
    put_json_read_batch(&mut out, batch, format);
    out.extend_from_slice(b"\n\n");
    out.into()
}

/// A sign of life at `now_ms`, milliseconds since the Unix epoch.
pub fn ping(tail: Position, now_ms: u64) -> Bytes {
    let mut out = Vec::with_capacity(2 * EVENT_BYTES);
    let head = format!("event: ping\ndata: {{\"timestamp\":{now_ms},\"tail\":");
    out.extend_from_slice(head.as_bytes());
    put_json_position(&mut out, tail);
    out.extend_from_slice(b"}\n\n");
    out.into()
}

/// The error that ends a session. A line break in `json` starts another `data` line.
pub fn error(json: &str) -> Bytes {
    let mut out = Vec::with_capacity(EVENT_BYTES + json.len());
    out.extend_from_slice(b"event: error\n");
    if !json.is_empty() {
        out.extend_from_slice(b"data: ");
        for line in json.split_inclusive(['\n', '\r']) {
            out.extend_from_slice(line.as_bytes());
            if line.ends_with(['\n', '\r']) {
                out.extend_from_slice(b"data: ");
            }
        }
        out.push(b'\n');
    }
    out.push(b'\n');
    out.into()
}

/// The clean end of a session.
pub fn done() -> Bytes {
    Bytes::from_static(b"data: [DONE]\n\n")
}

#[cfg(test)]
mod tests;
