//! Header hygiene: what never goes upstream, and what is put in its place.

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, uri::PathAndQuery};

use super::Error;
use crate::{crypto::holds_api_key, stream::BasinName};

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

/// What goes upstream as `authorization` in place of everything else. Goes with a request as one of its
/// extensions, so that nothing that a client sends can be taken for it.
#[derive(Debug, Clone)]
pub struct Credential(HeaderValue);

impl Credential {
    /// This value, which is a secret.
    pub fn new(mut authorization: HeaderValue) -> Self {
        authorization.set_sensitive(true);
        Self(authorization)
    }

    pub(super) fn authorization(&self) -> &HeaderValue {
        &self.0
    }
}

/// Makes sure that no API key leaves: what is in a request is a client's, until the proxy puts its own
/// `authorization` there.
///
/// # Errors
/// [`Error::Request`]
pub(super) fn refuse_api_keys(uri: &Uri, headers: &HeaderMap) -> Result<(), Error> {
    let path = uri.path_and_query().map(PathAndQuery::as_str);
    let texts = headers.values().map(HeaderValue::as_bytes);
    let mut texts = texts.chain(path.map(str::as_bytes));
    match texts.any(holds_api_key) {
        true => Err(Error::Request("there is an API key in it")),
        false => Ok(()),
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
