//! Everything of a request before its body: method, path, query, headers, key and compression.

use std::str::FromStr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use s2_api::mime;
use s2_common::encryption::EncryptionKey;
use streamseal::{
    crypto::{Cipher, Key},
    keys::{self, KEY_HEADER},
    proxy::{
        query::ReadQuery,
        route::{BASIN_HEADER, Route, Routing},
    },
    stream::{BasinName, StreamName},
    wire::{
        compression::{RequestEncoding, ResponseEncoding},
        media::Media,
        sse::LastEventId,
    },
};

/// Most that a body may decompress to here.
const LIMIT: usize = 64 * 1024;

/// `METHOD target`, `name: value` for each header, an empty line, the body.
pub fn request(data: &[u8]) {
    let (head, body) = match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&data[..at], &data[at + 2..]),
        None => (data, &[][..]),
    };
    decompressed(body);
    let head = String::from_utf8_lossy(head);
    let (first, rest) = head.split_once('\n').unwrap_or((&head, ""));
    let (method, target) = first.split_once(' ').unwrap_or(("GET", first));
    names(target);
    let headers = headers(rest);
    media(&headers);
    key(&headers);
    let (Ok(method), Ok(uri)) = (Method::from_str(method), Uri::from_str(target)) else {
        return;
    };
    for domain in ["", "b.example"] {
        route(&method, &uri, &headers, domain);
    }
    query(uri.query());
}

fn headers(lines: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split('\n').take(20) {
        if let Some((name, value)) = line.split_once(':')
            && let (Ok(name), Ok(value)) = (
                HeaderName::from_str(name),
                HeaderValue::from_bytes(value.trim_ascii().as_bytes()),
            )
        {
            headers.append(name, value);
        }
    }
    headers
}

/// No body becomes larger than allowed, and the limit does not change what a small one becomes.
fn decompressed(body: &[u8]) {
    for encoding in [
        RequestEncoding::Gzip,
        RequestEncoding::Zstd,
        RequestEncoding::Identity,
    ] {
        let body = Bytes::copy_from_slice(body);
        let small = encoding.decompress(body.clone(), LIMIT);
        let large = encoding.decompress(body, 4 * LIMIT);
        match (small, large) {
            (Ok(small), large) => {
                assert!(small.len() <= LIMIT);
                assert_eq!(Ok(small), large);
            }
            (Err(_), Ok(large)) => assert!(large.len() > LIMIT && large.len() <= 4 * LIMIT),
            (Err(_), Err(_)) => {}
        }
    }
}

/// Names are S2's, and refused in its words.
fn names(text: &str) {
    let outcome =
        |ours: Result<&str, String>, theirs: Result<&str, String>| assert_eq!(ours, theirs);
    let (ours, theirs) = (
        BasinName::from_str(text),
        s2_common::basin::BasinName::from_str(text),
    );
    outcome(
        ours.as_ref()
            .map(BasinName::as_str)
            .map_err(ToString::to_string),
        theirs
            .as_ref()
            .map(|name| &**name)
            .map_err(ToString::to_string),
    );
    let (ours, theirs) = (
        StreamName::from_str(text),
        s2_common::stream::StreamName::from_str(text),
    );
    outcome(
        ours.as_ref()
            .map(StreamName::as_str)
            .map_err(ToString::to_string),
        theirs
            .as_ref()
            .map(|name| &**name)
            .map_err(ToString::to_string),
    );
}

/// Media types are read as S2 reads them; nothing else of a header makes trouble.
fn media(headers: &HeaderMap) {
    let theirs = mime::content_type(headers);
    let is = |test: fn(&_) -> bool| theirs.as_ref().is_some_and(test);
    let theirs = match () {
        () if is(mime::is_json) => Some(Media::Json),
        () if is(mime::is_protobuf) => Some(Media::Proto),
        () if is(mime::is_s2s_proto) => Some(Media::S2s),
        () if is(mime::is_event_stream) => Some(Media::EventStream),
        () => None,
    };
    assert_eq!(Media::content_type(headers), theirs);
    let _negotiated = ResponseEncoding::negotiate(headers);
    let _encoding = RequestEncoding::from_headers(headers);
}

