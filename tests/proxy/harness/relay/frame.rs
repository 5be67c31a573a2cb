//! HTTP/2 frames as they are on the wire (RFC 9113 section 4.1).

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::FrameCounts;
use crate::harness::{CONTINUATION, DATA, GOAWAY, HEADERS, RST_STREAM, WINDOW_UPDATE, http2_frame};

const PING: u8 = 6;
/// Flags.
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// What a client sends first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
#[derive(Debug, Clone)]
pub(super) struct Http2Frame {
    pub(super) kind: u8,
    flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Bytes,
}

impl Http2Frame {
    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Self> {
        let mut head = [0; 9];
        from.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        from.read_exact(&mut payload).await?;
        Ok(Self {
            kind: head[3],
            flags: head[4],
            stream: word(&head[5..]) & 0x7fff_ffff,
            payload: payload.into(),
        })
    }

    pub(super) fn encode(&self) -> Bytes {
        http2_frame(self.kind, self.flags, self.stream, &self.payload).into()
    }

    pub(super) fn is_data(&self) -> bool {
        let is_data = self.kind == DATA;
        assert!(
            !is_data || self.flags & PADDED == 0,
            "padding is not relayed"
        );
        is_data
    }

    pub(super) fn is_head(&self) -> bool {
        matches!(self.kind, HEADERS | CONTINUATION)
    }

    /// Whether a head is complete with this frame.
    pub(super) fn ends_head(&self) -> bool {
        self.is_head() && self.flags & END_HEADERS != 0
    }

    pub(super) fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    pub(super) fn without_end(mut self) -> Self {
        self.flags &= !END_STREAM;
        self
    }

    /// Takes the first `length` bytes of DATA off, as a frame of their own.
    pub(super) fn split_to(&mut self, length: usize) -> Self {
        let payload = self.payload.split_to(length);
        Self {
            payload,
            ..self.clone()
        }
        .without_end()
    }

    pub(super) fn count(&self, counts: &mut FrameCounts) {
        counts.ends += usize::from(self.ends_stream());
        match self.kind {
            HEADERS => counts.headers += 1,
            DATA => {
                counts.data += 1;
                counts.bytes += self.payload.len();
            }
            RST_STREAM => counts.resets.push(word(&self.payload)),
            GOAWAY => {
                let goaway = (word(&self.payload), word(&self.payload[4..]));
                counts.goaways.push(goaway);
            }
            PING => counts.pings += 1,
            _ => {}
        }
    }
}

pub(super) fn reset(stream: u32, code: u32) -> Bytes {
    http2_frame(RST_STREAM, 0, stream, &code.to_be_bytes()).into()
}

pub(super) fn goaway(last: u32, code: u32) -> Bytes {
    let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
    http2_frame(GOAWAY, 0, 0, &payload).into()
}

/// Gives a sender the window of DATA that its receiver never gets back.
pub(super) fn window_of_connection(bytes: usize) -> Bytes {
    let bytes = u32::try_from(bytes).unwrap();
    http2_frame(WINDOW_UPDATE, 0, 0, &bytes.to_be_bytes()).into()
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}
