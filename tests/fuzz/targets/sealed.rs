//! Stored records: only what was sealed opens, to what S2 opens it to, and to no more than a record.

use bytes::{BufMut as _, Bytes, BytesMut};
use s2_common::record as s2;
use s2_storage::record::{
    EncryptedRecord, RecordDecryptionError, StoredRecord, decode_record, decrypt_stored_record,
};
use streamseal::{
    crypto::{Cipher, Key, OpenError, Opener, StreamCipher, Text, layout_of},
    wire::record::{Envelope, MAX_BATCH_BYTES, Record},
};

use super::{KEY, Script, s2_record, spec, stream_cipher, stream_id};

/// Most that a compressed record may open to.
const MAX_OPENED_BYTES: usize = MAX_BATCH_BYTES + 64 * 1024;

/// The bytes as what the upstream stores, as what somebody with the key sealed, and as a script that seals
/// a record and alters it.
pub fn sealed_record(data: &[u8]) {
    for cipher in Cipher::ALL {
        stored(cipher, data);
        sealed_by_a_stranger(cipher, data);
        altered(cipher, data);
        stored_managed(cipher, data);
        altered_managed(cipher, data);
    }
}

/// The key epochs whose keys are at hand, all with the same key: only what a record says of itself in clear
/// tells them apart.
const EPOCHS: [u32; 3] = [1, 2, u32::MAX];

fn of_epoch(cipher: Cipher, epoch: u32) -> StreamCipher {
    StreamCipher::of_epoch(cipher, &Key::from_bytes(KEY), stream_id(), epoch)
}

fn managed(cipher: Cipher) -> Opener {
    let mut opener = Opener::managed(cipher);
    for epoch in EPOCHS {
        opener.learn(of_epoch(cipher, epoch));
    }
    opener
}

fn open_managed(opener: &Opener, stored: &[u8]) -> Result<Envelope, OpenError> {
    Envelope::open(opener, stored, &mut BytesMut::new())
}

/// Bytes from the upstream, in a stream with managed keys: what opens says of itself what it is, and no bytes
/// open under one key for all, too.
fn stored_managed(cipher: Cipher, data: &[u8]) {
    let opener = managed(cipher);
    let layout = layout_of(data);
    if let Some(epoch) = opener.wants(data) {
        assert_eq!(layout.and_then(|layout| layout.epoch), Some(epoch));
        assert!(!EPOCHS.contains(&epoch));
        assert!(open_managed(&opener, data).is_err());
    }
    if open_managed(&opener, data).is_ok() {
        let layout = layout.expect("what opens has a layout");
        assert_eq!(layout.cipher, cipher);
        assert!(layout.epoch.is_some_and(|epoch| EPOCHS.contains(&epoch)));
        assert!(open(&stream_cipher(cipher), data).is_err());
    }
}

/// What is sealed under an epoch opens to itself, says which epoch it is of, and with any change does not open;
/// neither does it where its key is another kind, or gone.
fn altered_managed(cipher: Cipher, data: &[u8]) {
    let mut script = Script(data);
    let Record::Data(envelope) = script.record() else {
        panic!("a record with named headers is data");
    };
    let epoch = EPOCHS[usize::from(script.byte()) % EPOCHS.len()];
    let sealer = of_epoch(cipher, epoch);
    let sealed = envelope.seal(&sealer, &mut BytesMut::new()).expect("short");
    let sealed = sealed.as_bytes();
    let layout = layout_of(sealed).expect("it is sealed");
    assert_eq!((layout.cipher, layout.epoch), (cipher, Some(epoch)));
    let mut opener = managed(cipher);
    assert_eq!(open_managed(&opener, sealed), Ok(envelope.clone()));
    assert_eq!(open(&stream_cipher(cipher), sealed), Err(OpenError::Epoch));
    let own = stream_cipher(cipher);
    let native = envelope.seal(&own, &mut BytesMut::new()).expect("short");
    assert_eq!(
        open_managed(&opener, native.as_bytes()),
        Err(OpenError::Epoch)
    );
    let mut bad = sealed.to_vec();
    match script.byte() % 3 {
        0 => bad.truncate(script.number() as usize % bad.len()),
        // Mostly where the layout is told.
        1 => bad[script.number() as usize % 6] ^= script.byte().max(1),
        _ => {
            let at = script.number() as usize % bad.len();
            bad[at] ^= script.byte().max(1);
        }
    }
    assert!(
        open_managed(&opener, &bad).is_err(),
        "an altered record opened"
    );
    opener.learn_shredded(epoch);
    assert_eq!(open_managed(&opener, sealed), Err(OpenError::Shredded));
    opener.keep_only(&[]);
    assert_eq!(opener.wants(sealed), Some(epoch));
    assert_eq!(open_managed(&opener, sealed), Err(OpenError::Epoch));
}

fn open(cipher: &StreamCipher, stored: &[u8]) -> Result<Envelope, OpenError> {
    Envelope::open(&Opener::one(cipher.clone()), stored, &mut BytesMut::new())
}

