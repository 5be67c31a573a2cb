//! Sealed batches against S2's own storage crate, in both directions.

use bytes::BufMut as _;
use proptest::prelude::*;
use s2_common::{encryption::EncryptionSpec, record::MeteredExt as _};
use s2_storage::record as storage;

use super::*;
use crate::{
    crypto::{Cipher, OpenError, Opener},
    wire::{
        record::{StoredBatch, StoredRecord},
        tests::{
            KEY, append_input, data, envelope, header, input, record, s2_record, storage_frame,
            stream_cipher, stream_id, unhex,
        },
    },
};

fn spec(cipher: Cipher) -> EncryptionSpec {
    match cipher {
        Cipher::Aegis256 => EncryptionSpec::aegis256(KEY),
        Cipher::Aes256Gcm => EncryptionSpec::aes256_gcm(KEY),
    }
}

fn stored(headers: Vec<Header>, body: impl Into<Bytes>) -> StoredBatch {
    StoredBatch {
        records: vec![StoredRecord {
            seq_num: 0,
            timestamp: 0,
            headers,
            body: body.into(),
        }],
        tail: None,
    }
}

#[test]
fn sealed_batches_beyond_the_limit_are_refused() {
    for (cipher, largest) in [
        (Cipher::Aegis256, 1_048_526),
        (Cipher::Aes256Gcm, 1_048_546),
    ] {
        let cipher = stream_cipher(cipher);
        let fits = input(vec![data(&vec![0; largest - 8])])
            .seal(&cipher)
            .unwrap();
        assert_eq!(fits.metered_size(), MAX_BATCH_BYTES);
        let error = input(vec![data(&vec![0; largest - 7])])
            .seal(&cipher)
            .unwrap_err();
        let plain = largest + 1;
        let metered = MAX_BATCH_BYTES + 1;
        assert_eq!(
            error,
            SealError::Oversize {
                records: 1,
                metered,
                limit: MAX_BATCH_BYTES,
                plain
            }
        );
        let text = error.to_string();
        assert!(
            text.contains(&plain.to_string()) && text.contains(&largest.to_string()),
            "{text}"
        );
    }
    let many = input(vec![data(&[0; 1040]); 1000]);
    let error = many.seal(&stream_cipher(Cipher::Aegis256)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "batch of 1000 records with a metered size of 1048000 bytes takes 1098000 bytes \
         once encrypted, more than the limit of 1048576 bytes"
    );
}

#[test]
fn sealed_records_have_the_documented_growth() {
    let headers = |n: usize| (0..n).map(|_| header(b"n", b"v")).collect();
    for (cipher, plain, short) in [(Cipher::Aegis256, 50, 51), (Cipher::Aes256Gcm, 30, 31)] {
        for (count, growth) in [(0, plain), (1, short), (255, short), (256, short + 1)] {
            let record = Record::from_parts(headers(count), Bytes::from_static(b"b")).unwrap();
            let input = input(vec![record]);
            let sealed = input.seal(&stream_cipher(cipher)).unwrap();
            assert_eq!(sealed.metered_size(), input.metered_size() + growth);
            assert_eq!(sealed.metered_size(), sealed.records()[0].1.metered_size());
        }
    }
}

#[test]
fn what_is_not_sealed_does_not_open() {
    let cipher = stream_cipher(Cipher::Aegis256);
    let sealed = input(vec![data(b"hello")]).seal(&cipher).unwrap();
    let sealed = sealed.records()[0].1.body().clone();
    let open = |headers, body: &Bytes| {
        stored(headers, body.clone())
            .open(&Opener::one(cipher.clone()))
            .unwrap_err()
    };
    assert!(
        stored(vec![], sealed.clone())
            .open(&Opener::one(cipher.clone()))
            .is_ok()
    );
    assert_eq!(
        open(vec![header(b"a", b"b")], &sealed),
        OpenError::HeadersInClear
    );
    assert_eq!(
        open(vec![header(b"", b"unknown")], &sealed),
        OpenError::HeadersInClear
    );
    assert_eq!(
        open(vec![header(b"", b"trim")], &sealed),
        OpenError::HeadersInClear
    );
    assert_eq!(
        open(vec![header(b"", b"fence"), header(b"", b"")], &sealed),
        OpenError::HeadersInClear
    );
    assert_eq!(
        open(vec![], &Bytes::from_static(b"plain")),
        OpenError::Format
    );
    assert_eq!(open(vec![], &Bytes::new()), OpenError::Truncated);
    let gcm = input(vec![data(b"hello")])
        .seal(&stream_cipher(Cipher::Aes256Gcm))
        .unwrap();
    assert_eq!(open(vec![], gcm.records()[0].1.body()), OpenError::Format);
    let malformed = cipher
        .seal(Text::Encoded, &mut BytesMut::new(), |out| {
            out.put_slice(&[0xff]);
        })
        .unwrap();
    assert_eq!(open(vec![], malformed.as_bytes()), OpenError::Malformed);
    let empty_name = cipher
        .seal(Text::Encoded, &mut BytesMut::new(), |out| {
            out.put_slice(&unhex("10010005"))
        })
        .unwrap();
    assert_eq!(open(vec![], empty_name.as_bytes()), OpenError::Malformed);
}

