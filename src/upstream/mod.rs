//! Requests to the upstream store: connection pool, TLS, and what may and may not leave the process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{
    HeaderValue, Request, Response, StatusCode, Version, header,
    uri::{PathAndQuery, Uri},
};
use http_body_util::combinators::UnsyncBoxBody;
use crate::received::ReceivedBody;
use tokio::time::error::Elapsed;

pub use self::{
    body::ResponseBody,
    config::{Config, ConfigError, TlsConfig},
    headers::Credential,
    live::{Renewed, problems},
    probe::{Probed, Reach},
};
use self::{
    body::{OwnFault, RequestBody},
    endpoint::Destination,
    lease::{Lease, Lent},
    live::Inner,
};
use crate::{
    stream::BasinName,
    telemetry::{
        label::{Operation, UpstreamFailure},
        metrics::Metrics,
    },
};

mod answer;
mod body;
mod config;
mod connection;
mod endpoint;
mod headers;
mod lease;
mod live;
mod pool;
mod probe;
#[cfg(test)]
mod tests;
mod tls;

/// Why a body could not be produced.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Any HTTP body. An error while it is read breaks the message off, it never ends it cleanly.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Which of the store's two endpoints a request is for.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// Calls about the account: basins, access tokens.
    Account,
    /// Calls inside one basin.
    Basin(&'a BasinName),
}

/// Why there is no response from upstream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is certain that the request had no effect: no connection, or it never left this process.
    #[error("nothing was sent to upstream {authority}: {reason}")]
    Connect {
        /// The upstream's host and port.
        authority: String,
        /// What the system, TLS or the peer said.
        reason: String,
    },
    /// The request was sent, wholly or in part, then the exchange broke off. It may have taken effect.
    #[error("lost the exchange with upstream {authority}")]
    Lost {
        /// The upstream's host and port.
        authority: String,
        /// What broke.
        source: BoxError,
    },
    /// The upstream wants the client to go elsewhere, which would take keys and plaintext along. S2
    /// does not redirect.
    #[error("upstream {authority} answered with a redirect")]
    Redirect {
        /// The upstream's host and port.
        authority: String,
    },
    /// The answer is of a type that S2 does not have: a page, a script, or it does not say.
    #[error("upstream {authority} answered with a content type that S2 does not have")]
    ContentType {
        /// The upstream's host and port.
        authority: String,
    },
    /// The configured endpoint and the basin do not make a host name. Nothing was sent.
    #[error("{authority:?} is not an upstream host")]
    Target {
        /// What they make.
        authority: String,
    },
    /// The request has no form that can be sent. Nothing was sent.
    #[error("the request cannot be sent upstream: {0}")]
    Request(&'static str),
}

/// The upstream store. Clones share its connections.
#[derive(Clone)]
pub struct Upstream {
    live: Arc<ArcSwap<Inner>>,
    metrics: Arc<Metrics>,
}

