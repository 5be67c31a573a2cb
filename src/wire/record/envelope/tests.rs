//! The record encoding against S2's own, byte for byte.

use bytes::BytesMut;
use proptest::prelude::*;
use s2_common::record::MeteredExt as _;
use s2_storage::record as storage;

use super::*;
use crate::{
    crypto::{Cipher, Key, Opener, StreamCipher},
    stream::StreamId,
    wire::{
        record::Record,
        tests::{bytes, envelope, header, s2_record, storage_frame, stream_id, unhex},
    },
};

fn encoded(envelope: &Envelope) -> Vec<u8> {
    let mut out = BytesMut::new();
    envelope.encode(&mut out);
    assert_eq!(out.len(), envelope.encoded_len());
    out.to_vec()
}

#[derive(serde::Deserialize)]
struct Vectors {
    key: String,
    records: Vec<Vector>,
}

#[derive(serde::Deserialize)]
struct Vector {
    headers: Vec<(String, String)>,
    body: String,
    metered: usize,
    encoded: String,
    sealed_aegis_256: String,
    sealed_aes_256_gcm: String,
}

impl Vector {
    fn envelope(&self) -> Envelope {
        let headers = self.headers.iter().map(|(name, value)| Header {
            name: unhex(name),
            value: unhex(value),
        });
        Envelope::new(headers.collect(), unhex(&self.body)).unwrap()
    }
}

#[test]
fn vectors_encode_decode_and_open() {
    let vectors: Vectors = serde_json::from_str(include_str!("../sealed_records.json")).unwrap();
    let key = Key::from_bytes(unhex(&vectors.key).as_ref().try_into().unwrap());
    for vector in &vectors.records {
        let envelope = vector.envelope();
        assert_eq!(envelope.metered_size(), vector.metered);
        assert_eq!(encoded(&envelope), unhex(&vector.encoded));
        assert_eq!(
            Envelope::decode(unhex(&vector.encoded)),
            Ok(envelope.clone())
        );
        for (cipher, sealed) in [
            (Cipher::Aegis256, &vector.sealed_aegis_256),
            (Cipher::Aes256Gcm, &vector.sealed_aes_256_gcm),
        ] {
            let cipher = StreamCipher::new(cipher, &key, stream_id());
            let opened = Envelope::open(
                &Opener::one(cipher.clone()),
                &unhex(sealed),
                &mut BytesMut::new(),
            );
            assert_eq!(opened, Ok(envelope.clone()));
        }
    }
}

#[test]
fn records_encode_as_s2_documents() {
    for (headers, body, metered, expected) in [
        (vec![], "", 8, "00"),
        (vec![], "hello", 13, "0068656c6c6f"),
        (
            vec![header(b"x-test", b"hello")],
            "secret payload",
            35,
            "100106782d746573740568656c6c6f736563726574207061796c6f6164",
        ),
    ] {
        let envelope = Envelope::new(headers, body.into()).unwrap();
        assert_eq!(envelope.metered_size(), metered);
        assert_eq!(encoded(&envelope), unhex(expected));
    }
    let wide = vec![header(b"a", b""), header(b"k", &[b'v'; 300])];
    let wide = Envelope::new(wide, unhex("000102ff")).unwrap();
    let expected = format!("110201610000016b012c{}000102ff", "76".repeat(300));
    assert_eq!(
        (wide.metered_size(), encoded(&wide)),
        (318, unhex(&expected).to_vec())
    );
}

