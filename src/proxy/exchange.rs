//! One request from its arrival to the last byte of its answer: who asked for what, and how it ended.

mod routed;

use std::{
    borrow::Cow,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::watch;

use self::routed::{Made, Routed};
use super::{
    Error, Peer,
    call::{Refusal, Stop},
    error::told,
    gate,
    route::Route,
};
use crate::{
    crypto::{Cipher, StreamCipher, TokenFingerprint, holds_api_key},
    project::ProjectName,
    stream::BasinName,
    telemetry::{
        bounded,
        label::{Fault, Operation},
        metrics::Metrics,
        printable,
        report::{Client, Key, Report},
        request_id::{self, RequestId},
        sinks::Sinks,
        traces::{Span, TRACESTATE, Traces},
    },
    upstream::{Body, BoxError},
};

/// Longest method that is told, in bytes: the longest there is (RFC 4918, RFC 3253) and some.
const MAX_METHOD: usize = 32;
/// Longest path that is told, in bytes: the longest stream name (512 bytes) with each byte encoded, and what is around
/// it. Whatever is longer is no path of S2's, and thousands of them may wait for a slow disk.
const MAX_PATH: usize = 2048;

/// What stands for the key where each record names its own.
const MANAGED: &str = "managed";

/// The code of a request that the client did not wait for.
const CLIENT_LEFT: &str = "client_left";

/// One request. It ends when the last of those who hold it lets go: the handler, or the answer's body.
pub struct Exchange {
    metrics: Arc<Metrics>,
    sinks: Arc<Sinks>,
    _open: watch::Receiver<()>,
    id: RequestId,
    peer: Peer,
    token: Option<String>,
    /// Method and path. Headers and query strings may hold secrets.
    what: String,
    began: Instant,
    span: Option<Span>,
    /// Project and name of the API key.
    api_key: OnceLock<(ProjectName, String)>,
    routed: OnceLock<Routed>,
    made: OnceLock<Made>,
    key: OnceLock<Key>,
    records: AtomicU64,
    answered: OnceLock<Answered>,
    failure: OnceLock<Failure>,
}

/// The head of the answer.
#[derive(Debug, Clone)]
struct Answered {
    status: StatusCode,
    after: Duration,
    /// The upstream's own id for the request.
    upstream_id: Option<RequestId>,
}

/// Why a request failed: the first reason counts.
#[derive(Debug, Clone)]
pub struct Failure {
    /// An error code of S2 that the proxy gave, or the status of an error that the upstream gave.
    pub code: Cow<'static, str>,
    /// Whose fault it is.
    pub fault: Fault,
    /// What happened, for the log.
    pub cause: String,
}

impl Exchange {
    /// A request that has just arrived. From now on its headers carry its id and its span, for the upstream
    /// to go on with.
    pub fn begin<B>(
        request: &mut Request<B>,
        peer: Peer,
        metrics: Arc<Metrics>,
        sinks: Arc<Sinks>,
    ) -> Arc<Self> {
        let method = bounded(request.method().as_str(), MAX_METHOD);
        let what = format!("{method} {}", path_to_tell(request.uri()));
        let headers = request.headers_mut();
        let id = RequestId::find(headers).filter(|id| !holds_api_key(id.as_str().as_bytes()));
        let id = id.unwrap_or_else(RequestId::fresh);
        if let Ok(value) = HeaderValue::from_str(id.as_str()) {
            headers.insert(request_id::HEADER, value);
        }
        let token = headers.get(header::AUTHORIZATION);
        let token = token.filter(|_| sinks.audit.is_some());
        let token = token.map(|token| TokenFingerprint::of(token.as_bytes()).to_string());
        let begin = |traces: &Traces| without_stray_state(headers, |headers| traces.begin(headers));
        let span = sinks.traces.as_ref().map(begin);
        Arc::new(Self {
            metrics,
            _open: sinks.open(),
            sinks,
            id,
            peer,
            token,
            what: printable(&what),
            began: Instant::now(),
            span,
            api_key: OnceLock::new(),
            routed: OnceLock::new(),
            made: OnceLock::new(),
            key: OnceLock::new(),
            records: AtomicU64::new(0),
            answered: OnceLock::new(),
            failure: OnceLock::new(),
        })
    }

    /// It came with an API key of this project and name, good or not any more.
    pub fn came_with(&self, project: &ProjectName, id: &str) {
        let _same = self.api_key.set((project.clone(), id.to_owned()));
    }

    /// It is known what it asks for.
    pub fn routed(&self, route: &Route, headers: &HeaderMap) {
        let routed = Routed::of(route, headers);
        let operation = routed.operation;
        if self.routed.set(routed).is_ok() {
            self.metrics.requests.began(operation);
        }
    }

    /// What it asks for, as far as that is known.
    pub fn operation(&self) -> Operation {
        let routed = self.routed.get();
        routed.map_or(Operation::Unrouted, |routed| routed.operation)
    }

    /// It asks for something to be made, with this body.
    pub fn makes(&self, body: &[u8]) {
        let _once = self.made.set(Made::of(body));
    }

    /// It carries or maps to this cipher's key.
    pub fn keyed(&self, cipher: &StreamCipher) {
        let _same = self.key.set(Key {
            cipher: cipher.cipher().as_str(),
            check: cipher.key_check().to_string(),
        });
    }

    /// Its records name their keys, which the proxy made.
    pub fn managed(&self, cipher: Cipher) {
        let _same = self.key.set(Key {
            cipher: cipher.as_str(),
            check: MANAGED.to_owned(),
        });
    }

    /// So many more records were sealed and acked, or opened and handed over.
    pub fn moved(&self, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    /// It failed, be it in place of an answer or in the middle of one.
    pub fn failed(&self, error: &Error) {
        let code = error.code().as_str();
        if self.failure.get().is_none() {
            error.count(&self.metrics.records);
        }
        self.fail(code.into(), error.fault(), || error.told());
    }

    /// The client left before the request, or its answer, was complete.
    pub fn left(&self) {
        self.fail(CLIENT_LEFT.into(), Fault::Client, || {
            "the client left before its answer was complete".to_owned()
        });
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

    /// The answer as it goes to the client, with the request's id unless the upstream gave one. It ends the
    /// request with its last byte.
    pub fn answer(self: &Arc<Self>, mut response: Response<Body>) -> Response<Body> {
        let status = response.status();
        let after = self.began.elapsed();
        let headers = response.headers_mut();
        let upstream_id = RequestId::parse(headers, &request_id::HEADER);
        if !headers.contains_key(request_id::HEADER)
            && let Ok(value) = HeaderValue::from_str(self.id.as_str())
        {
            headers.insert(request_id::HEADER, value);
        }
        let _first = self.answered.set(Answered {
            status,
            after,
            upstream_id: upstream_id.filter(|id| *id != self.id),
        });
        self.fail_by(status);
        let report = self.report();
        if report.fault.is_none() && report.operation.is_session() {
            let code = "begun";
            self.sinks.begun(&Report { code, ..report });
        }
        response.map(|body| {
            let exchange = Arc::clone(self);
            let is_over = false;
            AnswerBody {
                body,
                exchange,
                is_over,
            }
            .boxed_unsync()
        })
    }

    /// What the upstream says of it is not told: it may repeat what it was sent, tokens included.
    fn fail_by(&self, status: StatusCode) {
        let fault = match status {
            _ if status.is_server_error() => Fault::Upstream,
            _ if status.is_client_error() => Fault::Client,
            _ => return,
        };
        let cause = || format!("answered with {status}");
        self.fail(status.as_u16().to_string().into(), fault, cause);
    }

    fn fail(&self, code: Cow<'static, str>, fault: Fault, cause: impl FnOnce() -> String) {
        let failure = || Failure {
            code,
            fault,
            cause: cause(),
        };
        let _first = self.failure.get_or_init(failure);
    }

    /// What is known of it now.
    fn report(&self) -> Report<'_> {
        let routed = self.routed.get().unwrap_or(&Routed::UNKNOWN);
        let basin = routed.basin.as_ref().map(BasinName::as_str);
        let stream = routed.stream.as_ref().map(|path| path.stream.as_str());
        let made = self.made.get();
        let answered = self.answered.get();
        let failure = self.failure.get();
        let key = self.key.get();
        let api_key = self.api_key.get();
        Report {
            id: &self.id,
            upstream_id: answered.and_then(|answered| answered.upstream_id.as_ref()),
            what: &self.what,
            client: Client {
                address: self.peer.address,
                certificate: self.peer.subject(),
                token: self.token.as_deref(),
                project: api_key.map(|(project, _)| project.as_str()),
                api_key: api_key.map(|(_, id)| id.as_str()),
            },
            operation: routed.operation,
            encoding: routed.encoding,
            basin: basin.or_else(|| made?.basin.as_deref()),
            stream: stream.or_else(|| made?.stream.as_deref()),
            status: answered.map(|answered| answered.status.as_u16()),
            code: failure.map_or("ok", |failure| &*failure.code),
            fault: failure.map(|failure| failure.fault),
            cause: failure.map(|failure| &*failure.cause),
            records: key.map(|_| self.records.load(Ordering::Relaxed)),
            key,
            answered_after: answered.map(|answered| answered.after),
            took: self.began.elapsed(),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.routed.get().is_none() {
            self.metrics.requests.began(Operation::Unrouted);
        }
        if self.answered.get().is_none() {
            self.left();
        }
        let report = self.report();
        let took = match report.answered_after {
            Some(after) if report.operation.is_session() => after,
            Some(_) | None => report.took,
        };
        let requests = &self.metrics.requests;
        requests.ended(report.operation, report.encoding, report.code, took);
        self.sinks.over(&report);
        if let Some(span) = &self.span {
            span.end(&report);
        }
    }
}

/// Begins a span on headers without the state of other tracing systems, if there is an API key in it: it would
/// go to the collector with the span. It is put back, for the request to be refused for it.
fn without_stray_state(
    headers: &mut HeaderMap,
    begin: impl FnOnce(&mut HeaderMap) -> Span,
) -> Span {
    let state: Vec<HeaderValue> = headers.get_all(TRACESTATE).iter().cloned().collect();
    if !state.iter().any(|state| holds_api_key(state.as_bytes())) {
        return begin(headers);
    }
    headers.remove(TRACESTATE);
    let span = begin(headers);
    for state in state {
        headers.append(TRACESTATE, state);
    }
    span
}

/// A path as it may be told: without an API key that does not belong there.
fn path_to_tell(uri: &Uri) -> &str {
    match gate::holds_encoded(uri.path()) {
        true => "(an API key)",
        false => bounded(uri.path(), MAX_PATH),
    }
}

/// An answer's body, and the request that ends with it.
struct AnswerBody {
    body: Body,
    exchange: Arc<Exchange>,
    /// Its end was seen, be it a good one or not.
    is_over: bool,
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // Whoever knows the length does not ask for the end.
        let is_over =
            self.is_over || self.body.is_end_stream() || self.body.size_hint().exact() == Some(0);
        // To leave is how a client ends a read session.
        if !is_over && self.exchange.operation() != Operation::ReadSession {
            self.exchange.left();
        }
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Err(error))) = &polled {
            // What broke off was the upstream's answer; the proxy's own errors come before.
            let cause = || told(&**error);
            self.exchange
                .fail("broken_off".into(), Fault::Upstream, cause);
        }
        self.is_over |= matches!(&polled, Poll::Ready(None | Some(Err(_))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
