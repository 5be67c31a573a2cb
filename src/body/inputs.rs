//! What a client sends in an append session.

use crate::received::ReceivedBody;

use super::{
    budget::{Charge, Room},
    frames::{FrameError, Frames},
};
use crate::{
    upstream::BoxError,
    wire::{DecodeError, proto, record::AppendInput, s2s::Frame},
};

/// Why there is no next input.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The client's bytes do not decode, or break a rule: the session ends with this error.
    #[error(transparent)]
    Decode(DecodeError),
    /// The client went away.
    #[error("the client left its append session: {0}")]
    Broken(BoxError),
    /// A large input did not arrive in time.
    #[error("an input did not arrive in time")]
    Slow,
    /// There was no room for an input in time. Nothing was done with it.
    #[error("too many requests at once; try again")]
    NoRoom,
}

/// The inputs of one append session, in order.
pub struct Inputs(Frames<ReceivedBody>);

impl Inputs {
    /// Reads inputs from a request's body.
    pub fn new(body: ReceivedBody, room: Room) -> Self {
        Self(Frames::new(body, room))
    }

    /// The next input, with what it takes of the budget; `None` when the client has no more.
    ///
    /// # Errors
    /// [`InputError`]; nothing can be read after one.
    pub async fn next(&mut self) -> Result<Option<(AppendInput, Option<Charge>)>, InputError> {
        match self.0.next().await {
            Ok(None) => Ok(None),
            Ok(Some((Frame::Message { payload, .. }, charge))) => {
                proto::decode_append_input(payload)
                    .map(|input| Some((input, charge)))
                    .map_err(|error| InputError::Decode(error.in_frame()))
            }
            Ok(Some((Frame::Terminal { .. }, _))) => Err(InputError::Decode(DecodeError::Frame(
                "Unexpected terminal frame as input".into(),
            ))),
            Err(FrameError::Decode(error)) => Err(InputError::Decode(error)),
            Err(FrameError::Broken(error)) => Err(InputError::Broken(error)),
            Err(FrameError::Slow) => Err(InputError::Slow),
            Err(FrameError::NoRoom(_)) => Err(InputError::NoRoom),
        }
    }
}
