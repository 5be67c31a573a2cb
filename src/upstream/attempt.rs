//! One attempt to send a request, and what a failed attempt proves.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, Version, header, uri::PathAndQuery};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use tokio::time::timeout;

use super::{
    Body, BoxError, Error,
    body::{Exchange, OwnFault, RequestBody},
    endpoint::Destination,
    lease::{Lease, Lent},
};
use crate::received::ReceivedBody;

/// Longest time that a request whose caller is gone waits for the head of its answer before it is reset. Servers
/// count resets of requests that they have not accepted yet, and end the connection of all others at about 20 (h2:
/// `max_pending_accept_reset_streams`).
const RESET_DELAY: Duration = Duration::from_secs(1);

/// Says that a request's body is in memory, so that the request can be sent again when the upstream certainly did not
/// process it. An extension of the request.
#[derive(Debug, Clone, Copy)]
pub struct InMemory;

/// A request, for one or several attempts.
pub(super) enum Payload {
    /// It can be sent any number of times.
    Whole(Request<Bytes>),
    /// It can be sent once. `None` after that.
    Stream(Option<Request<Body>>),
}

impl Payload {
    /// # Errors
    /// The body broke off.
    pub(super) async fn of(request: Request<Body>, is_in_memory: bool) -> Result<Self, BoxError> {
        if !is_in_memory && !request.body().is_end_stream() {
            return Ok(Self::Stream(Some(request)));
        }
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Self::Whole(Request::from_parts(parts, body)))
    }

    /// The request for the next attempt; `None` when it can be sent no more.
    pub(super) fn next(&mut self) -> Option<Request<Body>> {
        match self {
            Self::Stream(request) => request.take(),
            Self::Whole(request) => Some(request.clone().map(|bytes| {
                let body = Full::new(bytes);
                body.map_err(|never| match never {}).boxed_unsync()
            })),
        }
    }

    /// Takes a request back that was not sent.
    pub(super) fn put_back(&mut self, unsent: Request<Body>) {
        if let Self::Stream(request) = self {
            *request = Some(unsent);
        }
    }

    pub(super) fn can_repeat(&self) -> bool {
        matches!(self, Self::Whole(_))
    }

    /// Whether the request may be processed twice: it only reads. A read that waits at the tail is not sent twice
    /// at the same time, see `may_wait`.
    pub(super) fn is_safe(&self) -> bool {
        matches!(self, Self::Whole(request) if request.method().is_safe())
    }

    /// Whether a refusal of the connection proves that the request was not processed. A graceful GOAWAY may reach
    /// hyper just after a request without a body was queued: it may still go out.
    pub(super) fn is_unprocessed_by(&self, error: &hyper::Error) -> bool {
        let may_be_out = match self {
            Self::Whole(request) => request.body().is_empty() && !request.method().is_safe(),
            Self::Stream(_) => false,
        };
        !may_be_out || !is_refused_by_goaway(error)
    }

    /// Whether the upstream may wait with its answer because the request asks for that.
    pub(super) fn may_wait(&self) -> bool {
        match self {
            Self::Whole(request) => {
                let query = request.uri().query().unwrap_or_default();
                query.contains("wait=")
            }
            Self::Stream(_) => true,
        }
    }
}

/// The outcome of one attempt.
pub(super) enum Outcome {
    Answered(Response<ReceivedBody>, Lease, Exchange),
    /// The connection closed before it took the request.
    Unsent(Request<Body>, hyper::Error),
    /// The upstream certainly did nothing.
    Unprocessed(hyper::Error),
    /// The upstream may have done what was asked.
    Doubtful(hyper::Error),
}

impl Outcome {
    /// Sorts a failure of a request that was handed to its connection.
    fn of_failure(error: hyper::Error) -> Self {
        match is_unprocessed(&error) {
            true => Self::Unprocessed(error),
            false => Self::Doubtful(error),
        }
    }
}

/// Whether the peer promises that it did not process the request: RST_STREAM(REFUSED_STREAM) (RFC 9113 section 8.7),
/// or a GOAWAY whose last stream is before it (section 6.8; h2 fails no other streams with it).
fn is_unprocessed(error: &hyper::Error) -> bool {
    is_refused_by_goaway(error)
        || http2_cause(error).is_some_and(|cause| {
            let is_refused = cause.reason() == Some(h2::Reason::REFUSED_STREAM);
            cause.is_reset() && cause.is_remote() && is_refused
        })
}

