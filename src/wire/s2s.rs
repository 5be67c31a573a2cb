//! S2S: the frames of append and read sessions.
//!
//! ```text
//! [length: u24] [flag: 1] [payload]                    length counts flag and payload
//! [length: u24] [flag: 1] [status: u16] [JSON]         terminal: the sender ends the body after it
//!
//! flag  T C C R 0 0 0 0
//!       T  terminal
//!       C  compression of the payload: 0 none, 1 zstd, 2 gzip
//!       R  reconnect advised: the server is about to go
//! ```
//!
//! Integers are big-endian. The reserved bits are ignored.

mod decode;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, header::ACCEPT_ENCODING};

use super::compression::{gzip, zstd};
pub use decode::{FrameDecoder, Gathered, RawFrame};

/// `content-type` of a session.
pub const CONTENT_TYPE: &str = "s2s/proto";

/// Largest frame after its length: 2 MiB, flag included (S2's rule).
pub const MAX_FRAME_BYTES: usize = 2 * 1024 * 1024;

/// Largest payload, compressed or not.
pub const MAX_PAYLOAD_BYTES: usize = MAX_FRAME_BYTES - FLAG_BYTES;

/// Smallest payload that is compressed (S2's rule).
const MIN_COMPRESS_BYTES: usize = 1024;

const LENGTH_BYTES: usize = 3;
const FLAG_BYTES: usize = 1;
const STATUS_BYTES: usize = 2;

const FLAG_TERMINAL: u8 = 0b1000_0000;
const FLAG_RECONNECT: u8 = 0b0001_0000;
const COMPRESSION_SHIFT: u32 = 5;
const COMPRESSION_MASK: u8 = 0b11;

/// How the payload of a frame is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// zstd.
    Zstd,
    /// gzip.
    Gzip,
}

impl Compression {
    /// What to compress a response with: zstd before gzip, whatever their weights, unless zero.
    pub fn from_accept_encoding(headers: &HeaderMap) -> Self {
        let mut best = Self::None;
        let elements = headers
            .get_all(ACCEPT_ENCODING)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        for element in elements {
            let mut parts = element.split(';');
            let name = parts.next().unwrap_or_default().trim();
            if parts.any(is_zero_weight) {
                continue;
            }
            if name.eq_ignore_ascii_case("zstd") {
                return Self::Zstd;
            }
            if name.eq_ignore_ascii_case("gzip") {
                best = Self::Gzip;
            }
        }
        best
    }

    const fn bits(self) -> u8 {
        let code = match self {
            Self::None => 0,
            Self::Zstd => 1,
            Self::Gzip => 2,
        };
        code << COMPRESSION_SHIFT
    }

    const fn of_flag(flag: u8) -> Option<Self> {
        match flag >> COMPRESSION_SHIFT & COMPRESSION_MASK {
            0 => Some(Self::None),
            1 => Some(Self::Zstd),
            2 => Some(Self::Gzip),
            _ => None,
        }
    }
}

/// Whether a parameter is `q=0`, in any of the ways that S2 reads as zero.
fn is_zero_weight(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, value)| {
        name.trim().eq_ignore_ascii_case("q")
            && value
                .trim()
                .parse::<f32>()
                .is_ok_and(|weight| weight == 0.0)
    })
}

/// A frame after decompression.
#[derive(Clone, PartialEq, Eq)]
pub enum Frame {
    /// A protobuf message.
    Message {
        /// The message's bytes.
        payload: Bytes,
        /// Whether the sender is about to go.
        reconnect_advised: bool,
    },
    /// The end of the session, with an error.
    Terminal {
        /// HTTP status.
        status: u16,
        /// The error as JSON.
        body: String,
    },
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Message { payload, .. } => write!(f, "Message({} bytes)", payload.len()),
            Self::Terminal { status, .. } => write!(f, "Terminal({status})"),
        }
    }
}

/// A payload that no frame can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("payload exceeds frame limit")]
pub struct FrameTooLarge;

/// Encodes a message's frame as its head and its payload, which is not copied. It is compressed where that
/// makes it smaller and it has 1 KiB or more.
///
/// # Errors
/// [`FrameTooLarge`] for a payload of 2 MiB or more.
pub fn encode_message(
    compression: Compression,
    payload: Bytes,
    reconnect_advised: bool,
) -> Result<[Bytes; 2], FrameTooLarge> {
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(FrameTooLarge);
    }
    let reconnect = if reconnect_advised { FLAG_RECONNECT } else { 0 };
    let compressed = match compression {
        _ if payload.len() < MIN_COMPRESS_BYTES => None,
        Compression::None => None,
        Compression::Zstd => zstd(&payload).ok(),
        Compression::Gzip => gzip(&payload).ok(),
    };
    let (flag, payload) = match compressed {
        Some(smaller) if smaller.len() < payload.len() => {
            (compression.bits() | reconnect, Bytes::from(smaller))
        }
        _ => (reconnect, payload),
    };
    let mut head = BytesMut::with_capacity(LENGTH_BYTES + FLAG_BYTES);
    put_head(&mut head, flag, payload.len());
    Ok([head.freeze(), payload])
}

/// Encodes the terminal frame of an error. JSON that no frame can hold is left out.
pub fn encode_terminal(status: u16, json: &str) -> Bytes {
    let fits = json.len() <= MAX_PAYLOAD_BYTES - STATUS_BYTES;
    let json = if fits { json } else { "{}" };
    let length = STATUS_BYTES + json.len();
    let mut out = BytesMut::with_capacity(LENGTH_BYTES + FLAG_BYTES + length);
    put_head(&mut out, FLAG_TERMINAL, length);
    out.put_u16(status);
    out.put_slice(json.as_bytes());
    out.freeze()
}

fn put_head(out: &mut BytesMut, flag: u8, payload_bytes: usize) {
    out.put_uint((FLAG_BYTES + payload_bytes) as u64, LENGTH_BYTES);
    out.put_u8(flag);
}

#[cfg(test)]
mod tests;
