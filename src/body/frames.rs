//! S2S frames out of any HTTP body.

use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt as _;

use tokio::time::{Instant, timeout_at};

use super::budget::{Charge, FREE_BYTES, NoRoom, Room};
use crate::{
    upstream::BoxError,
    wire::{
        DecodeError,
        s2s::{Frame, FrameDecoder, RawFrame},
    },
};

/// Longest time for the rest of a large frame: 2 MiB at 35 KB/s, as for whole bodies.
const FRAME_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no next frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The bytes are not frames.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The body broke off.
    #[error("the body broke off: {0}")]
    Broken(BoxError),
    /// The frame did not arrive in time.
    #[error("frame did not arrive in time")]
    Slow,
    /// There is no room for it.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
}

/// Reads one frame after the other, and no further than asked. A large one takes room: before the most of
/// it is read, where whoever sends it can be kept waiting, else once it is here.
pub(super) struct Frames<B> {
    body: B,
    decoder: FrameDecoder,
    room: Room,
    /// For the frame at hand.
    charge: Option<Charge>,
    /// When the frame at hand must be here, if it is large.
    due: Option<Instant>,
    /// The frame at hand, once it is here.
    raw: Option<RawFrame>,
    over: bool,
}

impl<B> Frames<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    pub(super) fn new(body: B, room: Room) -> Self {
        Self {
            body,
            decoder: FrameDecoder::default(),
            room,
            charge: None,
            due: None,
            raw: None,
            over: false,
        }
    }

    /// Goes on with another body, from its start.
    pub(super) fn restart(&mut self, body: B) {
        self.body = body;
        self.decoder = FrameDecoder::default();
        self.charge = None;
        self.due = None;
        self.raw = None;
        self.over = false;
    }

    /// The next frame, with what it takes of the budget; `None` at the clean end of the body. Can be asked
    /// again when it was dropped before it was done.
    pub(super) async fn next(&mut self) -> Result<Option<(Frame, Option<Charge>)>, FrameError> {
        loop {
            if let Some(memory) = self.raw.as_ref().map(RawFrame::memory) {
                self.make_room(memory).await?;
            }
            if let Some(raw) = self.raw.take() {
                self.due = None;
                return Ok(Some((raw.decode()?, self.charge.take())));
            }
            self.raw = self.decoder.next_raw()?;
            if self.raw.is_some() {
                continue;
            }
            if self.over {
                return Ok(None);
            }
            let gathered = self.decoder.gathered();
            if let Some(memory) = gathered.memory
                && gathered.bytes >= FREE_BYTES / 2
            {
                if self.room.is_taken_early() {
                    self.make_room(memory).await?;
                }
                self.due
                    .get_or_insert_with(|| Instant::now() + FRAME_TIMEOUT);
            }
            self.pull().await?;
        }
    }

    async fn make_room(&mut self, memory: usize) -> Result<(), NoRoom> {
        if memory > FREE_BYTES && self.charge.is_none() {
            self.charge = Some(self.room.reserve(memory).await?);
        }
        Ok(())
    }

    /// Takes the body's next piece.
    async fn pull(&mut self) -> Result<(), FrameError> {
        let frame = self.body.frame();
        let frame = match self.due {
            Some(due) => timeout_at(due, frame).await.map_err(|_| FrameError::Slow)?,
            None => frame.await,
        };
        match frame {
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
        Ok(())
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
