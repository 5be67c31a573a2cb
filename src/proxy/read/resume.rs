//! Read sessions whose upstream connection is lost: they go on, on another connection, with the first record that was
//! not delivered.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Response, StatusCode, request};
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::{open_session, session_or_refusal};
use crate::{
    body::{Opened, ReadError, Reader},
    proxy::{
        Error,
        call::{Refusal, Stop},
        query::ReadQuery,
    },
    received::BrokenBody,
    registry::{Access, Lookup, Registry, SealedStream},
    upstream::{BoxError, ResponseBody, Upstream},
    wire::record::ReadBatch,
};

/// Waits before the attempts to open a lost session again. A session that loses its connection once more before it
/// delivers anything goes on with the next wait. S2's clients repeat with the same waits after that.
const WAITS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

/// Longest wait for the head of a session that is opened again.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// Life of a session after which its loss counts as the first.
const LASTS: Duration = Duration::from_secs(30);

/// The request of a read session.
pub(super) struct Resumption {
    pub(super) upstream: Upstream,
    pub(super) registry: Arc<Registry>,
    pub(super) stream: SealedStream,
    pub(super) head: request::Parts,
    pub(super) query: ReadQuery,
}

/// A reader that opens its session again when the upstream's connection is lost.
pub(super) struct ResumingReader {
    reader: Reader,
    request: Resumption,
    /// The first sequence number that was not delivered; `None` while it is unknown.
    next: Option<u64>,
    /// Attempts to open the session again since a record was delivered, or since one lasted.
    attempts: usize,
    opened: Instant,
    /// When a record was delivered last, or the session began.
    delivered: Instant,
    /// Why the session is lost, until it is open again.
    lost: Option<BoxError>,
}

/// The continuation of a session.
pub(super) enum Resumed {
    /// It goes on with this body.
    Body(ResponseBody),
    /// Everything up to the tail was delivered, and the session does not wait for more.
    AtTail,
    /// The upstream refuses: the session's last word.
    Refused(Opened),
}

impl ResumingReader {
    pub(super) fn new(reader: Reader, request: Resumption) -> Self {
        Self {
            reader,
            request,
            next: None,
            attempts: 0,
            opened: Instant::now(),
            delivered: Instant::now(),
            lost: None,
        }
    }

    /// The next delivery; `None` at the clean end. Can be asked again when it was dropped before it was done.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadError::Broken`] when the session cannot go on. Nothing can be read after one.
    pub(super) async fn next(&mut self) -> Result<Option<Opened>, ReadError> {
        loop {
            if self.lost.is_some() {
                match self.resume().await {
                    Some(Resumed::Body(body)) => {
                        self.opened = Instant::now();
                        self.reader.restart(body);
                    }
                    Some(Resumed::AtTail) => return Ok(None),
                    Some(Resumed::Refused(terminal)) => return Ok(Some(terminal)),
                    None => {
                        let lost = self.lost.take().unwrap_or_else(|| "lost".into());
                        return Err(ReadError::Broken(lost));
                    }
                }
                self.lost = None;
            }
            match self.reader.next().await {
                Err(ReadError::Broken(error)) if may_go_on(&*error) => self.lost = Some(error),
                Ok(Some(Opened::Batch { ref batch, .. })) if !self.deliver(batch) => {
                    return Err(ReadError::Broken("a record came again".into()));
                }
                read => return read,
            }
        }
    }

    /// Notes what is about to be delivered. Returns false when a session that was opened again begins before the
    /// first record that was not delivered.
    fn deliver(&mut self, batch: &ReadBatch) -> bool {
        let first = batch.records.first().map(|record| record.seq_num);
        if self.attempts > 0 && first < self.next && first.is_some() {
            return false;
        }
        match (batch.records.last(), batch.tail) {
            (Some(last), _) => {
                self.next = last.seq_num.checked_add(1);
                self.attempts = 0;
                self.delivered = Instant::now();
            }
            // A heartbeat: there is nothing between the last delivery and the tail.
            (None, Some(tail)) => {
                self.next.get_or_insert(tail.seq_num);
            }
            (None, None) => {}
        }
        true
    }

