//! Frames out of the chunks that a body arrives in.

use std::{collections::VecDeque, mem};

use bytes::{Buf as _, Bytes, BytesMut};

use super::{
    Compression, FLAG_BYTES, FLAG_RECONNECT, FLAG_TERMINAL, Frame, LENGTH_BYTES, MAX_FRAME_BYTES,
    MAX_PAYLOAD_BYTES,
};
use crate::wire::{
    DecodeError,
    compression::{DecompressError, gunzip_first, unzstd},
};

/// Room for a whole frame is made once one part in this many has arrived: whoever only announces large
/// frames does not get the memory for them.
const TRUSTED_PART: usize = 8;

/// Cuts a body into frames.
///
/// A frame within one chunk is a slice of it; one that spans chunks is gathered, each byte copied
/// once. Holds what was pushed and not yet taken, and at most one frame besides.
#[derive(Default)]
pub struct FrameDecoder {
    /// Pushed and not looked at. No chunk is empty.
    chunks: VecDeque<Bytes>,
    /// The beginning of a frame that spans chunks.
    partial: BytesMut,
}

impl FrameDecoder {
    /// A decoder at the start of a body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the body's next chunk. Take the frames before pushing more, or chunks pile up.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.chunks.push_back(chunk);
        }
    }

    /// The next whole frame, or `None` until more is pushed.
    ///
    /// # Errors
    /// [`DecodeError::Frame`] for a malformed frame. The rest of the body is then of no use.
    #[expect(
        clippy::should_implement_trait,
        reason = "a decoder that wants more is not an iterator at its end"
    )]
    pub fn next(&mut self) -> Result<Option<Frame>, DecodeError> {
        self.next_raw()?.map(RawFrame::decode).transpose()
    }

    /// The next whole frame as it came, or `None` until more is pushed.
    ///
    /// # Errors
    /// [`DecodeError::Frame`] for a length beyond the limit.
    pub fn next_raw(&mut self) -> Result<Option<RawFrame>, DecodeError> {
        Ok(self.next_bytes()?.map(RawFrame))
    }

    /// What of the next frame is here when it is not here whole.
    pub fn gathered(&self) -> Gathered {
        let flag = self.partial.get(LENGTH_BYTES).copied();
        let length = frame_length(&self.partial).ok().flatten();
        Gathered {
            bytes: self.partial.len(),
            memory: length.zip(flag).map(|(length, flag)| memory(length, flag)),
        }
    }

    /// Checks that the body did not end within a frame, once [`Self::next`] has no more.
    ///
    /// # Errors
    /// [`DecodeError::Frame`] when it did.
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.partial.is_empty() && self.chunks.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::frame("bytes remaining on stream"))
        }
    }

    /// The next frame after its length.
    fn next_bytes(&mut self) -> Result<Option<Bytes>, DecodeError> {
        if self.partial.is_empty()
            && let Some(chunk) = self.chunks.front_mut()
            && let Some(length) = frame_length(chunk)?
            && chunk.len() >= LENGTH_BYTES + length
        {
            chunk.advance(LENGTH_BYTES);
            let frame = chunk.split_to(length);
            self.drop_empty_chunk();
            return Ok(Some(frame));
        }
        self.gather()
    }

    /// Moves bytes into `partial` until it holds a frame.
    fn gather(&mut self) -> Result<Option<Bytes>, DecodeError> {
        loop {
            let wanted = LENGTH_BYTES + frame_length(&self.partial)?.unwrap_or(0);
            if self.partial.len() == wanted {
                let mut frame = mem::take(&mut self.partial).freeze();
                frame.advance(LENGTH_BYTES);
                return Ok(Some(frame));
            }
            let Some(chunk) = self.chunks.front_mut() else {
                return Ok(None);
            };
            let part = chunk.split_to(chunk.len().min(wanted - self.partial.len()));
            if self.partial.len() >= wanted / TRUSTED_PART {
                // Growing step by step would copy it several times over.
                self.partial.reserve(wanted - self.partial.len());
            }
            self.partial.extend_from_slice(&part);
            self.drop_empty_chunk();
        }
    }

    fn drop_empty_chunk(&mut self) {
        if self.chunks.front().is_some_and(Bytes::is_empty) {
            self.chunks.pop_front();
        }
    }
}

impl std::fmt::Debug for FrameDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pushed: usize = self.chunks.iter().map(Bytes::len).sum();
        write!(f, "FrameDecoder({} bytes)", self.partial.len() + pushed)
    }
}

/// A whole frame as it came.
pub struct RawFrame(Bytes);

impl RawFrame {
    /// The most that it takes once it is decompressed.
    pub fn memory(&self) -> usize {
        let flag = self.0.first().copied().unwrap_or_default();
        memory(self.0.len(), flag)
    }

    /// Decompresses it.
    ///
    /// # Errors
    /// [`DecodeError::Frame`] for a malformed frame.
    pub fn decode(self) -> Result<Frame, DecodeError> {
        decode_frame(self.0)
    }
}

/// What of a frame is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gathered {
    /// How many bytes.
    pub bytes: usize,
    /// The most that the whole frame takes once it is decompressed, as soon as that is known.
    pub memory: Option<usize>,
}

fn memory(length: usize, flag: u8) -> usize {
    match Compression::of_flag(flag) {
        Some(Compression::Zstd | Compression::Gzip) => MAX_FRAME_BYTES,
        Some(Compression::None) | None => length,
    }
}

/// The length that `bytes` start with, once it is there.
fn frame_length(bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
    let Some([high, middle, low]) = bytes.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(DecodeError::frame("frame exceeds decode limit"));
    }
    Ok(Some(length))
}

/// Decodes a frame after its length. Texts are S2's.
fn decode_frame(mut frame: Bytes) -> Result<Frame, DecodeError> {
    let flag = *frame
        .first()
        .ok_or_else(|| DecodeError::frame("empty frame payload"))?;
    frame.advance(FLAG_BYTES);
    if flag & FLAG_TERMINAL != 0 {
        return decode_terminal(frame);
    }
    let compression = Compression::of_flag(flag)
        .ok_or_else(|| DecodeError::frame("unknown compression algorithm"))?;
    let payload = match compression {
        Compression::None => Ok(frame),
        Compression::Zstd => unzstd(&frame, MAX_PAYLOAD_BYTES),
        Compression::Gzip => gunzip_first(&frame, MAX_PAYLOAD_BYTES),
    }
    .map_err(|error| match error {
        DecompressError::TooLarge => DecodeError::frame("decompressed payload exceeds limit"),
        DecompressError::Corrupt(text) => DecodeError::frame(text),
    })?;
    Ok(Frame::Message {
        payload,
        reconnect_advised: flag & FLAG_RECONNECT != 0,
    })
}

fn decode_terminal(mut payload: Bytes) -> Result<Frame, DecodeError> {
    let status = payload
        .try_get_u16()
        .map_err(|_| DecodeError::frame("terminal message missing status code"))?;
    let body =
        String::from_utf8(payload.into()).map_err(|_| DecodeError::frame("invalid utf-8"))?;
    Ok(Frame::Terminal { status, body })
}
