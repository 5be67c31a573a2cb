//! S2's protobuf messages, decoded without copying and encoded into one exact buffer.
//!
//! ```text
//! StreamPosition   1 seq_num, 2 timestamp
//! Header           1 name, 2 value
//! AppendRecord     1 timestamp?, 2 headers*, 3 body
//! AppendInput      1 records*, 2 match_seq_num?, 3 fencing_token?
//! AppendAck        1 start, 2 end, 3 tail
//! SequencedRecord  1 seq_num, 2 timestamp, 3 headers*, 4 body
//! ReadBatch        1 records*, 2 tail?
//! ```

mod census;
mod message;
mod write;

use bytes::Bytes;
use prost::Message as _;

use self::{census::Census, write::encode};
use super::{
    DecodeError,
    record::{
        AppendAck, AppendInput, AppendRecord, MAX_BATCH_BYTES, MAX_BATCH_RECORDS, Position,
        RECORD_BASE_BYTES, ReadBatch, SealedInput, StoredBatch, StoredRecord,
        append::{batch_too_large, too_many_records},
    },
};

/// Most headers that fit into a batch: each meters at least 3 bytes (2, and 1 of name).
const MAX_BATCH_HEADERS: usize = MAX_BATCH_BYTES / 3;

/// Most records that fit into a batch by size. S2 sends at most 1000; another store may not.
const MAX_STORED_RECORDS: usize = MAX_BATCH_BYTES / RECORD_BASE_BYTES;

/// Decodes a client's `AppendInput`. Headers and bodies are slices of `body`.
///
/// # Errors
/// [`DecodeError::Proto`] for another message, [`DecodeError::Invalid`] for a record or batch that
/// S2 does not take.
pub fn decode_append_input(body: Bytes) -> Result<AppendInput, DecodeError> {
    let census = Census::take(&body, message::APPEND_RECORD_HEADERS);
    if census.records > MAX_BATCH_RECORDS {
        return Err(too_many_records());
    }
    if census.headers > MAX_BATCH_HEADERS {
        return Err(batch_too_large());
    }
    let input = message::AppendInput::decode(body).map_err(malformed)?;
    let records = input
        .records
        .into_iter()
        .map(|record| {
            let headers = record.headers.into_iter().map(Into::into).collect();
            AppendRecord::from_parts(record.timestamp, headers, record.body)
        })
        .collect::<Result<_, _>>()?;
    AppendInput::new(records, input.match_seq_num, input.fencing_token)
}

/// Encodes a sealed batch as an `AppendInput` for the upstream.
pub fn encode_sealed_input(input: &SealedInput) -> Bytes {
    encode(|out| {
        for (timestamp, record) in input.records() {
            out.message(1, |out| {
                out.optional(1, *timestamp);
                out.headers(2, record.headers());
                out.bytes(3, record.body());
            });
        }
        out.optional(2, input.match_seq_num());
        if let Some(token) = input.fencing_token() {
            out.present_bytes(3, token.as_bytes());
        }
    })
}

/// Decodes the upstream's `AppendAck`. As S2's own clients do, takes a missing position for zero.
///
/// # Errors
/// [`DecodeError::Proto`] for another message.
pub fn decode_append_ack(body: Bytes) -> Result<AppendAck, DecodeError> {
    let ack = message::AppendAck::decode(body).map_err(malformed)?;
    let position = |position: Option<message::StreamPosition>| position.unwrap_or_default().into();
    Ok(AppendAck {
        start: position(ack.start),
        end: position(ack.end),
        tail: position(ack.tail),
    })
}

/// Encodes an `AppendAck` for a client.
pub fn encode_append_ack(ack: &AppendAck) -> Bytes {
    encode(|out| {
        out.position(1, ack.start);
        out.position(2, ack.end);
        out.position(3, ack.tail);
    })
}

/// Decodes a `ReadBatch` of the upstream. Headers and bodies are slices of `body`.
///
/// # Errors
/// [`DecodeError::Proto`] for another message, or for more than a batch can hold.
pub fn decode_stored_batch(body: Bytes) -> Result<StoredBatch, DecodeError> {
    let census = Census::take(&body, message::SEQUENCED_RECORD_HEADERS);
    if census.records > MAX_STORED_RECORDS || census.headers > MAX_BATCH_HEADERS {
        return Err(DecodeError::Proto(
            "read batch has more records or headers than a batch can hold".to_owned(),
        ));
    }
    let batch = message::ReadBatch::decode(body).map_err(malformed)?;
    let records = batch
        .records
        .into_iter()
        .map(|record| StoredRecord {
            seq_num: record.seq_num,
            timestamp: record.timestamp,
            headers: record.headers.into_iter().map(Into::into).collect(),
            body: record.body,
        })
        .collect();
    Ok(StoredBatch {
        records,
        tail: batch.tail.map(Into::into),
    })
}

/// Encodes an opened batch as a `ReadBatch` for a client.
pub fn encode_read_batch(batch: &ReadBatch) -> Bytes {
    encode(|out| {
        for record in &batch.records {
            out.message(1, |out| {
                out.nonzero(1, record.seq_num);
                out.nonzero(2, record.timestamp);
                out.headers(3, record.record.headers());
                out.bytes(4, record.record.body());
            });
        }
        if let Some(tail) = batch.tail {
            out.position(2, tail);
        }
    })
}

/// S2's text for a message that does not decode, without the one value that prost repeats.
fn malformed(error: prost::DecodeError) -> DecodeError {
    const KEY: &str = "invalid key value";
    let mut text = error.to_string();
    if let Some(start) = text.find(KEY) {
        text.truncate(start + KEY.len());
    }
    DecodeError::Proto(text)
}

impl From<message::StreamPosition> for Position {
    fn from(position: message::StreamPosition) -> Self {
        Self {
            seq_num: position.seq_num,
            timestamp: position.timestamp,
        }
    }
}

#[cfg(test)]
mod tests;
