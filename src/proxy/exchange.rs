//! One request from its arrival to the last byte of its answer: who asked for what, and how it ended.

use std::{
    borrow::Cow,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;

use super::{
    Error, Peer,
    call::{Refusal, Stop},
    route::Route,
};
use crate::{
    crypto::KeyCheck,
    stream::{BasinName, StreamPath},
    telemetry::{
        label::{Encoding, Fault, Operation},
        metrics::Metrics,
        recent::{Failed, Recent},
    },
    upstream::{Body, BoxError},
    wire::media::Media,
};

/// One request. It ends when the last of those who hold it lets go: the handler, or the answer's body.
pub struct Exchange {
    metrics: Arc<Metrics>,
    recent: Arc<Recent>,
    peer: Peer,
    /// Method and path. Headers and query strings may hold secrets.
    what: String,
    began: Instant,
    routed: OnceLock<Routed>,
    key: OnceLock<KeyCheck>,
    answered: OnceLock<Answered>,
    failure: OnceLock<Failure>,
}

/// What a request is.
#[derive(Debug, Default, Clone)]
struct Routed {
    operation: Operation,
    encoding: Encoding,
    basin: Option<BasinName>,
    stream: Option<StreamPath>,
}

/// The head of the answer.
#[derive(Debug, Clone, Copy)]
struct Answered {
    status: StatusCode,
    after: Duration,
}

/// Why a request failed: the first reason counts.
#[derive(Debug, Clone)]
pub struct Failure {
    /// An error code of S2 that the proxy gave, or the status of an error that the upstream gave.
    pub code: Cow<'static, str>,
    /// Whose fault it is.
    pub fault: Fault,
    /// What went wrong, for operators. Nothing for what the upstream refuses: that is everyday business.
    message: Option<String>,
}

impl Exchange {
    /// A request that has just arrived.
    pub fn begin<B>(
        request: &Request<B>,
        peer: Peer,
        metrics: Arc<Metrics>,
        recent: Arc<Recent>,
    ) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            recent,
            peer,
            what: format!("{} {}", request.method(), request.uri().path()),
            began: Instant::now(),
            routed: OnceLock::new(),
            key: OnceLock::new(),
            answered: OnceLock::new(),
            failure: OnceLock::new(),
        })
    }

    /// It is known what it asks for.
    pub fn routed(&self, route: &Route, headers: &HeaderMap) {
        let routed = Routed::of(route, headers);
        let operation = routed.operation;
        if self.routed.set(routed).is_ok() {
            self.metrics.requests.began(operation);
        }
    }

    /// It carries or maps to the key with this commitment.
    pub fn keyed(&self, check: KeyCheck) {
        let _same = self.key.set(check);
    }

    /// It failed, be it in place of an answer or in the middle of one.
    pub fn failed(&self, error: &Error) {
        error.log(&self.what);
        let message = Some(error.text());
        self.fail(error.code().as_str().into(), error.fault(), message);
    }

    /// It was refused by the upstream.
    pub fn refused(&self, refusal: &Refusal) {
        self.fail_by(refusal.parts().0);
    }

    /// The upstream ended its session with an error of this status.
    pub fn refused_with(&self, status: u16) {
        if let Ok(status) = StatusCode::from_u16(status) {
            self.fail_by(status);
        }
    }

    /// It stopped before it had an answer of its own.
    pub fn stopped(&self, stop: &Stop) {
        match stop {
            Stop::Error(error) => self.failed(error),
            Stop::Relay(refusal) => self.refused(refusal),
        }
    }

    /// The answer as it goes to the client. It ends the request with its last byte.
    pub fn answer(self: &Arc<Self>, response: Response<Body>) -> Response<Body> {
        let status = response.status();
        let after = self.began.elapsed();
        let _first = self.answered.set(Answered { status, after });
        self.fail_by(status);
        response.map(|body| {
            let exchange = Arc::clone(self);
            AnswerBody { body, exchange }.boxed_unsync()
        })
    }

    fn fail_by(&self, status: StatusCode) {
        if status.is_server_error() {
            let message = Some(format!("the upstream answered {status}"));
            self.fail(status.as_u16().to_string().into(), Fault::Upstream, message);
        } else if status.is_client_error() {
            self.fail(status.as_u16().to_string().into(), Fault::Client, None);
        }
    }

    fn fail(&self, code: Cow<'static, str>, fault: Fault, message: Option<String>) {
        let _first = self.failure.set(Failure {
            code,
            fault,
            message,
        });
    }

    fn remember_failure(&mut self, routed: &Routed) {
        let failure = self.failure.take();
        if let Some(Failure {
            code,
            fault,
            message: Some(message),
        }) = failure
        {
            let stream = routed.stream.as_ref().map(ToString::to_string);
            let basin = || routed.basin.as_ref().map(ToString::to_string);
            self.recent.push(Failed {
                at: SystemTime::now(),
                code: code.into_owned(),
                fault,
                operation: routed.operation,
                request_id: None,
                stream: stream.or_else(basin),
                message,
            });
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let routed = self.routed.take().unwrap_or_else(|| {
            self.metrics.requests.began(Operation::Unrouted);
            Routed::default()
        });
        let code = match &self.failure.get() {
            Some(failure) => &*failure.code,
            // The client left before there was an answer.
            None if self.answered.get().is_none() => "client_left",
            None => "ok",
        };
        let fault = self.failure.get().map(|failure| failure.fault.as_str());
        let status = self.answered.get().map(|answered| answered.status.as_u16());
        let stream = routed.stream.as_ref().map(ToString::to_string);
        let basin = routed.basin.as_ref().map(BasinName::as_str);
        tracing::debug!(
            what = self.what, client = %self.peer.address, basin, stream, status, code, fault, "request"
        );
        let took = match self.answered.get() {
            Some(answered) if routed.operation.is_session() => answered.after,
            Some(_) | None => self.began.elapsed(),
        };
        let requests = &self.metrics.requests;
        requests.ended(routed.operation, routed.encoding, code, took);
        self.remember_failure(&routed);
    }
}

