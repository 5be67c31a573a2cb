//! `streamseal serve`: puts the parts together and runs them until a signal.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};

use super::{
    Failure, notify, open, print,
    reload::{self, Live, Reloader},
    watch::Watch,
};
use crate::{
    body::Budget,
    config::Config,
    drain::Drain,
    keys::kms::Kms,
    process,
    proxy::{Parts, Proxy},
    registry::rules::Succession,
    server::{
        self, Authenticate, Server,
        admin::{self, AdminServer, Readiness},
    },
    store::{self, Embedded, Measured, Store},
    telemetry::{audit::Audit, metrics::Metrics, sinks::Sinks, traces::Traces},
    upstream::Upstream,
    wire::record::Fit,
};

/// Series that name streams, with `admin.stream_metrics`: a stream has four, each a line of a few hundred
/// bytes in every scrape.
const MAX_STREAM_SERIES: usize = 10_000;

/// A running proxy. Dropping it without [`Running::stop`] leaves it running.
pub struct Running {
    metrics: Arc<Metrics>,
    sinks: Arc<Sinks>,
    address: SocketAddr,
    certificate: Option<String>,
    reloader: Arc<Reloader>,
    proxy: Arc<Proxy>,
    store: Arc<dyn Store>,
    drain: Drain,
    server: JoinHandle<()>,
    admin: Option<RunningAdmin>,
}

/// The admin listener, which outlives the data listener for a moment to say that it stops.
struct RunningAdmin {
    address: SocketAddr,
    stop: Drain,
    server: JoinHandle<()>,
}

/// Runs the proxy until SIGTERM or SIGINT, then lets requests finish. A second signal stops it at once. On
/// SIGHUP, and when the file at `path` or one that it names changes, it loads the configuration anew.
///
/// # Errors
/// When it cannot start, or was stopped at once.
pub(super) async fn run(config: Config, path: &Path) -> Result<(), Failure> {
    let effective = config.to_toml()?;
    tracing::info!("effective configuration:\n{effective}");
    process::raise_file_limit(config.limits.max_connections);
    let mut signals = Signals::new()?;
    // Before anybody can know of the process: without it, the signal ends it.
    let hangup = signal(SignalKind::hangup())?;
    // Before the files are read.
    let watch = Watch::new(path, &config).await;
    let running = start(&config).await?;
    let listening = format!("listening on {}", running.url(&config));
    announce(&config, &listening)?;
    if let Some(address) = running.admin_addr() {
        announce(&config, &format!("admin on http://{address}"))?;
    }
    notify::ready(&listening);
    notify::watchdog();
    let reloader = Arc::clone(running.reloader());
    let reloading = tokio::spawn(reload::whenever(reloader, path.into(), hangup, watch));
    signals.next().await;
    reloading.abort();
    tracing::info!("stopping: no new connections, running requests may finish");
    notify::stopping(config.limits.drain_timeout);
    tokio::select! {
        () = running.stop() => Ok(()),
        () = signals.next() => Err(Failure::Other(
            "stopped at once by a second signal; running requests were cut".to_owned(),
        )),
    }
}

/// Says it on standard output, unless the audit log goes there: then nothing else does.
fn announce(config: &Config, line: &str) -> Result<(), Failure> {
    if config.audit.is_stdout() {
        tracing::info!("{line}");
        return Ok(());
    }
    print(&format!("{line}\n"))
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
    let rules = config
        .rules()
        .map_err(|mistakes| Failure::Config(mistakes.join("\n")))?;
    let clients = config
        .clients()
        .map_err(|mistakes| Failure::Config(mistakes.join("\n")))?;
    let metrics = measured(config)?;
    let upstream = Upstream::new(&config.upstream, Arc::clone(&metrics))
        .map_err(|error| Failure::Config(error.to_string()))?;
    let server = Server::bind(&config.listen, &config.limits, Arc::clone(&metrics));
    let server = server.map_err(no_listener)?;
    let kms = Kms::start(&config.kms, Arc::clone(&metrics)).await;
    let kms = kms.map_err(|error| Failure::Config(error.reason().to_owned()))?;
    let store = match config.store.kind {
        store::Kind::Embedded => Embedded::open(&config.store),
    };
    let store = store.map_err(|error| Failure::Other(error.to_string()))?;
    let store: Arc<dyn Store> = Arc::new(Measured::new(store, Arc::clone(&metrics)));
    if rules.hands_out_keys() {
        open::warn_if_open(config, server.local_addr(), &upstream);
    }
    let drain = Drain::new();
    let audit = Audit::start(&config.audit, &metrics).map_err(Failure::Other)?;
    let traces = Traces::start(&config.traces).map_err(Failure::Other)?;
    let sinks = Arc::new(Sinks::new(audit, traces));
    let succession = Succession::begin(&*store, &rules).await?;
    let proxy = Arc::new(Proxy::new(Parts {
        store: Arc::clone(&store),
        rules,
        registry: (&config.store).into(),
        on_plain: config.keys.on_plain,
        key_check: config.keys.check,
        rotate_after: config.keys.rotate_after.clone(),
        kms: kms.clone(),
        takes_api_keys: config.listen.authenticate == Authenticate::ApiKey,
        clients,
        upstream: upstream.clone(),
        basin_domain: config.listen.basin_domain.clone(),
        metrics: Arc::clone(&metrics),
        sinks: Arc::clone(&sinks),
        fit: Fit {
            oversize_batches: config.limits.oversize_batches,
            compression: config.limits.compression,
        },
        budget: Budget::new(config.limits.max_inflight_bytes.as_u64(), &metrics),
        drain: drain.clone(),
    }));
    proxy.keep_time().await;
    let live = Live {
        address: server.local_addr(),
        tls: server.tls().clone(),
        upstream,
        proxy,
        store: Arc::clone(&store),
        metrics,
        sinks,
    };
    let running = run_parts(config, live, kms, server, drain)?;
    reload::settled(succession.finish(&*store).await);
    Ok(running)
}