fn is_refused_by_goaway(error: &hyper::Error) -> bool {
    http2_cause(error).is_some_and(|cause| cause.is_go_away() && cause.is_remote())
}

fn http2_cause(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

/// An attempt that is under way. When it is dropped before the head of its answer, a task waits for the head for at
/// most [`RESET_DELAY`], and resets the request then.
pub(super) struct Attempt(Option<BoxFuture<'static, Result<Outcome, Error>>>);

impl Attempt {
    pub(super) fn start(
        lent: Lent,
        (to, path): (Destination, PathAndQuery),
        request: Request<Body>,
        own_fault: OwnFault,
    ) -> Self {
        Self(Some(Box::pin(send_on(lent, to, path, request, own_fault))))
    }
}

impl Future for Attempt {
    type Output = Result<Outcome, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(sending) = &mut self.0 else {
            return Poll::Pending;
        };
        let outcome = ready!(sending.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(outcome)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // Without a runtime the process is going down, and its connections with it.
        if let Some(sending) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(timeout(RESET_DELAY, sending));
        }
    }
}

async fn send_on(
    lent: Lent,
    to: Destination,
    path: PathAndQuery,
    request: Request<Body>,
    own_fault: OwnFault,
) -> Result<Outcome, Error> {
    let (parts, body) = request.into_parts();
    let (body, exchange) = RequestBody::new(body, own_fault);
    let mut request = Request::from_parts(parts, body);
    let (answer, lease) = match lent {
        Lent::Http2(mut sender, slot) => {
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = to.uri(path)?;
            let answer = sender.try_send_request(request).await;
            if answer.as_ref().is_err_and(|failure| {
                failure.message().is_some() || is_refused_by_goaway(failure.error())
            }) {
                slot.load().retire();
            }
            (answer, Lease::Http2(slot))
        }
        Lent::Http1(mut sender, mut lease) => {
            *request.version_mut() = Version::HTTP_11;
            *request.uri_mut() = path.into();
            let host = HeaderValue::from_str(to.authority.as_str())
                .map_err(|_| Error::Request("its host is not a header value"))?;
            request.headers_mut().insert(header::HOST, host);
            let answer = sender.try_send_request(request).await;
            if let Some(limit) = answer.as_ref().ok().and_then(|a| idle_limit(a.headers())) {
                lease.idle_limit = limit;
            }
            (answer, Lease::Http1(sender, lease))
        }
    };
    Ok(match answer {
        Ok(response) => Outcome::Answered(ReceivedBody::of_response(response), lease, exchange),
        Err(mut failure) => match failure.take_message() {
            Some(mut unsent) => {
                unsent.headers_mut().remove(header::HOST);
                let unsent = unsent.map(RequestBody::into_inner);
                Outcome::Unsent(unsent, failure.into_error())
            }
            None => Outcome::of_failure(failure.into_error()),
        },
    })
}

/// The time for which the server of an HTTP/1.1 answer keeps its connection, less a second for the way there.
fn idle_limit(headers: &HeaderMap) -> Option<Duration> {
    let stated = headers.get("keep-alive")?.to_str().ok()?;
    let mut parameters = stated.split(',').map(str::trim);
    let seconds = parameters.find_map(|parameter| parameter.strip_prefix("timeout="))?;
    let seconds: u64 = seconds.parse().ok()?;
    Some(Duration::from_secs(seconds.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connections_end_a_second_before_the_server_closes() {
        for (value, limit) in [
            ("timeout=5", Some(4)),
            ("max=7, timeout=60", Some(59)),
            ("timeout=0", Some(0)),
            ("timeout=-1", None),
            ("max=7", None),
        ] {
            let value = HeaderValue::from_static(value);
            let headers =
                HeaderMap::from_iter([(header::HeaderName::from_static("keep-alive"), value)]);
            assert_eq!(idle_limit(&headers), limit.map(Duration::from_secs));
        }
    }
}
