//! Command records: the two instructions that travel in a stream as records.

use std::fmt;

use bytes::Bytes;

use super::{HEADER_BASE_BYTES, Header, RECORD_BASE_BYTES};
use crate::wire::DecodeError;

/// Longest fencing token in bytes (S2's rule, `s2-common` fencing).
pub(super) const MAX_FENCING_TOKEN_BYTES: usize = 36;

const FENCE: &[u8] = b"fence";
const TRIM: &[u8] = b"trim";

static FENCE_HEADERS: [Header; 1] = [Header {
    name: Bytes::new(),
    value: Bytes::from_static(FENCE),
}];
static TRIM_HEADERS: [Header; 1] = [Header {
    name: Bytes::new(),
    value: Bytes::from_static(TRIM),
}];

/// A command to the stream.
///
/// On the wire it is a record with exactly one header, whose name is empty:
///
/// ```text
/// header value  body
/// "fence"       the new fencing token: UTF-8, at most 36 bytes, empty to clear it
/// "trim"        the first sequence number to keep: 8 bytes, big-endian
/// ```
#[derive(Clone, PartialEq, Eq)]
pub enum Command {
    /// Sets the stream's fencing token.
    Fence(FencingToken),
    /// Trims the stream to a sequence number.
    Trim(TrimPoint),
}

impl Command {
    /// Parses a command from its header's value and its body.
    pub(super) fn from_parts(op: &[u8], payload: Bytes) -> Result<Self, DecodeError> {
        match op {
            FENCE => FencingToken::parse(payload)
                .map(Self::Fence)
                .map_err(|error| DecodeError::invalid(format!("invalid `fence` command: {error}"))),
            TRIM => TrimPoint::parse(payload).map(Self::Trim).map_err(|length| {
                DecodeError::invalid(format!(
                    "invalid `trim` command: earliest sequence number to trim to was {length} bytes, must be 8"
                ))
            }),
            _ => Err(DecodeError::invalid("unknown command")),
        }
    }

    /// The single header that names it.
    pub fn headers(&self) -> &'static [Header] {
        match self {
            Self::Fence(_) => &FENCE_HEADERS,
            Self::Trim(_) => &TRIM_HEADERS,
        }
    }

    /// The body that carries its argument.
    pub fn payload(&self) -> &Bytes {
        match self {
            Self::Fence(token) => &token.0,
            Self::Trim(point) => &point.0,
        }
    }

    /// What S2 meters it as.
    pub fn metered_size(&self) -> usize {
        let op = match self {
            Self::Fence(_) => FENCE,
            Self::Trim(_) => TRIM,
        };
        RECORD_BASE_BYTES + HEADER_BASE_BYTES + op.len() + self.payload().len()
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fence(_) => "Fence",
            Self::Trim(_) => "Trim",
        })
    }
}

/// A valid fencing token.
#[derive(Clone, PartialEq, Eq)]
pub struct FencingToken(Bytes);

impl FencingToken {
    /// The token as text.
    pub fn as_str(&self) -> &str {
        // It was checked when the token was parsed.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    fn parse(token: Bytes) -> Result<Self, &'static str> {
        if std::str::from_utf8(&token).is_err() {
            return Err("invalid UTF-8");
        }
        check_token_length(token.len())?;
        Ok(Self(token))
    }
}

/// The refusal of a token of `length` bytes, as S2 words it.
pub(in crate::wire) fn check_token_length(length: usize) -> Result<(), &'static str> {
    if length > MAX_FENCING_TOKEN_BYTES {
        return Err("fencing token must not exceed 36 bytes in length");
    }
    Ok(())
}

/// The first sequence number that a trim keeps.
#[derive(Clone, PartialEq, Eq)]
pub struct TrimPoint(Bytes);

impl TrimPoint {
    /// Checks the size, or returns the one found.
    fn parse(payload: Bytes) -> Result<Self, usize> {
        if payload.len() == size_of::<u64>() {
            Ok(Self(payload))
        } else {
            Err(payload.len())
        }
    }
}