impl Routed {
    fn of(route: &Route, headers: &HeaderMap) -> Self {
        let content_type = Media::content_type(headers);
        let accept = Media::accept(headers);
        let (operation, encoding) = match route {
            Route::Append(_) => match content_type {
                Some(Media::S2s) => (Operation::AppendSession, Encoding::S2s),
                Some(Media::Proto) => (Operation::Append, Encoding::Proto),
                Some(Media::Json | Media::EventStream) | None => {
                    (Operation::Append, Encoding::Json)
                }
            },
            Route::Read(_) => match (content_type, accept) {
                (Some(Media::S2s), _) => (Operation::ReadSession, Encoding::S2s),
                (_, Some(Media::EventStream)) => (Operation::ReadSession, Encoding::Sse),
                (_, Some(Media::Proto)) => (Operation::Read, Encoding::Proto),
                (_, Some(Media::Json | Media::S2s) | None) => (Operation::Read, Encoding::Json),
            },
            Route::Tail(_) => (Operation::Tail, Encoding::Other),
            Route::Control(call) if call.is_about_streams() => (Operation::Stream, Encoding::Other),
            Route::Control(_) => (Operation::Basin, Encoding::Other),
            Route::Forward(..) => (Operation::Forward, Encoding::Other),
            Route::WrongMethod(_) | Route::NotFound => (Operation::Unrouted, Encoding::Other),
        };
        Self {
            operation,
            encoding,
            basin: route.basin_name().cloned(),
            stream: route.stream_path().cloned(),
        }
    }
}

/// An answer's body, and the request that ends with it.
struct AnswerBody {
    body: Body,
    exchange: Arc<Exchange>,
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Err(_))) = &polled {
            // What broke off was the upstream's answer; the proxy's own errors come before.
            let message = Some("the upstream's answer broke off".to_owned());
            self.exchange
                .fail("broken_off".into(), Fault::Upstream, message);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
