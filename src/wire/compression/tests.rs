//! Compressed bodies: negotiation as S2 does it, and bounds that bombs do not pass.

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::wire::{record::MAX_BODY_BYTES, tests::bytes};

fn headers(name: HeaderName, values: &[&'static str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(name.clone(), HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn request_encodings_are_those_of_s2() {
    let of =
        |values: &[&'static str]| RequestEncoding::from_headers(&headers(CONTENT_ENCODING, values));
    assert_eq!(of(&[]), Ok(RequestEncoding::Identity));
    assert_eq!(of(&["identity"]), Ok(RequestEncoding::Identity));
    assert_eq!(of(&["gzip"]), Ok(RequestEncoding::Gzip));
    assert_eq!(of(&["zstd"]), Ok(RequestEncoding::Zstd));
    assert_eq!(of(&["gzip", "zstd"]), Ok(RequestEncoding::Gzip));
    for refused in ["br", "deflate", "GZIP", "gzip, zstd", "x-gzip", "", "gzip "] {
        assert_eq!(of(&[refused]), Err(UnsupportedEncoding), "{refused}");
    }
}

#[test]
fn response_encodings_are_negotiated_as_in_s2() {
    use ResponseEncoding::{Gzip, Identity, Zstd};
    for (accept, expected) in [
        (&[][..], Some(Identity)),
        (&["gzip"], Some(Gzip)),
        (&["x-gzip"], Some(Gzip)),
        (&["gzip, zstd"], Some(Zstd)),
        (&["gzip", "zstd"], Some(Zstd)),
        (&["gzip, deflate, br"], Some(Gzip)),
        (&["br"], Some(Identity)),
        (&["gzip;q=0.9, zstd;q=0.5"], Some(Gzip)),
        (&["gzip;q=0"], Some(Identity)),
        (&["identity;q=0"], None),
        (&["identity;q=0, gzip"], Some(Gzip)),
        (&["identity, gzip;q=0.5"], Some(Identity)),
        (&["identity, gzip"], Some(Gzip)),
        (&["*"], Some(Zstd)),
        (&["*;q=0.5, gzip"], Some(Gzip)),
        (&["*;q=0"], None),
        (&["*;q=0, gzip;q=0.1"], Some(Gzip)),
        (&["zstd;q=0, *"], Some(Gzip)),
        (&["*;q=x, gzip"], Some(Gzip)),
        (&["GZIP;Q=0.123"], Some(Gzip)),
        (&["gzip;q=0.1234"], Some(Identity)),
        (&["gzip;q=1.001"], Some(Identity)),
        (&["gzip;q=1."], Some(Gzip)),
        (&["gzip;q=.5"], Some(Identity)),
        (&["gzip;q=2"], Some(Identity)),
        (&["gzip ; q=1"], Some(Gzip)),
        (&["gzip;q=1;x=2"], Some(Identity)),
        (&[",;,"], Some(Identity)),
    ] {
        let headers = headers(ACCEPT_ENCODING, accept);
        assert_eq!(
            ResponseEncoding::negotiate(&headers),
            expected,
            "{accept:?}"
        );
    }
}

#[test]
fn bombs_stop_at_the_limit() {
    let bomb = vec![0; 256 << 20];
    for (encoding, body) in [
        (RequestEncoding::Gzip, gzip(&bomb).unwrap()),
        (RequestEncoding::Zstd, zstd(&bomb).unwrap()),
    ] {
        let result = encoding.decompress(body.into(), MAX_BODY_BYTES);
        assert_eq!(result, Err(DecompressError::TooLarge));
    }
    let large = Bytes::from(vec![0; 11]);
    assert_eq!(
        RequestEncoding::Identity.decompress(large.clone(), 10),
        Err(DecompressError::TooLarge)
    );
    assert_eq!(
        RequestEncoding::Identity.decompress(large.clone(), 11),
        Ok(large)
    );
    assert_eq!(
        DecompressError::TooLarge.to_string(),
        "length limit exceeded"
    );
}

#[test]
fn zstd_windows_beyond_the_limit_are_refused() {
    let with_window = |log| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(b"small").unwrap();
        encoder.finish().unwrap()
    };
    let decompress = |body: Vec<u8>| RequestEncoding::Zstd.decompress(body.into(), 100);
    assert_eq!(
        decompress(with_window(MAX_ZSTD_WINDOW_LOG)).unwrap(),
        "small"
    );
    assert!(matches!(
        decompress(with_window(27)),
        Err(DecompressError::Corrupt(_))
    ));
}

#[test]
fn members_and_frames_are_joined() {
    for (encoding, one, two) in [
        (
            RequestEncoding::Gzip,
            gzip(b"one").unwrap(),
            gzip(b"two").unwrap(),
        ),
        (
            RequestEncoding::Zstd,
            zstd(b"one").unwrap(),
            zstd(b"two").unwrap(),
        ),
    ] {
        let body = [one, two].concat();
        assert_eq!(encoding.decompress(body.into(), 10).unwrap(), "onetwo");
    }
}

#[test]
fn truncated_bodies_are_corrupt() {
    for (encoding, body) in [
        (RequestEncoding::Gzip, gzip(&[7; 500]).unwrap()),
        (RequestEncoding::Zstd, zstd(&[7; 500]).unwrap()),
    ] {
        let half = Bytes::from(body).slice(..12);
        assert!(matches!(
            encoding.decompress(half, 1000),
            Err(DecompressError::Corrupt(_))
        ));
    }
}

proptest! {
    #[test]
    fn bodies_come_back(body in bytes(0..3000), limit in 0usize..3000) {
        for (response, request) in [
            (ResponseEncoding::Identity, RequestEncoding::Identity),
            (ResponseEncoding::Gzip, RequestEncoding::Gzip),
            (ResponseEncoding::Zstd, RequestEncoding::Zstd),
        ] {
            let compressed = compress(response, &body).unwrap();
            let result = request.decompress(compressed.into(), limit);
            if body.len() <= limit {
                prop_assert_eq!(result, Ok(body.clone()));
            } else {
                prop_assert_eq!(result, Err(DecompressError::TooLarge));
            }
        }
    }
}
