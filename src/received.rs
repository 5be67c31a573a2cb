//! HTTP bodies as they are received, from clients and from the upstream. They end cleanly only when they are whole.
//!
//! A body is whole when END_STREAM, the last chunk, or as many bytes as `content-length` announced have arrived.
//! hyper also reports an end after RST_STREAM(NO_ERROR) and after GOAWAY(NO_ERROR), because RFC 9113 section 8.1
//! uses the former for early answers, and at the end of a connection that delimits a body (RFC 9112 section 6.3).
//! These say nothing about completeness, so here they are errors.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::telemetry::with_causes;

/// One body that is being received.
#[derive(Debug)]
pub struct ReceivedBody {
    inner: Incoming,
    framing: Framing,
    /// END_STREAM was seen. What becomes of the connection after that does not matter.
    has_ended: bool,
}

/// The proof of completeness that a body can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// END_STREAM, or the announced length.
    Http2,
    /// The last chunk, or the announced length. hyper checks both.
    Http1,
    /// None: the body ends with its connection.
    UntilClose,
}

/// A body that broke off. It has no source: hyper would look for an HTTP/2 reset code there and pass it on to the
/// other peer, where the code means something else.
#[derive(Debug, thiserror::Error)]
pub enum BrokenBody {
    /// The peer reset it, or its connection is gone.
    #[error("{0}")]
    Lost(String),
    /// The peer broke the protocol: the same request may end so again.
    #[error("{0}")]
    Violation(String),
    /// The peer ended it before it was whole.
    #[error("the body was cut off: it ended without being complete")]
    CutOff,
}

impl BrokenBody {
    fn of(error: &hyper::Error) -> Self {
        match is_violation(error) {
            true => Self::Violation(with_causes(error)),
            false => Self::Lost(with_causes(error)),
        }
    }
}

/// Whether this side ended an HTTP/2 stream or connection because of what the peer sent.
pub fn is_violation(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error);
    let cause = cause.and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(h2::Error::is_library)
}

impl ReceivedBody {
    /// Wraps the body of a client's request. A request body never ends with its connection (RFC 9112 section 6.3).
    pub fn of_request(request: Request<Incoming>) -> Request<Self> {
        let framing = match request.version() >= Version::HTTP_2 {
            true => Framing::Http2,
            false => Framing::Http1,
        };
        request.map(|inner| Self::new(inner, framing))
    }

    /// Wraps the body of an answer.
    pub fn of_response(response: Response<Incoming>) -> Response<Self> {
        let framing = match response.version() {
            version if version >= Version::HTTP_2 => Framing::Http2,
            Version::HTTP_11 if announces_end(response.headers()) => Framing::Http1,
            _ if response.headers().contains_key(header::CONTENT_LENGTH) => Framing::Http1,
            _ => Framing::UntilClose,
        };
        response.map(|inner| Self::new(inner, framing))
    }

    fn new(inner: Incoming, framing: Framing) -> Self {
        Self {
            has_ended: inner.is_end_stream(),
            inner,
            framing,
        }
    }

    /// Whether all of it has arrived, given that hyper has no more.
    fn is_whole(&self) -> bool {
        self.has_ended
            || match self.framing {
                Framing::Http2 => self.inner.is_end_stream() || self.has_announced_length(),
                Framing::Http1 => true,
                Framing::UntilClose => self.inner.is_end_stream(),
            }
    }

    /// Whether as many bytes as `content-length` announced have been read.
    fn has_announced_length(&self) -> bool {
        self.inner.size_hint().exact() == Some(0)
    }
}

/// Whether the headers of an HTTP/1.1 answer announce where its body ends.
fn announces_end(headers: &HeaderMap) -> bool {
    let codings = headers
        .get_all(header::TRANSFER_ENCODING)
        .iter()
        .next_back();
    match codings {
        None => headers.contains_key(header::CONTENT_LENGTH),
        Some(codings) => codings.to_str().is_ok_and(|codings| {
            let last = codings.rsplit(',').next().unwrap_or_default();
            last.trim().eq_ignore_ascii_case("chunked")
        }),
    }
}

impl Body for ReceivedBody {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        Poll::Ready(match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.has_ended |= self.inner.is_end_stream();
                Some(Ok(frame))
            }
            // A reset after the last announced byte takes nothing away.
            Some(Err(_)) if self.has_ended || self.has_announced_length() => None,
            Some(Err(error)) => Some(Err(BrokenBody::of(&error))),
            None if self.is_whole() => None,
            None => Some(Err(BrokenBody::CutOff)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_chunked_and_content_length_announce_an_end() {
        for (name, value, announced) in [
            (header::CONTENT_LENGTH, "7", true),
            (header::TRANSFER_ENCODING, "chunked", true),
            (header::TRANSFER_ENCODING, "gzip, Chunked", true),
            (header::TRANSFER_ENCODING, "chunked, gzip", false),
            (header::TRANSFER_ENCODING, "gzip", false),
            (header::CONTENT_TYPE, "text/plain", false),
        ] {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            assert_eq!(announces_end(&headers), announced, "{value}");
        }
    }
}
