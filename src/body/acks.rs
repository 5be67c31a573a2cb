//! What the upstream answers in an append session.

use super::{
    budget::Room,
    frames::{FrameError, Frames, check_terminal},
};
use crate::{
    upstream::{BoxError, ResponseBody},
    wire::{DecodeError, proto, record::AppendAck, s2s::Frame},
};

/// One answer of the upstream.
#[derive(Debug)]
pub enum Answer {
    /// An input was appended.
    Ack {
        /// Where.
        ack: AppendAck,
        /// Whether the upstream is about to go.
        reconnect_advised: bool,
    },
    /// The session failed; nothing follows.
    Terminal {
        /// HTTP status.
        status: u16,
        /// The error as JSON.
        body: String,
    },
}

/// Why there is no next answer.
#[derive(Debug, thiserror::Error)]
pub enum AckError {
    /// The upstream's bytes do not decode.
    #[error("the upstream's ack does not decode: {0}")]
    Decode(#[from] DecodeError),
    /// The upstream went away.
    #[error("the upstream broke the append session off: {0}")]
    Broken(BoxError),
}

/// The acks of one append session, in order.
pub struct Acks(Frames<ResponseBody>);

impl Acks {
    /// Reads acks from a response's body.
    pub fn new(body: ResponseBody, room: Room) -> Self {
        Self(Frames::new(body, room))
    }

    /// The next answer; `None` at the upstream's clean end.
    ///
    /// # Errors
    /// [`AckError`]; nothing can be read after one.
    pub async fn next(&mut self) -> Result<Option<Answer>, AckError> {
        let next = self.0.next().await;
        match next.map(|next| next.map(|(frame, _small)| frame)) {
            Ok(None) => Ok(None),
            Ok(Some(Frame::Message {
                payload,
                reconnect_advised,
            })) => Ok(Some(Answer::Ack {
                ack: proto::decode_append_ack(payload)?,
                reconnect_advised,
            })),
            Ok(Some(Frame::Terminal { status, body })) => {
                check_terminal(status)?;
                Ok(Some(Answer::Terminal { status, body }))
            }
            Err(FrameError::Decode(error)) => Err(AckError::Decode(error)),
            Err(FrameError::Broken(error)) => Err(AckError::Broken(error)),
            Err(late @ (FrameError::Slow | FrameError::NoRoom(_))) => {
                Err(AckError::Broken(late.into()))
            }
        }
    }
}
