//! Stored records: only what was sealed opens, to what S2 opens it to, and to no more than a record.

use bytes::{BufMut as _, Bytes, BytesMut};
use s2_common::record as s2;
use s2_storage::record::{
    EncryptedRecord, RecordDecryptionError, StoredRecord, decode_record, decrypt_stored_record,
};
use streamseal::{
    crypto::{Cipher, Key, OpenError, Opener, StreamCipher, Text},
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
    }
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
