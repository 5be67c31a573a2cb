//! JSON against S2's own types: what is taken, what is refused, and the very bytes that are written.

use proptest::prelude::*;
use s2_api::{data::Format as ApiFormat, v1::stream as api};
use serde_json::{Value, json};

use super::*;
use crate::wire::{
    record::{
        AppendAck, AppendInput, MAX_BATCH_BYTES, Position, ReadBatch, Record, SequencedRecord,
    },
    tests::{append_input, data, fence, position, read_batch, s2_read_batch, s2_record, trim},
};

const FORMATS: [(Format, ApiFormat); 2] = [
    (Format::Raw, ApiFormat::Raw),
    (Format::Base64, ApiFormat::Base64),
];

/// What S2 makes of a body: `Json` or `Invalid` with the text, or the batch.
fn api_outcome(
    body: &[u8],
    format: ApiFormat,
) -> Result<s2_common::stream::AppendInput, DecodeError> {
    let input: api::AppendInput =
        serde_json::from_slice(body).map_err(|e| DecodeError::Json(e.to_string()))?;
    input
        .decode(format)
        .map_err(|e| DecodeError::Invalid(e.to_string()))
}

fn assert_same_input(ours: &AppendInput, theirs: s2_common::stream::AppendInput) {
    assert_eq!(ours.match_seq_num, theirs.match_seq_num);
    assert_eq!(
        ours.fencing_token.as_deref(),
        theirs.fencing_token.as_deref()
    );
    assert_eq!(ours.records().len(), theirs.records.len());
    for (ours, theirs) in ours.records().iter().zip(theirs.records) {
        let theirs = theirs.into_parts();
        assert_eq!(ours.timestamp, theirs.timestamp);
        assert_eq!(s2_record(&ours.record), theirs.record.into_inner());
    }
}

fn input_json(input: &AppendInput, format: ApiFormat) -> Value {
    let text = |bytes: &[u8]| format.encode(bytes);
    let records = input.records().iter().map(|record| {
        let headers = record.record.headers().iter();
        let headers: Vec<_> = headers.map(|h| json!([text(&h.name), text(&h.value)])).collect();
        json!({"timestamp": record.timestamp, "headers": headers, "body": text(record.record.body())})
    });
    json!({
        "records": records.collect::<Vec<_>>(),
        "match_seq_num": input.match_seq_num,
        "fencing_token": input.fencing_token,
    })
}

#[test]
fn bodies_are_as_strict_and_lenient_as_in_s2() {
    for body in [
        r#"{"records":[{}]}"#,
        r#"{"records":[{"body":"a\u00e9\n\ud83d\ude00"}],"unknown":[{}]}"#,
        r#"{"records":[{"timestamp":null,"headers":[],"body":""}],"match_seq_num":null,"fencing_token":null}"#,
        r#"{"records":[{"timestamp":5,"headers":[["a","b"],["a",""]],"body":"x","more":1}]}"#,
        r#"[[[1,[["a","b"]],"body"]],7,"token"]"#,
        r#"{"records":[]}"#,
        r#"{}"#,
        r#"{"records":null}"#,
        r#"{"records":{}}"#,
        r#"{"records":[{}],"records":[{}]}"#,
        r#"{"records":[{"body":"a","body":"b"}]}"#,
        r#"{"records":[{"body":null}]}"#,
        r#"{"records":[{"headers":null}]}"#,
        r#"{"records":[{"headers":[["a"]]}]}"#,
        r#"{"records":[{"headers":[["a","b","c"]]}]}"#,
        r#"{"records":[{"headers":[{"a":"b"}]}]}"#,
        r#"{"records":[{"headers":[["","b"]]}]}"#,
        r#"{"records":[{"headers":[["","fence"]],"body":"t"}]}"#,
        r#"{"records":[{"headers":[["","trim"]],"body":"t"}]}"#,
        r#"{"records":[{"timestamp":-1}]}"#,
        r#"{"records":[{"timestamp":18446744073709551616}]}"#,
        r#"{"records":[{"body":"\ud800"}]}"#,
        r#"{"records":[{}],"fencing_token":"0123456789012345678901234567890123456"}"#,
        r#"{"records":[{}]} trailing"#,
        r#"{"records":[{"body":"!!!!"}]}"#,
        r#"{"records":[{"body":"QQ"}]}"#,
        r#"{"records":[{"body":"QQ=="}]}"#,
        r#"{"records":[{"body":"QR=="}]}"#,
        r#"{"records":[{"body":"Q Q="}]}"#,
        r#"{"records":[{"body":"_-8="}]}"#,
        "",
        "nonsense",
        "{\"records\":[{\"body\":\"\n\"}]}",
    ] {
        for (ours, theirs) in FORMATS {
            match (
                decode_append_input(body.as_bytes(), ours),
                api_outcome(body.as_bytes(), theirs),
            ) {
                (Ok(ours), Ok(theirs)) => assert_same_input(&ours, theirs),
                (Err(DecodeError::Json(ours)), Err(DecodeError::Json(theirs))) => {
                    let quoted =
                        theirs.contains("integer `") || theirs.contains("floating point `");
                    assert!(ours == theirs || quoted, "{body}: {ours} but {theirs}");
                }
                (ours, theirs) => assert_eq!(ours.map(drop), theirs.map(drop), "{body}"),
            }
        }
    }
    let invalid_utf8 = b"{\"records\":[{\"body\":\"\xff\"}]}";
    assert_eq!(
        decode_append_input(invalid_utf8, Format::Raw).map(drop),
        api_outcome(invalid_utf8, ApiFormat::Raw).map(drop),
    );
}

