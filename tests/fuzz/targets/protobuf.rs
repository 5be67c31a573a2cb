//! Protobuf bodies: taken and refused as S2 does, and what is taken goes through sealing unharmed.

use bytes::Bytes;
use prost::Message as _;
use s2_api::v1::stream::proto as api;
use streamseal::{
    crypto::{Cipher, OpenError, Opener},
    wire::{
        DecodeError, proto,
        record::{
            AppendInput, Fit, MAX_BATCH_BYTES, OversizeBatches, Position, ReadBatch, Record,
            RecordCompression, SealedInput, StoredBatch, StoredRecord,
        },
    },
};

use super::{assert_same_input, s2_record, stream_cipher};

/// Most records that are compressed, each by itself: a thousand would take most of the time.
const MAX_COMPRESSED: usize = 20;

/// The bytes as each of the three messages that the network sends.
pub fn protobuf(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    append_input(&body);
    append_ack(&body);
    stored_batch(&body);
}

fn append_input(body: &Bytes) {
    let ours = proto::decode_append_input(body.clone());
    let theirs = api::AppendInput::decode(body.clone())
        .map_err(|error| DecodeError::Proto(error.to_string()))
        .and_then(|input| {
            let input = s2_common::stream::AppendInput::try_from(input);
            input.map_err(|error| DecodeError::Invalid(error.to_string()))
        });
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => {
            assert_same_input(&ours, theirs);
            through_sealing(&ours);
        }
        (Err(DecodeError::Proto(ours)), Err(DecodeError::Proto(theirs))) => {
            // But for a value that S2 repeats from the body at the end of the text.
            assert!(theirs.starts_with(&ours), "{ours} but {theirs}");
        }
        // Too much is refused before it is decoded.
        (Err(DecodeError::Invalid(ours)), Err(_)) if ours.contains("must not exceed") => {}
        (ours, theirs) => assert_eq!(ours.map(drop), theirs.map(drop)),
    }
}

/// However a batch is sealed, S2 takes it, and it opens to what it was.
fn through_sealing(input: &AppendInput) {
    for cipher in Cipher::ALL {
        let cipher = stream_cipher(cipher);
        for compression in [RecordCompression::WhenNeeded, RecordCompression::Always] {
            if compression == RecordCompression::Always && input.records().len() > MAX_COMPRESSED {
                continue;
            }
            let fit = Fit {
                oversize_batches: OversizeBatches::Split,
                compression,
            };
            let parts = input.seal_to_fit(&cipher, fit).expect("short");
            let (mut opened, mut times) = (Vec::new(), Vec::new());
            for part in &parts {
                let (given, stored) = as_stored(part);
                let batch = stored
                    .open(&Opener::one(cipher.clone()))
                    .expect("it was just sealed");
                opened.extend(batch.records.into_iter().map(|record| record.record));
                times.extend(given);
            }
            let clear = input.records().iter();
            assert!(clear.clone().map(|record| &record.record).eq(&opened));
            assert!(clear.map(|record| record.timestamp).eq(times));
        }
    }
}

/// What the upstream is given and stores of a sealed batch, as S2 reads it: timestamps and records.
fn as_stored(part: &SealedInput) -> (Vec<Option<u64>>, StoredBatch) {
    let sent = api::AppendInput::decode(proto::encode_sealed_input(part)).expect("not protobuf");
    let stored = sent.records.iter().map(|record| StoredRecord {
        seq_num: 0,
        timestamp: 0,
        headers: record.headers.iter().cloned().map(header).collect(),
        body: record.body.clone(),
    });
    let records = stored.collect();
    let times = sent.records.iter().map(|record| record.timestamp).collect();
    s2_common::stream::AppendInput::try_from(sent).expect("S2 refuses it");
    assert!(part.metered_size() <= MAX_BATCH_BYTES);
    let tail = None;
    (times, StoredBatch { records, tail })
}

fn append_ack(body: &Bytes) {
    let theirs = api::AppendAck::decode(body.clone());
    match (proto::decode_append_ack(body.clone()), theirs) {
        (Ok(ours), Ok(theirs)) => {
            let theirs = [theirs.start, theirs.end, theirs.tail];
            let ours_all = [ours.start, ours.end, ours.tail];
            assert_eq!(ours_all, theirs.map(|at| position(at.unwrap_or_default())));
            assert_eq!(
                proto::decode_append_ack(proto::encode_append_ack(&ours)),
                Ok(ours)
            );
        }
        (Err(_), Err(_)) => {}
        (ours, theirs) => panic!("{ours:?} but {theirs:?}"),
    }
}

fn stored_batch(body: &Bytes) {
    let theirs = api::ReadBatch::decode(body.clone());
    match (proto::decode_stored_batch(body.clone()), theirs) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours.tail, theirs.tail.map(position));
            let theirs = theirs.records.into_iter().map(|record| StoredRecord {
                seq_num: record.seq_num,
                timestamp: record.timestamp,
                headers: record.headers.into_iter().map(header).collect(),
                body: record.body,
            });
            assert_eq!(ours.records, theirs.collect::<Vec<_>>());
            for cipher in Cipher::ALL {
                opened(cipher, &ours);
            }
        }
        (Err(_), Err(_)) => {}
        (Err(DecodeError::Proto(ours)), Ok(_)) if ours.contains("than a batch can hold") => {}
        (ours, theirs) => panic!("{ours:?} but {theirs:?}"),
    }
}

/// A batch opens alike as a whole and in pieces, and is a batch of S2 then.
fn opened(cipher: Cipher, stored: &StoredBatch) {
    let cipher = stream_cipher(cipher);
    let whole = stored.clone().open(&Opener::one(cipher.clone()));
    let (mut opening, mut records, mut tail) = (stored.clone().opening(), Vec::new(), None);
    let pieces: Result<(), OpenError> = loop {
        match opening.next(&Opener::one(cipher.clone())) {
            Ok(Some(piece)) => {
                let sizes = piece
                    .records
                    .iter()
                    .map(|record| record.record.metered_size());
                assert!(piece.records.len() == 1 || sizes.sum::<usize>() <= MAX_BATCH_BYTES);
                assert!(tail.is_none(), "records after the tail");
                tail = piece.tail;
                records.extend(piece.records);
            }
            Ok(None) => break Ok(()),
            Err(record) => break Err(record.cause),
        }
    };
    let pieces = pieces.map(|()| ReadBatch { records, tail });
    assert_eq!(pieces, whole);
    if let Ok(batch) = whole {
        delivered(&batch);
    }
}

fn delivered(batch: &ReadBatch) {
    let theirs = api::ReadBatch::decode(proto::encode_read_batch(batch)).expect("not protobuf");
    assert_eq!(theirs.tail.map(position), batch.tail);
    assert_eq!(theirs.records.len(), batch.records.len());
    for (theirs, ours) in theirs.records.into_iter().zip(&batch.records) {
        assert_eq!(
            (theirs.seq_num, theirs.timestamp),
            (ours.seq_num, ours.timestamp)
        );
        let headers = theirs.headers.into_iter().map(header).collect();
        assert_eq!(
            Record::from_parts(headers, theirs.body).as_ref(),
            Ok(&ours.record)
        );
        s2_record(&ours.record);
    }
}

fn position(position: api::StreamPosition) -> Position {
    Position {
        seq_num: position.seq_num,
        timestamp: position.timestamp,
    }
}

fn header(header: api::Header) -> streamseal::wire::record::Header {
    streamseal::wire::record::Header {
        name: header.name,
        value: header.value,
    }
}
