//! Compressed bodies: what clients may send and accept, and decompression within bounds.

use std::io::{self, Read, Write as _};

use bytes::Bytes;
use flate2::{
    Compression as GzipLevel,
    bufread::{GzDecoder, MultiGzDecoder},
    write::GzEncoder,
};
use http::{
    HeaderMap,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING},
};

/// Smallest response body that is compressed (S2's rule; its comparison includes the limit).
pub const MIN_COMPRESS_BYTES: usize = 1024;

/// `accept-encoding` of the 415 that answers an unsupported `content-encoding`.
pub const SUPPORTED_ENCODINGS: &str = "zstd,gzip";

/// `vary` of every response that is large enough to compress, compressed or not.
pub const VARY: &str = "accept-encoding";

/// Largest zstd window taken: 32 MiB. Encoders use up to 8 MiB unless told to go beyond, and a
/// window above the size of the body gains nothing.
const MAX_ZSTD_WINDOW_LOG: u32 = 25;

/// zstd's own default level.
const ZSTD_LEVEL: i32 = 3;

/// Room to start decompressing into.
const MIN_ROOM_BYTES: usize = 1024;

/// The `content-encoding` of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestEncoding {
    /// Not compressed.
    Identity,
    /// gzip, of one or more members.
    Gzip,
    /// zstd, of one or more frames.
    Zstd,
}

/// A `content-encoding` other than `gzip`, `zstd` or `identity`: 415.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unsupported content encoding")]
pub struct UnsupportedEncoding;

impl RequestEncoding {
    /// The encoding of a request with these headers.
    ///
    /// As in S2, names are case-sensitive, lists are not taken apart, and only the first
    /// `content-encoding` counts.
    ///
    /// # Errors
    /// [`UnsupportedEncoding`] for any other encoding, and for several in one header.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, UnsupportedEncoding> {
        match headers.get(CONTENT_ENCODING).map(|value| value.as_bytes()) {
            None | Some(b"identity") => Ok(Self::Identity),
            Some(b"gzip") => Ok(Self::Gzip),
            Some(b"zstd") => Ok(Self::Zstd),
            Some(_) => Err(UnsupportedEncoding),
        }
    }

    /// Decompresses a whole body into at most `limit` bytes.
    ///
    /// # Errors
    /// [`DecompressError`] for a larger or corrupt body; it stops at the limit.
    pub fn decompress(self, body: Bytes, limit: usize) -> Result<Bytes, DecompressError> {
        match self {
            Self::Identity if body.len() > limit => Err(DecompressError::TooLarge),
            Self::Identity => Ok(body),
            Self::Gzip => read_bounded(MultiGzDecoder::new(&*body), body.len(), limit),
            Self::Zstd => unzstd(&body, limit),
        }
    }
}

/// Why a body does not decompress.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// It is, or becomes, larger than allowed.
    #[error("length limit exceeded")]
    TooLarge,
    /// It is not in its encoding.
    #[error("{0}")]
    Corrupt(String),
}

/// The `content-encoding` of a response body. Ordered from least to most preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResponseEncoding {
    /// Not compressed.
    Identity,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl ResponseEncoding {
    const ALL: [Self; 3] = [Self::Identity, Self::Gzip, Self::Zstd];

    /// The best encoding that the request's `accept-encoding` allows, or `None` when it refuses
    /// all, even `identity`. S2 then answers 406 with the body as it is.
    pub fn negotiate(headers: &HeaderMap) -> Option<Self> {
        let accepted = || {
            headers
                .get_all(ACCEPT_ENCODING)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .filter_map(weighted)
        };
        let named: Vec<(Self, u16)> = accepted()
            .filter_map(|(name, weight)| Some((Self::parse(name)?, weight)))
            .collect();
        let of = |encoding| {
            named
                .iter()
                .find(|(named, _)| *named == encoding)
                .map(|(_, weight)| *weight)
        };
        if let Some((_, others)) = accepted().find(|(name, _)| *name == "*") {
            return best(Self::ALL.map(|encoding| (encoding, of(encoding).unwrap_or(others))));
        }
        let refused = named.contains(&(Self::Identity, 0));
        best(named).or((!refused).then_some(Self::Identity))
    }

    /// The name in `content-encoding`, absent for [`Self::Identity`].
    pub const fn content_encoding(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match () {
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () if is("zstd") => Some(Self::Zstd),
            () if is("identity") => Some(Self::Identity),
            () => None,
        }
    }
}

/// Compresses a whole body.
///
/// # Errors
/// When the encoder has no memory; the body can be sent as it is.
pub fn compress(encoding: ResponseEncoding, body: &[u8]) -> io::Result<Vec<u8>> {
    match encoding {
        ResponseEncoding::Identity => Ok(body.to_vec()),
        ResponseEncoding::Gzip => gzip(body),
        ResponseEncoding::Zstd => zstd(body),
    }
}

pub(super) fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), GzipLevel::default());
    encoder.write_all(body)?;
    encoder.finish()
}

pub(super) fn zstd(body: &[u8]) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(body, ZSTD_LEVEL)
}

/// Decompresses the first gzip member and ignores what follows it, as S2 does in frames.
pub(super) fn gunzip_first(body: &[u8], limit: usize) -> Result<Bytes, DecompressError> {
    read_bounded(GzDecoder::new(body), body.len(), limit)
}

pub(super) fn unzstd(body: &[u8], limit: usize) -> Result<Bytes, DecompressError> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(corrupt)?;
    decoder
        .window_log_max(MAX_ZSTD_WINDOW_LOG)
        .map_err(corrupt)?;
    read_bounded(decoder, body.len(), limit)
}

/// Reads to the end, or to one byte beyond `limit`.
fn read_bounded(
    reader: impl Read,
    compressed: usize,
    limit: usize,
) -> Result<Bytes, DecompressError> {
    let room = compressed.saturating_mul(2).max(MIN_ROOM_BYTES).min(limit);
    let mut out = Vec::with_capacity(room);
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(bound).read_to_end(&mut out).map_err(corrupt)?;
    if out.len() > limit {
        return Err(DecompressError::TooLarge);
    }
    Ok(out.into())
}

fn corrupt(error: io::Error) -> DecompressError {
    DecompressError::Corrupt(error.to_string())
}

/// The heaviest encoding that is not refused; of equals the preferred one.
fn best(weighted: impl IntoIterator<Item = (ResponseEncoding, u16)>) -> Option<ResponseEncoding> {
    weighted
        .into_iter()
        .filter(|(_, weight)| *weight > 0)
        .max_by_key(|(encoding, weight)| (*weight, *encoding))
        .map(|(encoding, _)| encoding)
}

/// One element of `accept-encoding`: a name and its weight in thousandths. `None` for a bad weight.
fn weighted(element: &str) -> Option<(&str, u16)> {
    match element.split_once(';') {
        None => Some((element.trim(), 1000)),
        Some((name, weight)) => Some((name.trim(), thousandths(weight.trim())?)),
    }
}

/// `q=0.25` is 250: at most three digits after the point, at most one in all.
fn thousandths(weight: &str) -> Option<u16> {
    let number = weight.strip_prefix(['q', 'Q'])?.strip_prefix('=')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if !matches!(whole, "0" | "1") || fraction.len() > 3 {
        return None;
    }
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let value: u16 = format!("{whole}{fraction:0<3}").parse().ok()?;
    (value <= 1000).then_some(value)
}

#[cfg(test)]
mod tests;