#[test]
fn messages_repeat_no_value_of_the_body() {
    for (body, message) in [
        (
            r#"{"records":[{"timestamp":"secret, expected 12"}]}"#,
            "invalid type: string, expected u64",
        ),
        (
            r#"{"records":[{"body":123456}]}"#,
            "invalid type: integer, expected a string",
        ),
        (
            r#"{"records":[{"timestamp":-987}]}"#,
            "invalid value: integer, expected u64",
        ),
        (
            r#"{"records":[{"body":1.25}]}"#,
            "invalid type: floating point, expected a string",
        ),
        (
            r#"{"records":[{"body":true}]}"#,
            "invalid type: boolean, expected a string",
        ),
        (
            r#""secret""#,
            "invalid type: string, expected struct AppendInput",
        ),
        (
            r#"{"records":["secret"]}"#,
            "invalid type: string, expected struct AppendRecord",
        ),
        (
            r#"{"records":[{"headers":["secret"]}]}"#,
            "invalid type: string, expected tuple struct Header",
        ),
        (
            r#"{"records":"secret"}"#,
            "invalid type: string, expected a sequence",
        ),
    ] {
        let theirs = api_outcome(body.as_bytes(), ApiFormat::Raw).unwrap_err();
        let theirs = theirs.to_string();
        let place = &theirs[theirs.rfind(" at line ").unwrap()..];
        let ours = decode_append_input(body.as_bytes(), Format::Raw).unwrap_err();
        assert_eq!(ours, DecodeError::Json(format!("{message}{place}")));
    }
}

