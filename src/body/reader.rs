//! A read session of a sealed stream: frames from upstream, opened and cut to the client's limits.

use super::{
    ReadLimit,
    frames::{FrameError, Frames, check_terminal},
};
use crate::{
    crypto::{OpenError, StreamCipher},
    upstream::{BoxError, ResponseBody},
    wire::{
        DecodeError, proto,
        record::{ReadBatch, StoredBatch},
        s2s::Frame,
    },
};

/// What a read session delivers next.
#[derive(Debug)]
pub enum Opened {
    /// Records in clear, or a heartbeat: no records, but the tail.
    Batch {
        /// The records, at most what the limits leave.
        batch: ReadBatch,
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

/// Why there is nothing next.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A record did not open. Nothing of its batch is delivered.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The upstream's bytes do not decode.
    #[error("the upstream's batch does not decode: {0}")]
    Decode(#[from] DecodeError),
    /// The upstream went away.
    #[error("the upstream broke the read session off: {0}")]
    Broken(BoxError),
}

/// Reads batches from upstream, opens them, and stops where the client's limits end.
pub struct Reader {
    frames: Frames<ResponseBody>,
    cipher: StreamCipher,
    limit: ReadLimit,
    over: bool,
}

impl Reader {
    /// Reads from a response's body with the stream's cipher.
    pub fn new(body: ResponseBody, cipher: StreamCipher, limit: ReadLimit) -> Self {
        Self {
            frames: Frames::new(body),
            cipher,
            limit,
            over: false,
        }
    }

    /// The next delivery; `None` at the clean end, be it the upstream's or that of the limits.
    ///
    /// # Errors
    /// [`ReadError`]; nothing can be read after one.
    pub async fn next(&mut self) -> Result<Option<Opened>, ReadError> {
        loop {
            if self.over {
                return Ok(None);
            }
            let stored = match self.frames.next().await {
                Ok(None) => return Ok(None),
                Ok(Some(Frame::Message {
                    payload,
                    reconnect_advised,
                })) => (proto::decode_stored_batch(payload)?, reconnect_advised),
                Ok(Some(Frame::Terminal { status, body })) => {
                    check_terminal(status)?;
                    self.over = true;
                    return Ok(Some(Opened::Terminal { status, body }));
                }
                Err(FrameError::Decode(error)) => return Err(error.into()),
                Err(FrameError::Broken(error)) => return Err(ReadError::Broken(error)),
            };
            if let Some(opened) = self.open(stored)? {
                return Ok(Some(opened));
            }
        }
    }

    /// Opens one batch; `None` when the limits leave nothing of it.
    fn open(
        &mut self,
        (stored, reconnect_advised): (StoredBatch, bool),
    ) -> Result<Option<Opened>, OpenError> {
        let mut batch = stored.open(&self.cipher)?;
        if batch.records.is_empty() {
            // A heartbeat. Without a tail it says nothing, and clients take it for a fault.
            return Ok(batch.tail.is_some().then_some(Opened::Batch {
                batch,
                reconnect_advised,
            }));
        }
        let cut = self.limit.take(&mut batch);
        self.over = cut || self.limit.is_exhausted();
        Ok((!batch.records.is_empty()).then_some(Opened::Batch {
            batch,
            reconnect_advised,
        }))
    }
}