/// Lets the parts of a proxy run that is made.
fn run_parts(
    config: &Config,
    live: Live,
    kms: Option<Kms>,
    server: Server,
    drain: Drain,
) -> Result<Running, Failure> {
    let proxy = Arc::clone(&live.proxy);
    let store = Arc::clone(&live.store);
    let metrics = Arc::clone(&live.metrics);
    let sinks = Arc::clone(&live.sinks);
    let upstream = live.upstream.clone();
    let reloader = Arc::new(Reloader::new(config, live));
    let readiness = Readiness::new(
        Arc::clone(&store),
        upstream,
        kms,
        Arc::clone(reloader.reloads()),
        drain.clone(),
        Arc::clone(&metrics),
    );
    let parts = admin::Parts {
        proxy: Arc::clone(&proxy),
        store: Arc::clone(&store),
        reloads: Arc::clone(reloader.reloads()),
        readiness: Arc::new(readiness),
        metrics: Arc::clone(&metrics),
        recent: Arc::clone(&sinks.recent),
        key_check: config.keys.check,
        listen: config.listen.clone(),
        data_address: server.local_addr(),
    };
    let admin = AdminServer::bind(&config.admin, parts).map_err(no_listener)?;
    Ok(Running {
        metrics,
        sinks,
        address: server.local_addr(),
        certificate: server.tls().self_signed_pem(),
        reloader,
        proxy: Arc::clone(&proxy),
        store,
        admin: admin.map(RunningAdmin::start),
        server: tokio::spawn(server.serve(proxy, drain.clone())),
        drain,
    })
}

/// Where the proxy counts, with names of streams if the configuration says so.
fn measured(config: &Config) -> Result<Arc<Metrics>, Failure> {
    let metrics = match config.admin.stream_metrics {
        true => Metrics::with_streams(MAX_STREAM_SERIES),
        false => Metrics::new(),
    };
    let metrics = metrics.map_err(|error| Failure::Other(error.to_string()))?;
    Ok(Arc::new(metrics))
}

fn no_listener(error: server::Error) -> Failure {
    match error {
        server::Error::Config(_) => Failure::Config(error.to_string()),
        server::Error::Bind { .. } => Failure::Other(error.to_string()),
    }
}

impl RunningAdmin {
    fn start(server: AdminServer) -> Self {
        let stop = Drain::new();
        Self {
            address: server.local_addr(),
            server: tokio::spawn(server.serve(stop.clone())),
            stop,
        }
    }

    async fn stop(self) {
        self.stop.begin();
        if let Err(error) = self.server.await {
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

    /// Where it tells what became of requests.
    pub fn sinks(&self) -> &Arc<Sinks> {
        &self.sinks
    }

    /// The self-signed certificate in PEM, if it made one.
    pub fn certificate_pem(&self) -> Option<&str> {
        self.certificate.as_deref()
    }

    /// Where the admin listener is, if it is on.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|admin| admin.address)
    }

    /// What puts another configuration in force while it runs.
    pub fn reloader(&self) -> &Arc<Reloader> {
        &self.reloader
    }

    /// What answers its requests. Keeps the config store open.
    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// What it keeps its records in. Keeps the config store open.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// How far its stop has come. Does not keep it running.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Accepts no more connections, lets requests finish within the drain timeout, and returns when
    /// all is closed, and written what there was to tell of it. Until then the admin listener says that the
    /// proxy is not ready.
    pub async fn stop(self) {
        self.drain.begin();
        if let Err(error) = self.server.await {
            tracing::error!(%error, "the listener did not end well");
        }
        self.proxy.flush().await;
        self.sinks.close().await;
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
