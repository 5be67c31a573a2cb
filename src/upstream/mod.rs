//! Requests to the upstream store: connection pool, TLS, and what may and may not leave the process.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::time::error::Elapsed;

pub use self::{
    attempt::InMemory,
    body::ResponseBody,
    config::{Config, ConfigError, TlsConfig},
    headers::Credential,
    live::{Renewed, problems},
    probe::{Probed, Reach},
};
use self::{
    attempt::Payload, body::OwnFault, endpoint::Destination, host::Lane, live::Inner, way::Way,
};
use crate::{
    stream::BasinName,
    telemetry::{
        label::{Operation, UpstreamFailure},
        metrics::Metrics,
    },
    wire::media::Media,
};

mod answer;
mod attempt;
mod body;
mod config;
mod connect;
mod connection;
mod endpoint;
mod headers;
mod host;
mod lease;
mod live;
mod pool;
mod probe;
#[cfg(test)]
mod tests;
mod tls;
mod way;

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

/// The client's end of its connection, by which requests share connections to the upstream. An extension of the
/// request.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub SocketAddr);

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
    /// hygiene is done here, in both directions. There is no timeout but the one on connecting. Dropping the future
    /// or the response body cancels the exchange upstream.
    ///
    /// A request is sent again on a new connection when the upstream certainly did not process it and its body is
    /// in memory. A request without a body that only reads is sent once more after any loss before the head of its
    /// answer, and also elsewhere while its connection is silent.
    ///
    /// Extensions of the request: [`Operation`] is the label of its time, [`Credential`] the token in place of the
    /// configured one, [`ClientAddress`] the client whose connections it shares, [`InMemory`] the promise that its
    /// body is in memory.
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
        let client = request.extensions_mut().remove::<ClientAddress>();
        let lane = Lane {
            client: client.map(|client| client.0),
            is_session: is_session(request.headers()),
        };
        let is_in_memory = request.extensions_mut().remove::<InMemory>().is_some();
        request.extensions_mut().clear();
        let host = inner.pool.host(&to)?;
        drop(inner);
        let payload = Payload::of(request, is_in_memory).await;
        let payload = payload.map_err(|_| Error::Request("its body broke off"))?;
        let way = Way {
            host,
            lane,
            to: to.clone(),
            path,
            own_fault: own_fault.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        let (response, lease, exchange) = way.send(payload).await?;
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
        Ok(Response::from_parts(parts, body))
    }
}

/// Whether a request opens a session: frames or server-sent events, which last.
fn is_session(headers: &HeaderMap) -> bool {
    Media::content_type(headers) == Some(Media::S2s)
        || Media::accept(headers) == Some(Media::EventStream)
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
}