    /// Opens the session again, for what is left of its limits. `None` when it cannot go on.
    async fn resume(&mut self) -> Option<Resumed> {
        let request = &self.request;
        let query = match self.next {
            Some(next) => {
                let left = (self.reader.limit(), self.delivered.elapsed());
                request.query.continued(next, left)
            }
            // Nothing was delivered: the same start is the same session, unless it depends on the time.
            None if request.query.has_fixed_start() => request.query.clone(),
            None => return None,
        };
        if self.opened.elapsed() > LASTS {
            self.attempts = 0;
        }
        while let Some(wait) = WAITS.get(self.attempts) {
            sleep(*wait).await;
            if !request.is_same_stream().await {
                return None;
            }
            let opened = timeout(ATTEMPT_TIMEOUT, request.open(&query)).await;
            self.attempts += 1;
            match opened.unwrap_or_else(|_| Err(Error::Timeout.into())) {
                Ok(response) => return Some(Resumed::Body(response.into_body())),
                Err(Stop::Relay(refusal)) if !is_temporary(&refusal) => {
                    return Some(refused(&refusal, self.next));
                }
                Err(stop) => tracing::debug!(
                    stream = %request.stream.path, reason = stop.told(), "read session not resumed yet"
                ),
            }
        }
        None
    }
}

impl Resumption {
    async fn open(&self, query: &ReadQuery) -> Result<Response<ResponseBody>, Stop> {
        let response = open_session(&self.upstream, &self.stream.path, self.head.clone(), query);
        session_or_refusal(&self.upstream, response.await?).await
    }

    /// Whether rules and config store still say what they said when the session began.
    async fn is_same_stream(&self) -> bool {
        let lookup = self.registry.lookup(&self.stream.path).await;
        matches!(
            lookup,
            Ok(Lookup::Found(Access::Sealed(now)) | Lookup::FirstUse(now))
                if now.is_same_incarnation(&self.stream)
        )
    }
}

/// Whether another attempt may end otherwise: not after bytes that break the protocol.
fn may_go_on(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    !causes.any(|cause| matches!(cause.downcast_ref(), Some(BrokenBody::Violation(_))))
}

/// What a refusal means for a session that delivered everything before `next`.
fn refused(refusal: &Refusal, next: Option<u64>) -> Resumed {
    let (status, body) = refusal.parts();
    if status == StatusCode::RANGE_NOT_SATISFIABLE && next == tail_of(body) {
        return Resumed::AtTail;
    }
    let body = String::from_utf8_lossy(body).into_owned();
    let status = status.as_u16();
    Resumed::Refused(Opened::Terminal { status, body })
}

/// Whether the same request may be answered otherwise in a moment.
fn is_temporary(refusal: &Refusal) -> bool {
    let status = refusal.parts().0;
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// The sequence number of the tail in the body of a 416.
fn tail_of(body: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Unwritten {
        tail: Tail,
    }
    #[derive(Deserialize)]
    struct Tail {
        seq_num: u64,
    }
    let unwritten: Unwritten = serde_json::from_slice(body).ok()?;
    Some(unwritten.tail.seq_num)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream;

    #[test]
    fn session_goes_on_after_a_loss_and_not_after_a_violation() {
        let lost = |source: BrokenBody| -> BoxError {
            let source = source.into();
            let authority = "store".to_owned();
            upstream::Error::Lost { authority, source }.into()
        };
        assert!(may_go_on(&*lost(BrokenBody::CutOff)));
        assert!(may_go_on(&*lost(BrokenBody::Lost("reset".to_owned()))));
        let violation = BrokenBody::Violation("too many trailers".to_owned());
        assert!(!may_go_on(&*lost(violation)));
    }
}