/// Bytes from the upstream: the native layout opens exactly where S2 opens it.
fn stored(cipher: Cipher, data: &[u8]) {
    let ours = open(&stream_cipher(cipher), data);
    if data.first().is_none_or(|format_id| format_id & 0x80 == 0) {
        let theirs = open_as_s2(cipher, Bytes::copy_from_slice(data));
        let ours = ours
            .clone()
            .map(|envelope| s2_record(&Record::Data(envelope)));
        assert_eq!(ours.ok(), theirs);
    }
    if let Ok(envelope) = ours {
        assert!(envelope.encoded_len() <= MAX_OPENED_BYTES);
        let mut bad = data.to_vec();
        for at in [0, data.len() / 2, data.len() - 1] {
            bad[at] ^= 1;
            assert!(open(&stream_cipher(cipher), &bad).is_err());
            bad[at] ^= 1;
        }
        assert!(open(&stream_cipher(cipher), &data[..data.len() - 1]).is_err());
    }
}

fn open_as_s2(cipher: Cipher, stored: Bytes) -> Option<s2::Record> {
    let record = EncryptedRecord::try_from(stored).ok()?;
    let decrypt = |metered_size| {
        let record = record.clone();
        let stored = StoredRecord::Encrypted {
            metered_size,
            record,
        };
        decrypt_stored_record(stored, &spec(cipher), stream_id().as_bytes())
    };
    // S2 keeps the size in clear beside the record. Here only the record tells it.
    let opened = match decrypt(0) {
        Err(RecordDecryptionError::MeteredSizeMismatch { actual, .. }) => decrypt(actual),
        other => other,
    };
    Some(opened.ok()?.into_inner())
}

/// Authentic, but whatever a client with the key may have written around this proxy.
fn sealed_by_a_stranger(cipher: Cipher, data: &[u8]) {
    let cipher = stream_cipher(cipher);
    let seal = |text| {
        let sealed = cipher.seal(text, &mut BytesMut::new(), |out| out.put_slice(data));
        sealed.expect("short").as_bytes().clone()
    };
    let decoded = Envelope::decode(Bytes::copy_from_slice(data));
    let opened = open(&cipher, &seal(Text::Encoded));
    assert_eq!(opened.ok(), decoded.clone().ok());
    // A count of two bytes or more makes S2 make room for all of it: only the others are compared.
    if data.first().is_none_or(|flag| flag & 0x30 <= 0x10) {
        let theirs = decode_record(storage_frame(data));
        let ours = decoded
            .clone()
            .map(|envelope| s2_record(&Record::Data(envelope)));
        assert_eq!(ours.ok(), theirs.ok().map(s2::Metered::into_inner));
    }
    if let Ok(envelope) = decoded {
        let mut encoded = BytesMut::new();
        envelope.encode(&mut encoded);
        assert_eq!(encoded.len(), envelope.encoded_len());
        assert!(encoded.len() <= data.len());
        assert_eq!(Envelope::decode(encoded.freeze()), Ok(envelope));
    }
    if let Ok(envelope) = open(&cipher, &seal(Text::Zstd)) {
        assert!(envelope.encoded_len() <= MAX_OPENED_BYTES);
    }
}

/// `s2-storage` frames an encoded record: kind and width of the size, the size, then the bytes.
fn storage_frame(encoded: &[u8]) -> Bytes {
    const PLAIN: u8 = 1 << 3 | 2;
    [&[PLAIN, 0, 0], encoded].concat().into()
}

/// What we seal opens to itself; with any change to it, its key, or its stream it does not open at all.
fn altered(cipher: Cipher, data: &[u8]) {
    let mut script = Script(data);
    let Record::Data(envelope) = script.record() else {
        panic!("a record with named headers is data");
    };
    let stream = stream_cipher(cipher);
    let sealed = envelope.seal(&stream, &mut BytesMut::new()).expect("short");
    let sealed = sealed.as_bytes();
    assert_eq!(open(&stream, sealed), Ok(envelope));
    let mut bad = sealed.to_vec();
    match script.byte() % 4 {
        0 => bad.truncate(script.number() as usize % bad.len()),
        1 => bad.extend([script.byte()].repeat(1 + usize::from(script.byte()))),
        2 => {
            let at = script.number() as usize % bad.len();
            bad[at] ^= script.byte().max(1);
        }
        _ => {
            let (from, to) = (script.number() as usize, script.number() as usize);
            let length = bad.len();
            bad.swap(from % length, to % length);
        }
    }
    if bad != *sealed {
        assert!(open(&stream, &bad).is_err(), "an altered record opened");
    }
    let mut key = KEY;
    key[usize::from(script.byte()) % key.len()] ^= script.byte().max(1);
    let other = StreamCipher::new(cipher, &Key::from_bytes(key), stream_id());
    assert_eq!(open(&other, sealed), Err(OpenError::Authentication));
}