#[test]
fn records_that_s2_lite_wrote_open() {
    let key = Key::from_bytes(std::array::from_fn(|i| i as u8 + 1));
    let stream = StreamId::new(
        &"enc-basin-01".parse().unwrap(),
        &"test-stream".parse().unwrap(),
    );
    let cipher = StreamCipher::new(Cipher::Aegis256, &key, stream);
    let hello = unhex(
        "010cb998c0c9d1c82de9ccf0ddb3124ce9fe0952fcc4a80d89bfb0a873d9eafc662f1fafd8c138d28b653665774c063659dce5143bbb7a",
    );
    let with_header = unhex(
        "017f30d5c6eaaa3143d6349d44ce39e399fa4594844fc7a054383ca9a8b9aca80608c3ad027bd8be180a8e483956418eb4010ba98ee450b076cc05b5521b005c1e1e5144dd4e97f1c0ee683fdbee",
    );
    let open = |stored: &[u8]| {
        Envelope::open(&Opener::one(cipher.clone()), stored, &mut BytesMut::new()).unwrap()
    };
    assert_eq!(open(&hello).body(), "hello");
    assert_eq!(open(&with_header).body(), "secret payload");
    assert_eq!(open(&with_header).headers(), [header(b"x-test", b"hello")]);
}

#[test]
fn malformed_encodings_are_refused() {
    for hex in [
        "",               // nothing
        "40",             // reserved bits
        "80",             //
        "10",             // no count
        "1001",           // a header promised, none there
        "30ffffff",       // sixteen million headers promised
        "100100",         // empty name
        "10010000",       //
        "100105616263",   // name beyond the end
        "1001016105",     // value beyond the end
        "1c01ffffffff61", // name of 4 GiB
    ] {
        assert_eq!(
            Envelope::decode(unhex(hex)),
            Err(MalformedEnvelope),
            "{hex}"
        );
    }
}

#[test]
fn wasteful_encodings_are_taken() {
    let expected = Envelope::new(vec![header(b"a", b"b")], Bytes::from_static(b"c")).unwrap();
    for hex in [
        "100101610162",
        "20000101610162",
        "3f00000100000001610000000162",
    ] {
        assert_eq!(
            Envelope::decode(unhex(&format!("{hex}63"))),
            Ok(expected.clone()),
            "{hex}"
        );
    }
    let plain = Envelope::new(vec![], Bytes::from_static(b"c")).unwrap();
    for hex in ["0063", "0f63", "100063", "3f00000063"] {
        assert_eq!(Envelope::decode(unhex(hex)), Ok(plain.clone()), "{hex}");
    }
}

#[test]
fn header_counts_and_lengths_widen_at_powers_of_256() {
    for (count, length) in [
        (255, 255),
        (256, 256),
        (1, 65_535),
        (1, 65_536),
        (65_536, 0),
    ] {
        let headers = (0..count).map(|_| header(b"n", &vec![7; length]));
        let record = Envelope::new(headers.collect(), Bytes::from_static(b"body")).unwrap();
        let ours = encoded(&record);
        let theirs = storage::encode_stored_record(
            storage::StoredRecord::Plaintext(s2_record(&Record::Data(record.clone())))
                .metered()
                .as_ref(),
        );
        assert!(theirs.ends_with(&ours), "{count} × {length}");
        assert_eq!(Envelope::decode(ours.into()), Ok(record));
    }
}

proptest! {
    #[test]
    fn encoding_is_that_of_s2_storage(envelope in envelope()) {
        let record = Record::Data(envelope.clone());
        let stored = storage::StoredRecord::Plaintext(s2_record(&record));
        let theirs = storage::encode_stored_record(stored.metered().as_ref());
        let ours = encoded(&envelope);
        prop_assert!(theirs.ends_with(&ours));
        prop_assert_eq!(theirs.len() - ours.len(), if record.metered_size() > 0xff { 3 } else { 2 });
        prop_assert_eq!(Envelope::decode(ours.into()), Ok(envelope));
    }

    #[test]
    fn decoding_is_that_of_s2_storage(flag in 0u8..0x40, rest in bytes(0..40)) {
        // A count above a byte makes S2 allocate for it; the layout is the same.
        let flag = if flag & 0x30 > 0x10 { flag & 0x1f } else { flag };
        let body = [&[flag], rest.as_ref()].concat();
        let theirs = storage::decode_record(storage_frame(2, 300, &body));
        let ours = Envelope::decode(body.into());
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                prop_assert_eq!(s2_record(&Record::Data(ours)), theirs.into_inner());
            }
            (Err(_), Err(_)) => {}
            (ours, theirs) => prop_assert!(false, "{:?} but {:?}", ours, theirs),
        }
    }
}
