//! What the formats' tests share: generators, S2's own types of the same records, and the promise
//! that no decoder panics.

use bytes::{BufMut as _, Bytes, BytesMut};
use proptest::{collection::vec, option, prelude::*};

use super::{
    compression::RequestEncoding,
    json::{self, Format},
    proto,
    record::{
        AppendInput, AppendRecord, Envelope, Header, Position, ReadBatch, Record, SequencedRecord,
    },
    s2s::FrameDecoder,
    sse::LastEventId,
};
use crate::{
    crypto::{Cipher, Key, StreamCipher},
    stream::StreamId,
};

pub(super) const KEY: [u8; 32] = *b"0123456789abcdef0123456789abcdef";

pub(super) fn stream_id() -> StreamId {
    StreamId::new(
        &"test-basin".parse().unwrap(),
        &"test-stream".parse().unwrap(),
    )
}

pub(super) fn stream_cipher(cipher: Cipher) -> StreamCipher {
    StreamCipher::new(cipher, &Key::from_bytes(KEY), stream_id())
}

pub(super) fn header(name: &[u8], value: &[u8]) -> Header {
    Header {
        name: Bytes::copy_from_slice(name),
        value: Bytes::copy_from_slice(value),
    }
}

pub(super) fn data(body: &[u8]) -> Record {
    Record::from_parts(Vec::new(), Bytes::copy_from_slice(body)).unwrap()
}

pub(super) fn fence(token: &'static [u8]) -> Record {
    Record::from_parts(vec![header(b"", b"fence")], Bytes::from_static(token)).unwrap()
}

pub(super) fn trim(point: u64) -> Record {
    let body = Bytes::copy_from_slice(&point.to_be_bytes());
    Record::from_parts(vec![header(b"", b"trim")], body).unwrap()
}

pub(super) fn position(seq_num: u64, timestamp: u64) -> Position {
    Position { seq_num, timestamp }
}

pub(super) fn input(records: Vec<Record>) -> AppendInput {
    let records = records
        .into_iter()
        .map(|record| AppendRecord {
            timestamp: None,
            record,
        })
        .collect();
    AppendInput::new(records, None, None).unwrap()
}

pub(super) fn bytes(size: impl Into<proptest::collection::SizeRange>) -> BoxedStrategy<Bytes> {
    vec(any::<u8>(), size).prop_map(Bytes::from).boxed()
}

pub(super) fn headers() -> BoxedStrategy<Vec<Header>> {
    let part = prop_oneof![4 => bytes(1..20), 1 => bytes(250..300)];
    let value = prop_oneof![4 => bytes(0..20), 1 => bytes(250..300)];
    vec(
        (part, value).prop_map(|(name, value)| Header { name, value }),
        0..5,
    )
    .boxed()
}

pub(super) fn envelope() -> BoxedStrategy<Envelope> {
    (headers(), bytes(0..200))
        .prop_map(|(headers, body)| Envelope::new(headers, body).unwrap())
        .boxed()
}

pub(super) fn record() -> BoxedStrategy<Record> {
    prop_oneof![
        6 => envelope().prop_map(Record::Data),
        1 => "[a-z]{0,36}".prop_map(|token| {
            Record::from_parts(vec![header(b"", b"fence")], token.into()).unwrap()
        }),
        1 => any::<u64>().prop_map(trim),
    ]
    .boxed()
}

pub(super) fn append_input() -> BoxedStrategy<AppendInput> {
    let append_record = (option::of(any::<u64>()), record())
        .prop_map(|(timestamp, record)| AppendRecord { timestamp, record });
    (
        vec(append_record, 1..8),
        option::of(any::<u64>()),
        option::of("[a-z]{0,36}"),
    )
        .prop_map(|(records, seq, token)| AppendInput::new(records, seq, token).unwrap())
        .boxed()
}

pub(super) fn read_batch() -> BoxedStrategy<ReadBatch> {
    let sequenced =
        (any::<u64>(), any::<u64>(), record()).prop_map(|(seq_num, timestamp, record)| {
            SequencedRecord {
                seq_num,
                timestamp,
                record,
            }
        });
    let tail = any::<(u64, u64)>().prop_map(|(seq_num, timestamp)| position(seq_num, timestamp));
    (vec(sequenced, 0..6), option::of(tail))
        .prop_map(|(records, tail)| ReadBatch { records, tail })
        .boxed()
}

