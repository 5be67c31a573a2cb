//! `streamseal serve`: puts the parts together and runs them until a signal.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, header};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    task::JoinHandle,
};

use super::{Failure, print};
use crate::{
    config::Config,
    proxy::{Parts, Proxy, rules::Rules},
    server::{
        self, Authenticate, Server,
        admin::{self, AdminServer, Certificates, Readiness},
    },
    store::{self, Embedded, Store},
    telemetry::{metrics::Metrics, recent::Recent},
    upstream::{self, Upstream},
    wire::record::Fit,
};

/// A running proxy. Dropping it without [`Running::stop`] leaves it running.
pub struct Running {
    metrics: Arc<Metrics>,
    address: SocketAddr,
    certificate: Option<String>,
    readiness: Arc<Readiness>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    admin: Option<RunningAdmin>,
}

/// The admin listener, which outlives the data listener for a moment to say that it stops.
struct RunningAdmin {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

/// Runs the proxy until SIGTERM or SIGINT, then lets requests finish.
///
/// # Errors
/// When it cannot start.
pub(super) async fn run(config: Config) -> Result<(), Failure> {
    let effective = config.to_toml()?;
    tracing::info!("effective configuration:\n{effective}");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = start(&config).await?;
    print(&format!("listening on {}\n", running.url(&config)))?;
    if let Some(address) = running.admin_addr() {
        print(&format!("admin on http://{address}\n"))?;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: no new connections, running requests may finish");
    running.stop().await;
    Ok(())
}

/// Starts a proxy with this configuration, which must have passed [`Config::check`].
///
/// # Errors
/// When the store, a certificate, a key file or the address cannot be used.
pub async fn start(config: &Config) -> Result<Running, Failure> {
    let rules = Rules::compile(&config.basins, &config.streams)
        .map_err(|mistakes| Failure::Config(mistakes.join("\n")))?;
    let upstream = Upstream::new(&config.upstream).map_err(|e| Failure::Config(e.to_string()))?;
    let server = Server::bind(&config.listen, &config.limits).map_err(no_listener)?;
    let store = match config.store.kind {
        store::Kind::Embedded => Embedded::open(&config.store),
    };
    let store = store.map_err(|error| Failure::Other(error.to_string()))?;
    let store: Arc<dyn Store> = Arc::new(store);
    if rules.has_file_keys() && !server.local_addr().ip().is_loopback() {
        match config.listen.authenticate {
            Authenticate::Upstream => {
                tokio::spawn(warn_of_open_upstream(upstream.clone()));
            }
            Authenticate::None => tracing::warn!("{OPEN}"),
            Authenticate::Mtls | Authenticate::ApiKey => {}
        }
    }
    let metrics = Metrics::new().map_err(|error| Failure::Other(error.to_string()))?;
    let metrics = Arc::new(metrics);
    let recent = Arc::new(Recent::default());
    let certificates = Arc::new(Certificates::of(
        &config.listen,
        server.certificate_pem(),
        &config.upstream.tls,
    ));
    let readiness = Arc::new(Readiness::new(
        Arc::clone(&store),
        upstream.clone(),
        Arc::clone(&certificates),
        Arc::clone(&metrics),
    ));
    let proxy = Arc::new(Proxy::new(Parts {
        store: Arc::clone(&store),
        rules,
        unknown_streams: config.store.unknown_streams,
        key_check: config.keys.check,
        upstream,
        basin_domain: config.listen.basin_domain.clone(),
        metrics: Arc::clone(&metrics),
        recent: Arc::clone(&recent),
        fit: Fit {
            oversize_batches: config.limits.oversize_batches,
            compression: config.limits.compression,
        },
    }));
    let address = server.local_addr();
    let admin = AdminServer::bind(
        &config.admin,
        admin::Parts {
            proxy: Arc::clone(&proxy),
            store,
            certificates,
            readiness: Arc::clone(&readiness),
            metrics: Arc::clone(&metrics),
            recent,
            key_check: config.keys.check,
            listen: config.listen.clone(),
            data_address: address,
        },
    );
    let admin = admin.map_err(no_listener)?.map(RunningAdmin::start);
    let (stop, stopped) = oneshot::channel();
    let certificate = server.certificate_pem().map(str::to_owned);
    let server = tokio::spawn(server.serve(proxy, told(stopped)));
    Ok(Running {
        metrics,
        address,
        certificate,
        readiness,
        stop,
        server,
        admin,
    })
}

fn no_listener(error: server::Error) -> Failure {
    match error {
        server::Error::Config(_) => Failure::Config(error.to_string()),
        server::Error::Bind { .. } => Failure::Other(error.to_string()),
    }
}

/// Waits for a word. Dropping the sender without one is no reason to stop.
async fn told(stop: oneshot::Receiver<()>) {
    if stop.await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl RunningAdmin {
    fn start(server: AdminServer) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self {
            address: server.local_addr(),
            stop,
            server: tokio::spawn(server.serve(told(stopped))),
        }
    }

    async fn stop(self) {
        if self.stop.send(()).is_ok()
            && let Err(error) = self.server.await
        {
            tracing::error!(%error, "the admin listener did not end well");
        }
    }
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

    /// Where the admin listener is, if it is on.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|admin| admin.address)
    }

    /// Accepts no more connections, lets requests finish within the drain timeout, and returns when
    /// all is closed. Until then the admin listener says that the proxy is not ready.
    pub async fn stop(self) {
        self.readiness.drain();
        if self.stop.send(()).is_ok()
            && let Err(error) = self.server.await
        {
            tracing::error!(%error, "the listener did not end well");
        }
        if let Some(admin) = self.admin {
            admin.stop().await;
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
