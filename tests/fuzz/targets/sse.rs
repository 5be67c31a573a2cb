//! Server-sent events: whatever stands in records, errors and ids, a client reads one event out of each.

use bytes::Bytes;
use s2_api::v1::stream::sse::LastEventId as ApiId;
use streamseal::wire::{
    json::{self, Format},
    record::Position,
    sse::{self, LastEventId},
};

use super::Script;

/// The bytes as a `last-event-id`, as the upstream's error, and as a script that makes a batch.
pub fn sse(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    last_event_id(&text);
    error(&text);
    let mut script = Script(data);
    let id = LastEventId {
        seq_num: script.number(),
        count: script.number() as usize,
        bytes: script.number() as usize,
    };
    let batch = script.batch();
    for format in [Format::Raw, Format::Base64] {
        let event = one(&sse::batch(&batch, format, &id));
        assert_eq!(event.kind, "batch");
        assert_eq!(event.id.parse(), Ok(id));
        let json = json::encode_read_batch(&batch, format);
        assert_eq!(event.data.as_bytes(), &json[..]);
    }
    let tail = Position {
        seq_num: id.seq_num,
        timestamp: script.number(),
    };
    let event = one(&sse::ping(tail, script.number()));
    assert_eq!(event.kind, "ping");
    assert_eq!(json::decode_tail(event.data.as_bytes()), Ok(tail));
    assert_eq!(one(&sse::done()).data, "[DONE]");
}

fn last_event_id(text: &str) {
    match (text.parse::<LastEventId>(), text.parse::<ApiId>()) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours.to_string(), theirs.to_string());
            assert_eq!(ours.to_string().parse(), Ok(ours));
        }
        (Err(ours), Err(theirs)) => assert_eq!(ours.to_string(), theirs.to_string()),
        (ours, theirs) => panic!("{ours:?} but {theirs:?}"),
    }
}

/// The upstream's words end up in an error and nowhere else: they cannot say `batch` or `[DONE]`.
fn error(text: &str) {
    let event = one(&sse::error(text));
    assert_eq!((event.kind.as_str(), event.id.as_str()), ("error", ""));
    assert_eq!(event.data, text.replace('\r', "\n"));
}

/// One event as a client understands it.
#[derive(Debug, Default)]
struct Event {
    kind: String,
    id: String,
    data: String,
}

/// Reads by the rules of the HTML standard, and finds one event.
fn one(bytes: &Bytes) -> Event {
    let text = std::str::from_utf8(bytes).expect("events are UTF-8");
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines = text.strip_suffix("\n\n").expect("the event does not end");
    let mut event = Event::default();
    let mut data: Option<String> = None;
    for line in lines.split('\n') {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => event.kind = value.to_owned(),
            "id" => event.id = value.to_owned(),
            "data" => match &mut data {
                Some(data) => *data = format!("{data}\n{value}"),
                None => data = Some(value.to_owned()),
            },
            other => panic!("{other:?} in the middle of an event"),
        }
    }
    event.data = data.unwrap_or_default();
    event
}
