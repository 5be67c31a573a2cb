//! Whole request bodies, decompressed, of bounded size.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::{
    drain::Drain,
    wire::{
        compression::{DecompressError, RequestEncoding, UnsupportedEncoding},
        record::MAX_BODY_BYTES,
    },
};

/// Longest time for a whole body: 2 MiB at 35 KB/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no whole body.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Its encoding is neither gzip nor zstd: 415.
    #[error(transparent)]
    Encoding(#[from] UnsupportedEncoding),
    /// Too large, or not in its encoding. S2's wording.
    #[error("Failed to buffer the request body: {0}")]
    Body(#[from] DecompressError),
    /// It did not arrive in time.
    #[error("request body did not arrive in time")]
    Slow,
    /// The process stops.
    #[error("the proxy is stopping; try again")]
    Draining,
    /// The client went away.
    #[error("the client left before its request was complete")]
    Broken(#[from] hyper::Error),
}

/// Reads a request's body and decompresses it as its headers say, to at most 2 MiB.
///
/// # Errors
/// [`CollectError`]; reading stops at the limit, and when `drain` is over.
pub async fn collect(
    headers: &HeaderMap,
    body: Incoming,
    drain: &Drain,
) -> Result<Bytes, CollectError> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, collect_all(headers, body));
    match drain.before_over(collected).await {
        Some(collected) => collected.unwrap_or(Err(CollectError::Slow)),
        None => Err(CollectError::Draining),
    }
}

async fn collect_all(headers: &HeaderMap, mut body: Incoming) -> Result<Bytes, CollectError> {
    let encoding = RequestEncoding::from_headers(headers)?;
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if whole.len() + data.len() > MAX_BODY_BYTES {
                return Err(DecompressError::TooLarge.into());
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(encoding.decompress(whole.freeze(), MAX_BODY_BYTES)?)
}
