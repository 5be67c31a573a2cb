//! A read session of a sealed stream: frames from upstream, opened and cut to the client's limits.

use super::{
    Meter, ReadLimit,
    budget::{Charge, NoRoom, Room},
    frames::{FrameError, Frames, check_terminal},
    keys::SessionKeys,
};
use crate::{
    upstream::{BoxError, ResponseBody},
    wire::{
        DecodeError, proto,
        record::{Opening, ReadBatch, UnopenedRecord},
        s2s::Frame,
    },
};

/// What a read session delivers next.
pub enum Opened {
    /// Records in clear, or a heartbeat: no records, but the tail.
    Batch {
        /// The records, at most what the limits leave.
        batch: ReadBatch,
        /// Whether the upstream is about to go.
        reconnect_advised: bool,
        /// What the batch takes of the budget.
        charge: Option<Charge>,
    },
    /// The session failed; nothing follows.
    Terminal {
        /// HTTP status.
        status: u16,
        /// The error as JSON.
        body: String,
    },
}

/// Why there is nothing next.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A record did not open. The records before it were delivered.
    #[error(transparent)]
    Open(#[from] UnopenedRecord),
    /// The upstream's bytes do not decode.
    #[error("the upstream's batch does not decode: {0}")]
    Decode(#[from] DecodeError),
    /// The upstream went away.
    #[error("the upstream broke the read session off: {0}")]
    Broken(BoxError),
    /// A record's key cannot be had now, in the terms of whoever fetches keys.
    #[error("a key cannot be had: {0}")]
    NoKey(BoxError),
    /// There was no room for it in time.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
}

/// Reads batches from upstream, opens them, and stops where the client's limits end.
pub struct Reader {
    frames: Frames<ResponseBody>,
    keys: SessionKeys,
    limit: ReadLimit,
    meter: Meter,
    /// The batch at hand, and whether the upstream is about to go.
    opening: Option<(Opening, bool)>,
    /// What it takes of the budget.
    charge: Option<Charge>,
    over: bool,
}

impl Reader {
    /// Reads from a response's body with the stream's keys and meter, within this room.
    pub fn new(
        body: ResponseBody,
        keys: SessionKeys,
        limit: ReadLimit,
        meter: Meter,
        room: Room,
    ) -> Self {
        Self {
            frames: Frames::new(body, room),
            keys,
            limit,
            meter,
            opening: None,
            charge: None,
            over: false,
        }
    }

    /// What may still be delivered.
    pub fn limit(&self) -> ReadLimit {
        self.limit
    }

    /// Goes on with another body, which begins with the first record that was not delivered.
    pub fn restart(&mut self, body: ResponseBody) {
        self.frames.restart(body);
    }

    /// The next delivery; `None` at the clean end, be it the upstream's or that of the limits. Can be asked
    /// again when it was dropped before it was done.
    ///
    /// # Errors
    /// [`ReadError`]; nothing can be read after one.
    pub async fn next(&mut self) -> Result<Option<Opened>, ReadError> {
        loop {
            if self.over {
                return Ok(None);
            }
            if let Some((opening, _)) = &self.opening
                && let Err(error) = self.keys.prepare(opening).await
                && opening.is_without_key(self.keys.opener())
            {
                return Err(ReadError::NoKey(error));
            }
            if let Some(opened) = self.open()? {
                return Ok(Some(opened));
            }
            if self.opening.is_some() || self.over {
                continue;
            }
            let next = tokio::select! {
                biased;
                next = self.frames.next() => next,
                () = self.keys.rest() => continue,
            };
            match next {
                Ok(None) => return Ok(None),
                Ok(Some((
                    Frame::Message {
                        payload,
                        reconnect_advised,
                    },
                    charge,
                ))) => {
                    self.charge = charge;
                    let stored = proto::decode_stored_batch(payload)?;
                    self.opening = Some((stored.opening(), reconnect_advised));
                }
                Ok(Some((Frame::Terminal { status, body }, _))) => {
                    check_terminal(status)?;
                    self.over = true;
                    return Ok(Some(Opened::Terminal { status, body }));
                }
                Err(FrameError::Decode(error)) => return Err(error.into()),
                Err(FrameError::Broken(error)) => return Err(ReadError::Broken(error)),
                Err(FrameError::Slow) => return Err(ReadError::Broken(FrameError::Slow.into())),
                Err(FrameError::NoRoom(error)) => return Err(error.into()),
            }
        }
    }

    /// Opens the next piece of the batch at hand; `None` when there is none, or the limits leave nothing
    /// of it.
    fn open(&mut self) -> Result<Option<Opened>, UnopenedRecord> {
        let Some((opening, reconnect_advised)) = &mut self.opening else {
            return Ok(None);
        };
        let Some(mut batch) = self.meter.open(opening, self.keys.opener())? else {
            self.opening = None;
            return Ok(None);
        };
        // The advice goes with the last piece, and so does the charge. Before that it rests here, for as long
        // as the client takes with each piece.
        if let Some(charge) = &mut self.charge {
            charge.renew();
        }
        let charge = self.charge.take_if(|_| opening.is_over());
        let reconnect_advised = *reconnect_advised && opening.is_over();
        if batch.records.is_empty() {
            // A heartbeat. Without a tail it says nothing, and clients take it for a fault.
            return Ok(batch.tail.is_some().then_some(Opened::Batch {
                batch,
                reconnect_advised,
                charge,
            }));
        }
        let cut = self.limit.take(&mut batch);
        self.over = cut || self.limit.is_exhausted();
        Ok((!batch.records.is_empty()).then_some(Opened::Batch {
            batch,
            reconnect_advised,
            charge,
        }))
    }
}