impl Upstream {
    /// Reads the files that the configuration names. No connection is opened yet. What comes of requests
    /// is counted in `metrics`.
    ///
    /// # Errors
    ///
    /// Every mistake in the section and every file that cannot be used.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Result<Self, ConfigError> {
        let inner = Inner::load(config, &metrics)?;
        Ok(Self {
            live: Arc::new(ArcSwap::from_pointee(inner)),
            metrics,
        })
    }

    /// Sends `request` and returns the response's head as soon as it is there.
    ///
    /// Path and query go out byte for byte; scheme, host and version of the request are ignored. Header
    /// hygiene is done here, in both directions. A request that the connection gives back unsent is sent
    /// once more on a new connection, and in no other case. There is no timeout but the one on connecting.
    /// Dropping the future or the response body cancels the exchange upstream.
    ///
    /// An [`Operation`] among the request's extensions says what its time is counted as, and a
    /// [`Credential`] which token it goes with in place of the configured one.
    ///
    /// # Errors
    ///
    /// See [`Error`]: all but [`Error::Lost`], [`Error::Redirect`] and [`Error::ContentType`] mean that nothing
    /// was sent, or that the peer promised to have done nothing.
    pub async fn send(
        &self,
        target: Target<'_>,
        request: Request<Body>,
    ) -> Result<Response<ResponseBody>, Error> {
        let metrics = &self.metrics.upstream;
        let operation = request.extensions().get::<Operation>().copied();
        let began = Instant::now();
        let own_fault = OwnFault::default();
        let answer = self.exchange(target, request, &own_fault).await;
        match &answer {
            Ok(_) => {
                let duration = metrics.duration.of(operation.unwrap_or_default());
                duration.observe(began.elapsed().as_secs_f64());
            }
            Err(error) => {
                if !own_fault.is_so() {
                    metrics.errors.of(error.failure()).inc();
                }
            }
        }
        answer
    }

    /// Gives `exchange`, which is with this upstream, up after `limit`: [`Elapsed`].
    // Not an `async fn`: that would hold `exchange` twice, and whoever waits for it as well.
    pub fn within<'a, F: Future + 'a>(
        &'a self,
        limit: Duration,
        exchange: F,
    ) -> impl Future<Output = Result<F::Output, Elapsed>> + use<'a, F> {
        tokio::time::timeout(limit, exchange).map(|done| {
            if done.is_err() {
                let errors = &self.metrics.upstream.errors;
                errors.of(UpstreamFailure::Timeout).inc();
            }
            done
        })
    }

    async fn exchange(
        &self,
        target: Target<'_>,
        mut request: Request<Body>,
        own_fault: &OwnFault,
    ) -> Result<Response<ResponseBody>, Error> {
        // The whole request goes by one configuration; the next may go by another.
        let inner = self.live.load_full();
        headers::refuse_api_keys(request.uri(), request.headers())?;
        let credential = request.extensions_mut().remove::<Credential>();
        let to = inner.prepare(target, request.headers_mut(), credential.as_ref())?;
        self.send_to(inner, to, request, own_fault).await
    }

    /// The same, for a request whose headers are as they are to be sent.
    async fn send_to(
        &self,
        inner: Arc<Inner>,
        to: Destination,
        mut request: Request<Body>,
        own_fault: &OwnFault,
    ) -> Result<Response<ResponseBody>, Error> {
        let path = request
            .uri()
            .path_and_query()
            .cloned()
            .ok_or(Error::Request("it has no path"))?;
        request.extensions_mut().clear();
        let host = inner.pool.host(&to)?;
        drop(inner);
        let (parts, body) = request.into_parts();
        let (body, exchange) = RequestBody::new(body, own_fault.clone());
        let mut request = Request::from_parts(parts, body);
        let mut retry_from = None;
        loop {
            let lent = host.lend(retry_from).await?;
            match send_on(lent, &to, &path, request).await? {
                Outcome::Answered(response, lease) => {
                    let (mut parts, body) = response.into_parts();
                    if parts.status.is_redirection() && parts.status != StatusCode::NOT_MODIFIED {
                        let authority = to.to_string();
                        return Err(Error::Redirect { authority });
                    }
                    headers::clean_response(&mut parts.headers);
                    let authority = to.to_string();
                    let metrics = Arc::clone(&self.metrics);
                    let mut body = ResponseBody::new(body, to, lease, exchange, metrics);
                    if !answer::is_passive(&parts.headers, &mut body).await? {
                        return Err(Error::ContentType { authority });
                    }
                    return Ok(Response::from_parts(parts, body));
                }
                Outcome::Unsent(back, _) if retry_from.is_none() => {
                    request = back;
                    retry_from = Some(Instant::now());
                }
                Outcome::Unsent(_, error) => return Err(Error::connect(&to, error.to_string())),
                Outcome::Failed(error) => return Err(Error::after_send(&to, error)),
            }
        }
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}

impl Error {
    fn connect(to: &Destination, reason: impl Into<String>) -> Self {
        Self::Connect {
            authority: to.to_string(),
            reason: reason.into(),
        }
    }

    /// What it counts as.
    fn failure(&self) -> UpstreamFailure {
        match self {
            Self::Connect { .. } => UpstreamFailure::Connect,
            Self::Lost { .. } => UpstreamFailure::Lost,
            Self::Redirect { .. } => UpstreamFailure::Redirect,
            Self::ContentType { .. } => UpstreamFailure::ContentType,
            Self::Target { .. } => UpstreamFailure::Target,
            Self::Request(_) => UpstreamFailure::Request,
        }
    }

    fn lost(to: &Destination, source: impl Into<BoxError>) -> Self {
        Self::Lost {
            authority: to.to_string(),
            source: source.into(),
        }
    }

    /// Sorts a failure of a request that was handed to its connection.
    fn after_send(to: &Destination, error: hyper::Error) -> Self {
        // REFUSED_STREAM is the peer's promise that it did nothing (RFC 9113 section 8.7). hyper shows
        // the reason only as text; should the text change, the error merely becomes the careful one.
        const REFUSED: &str =
            "stream error received: refused stream before processing any application logic";
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        match cause.as_deref() {
            Some(REFUSED) => Self::connect(to, "the stream was refused"),
            _ => Self::lost(to, error),
        }
    }
}

enum Outcome {
    Answered(Response<ReceivedBody>, Lease),
    /// The connection closed before it took the request.
    Unsent(Request<RequestBody>, hyper::Error),
    Failed(hyper::Error),
}

async fn send_on(
    lent: Lent,
    to: &Destination,
    path: &PathAndQuery,
    mut request: Request<RequestBody>,
) -> Result<Outcome, Error> {
    let (answer, lease) = match lent {
        Lent::Http2(mut sender, slot) => {
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = to.uri(path.clone())?;
            let answer = sender.try_send_request(request).await;
            (answer, Lease::Http2 { _slot: slot })
        }
        Lent::Http1(mut sender, lease) => {
            *request.version_mut() = Version::HTTP_11;
            *request.uri_mut() = Uri::from(path.clone());
            let host = HeaderValue::from_str(to.authority.as_str())
                .map_err(|_| Error::Request("its host is not a header value"))?;
            request.headers_mut().insert(header::HOST, host);
            let answer = sender.try_send_request(request).await;
            (answer, Lease::Http1(sender, lease))
        }
    };
    Ok(match answer {
        Ok(response) => Outcome::Answered(ReceivedBody::of_response(response), lease),
        Err(mut failure) => match failure.take_message() {
            Some(mut unsent) => {
                unsent.headers_mut().remove(header::HOST);
                Outcome::Unsent(unsent, failure.into_error())
            }
            None => Outcome::Failed(failure.into_error()),
        },
    })
}
