//! The listener: accepts client connections over TLS or plaintext and drains them on shutdown.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use crate::received::ReceivedBody;
use http::{Request, Response};
use hyper_util::{
    rt::TokioExecutor,
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::warn;

use self::connection::Shared;
pub use self::{
    balancer::AddressRange,
    config::{Authenticate, Config, Limits, TlsConfig},
    live::{LiveTls, Renewed},
    reloads::{Outcome, Reload, Reloads},
};
pub use crate::proxy::Peer;
use crate::{
    drain::Drain,
    proxy::Proxy,
    telemetry::metrics::{Held, Metrics},
    upstream::Body,
};

pub mod admin;
mod balancer;
mod config;
mod connection;
mod half_closed;
mod linger;
mod live;
mod reloads;
mod socket;
#[cfg(test)]
mod tests;
mod tls;

/// Pause after a failed accept: out of file descriptors, say, which only time mends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Once the time for running requests is up: for what they are told then to reach their clients, and for
/// the upstream to acknowledge what it was sent before.
///
/// Longer than a client that is still sending may linger.
const LAST_WORDS: Duration = Duration::from_secs(6);

/// What answers the requests of all connections.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Dropped when the client goes away before the response's head.
    fn handle(
        self: Arc<Self>,
        request: Request<ReceivedBody>,
        peer: Peer,
    ) -> impl Future<Output = Response<Body>> + Send;
}

impl Handler for Proxy {
    async fn handle(self: Arc<Self>, request: Request<ReceivedBody>, peer: Peer) -> Response<Body> {
        Proxy::handle(&self, request, &peer).await
    }
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The `[listen]` section or a file it names cannot be used: one sentence per mistake, with its key.
    #[error("{}", .0.join("\n"))]
    Config(Vec<String>),
    /// The address cannot be listened on.
    #[error("{key}: cannot listen on {address}: {source}")]
    Bind {
        /// The key that asks for the address.
        key: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A listener that is bound but accepts nothing yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: LiveTls,
    http: auto::Builder<TokioExecutor>,
    limits: Limits,
    balancers: Vec<AddressRange>,
    /// None for the admin listener: what is counted is clients.
    metrics: Option<Arc<Metrics>>,
    max_age: Option<Duration>,
}

impl Server {
    /// Loads the certificates and binds the address. Must be called inside a Tokio runtime. Connections
    /// are counted in `metrics`.
    ///
    /// # Errors
    ///
    /// Every mistake in the section, every file that cannot be used, or why the address cannot be bound.
    pub fn bind(config: &Config, limits: &Limits, metrics: Arc<Metrics>) -> Result<Self, Error> {
        let tls = live::load(config, None).map_err(Error::Config)?;
        let (listener, address) = listen("listen.address", config.address)?;
        Ok(Self {
            listener,
            address,
            tls: LiveTls::new(tls),
            http: connection::http(limits),
            limits: limits.clone(),
            balancers: config.proxy_protocol.clone(),
            metrics: Some(metrics),
            max_age: None,
        })
    }

    /// Binds an address for HTTP/1.1 without TLS and connections that last no longer than `max_age`. Must be
    /// called inside a Tokio runtime.
    ///
    /// # Errors
    ///
    /// Why the address, which `key` asks for, cannot be bound.
    fn bind_plain(
        key: &'static str,
        address: SocketAddr,
        limits: Limits,
        max_age: Duration,
    ) -> Result<Self, Error> {
        let (listener, address) = listen(key, address)?;
        Ok(Self {
            listener,
            address,
            tls: LiveTls::new(None),
            http: connection::http(&limits).http1_only(),
            limits,
            balancers: Vec::new(),
            metrics: None,
            max_age: Some(max_age),
        })
    }

    /// The address that was bound, with the port the system chose where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Its certificates, which can be replaced while it serves.
    pub fn tls(&self) -> &LiveTls {
        &self.tls
    }

    /// Serves until `drain` begins, then stops accepting and lets running requests end for at most
    /// `limits.drain_timeout`. After that it ends the drain, which ends what takes part in it, and three
    /// seconds later cuts what is left.
    pub async fn serve<H: Handler>(self, handler: Arc<H>, drain: Drain) {
        let max_connections = self.limits.max_connections.min(Semaphore::MAX_PERMITS);
        let free = Arc::new(Semaphore::new(max_connections));
        let drain_timeout = self.limits.drain_timeout;
        if let Some(metrics) = &self.metrics {
            let limit = i64::try_from(max_connections).unwrap_or(i64::MAX);
            metrics.clients.connections_limit.set(limit);
        }
        let shared = Arc::new(Shared {
            handler,
            tls: self.tls,
            http: self.http,
            limits: self.limits,
            balancers: self.balancers,
            drain: drain.clone(),
            max_age: self.max_age,
            metrics: self.metrics.clone(),
        });
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        let mut begun = pin!(drain.begun());
        loop {
            let (tcp, address, permit) = tokio::select! {
                biased;
                () = &mut begun => break,
                accepted = accept(&self.listener, &free) => accepted,
            };
            while connections.try_join_next().is_some() {}
            let held = self.metrics.as_ref().map(|metrics| {
                metrics.clients.accepted.inc();
                Held::new(&metrics.clients.connections)
            });
            let serving = Arc::clone(&shared).serve(tcp, address, graceful.watcher());
            connections.spawn(async move {
                serving.await;
                drop((permit, held));
            });
        }
        drop(self.listener);
        let mut drained = pin!(graceful.shutdown());
        if timeout(drain_timeout, &mut drained).await.is_err() {
            while connections.try_join_next().is_some() {}
            warn!(
                connections = connections.len(),
                "requests did not end in time: ending them"
            );
            drain.end();
            if timeout(LAST_WORDS, drained).await.is_err() {
                while connections.try_join_next().is_some() {}
                warn!(
                    connections = connections.len(),
                    "connections did not end: cutting them"
                );
            }
        }
        connections.shutdown().await;
    }
}

/// Everything that is wrong with the `[listen]` section and the files it names, each with its key.
pub fn problems(config: &Config) -> Vec<String> {
    live::load(config, None).err().unwrap_or_default()
}

fn listen(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    socket::listen(address).map_err(|source| Error::Bind {
        key,
        address,
        source,
    })
}

/// The next connection, once there is room for it. Failures to accept are not the listener's end.
async fn accept(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed, so there always is a permit in the end.
    let permit = Arc::clone(free).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((tcp, address)) => return (tcp, socket::canonical(address), permit),
            Err(error) if is_one_connections(&error) => {}
            Err(error) => {
                warn!(%error, "cannot accept connections");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether the failure concerns only the connection that was about to be accepted.
fn is_one_connections(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
