//! S2S frames out of any HTTP body.

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt as _;

use crate::{
    upstream::BoxError,
    wire::{
        DecodeError,
        s2s::{Frame, FrameDecoder},
    },
};

/// Why there is no next frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The bytes are not frames.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The body broke off.
    #[error("the body broke off: {0}")]
    Broken(BoxError),
}

/// Reads one frame after the other, and no further than asked.
pub(super) struct Frames<B> {
    body: B,
    decoder: FrameDecoder,
    over: bool,
}

impl<B> Frames<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    pub(super) fn new(body: B) -> Self {
        Self {
            body,
            decoder: FrameDecoder::default(),
            over: false,
        }
    }

    /// The next frame; `None` at the clean end of the body.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(Some(frame));
            }
            if self.over {
                return Ok(None);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.decoder.push(data);
                    }
                }
                Some(Err(error)) => return Err(FrameError::Broken(error.into())),
                None => {
                    self.over = true;
                    self.decoder.finish()?;
                }
            }
        }
    }
}

/// A terminal frame tells of an error. One that says "success" is a trick: nothing in it was opened.
///
/// # Errors
/// [`DecodeError::Frame`] for a status below 400 or above 599.
pub(super) fn check_terminal(status: u16) -> Result<(), DecodeError> {
    if (400..600).contains(&status) {
        return Ok(());
    }
    Err(DecodeError::Frame(
        "terminal frame without an error status".into(),
    ))
}
