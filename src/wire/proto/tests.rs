//! Protobuf against S2's own messages, in both directions and with hostile input.

use proptest::prelude::*;
use s2_api::v1::stream::proto as api;

use super::*;
use crate::{
    crypto::Cipher,
    wire::tests::{
        append_input, bytes, data, header, input, position, read_batch, s2_read_batch,
        stream_cipher,
    },
};

fn api_headers(headers: &[crate::wire::record::Header]) -> Vec<api::Header> {
    let header = |header: &crate::wire::record::Header| api::Header {
        name: header.name.clone(),
        value: header.value.clone(),
    };
    headers.iter().map(header).collect()
}

fn api_input(input: &AppendInput) -> api::AppendInput {
    let record = |record: &AppendRecord| api::AppendRecord {
        timestamp: record.timestamp,
        headers: api_headers(record.record.headers()),
        body: record.record.body().clone(),
    };
    api::AppendInput {
        records: input.records().iter().map(record).collect(),
        match_seq_num: input.match_seq_num,
        fencing_token: input.fencing_token.clone(),
    }
}

/// What S2 makes of a body: `Proto` or `Invalid`, with the text.
fn api_outcome(body: &[u8]) -> Result<(), DecodeError> {
    let input = api::AppendInput::decode(body).map_err(|e| DecodeError::Proto(e.to_string()))?;
    s2_common::stream::AppendInput::try_from(input)
        .map(drop)
        .map_err(|e| DecodeError::Invalid(e.to_string()))
}

#[test]
fn headers_and_bodies_are_slices_of_the_message() {
    let body: Bytes = api_input(&input(vec![data(&[7; 100])]))
        .encode_to_vec()
        .into();
    let range = body.as_ptr_range();
    let input = decode_append_input(body).unwrap();
    assert!(range.contains(&input.records()[0].record.body().as_ptr()));
}

#[test]
fn positions_that_are_missing_are_zero() {
    let ack = decode_append_ack(Bytes::new()).unwrap();
    assert_eq!(
        (ack.start, ack.end, ack.tail),
        (Position::ZERO, Position::ZERO, Position::ZERO)
    );
    assert_eq!(decode_stored_batch(Bytes::new()).unwrap().tail, None);
}

#[test]
fn zero_positions_are_written() {
    let batch = ReadBatch {
        records: vec![],
        tail: Some(Position::ZERO),
    };
    assert_eq!(encode_read_batch(&batch).as_ref(), [0x12, 0]);
}

#[test]
fn unknown_fields_are_skipped() {
    let mut body = api_input(&input(vec![data(b"x")])).encode_to_vec();
    body.extend([0xa2, 6, 3, 1, 2, 3, 0xa8, 6, 1]); // fields 100 and 101
    assert_eq!(decode_append_input(body.into()).unwrap().records().len(), 1);
}

#[test]
fn a_million_tiny_records_are_refused_before_they_are_decoded() {
    let records = Bytes::from([0x0a, 0].repeat(1 << 20));
    assert_eq!(
        decode_append_input(records.clone()).unwrap_err(),
        too_many_records()
    );
    assert!(matches!(
        decode_stored_batch(records),
        Err(DecodeError::Proto(_))
    ));
    let headers = [0x12, 0].repeat(1 << 20);
    let mut one = vec![0x0a];
    prost::encode_length_delimiter(headers.len(), &mut one).unwrap();
    one.extend(headers);
    assert_eq!(
        decode_append_input(one.into()).unwrap_err(),
        batch_too_large()
    );
}

