//! Keys from headers and files, good and bad; no error shows what was sent.

use http::{HeaderMap, HeaderValue};

use super::*;
use crate::crypto::Key;

const TEXT: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";

fn headers(value: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(KEY_HEADER, HeaderValue::from_bytes(value).unwrap());
    headers
}

#[test]
fn header_key() {
    let key = from_header(&headers(TEXT.as_bytes()), Cipher::Aegis256).unwrap();
    assert_eq!(key, Key::from_base64(TEXT.as_bytes()).unwrap());
    for other in [TEXT, "nonsense"] {
        let mut two = headers(TEXT.as_bytes());
        two.append(KEY_HEADER, HeaderValue::from_str(other).unwrap());
        let refused = from_header(&two, Cipher::Aegis256).unwrap_err();
        assert_eq!(refused, Error::Several(Cipher::Aegis256));
        assert!(!refused.to_string().contains(TEXT));
    }
}

#[test]
fn bad_header_keys_are_told_apart_and_not_shown() {
    for (value, error) in [
        ("!secret!", "invalid base64"),
        ("c2VjcmV0", "decodes to 6 bytes instead of 32"),
        ("", "key material length 0 is out of range"),
    ] {
        let error_text = from_header(&headers(value.as_bytes()), Cipher::Aes256Gcm)
            .unwrap_err()
            .to_string();
        assert!(error_text.contains(error), "{error_text}");
        assert!(error_text.contains("aes-256-gcm") && error_text.contains("s2-encryption-key"));
        assert!(value.is_empty() || !error_text.contains(value));
    }
    let missing = from_header(&HeaderMap::new(), Cipher::Aegis256).unwrap_err();
    assert_eq!(missing, Error::Missing(Cipher::Aegis256));
}

#[test]
fn length_is_checked_whatever_the_stream() {
    assert_eq!(check_length(&HeaderMap::new()), Ok(()));
    assert_eq!(check_length(&headers(TEXT.as_bytes())), Ok(()));
    assert_eq!(check_length(&headers(b"!!!!")), Ok(()));
    for bad in [b"".as_slice(), b"  ", &[b'A'; 45]] {
        assert!(matches!(
            check_length(&headers(bad)),
            Err(Error::Malformed(_))
        ));
    }
}

#[test]
fn key_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, format!("{TEXT}\n")).unwrap();
    let key = FileKey::read(&path).unwrap();
    assert_eq!(key.key(), &Key::from_base64(TEXT.as_bytes()).unwrap());
    std::fs::write(&path, "c2VjcmV0").unwrap();
    let error = FileKey::read(&path).unwrap_err().to_string();
    assert!(error.contains("key") && error.contains("keygen") && !error.contains("c2VjcmV0"));
    assert!(FileKey::read(&dir.path().join("none")).is_err());
}