#[test]
fn more_records_than_a_batch_are_counted_and_not_kept() {
    let body = format!(r#"{{"records":[{}{{}}]}}"#, "{},".repeat(600_000));
    assert_eq!(
        decode_append_input(body.as_bytes(), Format::Raw)
            .unwrap_err()
            .to_string(),
        "record batch must not exceed 1000 records"
    );
    let body = format!(r#"{{"records":[{}7]}}"#, "{},".repeat(1000));
    assert!(matches!(
        decode_append_input(body.as_bytes(), Format::Raw),
        Err(DecodeError::Json(_))
    ));
}

#[test]
fn the_largest_record_fits_in_base64() {
    let body = format!(
        r#"{{"records":[{{"body":"{}"}}]}}"#,
        BASE64_STANDARD.encode(vec![7; MAX_BATCH_BYTES - 8])
    );
    let input = decode_append_input(body.as_bytes(), Format::Base64).unwrap();
    assert_eq!(input.metered_size(), MAX_BATCH_BYTES);
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    let nested = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    for body in [
        format!(r#"{{"records":[{{"body":{nested}}}]}}"#),
        format!(r#"{{"records":[{{}}],"unknown":{nested}}}"#),
        nested,
    ] {
        let _ = decode_append_input(body.as_bytes(), Format::Raw);
    }
}

#[test]
fn positions_are_written_as_in_s2() {
    let ack = AppendAck {
        start: position(1, 2),
        end: position(3, 4),
        tail: position(5, u64::MAX),
    };
    assert_eq!(
        encode_append_ack(&ack),
        r#"{"start":{"seq_num":1,"timestamp":2},"end":{"seq_num":3,"timestamp":4},"tail":{"seq_num":5,"timestamp":18446744073709551615}}"#
    );
    let tail = encode_tail(position(3, 4));
    assert_eq!(tail, r#"{"tail":{"seq_num":3,"timestamp":4}}"#);
    assert_eq!(decode_tail(&tail), Ok(position(3, 4)));
    assert!(matches!(decode_tail(b"{}"), Err(DecodeError::Json(_))));
}

#[test]
fn formats_have_the_names_of_s2() {
    for name in [
        "raw",
        "json",
        "base64",
        "json-binsafe",
        " raw ",
        "RAW",
        "",
        "base32",
    ] {
        let theirs = name.parse::<ApiFormat>();
        match name.parse::<Format>() {
            Ok(format) => assert_eq!(format!("{format:?}"), format!("{:?}", theirs.unwrap())),
            Err(error) => assert_eq!(error.to_string(), theirs.unwrap_err().to_string()),
        }
    }
}

#[test]
fn every_byte_is_written_as_in_s2() {
    let bytes: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    let batch = ReadBatch {
        records: [data(&bytes), data(b""), fence(b""), fence(b"t"), trim(7)]
            .into_iter()
            .map(|record: Record| SequencedRecord {
                seq_num: 1,
                timestamp: 2,
                record,
            })
            .collect(),
        tail: Some(Position::ZERO),
    };
    for (ours, theirs) in FORMATS {
        let s2_batch = s2_read_batch(&batch);
        let theirs = serde_json::to_string(&api::json::serialize_read_batch(theirs, &s2_batch));
        assert_eq!(encode_read_batch(&batch, ours), theirs.unwrap());
    }
}

proptest! {
    #[test]
    fn inputs_of_s2_decode(input in append_input()) {
        for (ours, theirs) in FORMATS {
            let body = serde_json::to_vec(&input_json(&input, theirs)).unwrap();
            match (decode_append_input(&body, ours), api_outcome(&body, theirs)) {
                (Ok(ours), Ok(theirs)) => assert_same_input(&ours, theirs),
                (ours, theirs) => prop_assert_eq!(ours.map(drop), theirs.map(drop)),
            }
        }
        let body = serde_json::to_vec(&input_json(&input, ApiFormat::Base64)).unwrap();
        prop_assert_eq!(decode_append_input(&body, Format::Base64), Ok(input));
    }

    #[test]
    fn read_batches_encode_as_in_s2(batch in read_batch()) {
        for (ours, theirs) in FORMATS {
            let s2_batch = s2_read_batch(&batch);
            let theirs = serde_json::to_string(&api::json::serialize_read_batch(theirs, &s2_batch));
            prop_assert_eq!(encode_read_batch(&batch, ours), theirs.unwrap());
        }
    }

    #[test]
    fn altered_bodies_fail_as_in_s2(
        input in append_input(),
        at in any::<prop::sample::Index>(),
        with in prop::sample::select(vec!["", "\"", "{", "}", "[", "]", ",", ":", "0", "-", "null", "\\"]),
    ) {
        let mut body = serde_json::to_string(&input_json(&input, ApiFormat::Base64)).unwrap();
        let at = at.index(body.len());
        body.replace_range(at..=at, with);
        match (decode_append_input(body.as_bytes(), Format::Base64), api_outcome(body.as_bytes(), ApiFormat::Base64)) {
            (Ok(ours), Ok(theirs)) => assert_same_input(&ours, theirs),
            (Err(DecodeError::Json(ours)), Err(DecodeError::Json(theirs))) => {
                let quoted = theirs.starts_with("invalid type") || theirs.starts_with("invalid value");
                prop_assert!(ours == theirs || quoted, "{}: {} but {}", body, ours, theirs);
            }
            (ours, theirs) => prop_assert_eq!(ours.map(drop), theirs.map(drop), "{}", body),
        }
    }

    #[test]
    fn base64_is_as_strict_as_in_s2(text in "[A-D+/=_ \n-]{0,9}") {
        let theirs = ApiFormat::Base64.decode(text.clone()).ok();
        prop_assert_eq!(Format::Base64.decode(&text).ok(), theirs);
    }
}
