//! Records that name their key epoch: no bit of them can be changed, and one kind does not pass for the other.

use bytes::{BufMut as _, BytesMut};

use super::{hex, stream};
use crate::crypto::{Cipher, Key, OpenError, Opener, StreamCipher, Text, layout_of};

const TEXTS: [Text; 2] = [Text::Encoded, Text::Zstd];

fn key(byte: u8) -> Key {
    Key::from_bytes([byte; 32])
}

fn managed(cipher: Cipher, epoch: u32) -> StreamCipher {
    let byte = u8::try_from(epoch % 251).unwrap();
    StreamCipher::of_epoch(cipher, &key(byte), stream("s"), epoch)
}

fn seal(cipher: &StreamCipher, text: Text) -> Vec<u8> {
    let sealed = cipher.seal(text, &mut BytesMut::new(), |out| out.put_slice(b"plain"));
    sealed.unwrap().as_bytes().to_vec()
}

fn knowing(cipher: Cipher, epochs: &[u32]) -> Opener {
    let mut opener = Opener::managed(cipher);
    for epoch in epochs {
        opener.learn(managed(cipher, *epoch));
    }
    opener
}

fn open(opener: &Opener, stored: &[u8]) -> Result<Vec<u8>, OpenError> {
    let opened = opener.open(stored, &mut BytesMut::new());
    opened.map(|(_, text)| text.to_vec())
}

#[test]
fn the_layout_is_drawn_as_it_is() {
    for (cipher, format_id, nonce) in [(Cipher::Aegis256, 0x81, 32), (Cipher::Aes256Gcm, 0x82, 12)]
    {
        for (text, flags) in [(Text::Encoded, 0b10), (Text::Zstd, 0b11)] {
            let stored = seal(&managed(cipher, 0x0102_0304), text);
            assert_eq!(stored[..6], [format_id, flags, 1, 2, 3, 4]);
            assert_eq!(stored.len(), 6 + nonce + b"plain".len() + 16);
            let layout = layout_of(&stored).unwrap();
            assert_eq!(layout.epoch, Some(0x0102_0304));
            assert_eq!((layout.cipher, layout.text), (cipher, text));
        }
    }
}

#[test]
fn every_flipped_bit_of_a_stored_record_is_refused() {
    for cipher in Cipher::ALL {
        // The epochs that one flipped bit of the number leads to are known, too.
        let near: Vec<u32> = (0..32).map(|bit| 7 ^ (1 << bit)).chain([7]).collect();
        let opener = knowing(cipher, &near);
        for text in TEXTS {
            let stored = seal(&managed(cipher, 7), text);
            assert_eq!(open(&opener, &stored).unwrap(), b"plain");
            for bit in 0..stored.len() * 8 {
                let mut flipped = stored.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(open(&opener, &flipped).is_err(), "{cipher}, bit {bit}");
            }
            for length in 0..stored.len() {
                assert!(open(&opener, &stored[..length]).is_err(), "{length} bytes");
            }
        }
    }
}

/// With one key for all of them, only the authenticated number tells them apart.
#[test]
fn a_record_does_not_move_to_another_epoch() {
    for cipher in Cipher::ALL {
        let of = |epoch| StreamCipher::of_epoch(cipher, &key(1), stream("s"), epoch);
        let mut opener = Opener::managed(cipher);
        opener.learn(of(1));
        opener.learn(of(2));
        let mut stored = seal(&of(1), Text::Encoded);
        assert!(open(&opener, &stored).is_ok());
        stored[5] = 2;
        assert_eq!(open(&opener, &stored), Err(OpenError::Authentication));
    }
}

#[test]
fn one_kind_of_record_does_not_pass_for_the_other() {
    for cipher in Cipher::ALL {
        let own = StreamCipher::new(cipher, &key(1), stream("s"));
        let managed = StreamCipher::of_epoch(cipher, &key(1), stream("s"), 1);
        let mut epochs = Opener::managed(cipher);
        epochs.learn(managed.clone());
        for text in TEXTS {
            let (native, named) = (seal(&own, text), seal(&managed, text));
            assert_eq!(
                open(&Opener::one(own.clone()), &named),
                Err(OpenError::Epoch)
            );
            assert_eq!(open(&epochs, &native), Err(OpenError::Epoch));
            assert!(open(&Opener::one(own.clone()), &native).is_ok());
            assert!(open(&epochs, &named).is_ok());
        }
    }
}

#[test]
fn an_opener_says_which_key_it_wants() {
    let cipher = Cipher::Aegis256;
    let stored = seal(&managed(cipher, 3), Text::Encoded);
    let mut opener = knowing(cipher, &[1, 2]);
    assert_eq!(opener.wants(&stored), Some(3));
    assert_eq!(open(&opener, &stored), Err(OpenError::Epoch));
    opener.learn(managed(cipher, 3));
    assert_eq!(opener.wants(&stored), None);
    assert!(open(&opener, &stored).is_ok());
    opener.keep_only(&[1]);
    assert_eq!(opener.wants(&stored), Some(3));
    opener.learn_shredded(3);
    assert_eq!(opener.wants(&stored), None);
    assert_eq!(open(&opener, &stored), Err(OpenError::Shredded));
    opener.keep_only(&[]);
    assert!(opener.is_empty());
    assert!(!Opener::one(managed(cipher, 1)).is_empty());
    // No record, no wish.
    for foreign in [&b""[..], b"x", &hex("810200")[..], &hex("8300")[..]] {
        assert_eq!(opener.wants(foreign), None);
        assert!(open(&opener, foreign).is_err());
    }
}
