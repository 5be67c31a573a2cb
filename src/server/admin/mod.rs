//! The admin listener: health, readiness and metrics for everybody, the admin API and the status page for
//! operators. No path of it leads to a record, and none of the data listener's leads here.

mod access;
mod answer;
mod api;
mod apikeys;
mod certificates;
mod config;
mod export;
mod keyed;
mod kms;
mod lines;
mod master;
mod page;
mod projects;
mod query;
mod ready;
mod registry;
mod status;
mod streams;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crate::received::ReceivedBody;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::sync::Semaphore;

use self::{
    access::{Access, Denied},
    api::Refused,
};
pub use self::{
    config::{Config, OptionalAddress},
    ready::Readiness,
};
use super::{Error, Handler, Limits, Peer, Reloads, Server};
use crate::{
    drain::Drain,
    keys,
    proxy::Proxy,
    store::Store,
    telemetry::{metrics::Metrics, recent::Recent},
    upstream::Body,
};

/// Connections at a time; more wait in the system's accept queue.
const MAX_CONNECTIONS: usize = 64;
/// Longest time that one connection lasts, so that nobody keeps one of them for ever. Time for an export of a million
/// entries.
const MAX_AGE: Duration = Duration::from_secs(300);
/// Time for a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a request's body, of at most 64 KiB.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for running requests at a stop: an export does not hold a stop up.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Changes of master keys at a time.
const MAX_MASTER_CHANGES: usize = 4;

/// What the metrics are, as Prometheus wants to be told.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the admin listener shows.
pub struct Parts {
    /// The proxy, for what it makes of basins and streams. Not asked to handle any request.
    pub proxy: Arc<Proxy>,
    /// The config store.
    pub store: Arc<dyn Store>,
    /// What became of reloads, and the certificates in use.
    pub reloads: Arc<Reloads>,
    /// Whether the proxy can do its work.
    pub readiness: Arc<Readiness>,
    /// What is counted and measured.
    pub metrics: Arc<Metrics>,
    /// The last errors.
    pub recent: Arc<Recent>,
    /// What is done about keys.
    pub key_check: keys::Check,
    /// How the data listener is configured, and where it is.
    pub listen: super::Config,
    /// Where the data listener is.
    pub data_address: SocketAddr,
}

/// The admin listener, bound.
pub struct AdminServer {
    server: Server,
    admin: Arc<Admin>,
}

/// What answers its requests.
struct Admin {
    parts: Parts,
    access: Access,
    started: Instant,
    started_at: SystemTime,
    /// One export at a time.
    exports: Arc<Semaphore>,
    /// Changes of master keys that are watched: each may work on every stream.
    master_changes: Arc<Semaphore>,
    /// One list at a time: each may look through thousands of rows, and the store has other work.
    lists: Semaphore,
}

impl AdminServer {
    /// Binds the address of the section; nothing when it is turned off. Must be called inside a Tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// When the token file cannot be used, or why the address cannot be bound.
    pub fn bind(config: &Config, parts: Parts) -> Result<Option<Self>, Error> {
        let Some(address) = config.address.address() else {
            return Ok(None);
        };
        let token = config
            .token()
            .map_err(|problem| Error::Config(vec![problem]))?;
        let limits = Limits {
            max_connections: MAX_CONNECTIONS,
            header_timeout: HEADER_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
            ..Limits::default()
        };
        let server = Server::bind_plain("admin.address", address, limits, MAX_AGE)?;
        let listener = server.local_addr();
        if token.is_some() && !listener.ip().is_loopback() {
            tracing::warn!(
                "admin.address: {listener} is not on loopback, and the admin listener speaks plain HTTP: whoever \
                 sees its traffic has the token; put TLS in front of it, or let a network policy keep others out"
            );
        }
        Ok(Some(Self {
            server,
            admin: Arc::new(Admin {
                parts,
                access: Access { token, listener },
                started: Instant::now(),
                started_at: SystemTime::now(),
                exports: Arc::new(Semaphore::new(1)),
                master_changes: Arc::new(Semaphore::new(MAX_MASTER_CHANGES)),
                lists: Semaphore::new(1),
            }),
        }))
    }

    /// The address that was bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Answers requests until `stop` begins. That is not the stop of the data listener, which it reports.
    pub async fn serve(self, stop: Drain) {
        self.server.serve(self.admin, stop).await;
    }
}

