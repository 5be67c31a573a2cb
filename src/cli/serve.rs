//! `streamseal serve`: puts the parts together and runs them until a signal.

use std::{io, net::SocketAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, header};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};

use super::{Failure, print};
use crate::{
    body::Budget,
    config::Config,
    drain::Drain,
    proxy::{Parts, Proxy, rules::Rules},
    server::{self, Authenticate, Server},
    store::{self, Embedded},
    telemetry::metrics::Metrics,
    upstream::{self, Upstream},
    wire::record::Fit,
};

/// Files besides those of clients: connections to the upstream, most of all.
const OTHER_FILES: u64 = 512;

/// A running proxy. Dropping it without [`Running::stop`] leaves it running.
pub struct Running {
    metrics: Arc<Metrics>,
    address: SocketAddr,
    certificate: Option<String>,
    drain: Drain,
    server: JoinHandle<()>,
}

/// Runs the proxy until SIGTERM or SIGINT, then lets requests finish. A second signal stops it at once.
///
/// # Errors
/// When it cannot start, or was stopped at once.
pub(super) async fn run(config: Config) -> Result<(), Failure> {
    let effective = config.to_toml()?;
    tracing::info!("effective configuration:\n{effective}");
    raise_file_limit(config.limits.max_connections);
    let mut signals = Signals::new()?;
    let running = start(&config).await?;
    print(&format!("listening on {}\n", running.url(&config)))?;
    signals.next().await;
    tracing::info!("stopping: no new connections, running requests may finish");
    tokio::select! {
        () = running.stop() => Ok(()),
        () = signals.next() => Err(Failure::Other(
            "stopped at once by a second signal; running requests were cut".to_owned(),
        )),
    }
}

/// Every connection is an open file, and systems let a process have few of them unless it asks for as many
/// as it may have.
fn raise_file_limit(max_connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if files < (max_connections as u64).saturating_add(OTHER_FILES) {
        tracing::warn!(
            files,
            max_connections,
            "the system allows fewer open files than limits.max_connections needs"
        );
    }
}

/// The signals that ask for a stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Starts a proxy with this configuration, which must have passed [`Config::check`].
///
/// # Errors
/// When the store, a certificate, a key file or the address cannot be used.
pub async fn start(config: &Config) -> Result<Running, Failure> {
    let rules = Rules::compile(&config.basins, &config.streams)
        .map_err(|mistakes| Failure::Config(mistakes.join("\n")))?;
    let upstream = Upstream::new(&config.upstream).map_err(|e| Failure::Config(e.to_string()))?;
    let server = Server::bind(&config.listen, &config.limits).map_err(|error| match error {
        server::Error::Config(_) => Failure::Config(error.to_string()),
        server::Error::Bind { .. } => Failure::Other(error.to_string()),
    })?;
    let store = match config.store.kind {
        store::Kind::Embedded => Embedded::open(&config.store),
    };
    let store = store.map_err(|error| Failure::Other(error.to_string()))?;
    if rules.has_file_keys() && !server.local_addr().ip().is_loopback() {
        match config.listen.authenticate {
            Authenticate::Upstream => {
                tokio::spawn(warn_of_open_upstream(upstream.clone()));
            }
            Authenticate::None => tracing::warn!("{OPEN}"),
            Authenticate::Mtls | Authenticate::ApiKey => {}
        }
    }
    let drain = Drain::new();
    let metrics = Metrics::new().map_err(|error| Failure::Other(error.to_string()))?;
    let metrics = Arc::new(metrics);
    let proxy = Proxy::new(Parts {
        store: Arc::new(store),
        rules,
        unknown_streams: config.store.unknown_streams,
        key_check: config.keys.check,
        upstream,
        basin_domain: config.listen.basin_domain.clone(),
        metrics: Arc::clone(&metrics),
        fit: Fit {
            oversize_batches: config.limits.oversize_batches,
            compression: config.limits.compression,
        },
        budget: Budget::new(config.limits.max_inflight_bytes.as_u64(), &metrics),
        drain: drain.clone(),
    });
    let address = server.local_addr();
    let certificate = server.certificate_pem().map(str::to_owned);
    let server = tokio::spawn(server.serve(Arc::new(proxy), drain.clone()));
    Ok(Running {
        metrics,
        address,
        certificate,
        drain,
        server,
    })
}

impl Running {
    /// Where it accepts connections.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What it counts and measures.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The self-signed certificate in PEM, if it made one.
    pub fn certificate_pem(&self) -> Option<&str> {
        self.certificate.as_deref()
    }

    /// How far its stop has come. Does not keep it running.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Accepts no more connections, lets requests finish within the drain timeout, and returns when
    /// all is closed.
    pub async fn stop(self) {
        self.drain.begin();
        if let Err(error) = self.server.await {
            tracing::error!(%error, "the listener did not end well");
        }
    }

    fn url(&self, config: &Config) -> String {
        let scheme = if config.listen.plaintext {
            "http"
        } else {
            "https"
        };
        format!("{scheme}://{}", self.address)
    }
}

/// What is wrong with a listener that everybody reaches, keys that nobody has to bring, and nobody who
/// asks who comes.
const OPEN: &str = "keys come from files, nothing checks access tokens, and the listener is not on loopback: \
                    whoever reaches the listener can read those streams";

/// With keys from files the upstream alone decides who may read. One that takes any token lets
/// everybody read who reaches the listener.
async fn warn_of_open_upstream(upstream: Upstream) {
    let mut request = http::Request::new(empty());
    *request.uri_mut() = http::Uri::from_static("/v1/basins?limit=1");
    let mut headers = HeaderMap::new();
    let nobody = HeaderValue::from_static("Bearer streamseal-start-up-probe");
    headers.insert(header::AUTHORIZATION, nobody);
    *request.headers_mut() = headers;
    match upstream.send(upstream::Target::Account, request).await {
        Ok(response) if response.status().is_success() => tracing::warn!("{OPEN}"),
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(%error, "cannot ask the upstream whether it checks access tokens")
        }
    }
}

/// A body without bytes.
pub(super) fn empty() -> upstream::Body {
    use http_body_util::BodyExt as _;
    http_body_util::Empty::new()
        .map_err(|never| match never {})
        .boxed_unsync()
}