#[test]
fn one_bad_record_fails_its_batch() {
    let cipher = stream_cipher(Cipher::Aes256Gcm);
    let sealed = input(vec![data(b"one"), data(b"two")])
        .seal(&cipher)
        .unwrap();
    let mut records = sealed
        .records()
        .iter()
        .map(|(_, record)| record.body().clone());
    let good = records.next().unwrap();
    let mut bad = records.next().unwrap().to_vec();
    *bad.last_mut().unwrap() ^= 1;
    let mut batch = stored(vec![], good);
    batch.records.extend(stored(vec![], bad).records);
    assert_eq!(
        batch.open(&Opener::one(cipher.clone())),
        Err(OpenError::Authentication)
    );
}

proptest! {
    #[test]
    fn s2_storage_opens_what_we_seal(record in record(), gcm in any::<bool>()) {
        let cipher = if gcm { Cipher::Aes256Gcm } else { Cipher::Aegis256 };
        let sealed = input(vec![record.clone()]).seal(&stream_cipher(cipher)).unwrap();
        if let SealedRecord::Data(sealed) = &sealed.records()[0].1 {
            let frame = storage_frame(3, record.metered_size(), sealed.as_bytes());
            let stored = storage::decode_stored_record(frame).unwrap().into_inner();
            let opened = storage::decrypt_stored_record(stored, &spec(cipher), stream_id().as_bytes());
            prop_assert_eq!(opened.unwrap().into_inner(), s2_record(&record));
        }
    }

    #[test]
    fn we_open_what_s2_storage_seals(envelope in envelope(), gcm in any::<bool>()) {
        let cipher = if gcm { Cipher::Aes256Gcm } else { Cipher::Aegis256 };
        let record = Record::Data(envelope);
        let sealed = storage::encrypt_record(
            s2_record(&record).metered(), &spec(cipher), stream_id().as_bytes(),
        );
        let frame = storage::encode_stored_record(sealed.as_ref());
        let sealed = frame.slice(if record.metered_size() > 0xff { 3 } else { 2 }..);
        let opened = stored(vec![], sealed).open(&Opener::one(stream_cipher(cipher))).unwrap();
        prop_assert_eq!(&opened.records[0].record, &record);
    }

    #[test]
    fn sealed_batches_open_to_what_was_sealed(input in append_input(), gcm in any::<bool>()) {
        let cipher = stream_cipher(if gcm { Cipher::Aes256Gcm } else { Cipher::Aegis256 });
        let sealed = input.seal(&cipher).unwrap();
        let sizes = sealed.records().iter().map(|(_, record)| record.metered_size());
        prop_assert_eq!(sizes.sum::<usize>(), sealed.metered_size());
        let records = sealed.records().iter().map(|(_, record)| StoredRecord {
            seq_num: 0,
            timestamp: 0,
            headers: record.headers().to_vec(),
            body: record.body().clone(),
        });
        let opened = StoredBatch { records: records.collect(), tail: None }.open(&Opener::one(cipher.clone())).unwrap();
        let opened: Vec<_> = opened.records.into_iter().map(|record| record.record).collect();
        let clear: Vec<_> = input.records().iter().map(|record| record.record.clone()).collect();
        prop_assert_eq!(opened, clear);
    }
}
