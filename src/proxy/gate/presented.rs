//! The API key as a request carries it, and API keys where none belong.

use http::{HeaderMap, Uri, header};
use percent_encoding::percent_decode_str;

use super::Refusal;
use crate::{
    crypto::{API_KEY_PREFIX, ApiKey, TokenFingerprint, holds_api_key},
    proxy::Error,
};

/// What stands before the API key.
const SCHEME: &[u8] = b"Bearer ";

/// The one API key that a request carries.
pub(super) fn api_key(headers: &HeaderMap) -> Result<(ApiKey, TokenFingerprint), Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::Missing)?.as_bytes();
    if values.next().is_some() {
        return Err(Refusal::Several);
    }
    let (scheme, token) = value.split_at_checked(SCHEME.len()).ok_or(Refusal::Form)?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(Refusal::Form);
    }
    let key = ApiKey::parse(token).ok_or(Refusal::Form)?;
    Ok((key, TokenFingerprint::of(token)))
}

/// Refuses an API key where it would go on to the upstream, or into a log.
///
/// # Errors
/// [`Refusal::NotTaken`] when it is in `authorization`, from which a good one was taken out before; bad
/// header, path or query otherwise.
pub fn stray(uri: &Uri, headers: &HeaderMap) -> Result<(), Error> {
    for (name, value) in headers {
        if *name == header::AUTHORIZATION && looks_like_api_key(value.as_bytes()) {
            return Err(Refusal::NotTaken.into());
        }
        if holds_api_key(value.as_bytes()) {
            return Err(Error::BadHeader(format!(
                "header `{name}`: an API key belongs in the `authorization` header"
            )));
        }
    }
    let belongs = "an API key belongs in the `authorization` header, never in a";
    if holds_encoded(uri.path()) {
        return Err(Error::BadPath(format!("Invalid URL: {belongs} path")));
    }
    if uri.query().is_some_and(holds_encoded) {
        return Err(Error::BadQuery(format!("{belongs} query string")));
    }
    Ok(())
}

/// Whether it begins as an API key does, after whatever scheme: no access token of S2's does.
pub fn looks_like_api_key(authorization: &[u8]) -> bool {
    let prefix = API_KEY_PREFIX.as_bytes();
    let mut places = authorization.windows(prefix.len());
    places.any(|place| place.eq_ignore_ascii_case(prefix))
}

/// Whether an API key stands in a part of a URI.
pub fn holds_encoded(text: &str) -> bool {
    let decoded: Vec<u8> = percent_decode_str(text).collect();
    holds_api_key(text.as_bytes()) || holds_api_key(&decoded)
}