pub(super) fn unhex(text: &str) -> Bytes {
    let digits = text.as_bytes().chunks_exact(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// `s2-storage` frames what a sealed record holds: magic byte, metered size, then the bytes.
pub(super) fn storage_frame(kind: u8, metered: usize, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    let width = if metered > 0xFFFF { 3 } else { 2 };
    frame.put_u8(((width - 1) << 3) | kind);
    frame.put_uint(metered as u64, width.into());
    frame.put_slice(body);
    frame.freeze()
}

/// The record as S2's own type.
pub(super) fn s2_record(record: &Record) -> s2_common::record::Record {
    let headers = record.headers().iter().map(|header| {
        let Header { name, value } = header.clone();
        s2_common::record::Header { name, value }
    });
    s2_common::record::Record::try_from_parts(headers.collect(), record.body().clone()).unwrap()
}

/// The batch as S2's own type.
pub(super) fn s2_read_batch(batch: &ReadBatch) -> s2_common::stream::ReadBatch {
    use s2_common::record::{Metered, MeteredExt as _, StreamPosition};
    let records = batch.records.iter().map(|sequenced| {
        let position = StreamPosition {
            seq_num: sequenced.seq_num,
            timestamp: sequenced.timestamp,
        };
        s2_record(&sequenced.record)
            .metered()
            .sequenced(position)
            .into_inner()
    });
    s2_common::stream::ReadBatch {
        records: Metered::from(records.collect::<Vec<_>>()),
        tail: batch.tail.map(|tail| StreamPosition {
            seq_num: tail.seq_num,
            timestamp: tail.timestamp,
        }),
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(body in bytes(0..200), cut in 0usize..200) {
        let _ = proto::decode_append_input(body.clone());
        let _ = proto::decode_append_ack(body.clone());
        let _ = proto::decode_stored_batch(body.clone());
        let _ = json::decode_append_input(&body, Format::Base64);
        let _ = json::decode_tail(&body);
        let _ = Envelope::decode(body.clone());
        let _ = RequestEncoding::Gzip.decompress(body.clone(), 100);
        let _ = RequestEncoding::Zstd.decompress(body.clone(), 100);
        let _ = String::from_utf8_lossy(&body).parse::<LastEventId>();
        let mut frames = FrameDecoder::new();
        frames.push(body.slice(..cut.min(body.len())));
        while let Ok(Some(_)) = frames.next() {}
        frames.push(body.slice(cut.min(body.len())..));
        while let Ok(Some(_)) = frames.next() {}
        let _ = frames.finish();
    }

    #[test]
    fn no_altered_message_makes_a_decoder_panic(
        input in append_input(),
        batch in read_batch(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let sealed = input.seal(&stream_cipher(Cipher::Aegis256)).unwrap();
        for message in [proto::encode_sealed_input(&sealed), proto::encode_read_batch(&batch)] {
            let mut message = message.to_vec();
            if message.is_empty() {
                continue;
            }
            let at = at.index(message.len());
            message[at] = byte;
            let _ = proto::decode_append_input(message.clone().into());
            let _ = proto::decode_stored_batch(message.clone().into());
            message.truncate(at);
            let _ = proto::decode_append_input(message.clone().into());
            let _ = proto::decode_stored_batch(message.into());
        }
    }
}

#[test]
fn debug_shows_no_content() {
    let record = Record::from_parts(
        vec![header(b"secret-name", b"secret-value")],
        Bytes::from_static(b"secret-body"),
    )
    .unwrap();
    let input = AppendInput::new(
        vec![AppendRecord {
            timestamp: None,
            record: record.clone(),
        }],
        None,
        Some("secret-token".to_owned()),
    )
    .unwrap();
    let sealed = input.seal(&stream_cipher(Cipher::Aegis256)).unwrap();
    let batch = ReadBatch {
        records: vec![SequencedRecord {
            seq_num: 1,
            timestamp: 2,
            record: record.clone(),
        }],
        tail: None,
    };
    let stored = proto::decode_stored_batch(proto::encode_read_batch(&batch)).unwrap();
    let shown = format!(
        "{record:?} {:?} {input:?} {:?} {sealed:?} {:?} {batch:?} {stored:?} {:?}",
        record.headers(),
        input.records(),
        sealed.records(),
        fence(b"secret-fence"),
    );
    assert!(!shown.contains("secret"), "{shown}");
    assert!(!shown.contains("115, 101"), "{shown}");
}
