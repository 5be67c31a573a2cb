//! Records, acks and tails to JSON, byte for byte as S2 writes them.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;

use super::Format;
use crate::wire::record::{AppendAck, Header, Position, ReadBatch, SequencedRecord};

/// Room for a record's JSON besides its text.
const RECORD_JSON_BYTES: usize = 96;

/// Encodes an ack: `{"start":{…},"end":{…},"tail":{…}}`.
pub fn encode_append_ack(ack: &AppendAck) -> Bytes {
    let mut out = Vec::new();
    out.extend_from_slice(br#"{"start":"#);
    put_json_position(&mut out, ack.start);
    out.extend_from_slice(br#","end":"#);
    put_json_position(&mut out, ack.end);
    out.extend_from_slice(br#","tail":"#);
    put_json_position(&mut out, ack.tail);
    out.push(b'}');
    out.into()
}

/// Encodes a tail: `{"tail":{"seq_num":0,"timestamp":0}}`.
pub fn encode_tail(tail: Position) -> Bytes {
    let mut out = Vec::new();
    out.extend_from_slice(br#"{"tail":"#);
    put_json_position(&mut out, tail);
    out.push(b'}');
    out.into()
}

/// Encodes a batch: `{"records":[{"seq_num":0,"timestamp":0,"headers":[["n","v"]],"body":"b"}],"tail":{…}}`,
/// without headers, body or tail where there are none.
pub fn encode_read_batch(batch: &ReadBatch, format: Format) -> Bytes {
    let mut out = Vec::with_capacity(batch_json_bytes(batch));
    put_json_read_batch(&mut out, batch, format);
    out.into()
}

/// Room for a batch in base64; escapes of the raw format may take more.
pub(in crate::wire) fn batch_json_bytes(batch: &ReadBatch) -> usize {
    let text: usize = batch
        .records
        .iter()
        .map(|record| record.record.metered_size() + RECORD_JSON_BYTES)
        .sum();
    RECORD_JSON_BYTES + text.div_ceil(3) * 4
}

pub(in crate::wire) fn put_json_read_batch(out: &mut Vec<u8>, batch: &ReadBatch, format: Format) {
    out.extend_from_slice(br#"{"records":["#);
    for (index, record) in batch.records.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put_record(out, record, format);
    }
    out.push(b']');
    if let Some(tail) = batch.tail {
        out.extend_from_slice(br#","tail":"#);
        put_json_position(out, tail);
    }
    out.push(b'}');
}

pub(in crate::wire) fn put_json_position(out: &mut Vec<u8>, position: Position) {
    let Position { seq_num, timestamp } = position;
    let json = format!(r#"{{"seq_num":{seq_num},"timestamp":{timestamp}}}"#);
    out.extend_from_slice(json.as_bytes());
}

fn put_record(out: &mut Vec<u8>, sequenced: &SequencedRecord, format: Format) {
    let SequencedRecord {
        seq_num,
        timestamp,
        record,
    } = sequenced;
    let json = format!(r#"{{"seq_num":{seq_num},"timestamp":{timestamp}"#);
    out.extend_from_slice(json.as_bytes());
    if !record.headers().is_empty() {
        out.extend_from_slice(br#","headers":["#);
        for (index, header) in record.headers().iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            put_header(out, header, format);
        }
        out.push(b']');
    }
    if !record.body().is_empty() {
        out.extend_from_slice(br#","body":"#);
        put_text(out, record.body(), format);
    }
    out.push(b'}');
}

fn put_header(out: &mut Vec<u8>, Header { name, value }: &Header, format: Format) {
    out.push(b'[');
    put_text(out, name, format);
    out.push(b',');
    put_text(out, value, format);
    out.push(b']');
}

fn put_text(out: &mut Vec<u8>, bytes: &[u8], format: Format) {
    out.push(b'"');
    match format {
        Format::Raw => {
            for chunk in bytes.utf8_chunks() {
                put_escaped(out, chunk.valid());
                if !chunk.invalid().is_empty() {
                    put_escaped(out, "\u{fffd}");
                }
            }
        }
        Format::Base64 => put_base64(out, bytes),
    }
    out.push(b'"');
}

fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    let written = BASE64_STANDARD.encode_slice(bytes, room);
    debug_assert!(written.is_ok_and(|written| start + written == out.len()));
}

/// Adds `text` with the escapes of serde_json: the short ones, `\u00xx` for other controls.
fn put_escaped(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest
        .iter()
        .position(|b| matches!(b, 0..0x20 | b'"' | b'\\'))
    {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((special, tail)) = tail.split_first() else {
            break;
        };
        put_escape(out, *special);
        rest = tail;
    }
    out.extend_from_slice(rest);
}

fn put_escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        0x08 => b'b',
        0x09 => b't',
        0x0a => b'n',
        0x0c => b'f',
        0x0d => b'r',
        control => {
            out.extend_from_slice(format!("\\u{control:04x}").as_bytes());
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}
