//! Server-sent events: the bytes of each kind, and ids as S2 reads them.

use super::*;
use crate::wire::{
    record::SequencedRecord,
    tests::{data, position},
};

#[test]
fn events_have_the_bytes_of_s2() {
    let record = SequencedRecord {
        seq_num: 2,
        timestamp: 9,
        record: data(b"line\none"),
    };
    let read = ReadBatch {
        records: vec![record],
        tail: Some(position(3, 9)),
    };
    let id = LastEventId {
        seq_num: 2,
        count: 3,
        bytes: 66,
    };
    assert_eq!(
        batch(&read, Format::Raw, &id),
        "event: batch\nid: 2,3,66\ndata: {\"records\":[{\"seq_num\":2,\"timestamp\":9,\
         \"body\":\"line\\none\"}],\"tail\":{\"seq_num\":3,\"timestamp\":9}}\n\n"
    );
    assert_eq!(
        ping(position(3, 9), 1234),
        "event: ping\ndata: {\"timestamp\":1234,\"tail\":{\"seq_num\":3,\"timestamp\":9}}\n\n"
    );
    assert_eq!(
        error(r#"{"code":"x"}"#),
        "event: error\ndata: {\"code\":\"x\"}\n\n"
    );
    assert_eq!(done(), "data: [DONE]\n\n");
}

#[test]
fn a_line_break_in_an_error_starts_no_event() {
    for (json, expected) in [
        ("", "event: error\n\n"),
        (
            "a\n\nevent: x",
            "event: error\ndata: a\ndata: \ndata: event: x\n\n",
        ),
        (
            "a\r\nb\r",
            "event: error\ndata: a\rdata: \ndata: b\rdata: \n\n",
        ),
    ] {
        assert_eq!(error(json), expected);
    }
}

#[test]
fn ids_are_read_as_in_s2() {
    use s2_api::v1::stream::sse::LastEventId as ApiId;
    let max = u64::MAX;
    for id in [
        "1,2,3",
        "0,0,0",
        "+1,2,3",
        "",
        "1",
        "1,2",
        "1,2,",
        "a,2,3",
        "1,-2,3",
        "1,2,3,4",
        " 1,2,3",
        &format!("{max},{max},{max}"),
        &format!("{max}0,1,1"),
        "1,2,x",
    ] {
        match (id.parse::<LastEventId>(), id.parse::<ApiId>()) {
            (Ok(ours), Ok(theirs)) => assert_eq!(ours.to_string(), theirs.to_string()),
            (Err(ours), Err(theirs)) => assert_eq!(ours.to_string(), theirs.to_string()),
            (ours, theirs) => panic!("{id}: {ours:?} but {theirs:?}"),
        }
    }
}
