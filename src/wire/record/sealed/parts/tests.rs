//! Batches that outgrow the limit: compressed, split or refused, at the very edges.

use bytes::Bytes;

use super::*;
use crate::crypto::Opener;
use crate::{
    crypto::{Cipher, OpenError},
    wire::{
        compression,
        record::{Envelope, ReadBatch, StoredBatch, StoredRecord},
        tests::{data, fence, input, stream_cipher},
    },
};

const SPLIT: Fit = Fit {
    oversize_batches: OversizeBatches::Split,
    compression: RecordCompression::Never,
};

fn with(oversize_batches: OversizeBatches, compression: RecordCompression) -> Fit {
    Fit {
        oversize_batches,
        compression,
    }
}

/// `count` bodies whose batch meters exactly 1 MiB in clear.
fn full_batch(count: usize, body: impl Fn(usize) -> Vec<u8>) -> AppendInput {
    let total = MAX_BATCH_BYTES - RECORD_BASE_BYTES * count;
    let sizes = (0..count).map(|at| total / count + usize::from(at < total % count));
    let input = input(sizes.map(|size| data(&body(size))).collect());
    assert_eq!(input.metered_size(), MAX_BATCH_BYTES);
    input
}

fn noise(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    rand::fill(&mut bytes[..]);
    bytes
}

fn text(size: usize) -> Vec<u8> {
    b"the quick brown fox "
        .iter()
        .copied()
        .cycle()
        .take(size)
        .collect()
}

/// What a reader gets of the parts, in order.
fn open(parts: &[SealedInput], cipher: &StreamCipher) -> ReadBatch {
    let records = parts.iter().flat_map(|part| part.records());
    let records = records.map(|(_, record)| StoredRecord {
        seq_num: 0,
        timestamp: 0,
        headers: record.headers().to_vec(),
        body: record.body().clone(),
    });
    let records = records.collect();
    StoredBatch {
        records,
        tail: None,
    }
    .open(&Opener::one(cipher.clone()))
    .unwrap()
}

fn assert_opens_to(parts: &[SealedInput], input: &AppendInput, cipher: &StreamCipher) {
    for part in parts {
        let sizes = part
            .records()
            .iter()
            .map(|(_, record)| record.metered_size());
        assert_eq!(part.metered_size(), sizes.sum::<usize>());
        assert!(part.metered_size() <= MAX_BATCH_BYTES);
    }
    let opened: Vec<_> = open(parts, cipher)
        .records
        .into_iter()
        .map(|r| r.record)
        .collect();
    let clear: Vec<_> = input.records().iter().map(|r| r.record.clone()).collect();
    assert!(opened == clear, "records differ");
}

#[test]
fn a_full_batch_of_text_stays_one_batch() {
    for cipher in Cipher::ALL.map(stream_cipher) {
        for count in [1, 2, 37, 1000] {
            let input = full_batch(count, text);
            let parts = input.seal_to_fit(&cipher, Fit::default()).unwrap();
            assert_eq!(parts.len(), 1, "{count} records");
            assert_opens_to(&parts, &input, &cipher);
        }
    }
}

#[test]
fn a_full_batch_of_noise_is_split_in_two() {
    for cipher in Cipher::ALL.map(stream_cipher) {
        for count in [2, 37, 1000] {
            let input = full_batch(count, noise);
            let parts = input.seal_to_fit(&cipher, Fit::default()).unwrap();
            assert_eq!(parts.len(), 2, "{count} records");
            assert_opens_to(&parts, &input, &cipher);
        }
        let one = full_batch(1, noise).seal_to_fit(&cipher, Fit::default());
        assert!(matches!(one, Err(SealError::Oversize { records: 1, .. })));
    }
}

#[test]
fn at_the_exact_edge_nothing_is_split() {
    let cipher = stream_cipher(Cipher::Aegis256);
    for count in [1, 2, 37, 1000] {
        let total = MAX_BATCH_BYTES - 50 * count - RECORD_BASE_BYTES * count;
        let sizes = |more: usize| {
            (0..count).map(move |at| total / count + usize::from(at < total % count + more))
        };
        let fits = input(sizes(0).map(|size| data(&noise(size))).collect());
        let parts = fits.seal_to_fit(&cipher, SPLIT).unwrap();
        assert_eq!((parts.len(), parts[0].metered_size()), (1, MAX_BATCH_BYTES));
        if count > 1 && total % count < count {
            let more = input(sizes(1).map(|size| data(&noise(size))).collect());
            assert_eq!(more.seal_to_fit(&cipher, SPLIT).unwrap().len(), 2);
        }
    }
}

