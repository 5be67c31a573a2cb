//! The data record and its binary encoding: what a sealed record holds.
//!
//! ```text
//! [flag: 1] [count: c] ([name_len: n] [name] [value_len: v] [value])* [body: the rest]
//!
//! flag, from the high bit:  0 0 | c: 2 bits | n − 1: 2 bits | v − 1: 2 bits
//! ```
//!
//! Integers are big-endian. `c` is 0 without headers, and the body follows at once; otherwise it is
//! 1 to 3 and `n` and `v` are 1 to 4. One `n` and one `v` serve all headers of a record, so they are
//! what the longest name and the longest value need. Encoding uses the smallest widths; decoding
//! takes any.

use std::fmt;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::{HEADER_BASE_BYTES, Header, MAX_BATCH_BYTES, RECORD_BASE_BYTES, SealError};
use crate::{
    crypto::{OpenError, Opener, Sealed, StreamCipher, Text},
    wire::{
        DecodeError,
        compression::{unzstd, zstd},
    },
};

/// Most bytes that a compressed record may open to: the largest record and room for its encoding
/// (the extended layout's rule). A bomb is cut off here.
const MAX_OPENED_BYTES: usize = MAX_BATCH_BYTES + 64 * 1024;

/// Most headers of a record: what a count of three bytes can say.
const MAX_HEADERS: usize = 0xFF_FFFF;

/// Longest header name or value: what a length of four bytes can say.
const MAX_HEADER_PART_BYTES: usize = u32::MAX as usize;

/// Size of the flag byte.
const FLAG_BYTES: usize = 1;

const RESERVED_MASK: u8 = 0b1100_0000;
const COUNT_SHIFT: u32 = 4;
const NAME_SHIFT: u32 = 2;
const WIDTH_MASK: u8 = 0b11;

/// Bytes that are not the encoding of a data record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed record encoding")]
pub struct MalformedEnvelope;

/// Headers and body of a valid data record.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    headers: Vec<Header>,
    body: Bytes,
    shape: Shape,
}

/// What the headers of a record take, measured once.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    /// All names and values together, in bytes.
    text_bytes: usize,
    count_width: usize,
    name_width: usize,
    value_width: usize,
}

impl Envelope {
    /// The record with these headers and this body.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] when a header has no name, or there is more than the format holds.
    pub fn new(headers: Vec<Header>, body: Bytes) -> Result<Self, DecodeError> {
        let shape = Shape::of(&headers)
            .map_err(|why| DecodeError::invalid(format!("invalid header: {why}")))?;
        Ok(Self {
            headers,
            body,
            shape,
        })
    }

    /// The headers, in order.
    pub fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// What S2 meters it as.
    pub fn metered_size(&self) -> usize {
        RECORD_BASE_BYTES
            + HEADER_BASE_BYTES * self.headers.len()
            + self.shape.text_bytes
            + self.body.len()
    }

    /// Length of the encoding.
    pub fn encoded_len(&self) -> usize {
        let widths = self.shape.name_width + self.shape.value_width;
        FLAG_BYTES
            + self.shape.count_width
            + self.headers.len() * widths
            + self.shape.text_bytes
            + self.body.len()
    }

