//! The key that a client sends with its request.

use http::{HeaderMap, HeaderName};

use super::Error;
use crate::crypto::{Cipher, Key, KeyError};

/// The header that carries a stream key: S2's own name for it.
pub const KEY_HEADER: HeaderName = HeaderName::from_static("s2-encryption-key");

/// The key in the request's headers.
///
/// # Errors
/// [`Error::Missing`] without the header, [`Error::Several`] when there are two: S2 would take the first,
/// and whatever put the other there may have meant that one. [`Error::Invalid`] when it is not base64 of
/// 32 bytes.
pub fn from_header(headers: &HeaderMap, cipher: Cipher) -> Result<Key, Error> {
    let mut values = headers.get_all(KEY_HEADER).iter();
    let value = values.next().ok_or(Error::Missing(cipher))?;
    if values.next().is_some() {
        return Err(Error::Several(cipher));
    }
    Key::from_base64(value.as_bytes()).map_err(|error| Error::Invalid(cipher, error))
}

/// Refuses a header that cannot hold a key whatever the cipher is: S2 checks its length on every
/// append and read, plain streams included.
///
/// # Errors
/// [`Error::Malformed`] for an empty or overlong value.
pub fn check_length(headers: &HeaderMap) -> Result<(), Error> {
    let Some(value) = headers.get(KEY_HEADER) else {
        return Ok(());
    };
    match Key::from_base64(value.as_bytes()) {
        Err(error @ KeyError::TextLength(_)) => Err(Error::Malformed(error)),
        Ok(_) | Err(KeyError::InvalidBase64 | KeyError::Length(_)) => Ok(()),
    }
}