/// A key is taken where S2 takes it, and no error shows it.
fn key(headers: &HeaderMap) {
    let Some(value) = headers.get(KEY_HEADER) else {
        return;
    };
    let text = value.to_str().unwrap_or_default();
    let found = keys::from_header(headers, Cipher::Aegis256);
    if headers.get_all(KEY_HEADER).iter().count() > 1 {
        assert_eq!(found, Err(keys::Error::Several(Cipher::Aegis256)));
        return;
    }
    assert_eq!(found.is_ok(), is_key_of_s2(text), "{value:?}");
    match found {
        Ok(key) => {
            assert_eq!(key.to_base64().as_str(), text);
            assert_eq!(Key::from_base64(text.as_bytes()), Ok(key));
            assert_eq!(keys::check_length(headers), Ok(()));
        }
        Err(error) => {
            assert!(text.len() < 8 || !error.to_string().contains(text));
        }
    }
    let fits = EncryptionKey::from_str(text).is_ok();
    assert!(!value.is_empty() && text.is_empty() || keys::check_length(headers).is_ok() == fits);
}

fn is_key_of_s2(text: &str) -> bool {
    let key = EncryptionKey::from_str(text).ok();
    let cipher = s2_common::encryption::EncryptionAlgorithm::Aegis256;
    key.is_some_and(|key| {
        s2_common::encryption::EncryptionSpec::resolve(Some(cipher), Some(key)).is_ok()
    })
}

/// A call about records is never taken for one that may pass as it is.
fn route(method: &Method, uri: &Uri, headers: &HeaderMap, domain: &str) {
    for forward_unknown in [false, true] {
        let routing = Routing {
            basin_domain: domain,
            forward_unknown,
        };
        routed(method, uri, headers, routing);
    }
}

fn routed(method: &Method, uri: &Uri, headers: &HeaderMap, routing: Routing<'_>) {
    let route = Route::of(method, uri, headers, routing);
    let domain = routing.basin_domain;
    let segments = decoded_segments(uri.path());
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let is_records = matches!(segments.as_slice(), ["", "v1", "streams", _, "records"]);
    let in_query = uri.query().is_some_and(|query| {
        query
            .split('&')
            .any(|pair| pair.split('=').next() == Some(KEY_HEADER.as_str()))
    });
    match route {
        Ok(_) if in_query => panic!("a key in the query"),
        Ok(Route::Append(path) | Route::Read(path)) => {
            assert!(is_records);
            assert_eq!(segments[3], path.stream.as_str());
            assert!(matches!(*method, Method::POST | Method::GET | Method::HEAD));
            let named = headers.get(BASIN_HEADER).map(HeaderValue::as_bytes);
            assert!(named.is_none_or(|named| named == path.basin.as_str().as_bytes()));
            assert!(named.is_some() || !domain.is_empty());
        }
        Ok(Route::Forward(..)) => {
            assert!(!is_records || *method == Method::OPTIONS);
            assert!(segments[1] == "v1" || ["/health", "/ping"].contains(&uri.path()));
        }
        Ok(Route::Unknown(_)) => {
            assert!(routing.forward_unknown);
            assert!(!matches!(*method, Method::TRACE | Method::CONNECT));
            let mut words = segments.iter().map(|segment| segment.to_ascii_lowercase());
            assert!(!words.any(|word| ["basins", "streams", "records"].contains(&&*word)));
        }
        Ok(_) => {}
        Err(error) => {
            let secret = headers.get(KEY_HEADER).and_then(|key| key.to_str().ok());
            let text = error.to_json();
            assert!(secret.is_none_or(|key| key.len() < 16 || !text.contains(key)));
        }
    }
}

/// The path's segments, each decoded once.
fn decoded_segments(path: &str) -> Vec<String> {
    let decode = |segment: &str| {
        let mut rest = segment.as_bytes();
        let mut decoded = Vec::new();
        while let Some(byte) = rest.split_off_first() {
            let pair = rest.get(..2).filter(|_| *byte == b'%');
            let pair = pair.and_then(|pair| std::str::from_utf8(pair).ok());
            match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
                Some(byte) => {
                    decoded.push(byte);
                    rest = &rest[2..];
                }
                None => decoded.push(*byte),
            }
        }
        String::from_utf8_lossy(&decoded).into_owned()
    };
    path.split('/').map(decode).collect()
}

/// What goes upstream is a query of its own, without `bytes`, and within what a unary read may ask for.
fn query(query: Option<&str>) {
    let Ok(query) = ReadQuery::parse(query) else {
        return;
    };
    let resumed = query.clone().resumed(&LastEventId {
        seq_num: u64::MAX,
        count: usize::MAX,
        bytes: 1,
    });
    let unary = query.clone().unary();
    assert!(unary.wait() <= 60);
    assert!(
        unary
            .limit()
            .upstream_count()
            .is_some_and(|count| count <= 1000)
    );
    for query in [query, resumed, unary] {
        let sent = query.to_upstream();
        assert!(!sent.contains("bytes"), "{sent}");
        let again = ReadQuery::parse(Some(&sent)).expect("our own query");
        assert_eq!(again.to_upstream(), sent);
        assert_eq!(again.wait(), query.wait());
    }
}