    /// Appends the encoding to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        let shape = self.shape;
        out.put_u8(shape.flag());
        out.put_uint(self.headers.len() as u64, shape.count_width);
        for Header { name, value } in &self.headers {
            out.put_uint(name.len() as u64, shape.name_width);
            out.put_slice(name);
            out.put_uint(value.len() as u64, shape.value_width);
            out.put_slice(value);
        }
        out.put_slice(&self.body);
    }

    /// Decodes a record; names, values and body are slices of `encoded`.
    ///
    /// # Errors
    /// [`MalformedEnvelope`] for no bytes, a reserved bit, an empty name, or a length beyond the end.
    pub fn decode(mut encoded: Bytes) -> Result<Self, MalformedEnvelope> {
        let flag = encoded.try_get_u8().map_err(|_| MalformedEnvelope)?;
        if flag & RESERVED_MASK != 0 {
            return Err(MalformedEnvelope);
        }
        let headers = decode_headers(flag, &mut encoded)?;
        Self::new(headers, encoded).map_err(|_| MalformedEnvelope)
    }

    /// Seals the record in the native layout. `arena` as for [`StreamCipher::seal`].
    ///
    /// # Errors
    /// [`SealError::TooLong`] beyond the cipher's own limit.
    pub fn seal(&self, cipher: &StreamCipher, arena: &mut BytesMut) -> Result<Sealed, SealError> {
        cipher
            .seal(Text::Encoded, arena, |out| self.encode(out))
            .map_err(|_| SealError::TooLong)
    }

    /// The encoding as one zstd frame, if that is smaller.
    pub(super) fn compress(&self) -> Option<Vec<u8>> {
        let mut encoded = BytesMut::with_capacity(self.encoded_len());
        self.encode(&mut encoded);
        let compressed = zstd(&encoded).ok()?;
        (compressed.len() < encoded.len()).then_some(compressed)
    }

    /// Opens a sealed record of either layout. `arena` as for [`StreamCipher::open`].
    ///
    /// # Errors
    /// [`OpenError`] when the record is not authentic, or what was sealed does not decode.
    pub fn open(opener: &Opener, stored: &[u8], arena: &mut BytesMut) -> Result<Self, OpenError> {
        let encoded = match opener.open(stored, arena)? {
            (Text::Encoded, encoded) => encoded,
            (Text::Zstd, frame) => {
                unzstd(&frame, MAX_OPENED_BYTES).map_err(|_| OpenError::Malformed)?
            }
        };
        Self::decode(encoded).map_err(|MalformedEnvelope| OpenError::Malformed)
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (headers, body) = (self.headers.len(), self.body.len());
        write!(f, "Envelope({headers} headers, {body} bytes)")
    }
}

impl Shape {
    /// Measures `headers`; the error is S2's word for what is wrong with them.
    fn of(headers: &[Header]) -> Result<Self, &'static str> {
        if headers.len() > MAX_HEADERS {
            return Err("too many");
        }
        let (mut text_bytes, mut longest_name, mut longest_value) = (0, 0, 0);
        for Header { name, value } in headers {
            if name.is_empty() {
                return Err("empty name");
            }
            if name.len().max(value.len()) > MAX_HEADER_PART_BYTES {
                return Err("too long");
            }
            text_bytes += name.len() + value.len();
            longest_name = longest_name.max(name.len());
            longest_value = longest_value.max(value.len());
        }
        Ok(Self {
            text_bytes,
            count_width: if headers.is_empty() {
                0
            } else {
                width(headers.len())
            },
            name_width: width(longest_name),
            value_width: width(longest_value),
        })
    }

    /// The flag byte. Without headers the widths of names and values are 1, so it is zero.
    fn flag(self) -> u8 {
        let bits = (self.count_width << COUNT_SHIFT)
            | ((self.name_width - 1) << NAME_SHIFT)
            | (self.value_width - 1);
        bits as u8
    }
}

fn decode_headers(flag: u8, encoded: &mut Bytes) -> Result<Vec<Header>, MalformedEnvelope> {
    let count_width = usize::from(flag >> COUNT_SHIFT & WIDTH_MASK);
    let name_width = usize::from(flag >> NAME_SHIFT & WIDTH_MASK) + 1;
    let value_width = usize::from(flag & WIDTH_MASK) + 1;
    if count_width == 0 {
        return Ok(Vec::new());
    }
    let count = take_uint(encoded, count_width)?;
    // A header takes two lengths and a name of at least one byte: allocate for no more than fit.
    if count > encoded.len() / (name_width + 1 + value_width) {
        return Err(MalformedEnvelope);
    }
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        let name = take_part(encoded, name_width)?;
        let value = take_part(encoded, value_width)?;
        headers.push(Header { name, value });
    }
    Ok(headers)
}

fn take_part(encoded: &mut Bytes, width: usize) -> Result<Bytes, MalformedEnvelope> {
    let length = take_uint(encoded, width)?;
    if length > encoded.len() {
        return Err(MalformedEnvelope);
    }
    Ok(encoded.split_to(length))
}

fn take_uint(encoded: &mut Bytes, width: usize) -> Result<usize, MalformedEnvelope> {
    let value = encoded.try_get_uint(width).map_err(|_| MalformedEnvelope)?;
    usize::try_from(value).map_err(|_| MalformedEnvelope)
}

/// Bytes that `value` takes, at least one.
fn width(value: usize) -> usize {
    let bits = usize::BITS - value.leading_zeros();
    bits.div_ceil(8).max(1) as usize
}

#[cfg(test)]
mod tests;
