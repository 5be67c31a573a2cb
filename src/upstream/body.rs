//! The two bodies of one exchange, tied together: when the response is over, so is the request.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use crate::received::{BrokenBody, ReceivedBody};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::{
    sync::oneshot,
    time::{Sleep, sleep},
};

use super::{Body, BoxError, Error, endpoint::Destination, lease::Lease};
use crate::telemetry::{label::UpstreamFailure, metrics::Metrics};

/// Time between the end of a body that breaks off and the reset of its request, while the head of the answer is due:
/// servers end connections on which many requests are reset before they are accepted.
const RESET_DELAY: Duration = Duration::from_millis(250);

/// A request body on its way upstream.
///
/// It breaks off with an error when the exchange is over before it, which resets the HTTP/2 stream: a
/// client that leaves a long append leaves nothing behind upstream. Trailers are dropped: S2 has none.
pub(super) struct RequestBody {
    inner: Body,
    over: oneshot::Receiver<Infallible>,
    own_fault: OwnFault,
    is_answered: Arc<AtomicBool>,
    /// Why it broke off, and when that is passed on.
    broken: Option<(BoxError, Pin<Box<Sleep>>)>,
}

/// Whether an exchange broke off because its own request body did: no failure of the upstream's.
#[derive(Clone, Default)]
pub(super) struct OwnFault(Arc<AtomicBool>);

impl OwnFault {
    pub(super) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Ends the request body it was made with when it is dropped.
pub(super) struct Exchange {
    _over: oneshot::Sender<Infallible>,
    own_fault: OwnFault,
    is_answered: Arc<AtomicBool>,
}

/// The exchange was over before its request body.
#[derive(Debug, thiserror::Error)]
#[error("the exchange ended before the request body")]
struct ExchangeOver;

impl RequestBody {
    pub(super) fn new(inner: Body, own_fault: OwnFault) -> (Self, Exchange) {
        let (alive, over) = oneshot::channel();
        let is_answered = Arc::new(AtomicBool::new(false));
        let body = Self {
            inner,
            over,
            own_fault: own_fault.clone(),
            is_answered: Arc::clone(&is_answered),
            broken: None,
        };
        let exchange = Exchange {
            _over: alive,
            own_fault,
            is_answered,
        };
        (body, exchange)
    }

    /// The body that it was made of. Nothing of it was sent.
    pub(super) fn into_inner(self) -> Body {
        self.inner
    }

    /// Breaks off: at once when the head of the answer has arrived or when the proxy itself ends the body, for then
    /// nothing that is queued may go out. Else after [`RESET_DELAY`].
    fn poll_broken(
        &mut self,
        error: BoxError,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let is_left = error.is::<BrokenBody>() || error.is::<ExchangeOver>();
        if !is_left || self.is_answered.load(Ordering::Relaxed) {
            return Poll::Ready(Some(Err(error)));
        }
        let mut delay = Box::pin(sleep(RESET_DELAY));
        match delay.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(error))),
            Poll::Pending => {
                self.broken = Some((error, delay));
                Poll::Pending
            }
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some((_, delay)) = &mut self.broken {
            ready!(delay.as_mut().poll(cx));
            return Poll::Ready(self.broken.take().map(|(error, _)| Err(error)));
        }
        if Pin::new(&mut self.over).poll(cx).is_ready() {
            return self.poll_broken(ExchangeOver.into(), cx);
        }
        match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) if frame.is_trailers() => Poll::Ready(None),
            Some(Err(error)) => {
                self.own_fault.0.store(true, Ordering::Relaxed);
                self.poll_broken(error, cx)
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response body from upstream. It holds its place on the connection until it ends or is dropped;
/// dropping it early cancels the exchange upstream.
pub struct ResponseBody {
    inner: ReceivedBody,
    from: Destination,
    metrics: Arc<Metrics>,
    held: Option<(Lease, Exchange)>,
}

impl ResponseBody {
    pub(super) fn new(
        inner: ReceivedBody,
        from: Destination,
        lease: Lease,
        exchange: Exchange,
        metrics: Arc<Metrics>,
    ) -> Self {
        exchange.is_answered.store(true, Ordering::Relaxed);
        let mut body = Self {
            inner,
            from,
            metrics,
            held: Some((lease, exchange)),
        };
        if body.inner.is_end_stream() {
            body.finish();
        }
        body
    }

    /// The body was received whole: its connection may serve the next request.
    fn finish(&mut self) {
        if let Some((lease, exchange)) = self.held.take() {
            drop(exchange);
            lease.give_back();
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if self.inner.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                let held = self.held.take();
                if !held.is_some_and(|(_, exchange)| exchange.own_fault.is_so()) {
                    let lost = self.metrics.upstream.errors.of(UpstreamFailure::Lost);
                    lost.inc();
                }
                Poll::Ready(Some(Err(Error::lost(&self.from, error))))
            }
            None => {
                self.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseBody")
            .field("from", &self.from.authority)
            .finish_non_exhaustive()
    }
}
