//! Whole request bodies, decompressed, of bounded size.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt as _;

use super::budget::{Charge, Cutoff, FREE_BYTES, NoRoom, Rest, Room};
use crate::{
    drain::Drain,
    received::{BrokenBody, ReceivedBody},
    wire::{
        compression::{DecompressError, RequestEncoding, UnsupportedEncoding},
        record::MAX_BODY_BYTES,
    },
};

/// Longest time for a whole body: 2 MiB at 35 KB/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Whoever sends less than this in the time that a client has to go on is ended when others wait for room:
/// the same 35 KB/s for ten seconds.
const GOES_ON_BYTES: usize = 350_000;

/// Longest time for the rest of a body that is not wanted any more: less than a stop leaves for last words.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no whole body.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Its encoding is neither gzip nor zstd: 415.
    #[error(transparent)]
    Encoding(#[from] UnsupportedEncoding),
    /// Too large, or not in its encoding. S2's wording.
    #[error("Failed to buffer the request body: {0}")]
    Body(#[from] DecompressError),
    /// It did not arrive in time.
    #[error("request body did not arrive in time")]
    Slow,
    /// The process stops.
    #[error("the proxy is stopping; try again")]
    Draining,
    /// There was no room for it in time.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The client went away.
    #[error("the client left before its request was complete")]
    Broken(#[from] BrokenBody),
}

/// Reads a request's body and decompresses it as its headers say, to at most 2 MiB. What it takes of the
/// budget it takes while it arrives, and gives it back with its last slice.
///
/// # Errors
/// [`CollectError`]; reading stops at the limit, and when `drain` is over.
pub async fn collect(
    headers: &HeaderMap,
    mut body: ReceivedBody,
    room: &Room,
    drain: &Drain,
) -> Result<Bytes, CollectError> {
    let collecting = tokio::time::timeout(BODY_TIMEOUT, collect_all(headers, &mut body, room));
    let collected = match drain.before_over(collecting).await {
        Some(collected) => collected.unwrap_or(Err(CollectError::Slow)),
        None => Err(CollectError::Draining),
    };
    if let Err(CollectError::NoRoom(_) | CollectError::Draining) = collected {
        tokio::spawn(discard(body));
    }
    collected
}

async fn collect_all(
    headers: &HeaderMap,
    body: &mut (impl Body<Data = Bytes, Error = BrokenBody> + Unpin),
    room: &Room,
) -> Result<Bytes, CollectError> {
    let encoding = RequestEncoding::from_headers(headers)?;
    let mut whole = BytesMut::new();
    let mut charged = Charged {
        room,
        held: None,
        cutoff: Cutoff::default(),
    };
    loop {
        let frame = tokio::select! {
            biased;
            () = charged.cutoff.cut() => return Err(CollectError::Slow),
            frame = body.frame() => frame,
        };
        let Some(frame) = frame else { break };
        if let Ok(data) = frame?.into_data() {
            let length = whole.len() + data.len();
            if length > MAX_BODY_BYTES {
                return Err(DecompressError::TooLarge.into());
            }
            charged.cover(length).await?;
            whole.extend_from_slice(&data);
        }
    }
    if encoding != RequestEncoding::Identity {
        charged.cover(MAX_BODY_BYTES).await?;
    }
    let whole = encoding.decompress(whole.freeze(), MAX_BODY_BYTES)?;
    Ok(match charged.held {
        Some(held) => held.charge.carried_by_work(whole),
        None => whole,
    })
}

/// What a body takes of the budget so far.
struct Charged<'a> {
    room: &'a Room,
    held: Option<Held>,
    /// Ends the body when it does not go on and others wait.
    cutoff: Cutoff,
}

struct Held {
    charge: Charge,
    /// The length that it covers.
    covered: usize,
    rest: Rest,
    /// The length when the client last went on.
    went_on: usize,
}

impl Charged<'_> {
    /// Grows it by no more than a quarter ahead: whoever only announces a large body gets no room for it.
    async fn cover(&mut self, length: usize) -> Result<(), NoRoom> {
        let covered = self.held.as_ref().map_or(FREE_BYTES, |held| held.covered);
        if length > covered {
            let wanted = length.max(covered + covered / 4).min(MAX_BODY_BYTES);
            match &mut self.held {
                Some(held) => {
                    let more = self.room.reserve(wanted - covered).await?;
                    held.charge.merge(more);
                    held.covered = wanted;
                }
                None => {
                    self.held = Some(Held {
                        charge: self.room.reserve(wanted).await?,
                        covered: wanted,
                        rest: self.room.rest(&self.cutoff),
                        went_on: length,
                    });
                }
            }
        }
        if let Some(held) = &mut self.held
            && length - held.went_on >= GOES_ON_BYTES
        {
            held.went_on = length;
            held.rest.renew();
        }
        Ok(())
    }
}

/// Reads the rest of a body for nothing: a client that speaks HTTP/1.1 may not look for an answer before
/// it has sent all, and loses it when the connection is closed under it.
async fn discard(mut body: ReceivedBody) {
    let mut left = MAX_BODY_BYTES;
    let discarding = async {
        while let Some(Ok(frame)) = body.frame().await {
            let read = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(read) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _late = tokio::time::timeout(DISCARD_TIMEOUT, discarding).await;
}

#[cfg(test)]
mod tests;
