//! Basin and stream names, and the stream id that sealed records are bound to.

use std::{fmt, str::FromStr, sync::Arc};

/// Shortest basin name in bytes (S2's rule, `s2-common` caps).
const MIN_BASIN_NAME_BYTES: usize = 8;
/// Longest basin name in bytes (S2's rule, `s2-common` caps).
const MAX_BASIN_NAME_BYTES: usize = 48;
/// Longest stream name in bytes of UTF-8 (S2's rule, `s2-common` caps).
const MAX_STREAM_NAME_BYTES: usize = 512;

/// A name that S2 would not accept. The text is what S2 itself answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(&'static str);

/// A valid basin name: 8 to 48 bytes of `[a-z0-9-]` that starts and ends with a letter or digit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BasinName(Arc<str>);

impl BasinName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BasinName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let bytes = name.as_bytes();
        if bytes.len() < MIN_BASIN_NAME_BYTES {
            return Err(NameError("basin name should be at least 8 bytes in length"));
        }
        if bytes.len() > MAX_BASIN_NAME_BYTES {
            return Err(NameError("basin name must not exceed 48 bytes in length"));
        }
        let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if !bytes.first().is_some_and(alphanumeric) {
            return Err(NameError(
                "basin name must begin with a lowercase letter or number",
            ));
        }
        if !bytes.last().is_some_and(alphanumeric) {
            return Err(NameError(
                "basin name must end with a lowercase letter or number",
            ));
        }
        if !bytes.iter().all(|b| alphanumeric(b) || *b == b'-') {
            return Err(NameError(
                "basin name must comprise lowercase letters, numbers, and hyphens",
            ));
        }
        Ok(Self(name.into()))
    }
}

/// A valid stream name: 1 to 512 bytes of UTF-8 without NUL, and neither `.` nor `..`.
///
/// Always the decoded name, never its percent-encoded form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(Arc<str>);

impl StreamName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StreamName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError("stream name must not be empty"));
        }
        if name == "." || name == ".." {
            return Err(NameError("stream name must not be \".\" or \"..\""));
        }
        if name.contains('\0') {
            return Err(NameError("stream name must not contain NUL bytes"));
        }
        if name.len() > MAX_STREAM_NAME_BYTES {
            return Err(NameError("stream name must not exceed 512 bytes in length"));
        }
        Ok(Self(name.into()))
    }
}

macro_rules! shown_as_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    )*};
}
shown_as_text!(BasinName, StreamName);

/// One stream by its names, as everything but the wire names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamPath {
    /// The basin the stream lives in.
    pub basin: BasinName,
    /// The stream's decoded name.
    pub stream: StreamName,
}

impl StreamPath {
    /// The id that binds sealed records to this stream.
    pub fn id(&self) -> StreamId {
        StreamId::new(&self.basin, &self.stream)
    }
}

impl FromStr for StreamPath {
    type Err = NameError;

    /// Reads `basin/stream`. A basin name holds no `/`, so the first one ends it.
    fn from_str(path: &str) -> Result<Self, NameError> {
        let (basin, stream) = path
            .split_once('/')
            .ok_or(NameError("a stream is named as basin/stream"))?;
        Ok(Self {
            basin: basin.parse()?,
            stream: stream.parse()?,
        })
    }
}

impl fmt::Display for StreamPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.basin, self.stream)
    }
}

/// BLAKE3-256 over `basin ‖ 0x00 ‖ stream ‖ 0x00`: S2's stream id, and the associated data of every
/// record sealed in the native layout.
///
/// It names a stream, not an incarnation: a stream that is deleted and made again keeps its id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamId([u8; 32]);

impl StreamId {
    /// The id of `stream` in `basin`.
    pub fn new(basin: &BasinName, stream: &StreamName) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(basin.as_str().as_bytes())
            .update(&[0])
            .update(stream.as_str().as_bytes())
            .update(&[0]);
        Self(hasher.finalize().into())
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({})", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_ids_are_those_of_s2() {
        let long = "x".repeat(512);
        for (basin, stream, id) in [
            (
                "test-basin",
                "test-stream",
                "c53a4be93df423e6c5b9befc3797a2137907d2f2bc4eadf0347febd6b2348db4",
            ),
            (
                "my-basin-0001",
                "a/b/c",
                "49dc7b68d2a9b4f96a4a6dcc6106b8c99749b336b1a51667d12ff2f512b52871",
            ),
            (
                "abcdefgh",
                "s",
                "fabf4b66d1f7bec98a60920129e37c4780e41f197bbed057ad602f8cf3ef55fa",
            ),
            (
                "my-basin-0001",
                "stream/名前 😀?#%20",
                "01c8487a982c062fe954a539658b4502f5d349b2109c5f77b09417f435fb43c8",
            ),
            (
                "basin-00",
                &long,
                "b5a80ef7037d42a792beb9d3a37c2f8e72a2d89ef4612a46e530230bd1ca5339",
            ),
            (
                "enc-basin-01",
                "test-stream",
                "0a2d9593d53e3b44f5681d7c3e1b26c93544f67bb2153df0f5e3981778f5015f",
            ),
        ] {
            let got = StreamId::new(&basin.parse().unwrap(), &stream.parse().unwrap());
            assert_eq!(format!("{got:?}"), format!("StreamId({id})"));
        }
    }

    #[test]
    fn names_out_of_range_are_refused() {
        for basin in [
            "short12",
            "-leading",
            "trailing-",
            "UpperCase",
            "under_score",
            &"a".repeat(49),
        ] {
            assert!(basin.parse::<BasinName>().is_err(), "{basin}");
        }
        for stream in ["", ".", "..", "nul\0nul", &"é".repeat(257)] {
            assert!(stream.parse::<StreamName>().is_err(), "{stream}");
        }
        // S2 looks for NUL first.
        let long = "\0".repeat(513).parse::<StreamName>().unwrap_err();
        assert_eq!(long.to_string(), "stream name must not contain NUL bytes");
        for stream in ["a", "...", "/", " ", &"é".repeat(256)] {
            assert!(stream.parse::<StreamName>().is_ok(), "{stream}");
        }
    }
}