#[test]
fn rejecting_and_never_compressing_are_as_told() {
    let cipher = stream_cipher(Cipher::Aegis256);
    let reject = with(OversizeBatches::Reject, RecordCompression::WhenNeeded);
    let noisy = full_batch(37, noise);
    assert!(matches!(
        noisy.seal_to_fit(&cipher, reject),
        Err(SealError::Oversize { records: 37, .. })
    ));
    assert_eq!(
        full_batch(37, text)
            .seal_to_fit(&cipher, reject)
            .unwrap()
            .len(),
        1
    );
    let never = with(OversizeBatches::Split, RecordCompression::Never);
    assert_eq!(
        full_batch(37, text)
            .seal_to_fit(&cipher, never)
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn compression_always_compresses_what_becomes_smaller() {
    let cipher = stream_cipher(Cipher::Aes256Gcm);
    let always = with(OversizeBatches::Split, RecordCompression::Always);
    let mixed = input(vec![data(&text(5000)), data(&noise(5000)), data(b"")]);
    let parts = mixed.seal_to_fit(&cipher, always).unwrap();
    let ids: Vec<u8> = parts[0]
        .records()
        .iter()
        .map(|(_, r)| r.body()[0])
        .collect();
    assert_eq!(ids, [0x82, 0x02, 0x02]);
    assert!(parts[0].records()[0].1.body().len() < 200);
    assert_opens_to(&parts, &mixed, &cipher);
    let native = mixed.seal_to_fit(&cipher, Fit::default()).unwrap();
    assert!(native[0].records().iter().all(|(_, r)| r.body()[0] == 0x02));
}

#[test]
fn conditions_follow_the_parts() {
    let cipher = stream_cipher(Cipher::Aegis256);
    let mut records = full_batch(1000, noise).records()[..990].to_vec();
    let command = |record| AppendRecord {
        timestamp: None,
        record,
    };
    records.insert(100, command(fence(b"new")));
    let batch = AppendInput::new(records.clone(), Some(7), Some("old".into())).unwrap();
    let parts = batch.seal_to_fit(&cipher, SPLIT).unwrap();
    assert_eq!(parts.len(), 2);
    assert_eq!(
        (parts[0].match_seq_num(), parts[0].fencing_token()),
        (Some(7), Some("old"))
    );
    assert_eq!(
        (parts[1].match_seq_num(), parts[1].fencing_token()),
        (None, Some("new"))
    );
    let second = parts[1].clone().following(900);
    assert_eq!(second.match_seq_num(), Some(900));
    // A client that gave no token is not given one.
    let batch = AppendInput::new(records, None, None).unwrap();
    let parts = batch.seal_to_fit(&cipher, SPLIT).unwrap();
    assert_eq!(parts[1].fencing_token(), None);
}

#[test]
fn a_bomb_in_a_record_does_not_go_off() {
    let cipher = stream_cipher(Cipher::Aegis256);
    let mut arena = BytesMut::new();
    let mut seal = |size: usize| {
        let frame = compression::zstd(&vec![0; size]).unwrap();
        let sealed = cipher
            .seal(Text::Zstd, &mut arena, |out| out.put_slice(&frame))
            .unwrap();
        sealed.as_bytes().clone()
    };
    let open =
        |stored: &Bytes| Envelope::open(&Opener::one(cipher.clone()), stored, &mut BytesMut::new());
    assert!(open(&seal(MAX_BATCH_BYTES + 64 * 1024)).is_ok());
    assert_eq!(
        open(&seal(MAX_BATCH_BYTES + 64 * 1024 + 1)),
        Err(OpenError::Malformed)
    );
    assert_eq!(open(&seal(1 << 30)), Err(OpenError::Malformed));
    let no_zstd = cipher.seal(Text::Zstd, &mut BytesMut::new(), |out| {
        out.put_slice(b"none")
    });
    assert_eq!(open(no_zstd.unwrap().as_bytes()), Err(OpenError::Malformed));
}
