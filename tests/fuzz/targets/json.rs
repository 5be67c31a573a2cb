//! JSON bodies: taken and refused as S2 does, repeating nothing of them, and written byte for byte as S2 does.

use s2_api::{
    data::Format as ApiFormat,
    v1::stream::{self as api, json::serialize_read_batch},
};
use s2_common::record::{Metered, MeteredExt as _, StreamPosition};
use streamseal::wire::{
    DecodeError,
    json::{self, Format},
    record::{AppendAck, Position, ReadBatch, SequencedRecord},
};

use super::{Script, assert_same_input, s2_record};

const FORMATS: [(Format, ApiFormat); 2] = [
    (Format::Raw, ApiFormat::Raw),
    (Format::Base64, ApiFormat::Base64),
];

/// Stands for whatever is confidential in a body: no error may repeat it.
const SECRET: &str = "SECRET";

/// The bytes as an append, as a tail, and as a script that makes a batch to write.
pub fn json_body(data: &[u8]) {
    for (ours, theirs) in FORMATS {
        append(data, ours, theirs);
        written(&Script(data).batch(), ours, theirs);
    }
    tail(data);
}

fn append(data: &[u8], format: Format, api_format: ApiFormat) {
    let theirs = serde_json::from_slice::<api::AppendInput>(data)
        .map_err(|error| DecodeError::Json(error.to_string()))
        .and_then(|input| {
            let input = input.decode(api_format);
            input.map_err(|error| DecodeError::Invalid(error.to_string()))
        });
    match (json::decode_append_input(data, format), theirs) {
        (Ok(ours), Ok(theirs)) => {
            assert_same_input(&ours, theirs);
            let records = ours.records().iter().zip(0..);
            let records = records.map(|(record, seq_num)| SequencedRecord {
                seq_num,
                timestamp: record.timestamp.unwrap_or_default(),
                record: record.record.clone(),
            });
            let records = records.collect();
            written(
                &ReadBatch {
                    records,
                    tail: None,
                },
                format,
                api_format,
            );
        }
        (Err(DecodeError::Json(ours)), Err(DecodeError::Json(_))) => {
            assert!(!ours.contains(SECRET), "{ours}");
        }
        (ours, theirs) => assert_eq!(ours.map(drop), theirs.map(drop)),
    }
}

/// A batch as the bytes that S2 writes.
fn written(batch: &ReadBatch, format: Format, api_format: ApiFormat) {
    let records = batch.records.iter().map(|sequenced| {
        let position = StreamPosition {
            seq_num: sequenced.seq_num,
            timestamp: sequenced.timestamp,
        };
        let record = s2_record(&sequenced.record).metered();
        record.sequenced(position).into_inner()
    });
    let theirs = s2_common::stream::ReadBatch {
        records: Metered::from(records.collect::<Vec<_>>()),
        tail: batch.tail.map(|tail| StreamPosition {
            seq_num: tail.seq_num,
            timestamp: tail.timestamp,
        }),
    };
    let theirs = serde_json::to_string(&serialize_read_batch(api_format, &theirs)).unwrap();
    let ours = json::encode_read_batch(batch, format);
    assert_eq!(std::str::from_utf8(&ours), Ok(theirs.as_str()));
}

/// The upstream's tail, on which a cipher's ceiling rests.
fn tail(data: &[u8]) {
    let theirs = serde_json::from_slice::<serde_json::Value>(data).ok();
    let ours = json::decode_tail(data);
    if let Ok(position) = ours {
        assert_eq!(
            json::decode_tail(&json::encode_tail(position)),
            Ok(position)
        );
        let theirs = theirs.expect("no JSON at all");
        if theirs.is_object() && theirs["tail"].is_object() {
            assert_eq!(theirs["tail"]["seq_num"], position.seq_num);
            assert_eq!(theirs["tail"]["timestamp"], position.timestamp);
        }
        ack(position);
    }
}

fn ack(at: Position) {
    let ack = json::encode_append_ack(&AppendAck {
        start: at,
        end: at,
        tail: at,
    });
    let ack: serde_json::Value = serde_json::from_slice(&ack).expect("not JSON");
    for field in ["start", "end", "tail"] {
        assert_eq!(ack[field]["seq_num"], at.seq_num);
        assert_eq!(ack[field]["timestamp"], at.timestamp);
    }
}
