//! S2's JSON bodies: appends, acks, reads and tails.
//!
//! Names, values and bodies of records are JSON strings; [`Format`] says what their text stands for.

mod decode;
mod encode;
mod message;

use std::str::FromStr;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;

use super::DecodeError;
pub use decode::{decode_append_input, decode_tail};
pub(super) use encode::{batch_json_bytes, put_json_position, put_json_read_batch};
pub use encode::{encode_append_ack, encode_read_batch, encode_tail};

/// What the text of a name, value or body stands for: the `s2-format` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// The text is the bytes, in UTF-8. Reading bytes that are not UTF-8 loses them.
    #[default]
    Raw,
    /// The text is the bytes in padded standard base64.
    Base64,
}

/// A format that S2 does not know; shows the name, as S2 does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        match name.trim() {
            "raw" | "json" => Ok(Self::Raw),
            "base64" | "json-binsafe" => Ok(Self::Base64),
            _ => Err(UnknownFormat(name.to_owned())),
        }
    }
}

impl Format {
    /// The bytes that `text` stands for.
    fn decode(self, text: &str) -> Result<Bytes, DecodeError> {
        match self {
            Self::Raw => Ok(Bytes::copy_from_slice(text.as_bytes())),
            Self::Base64 => BASE64_STANDARD
                .decode(text)
                .map(Bytes::from)
                .map_err(|_| DecodeError::invalid("invalid Base64 encoding")),
        }
    }
}

#[cfg(test)]
mod tests;