#[test]
fn records_beyond_the_limits_are_refused_in_the_words_of_s2() {
    let record = |headers, body: Vec<u8>| api::AppendRecord {
        timestamp: None,
        headers,
        body: body.into(),
    };
    let good = || record(vec![], vec![]);
    let bad = || record(api_headers(&[header(b"", b"x")]), vec![]);
    let big = || record(vec![], vec![0; 1 << 20]);
    for (records, token) in [
        (vec![], None),
        (vec![good()], Some("x".repeat(37))),
        (vec![good(); 1001], None),
        (vec![bad(), big()], None),
        (vec![big(), bad()], None),
        (vec![record(vec![], vec![0; 600_000]); 2], None),
    ] {
        let input = api::AppendInput {
            records,
            match_seq_num: None,
            fencing_token: token,
        };
        let body = input.encode_to_vec();
        let theirs = api_outcome(&body).unwrap_err();
        assert_eq!(decode_append_input(body.into()).unwrap_err(), theirs);
    }
}

#[test]
fn messages_repeat_no_value_of_the_body() {
    let error = decode_append_input(Bytes::from_static(b"\xff\xff\xff\xff\xff\x01")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to decode Protobuf message: invalid key value"
    );
    assert_eq!(
        error.clone().in_frame(),
        DecodeError::Frame(error.to_string())
    );
}

proptest! {
    #[test]
    fn inputs_of_s2_decode(input in append_input()) {
        let body = api_input(&input).encode_to_vec();
        prop_assert_eq!(decode_append_input(body.into()), Ok(input));
    }

    #[test]
    fn sealed_inputs_encode_as_in_s2(input in append_input()) {
        let sealed = input.seal(&stream_cipher(Cipher::Aegis256)).unwrap();
        let records = sealed.records().iter().map(|(timestamp, record)| api::AppendRecord {
            timestamp: *timestamp,
            headers: api_headers(record.headers()),
            body: record.body().clone(),
        });
        let theirs = api::AppendInput {
            records: records.collect(),
            match_seq_num: input.match_seq_num,
            fencing_token: input.fencing_token.clone(),
        };
        prop_assert_eq!(encode_sealed_input(&sealed), theirs.encode_to_vec());
    }

    #[test]
    fn read_batches_encode_as_in_s2(batch in read_batch()) {
        let theirs = api::ReadBatch::from(s2_read_batch(&batch)).encode_to_vec();
        let ours = encode_read_batch(&batch);
        prop_assert_eq!(&ours, &theirs);
        let stored = decode_stored_batch(ours).unwrap();
        prop_assert_eq!(stored.tail, batch.tail);
        for (stored, record) in stored.records.iter().zip(&batch.records) {
            prop_assert_eq!((stored.seq_num, stored.timestamp), (record.seq_num, record.timestamp));
            prop_assert_eq!(stored.headers.as_slice(), record.record.headers());
            prop_assert_eq!(&stored.body, record.record.body());
        }
    }

    #[test]
    fn acks_encode_as_in_s2(a in any::<(u64, u64)>(), b in any::<(u64, u64)>(), c in any::<(u64, u64)>()) {
        let ack = AppendAck { start: position(a.0, a.1), end: position(b.0, b.1), tail: position(c.0, c.1) };
        let theirs = |(seq_num, timestamp)| Some(api::StreamPosition { seq_num, timestamp });
        let theirs = api::AppendAck { start: theirs(a), end: theirs(b), tail: theirs(c) };
        let ours = encode_append_ack(&ack);
        prop_assert_eq!(&ours, &theirs.encode_to_vec());
        prop_assert_eq!(decode_append_ack(ours), Ok(ack));
    }

    #[test]
    fn bodies_fail_as_in_s2(
        input in append_input(), junk in bytes(1..4), at in any::<prop::sample::Index>(),
    ) {
        let mut body = api_input(&input).encode_to_vec();
        let at = at.index(body.len());
        body.splice(at..(at + 1), junk);
        match (decode_append_input(body.clone().into()), api_outcome(&body)) {
            (Ok(_), Ok(())) => {}
            (Err(DecodeError::Proto(ours)), Err(DecodeError::Proto(theirs))) => {
                prop_assert!(theirs.starts_with(&ours), "{} but {}", ours, theirs);
            }
            (ours, theirs) => prop_assert_eq!(ours.map(drop), theirs),
        }
    }
}