impl Handler for Admin {
    async fn handle(self: Arc<Self>, request: Request<ReceivedBody>, peer: Peer) -> Response<Body> {
        let is_head = *request.method() == Method::HEAD;
        let response = self.answer(request, peer).await;
        match is_head {
            true => response.map(|_| answer::full(bytes::Bytes::new())),
            false => response,
        }
    }
}

impl Admin {
    async fn answer(&self, request: Request<ReceivedBody>, peer: Peer) -> Response<Body> {
        let path = request.uri().path();
        if keyed::takes_api_key(&request) {
            return match self.access.check_keyed(&request, &peer) {
                Ok(()) => self.keyed(request).await,
                Err(denied) => deny(denied),
            };
        }
        if path.starts_with("/api/") {
            let here = match projects::shows_api_key(&request) {
                true => self.access.check_keyed(&request, &peer),
                false => Ok(()),
            };
            return match self.access.check(&request, &peer).and(here) {
                Ok(()) => self.call(request).await,
                Err(denied) => deny(denied),
            };
        }
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match (path, reads) {
            ("/", true) => page::answer(),
            ("/health", true) => {
                answer::json(StatusCode::OK, &serde_json::json!({ "healthy": true }))
            }
            ("/ready", true) => {
                let report = self.parts.readiness.report().await;
                let status = match report.ready {
                    true => StatusCode::OK,
                    false => StatusCode::SERVICE_UNAVAILABLE,
                };
                answer::json(status, &report)
            }
            ("/metrics", true) => {
                // For the gauges that say whether the proxy is ready.
                self.parts.readiness.report().await;
                answer::text(StatusCode::OK, METRICS, self.parts.metrics.render())
            }
            ("/" | "/health" | "/ready" | "/metrics", false) => wrong_method("GET, HEAD"),
            _ => not_found(),
        }
    }

    async fn call(&self, request: Request<ReceivedBody>) -> Response<Body> {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let posts = *request.method() == Method::POST;
        let query = request.uri().query();
        let outcome = match request.uri().path() {
            "/api/status" if reads => self.status().await,
            "/api/basins" if reads => self.basins(query).await,
            "/api/streams" if reads => self.streams(query).await,
            "/api/errors" if reads => self.errors(),
            "/api/store/export" if *request.method() == Method::GET => self.export().await,
            "/api/streams/rotate-key" if posts => self.rotate_key(None, request.into_body()).await,
            "/api/streams/shred" if posts => self.shred(None, request.into_body()).await,
            "/api/streams/rotate-key" | "/api/streams/shred" => return wrong_method("POST"),
            "/api/streams/unpin" if posts => self.unpin(request.into_body()).await,
            "/api/streams/admit" if posts => self.admit_stream(request.into_body()).await,
            "/api/streams/set-cipher" if posts => self.set_cipher(request.into_body()).await,
            "/api/projects" if reads => self.projects().await,
            "/api/projects" if posts => self.create_project(request).await,
            "/api/projects" => return wrong_method("GET, HEAD, POST"),
            "/api/streams/unpin" | "/api/streams/admit" | "/api/streams/set-cipher" => {
                return wrong_method("POST");
            }
            "/api/store/export" => return wrong_method("GET"),
            "/api/status" | "/api/basins" | "/api/streams" | "/api/errors" => {
                return wrong_method("GET, HEAD");
            }
            _ => return not_found(),
        };
        outcome.unwrap_or_else(|refused: Refused| refused.answer())
    }
}

fn deny(denied: Denied) -> Response<Body> {
    let status = match denied {
        Denied::NoToken => StatusCode::UNAUTHORIZED,
        Denied::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Denied::NotLocal | Denied::ForeignHost | Denied::KeyFromElsewhere | Denied::CrossSite => {
            StatusCode::FORBIDDEN
        }
    };
    let mut response = answer::error(status, "permission_denied", &denied.to_string());
    if denied == Denied::NoToken {
        challenge(&mut response);
    }
    response
}

/// Says that a token, or an API key, is asked for.
fn challenge(response: &mut Response<Body>) {
    let bearer = HeaderValue::from_static("Bearer");
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, bearer);
}

fn not_found() -> Response<Body> {
    answer::error(
        StatusCode::NOT_FOUND,
        "not_found",
        "the admin listener has no such path",
    )
}

fn wrong_method(allowed: &'static str) -> Response<Body> {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let message = format!("this path takes {allowed}");
    let mut response = answer::error(status, "method_not_allowed", &message);
    let allowed = HeaderValue::from_static(allowed);
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}
