//! Header hygiene: what never goes upstream, and what is put in its place.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::stream::BasinName;

/// Carries a client's encryption key to the proxy. It never goes any further.
const KEY_HEADER: HeaderName = HeaderName::from_static("s2-encryption-key");
/// Names the basin where the host name does not.
const BASIN_HEADER: HeaderName = HeaderName::from_static("s2-basin");

/// Headers about one connection rather than the message on it (RFC 9110 section 7.6.1, plus the
/// obsolete spellings still seen). `expect` is among them because each side answers it by itself.
const HOP_BY_HOP: [HeaderName; 11] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
    header::EXPECT,
];

/// Removes the headers that concern one connection only, and those that `connection` names.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Makes an upstream's response headers fit to go to the client: nothing in them may lead it elsewhere
/// with its keys.
pub(super) fn clean_response(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    for name in [
        header::LOCATION,
        header::REFRESH,
        HeaderName::from_static("alt-svc"),
    ] {
        headers.remove(name);
    }
}

/// Makes a client's request headers fit to go upstream.
///
/// `basin` is the value of the `s2-basin` header, `authorization` replaces the client's own. The body's
/// length and the host are left out: the connection states both.
pub(super) fn clean_request(
    headers: &mut HeaderMap,
    basin: Option<&BasinName>,
    authorization: Option<&HeaderValue>,
) {
    strip_hop_by_hop(headers);
    for name in [
        KEY_HEADER,
        BASIN_HEADER,
        header::HOST,
        header::CONTENT_LENGTH,
    ] {
        headers.remove(name);
    }
    // A basin name is letters, digits and hyphens: always a valid header value.
    if let Some(value) = basin.and_then(|name| HeaderValue::from_str(name.as_str()).ok()) {
        headers.insert(BASIN_HEADER, value);
    }
    if let Some(value) = authorization {
        headers.insert(header::AUTHORIZATION, value.clone());
    }
}
