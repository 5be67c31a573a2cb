//! The connections to each upstream host, shared by all requests.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use super::{
    Error,
    connection::{self, Connection, Http1Sender, Http2Sender, Load},
    endpoint::Destination,
    lease::{Http1Lease, Lent, Slot},
};
use crate::telemetry::metrics::Metrics;

/// A connection without requests is closed after this time, as in S2's own clients.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Hosts at a time; past it, those without requests are forgotten. Clients choose basin names, so
/// `{basin}` hosts need a bound; this is far above the basins one proxy is expected to serve at once.
const MAX_HOSTS: usize = 1024;
/// HTTP/2 connections to one host: with [`connection::MAX_STREAMS`] each, 23 040 requests at once.
const MAX_HTTP2_CONNECTIONS: usize = 256;
/// HTTP/1.1 connections in use to one host, each one request: a fraction of the usual 28 000 local ports.
const MAX_HTTP1_IN_USE: usize = 4096;
/// HTTP/1.1 connections kept for later.
const MAX_HTTP1_IDLE: usize = 64;

/// The connections to every host.
pub(super) struct Pool {
    tls: TlsConnector,
    metrics: Arc<Metrics>,
    hosts: Mutex<HashMap<Destination, Arc<Host>>>,
}

/// The connections to one host.
pub(super) struct Host {
    to: Destination,
    tls: TlsConnector,
    metrics: Arc<Metrics>,
    http1_in_use: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    http2: Vec<Http2>,
    http1: Vec<IdleHttp1>,
    speaks_http1: bool,
    /// The one attempt to open a connection that everybody waits for.
    opening: Option<Opening>,
}

struct Http2 {
    sender: Http2Sender,
    load: Arc<Load>,
    opened: Instant,
}

struct IdleHttp1 {
    sender: Http1Sender,
    opened: Instant,
    since: Instant,
}

type Opening = Shared<BoxFuture<'static, Result<(), String>>>;

impl Pool {
    pub(super) fn new(tls: TlsConnector, metrics: Arc<Metrics>) -> Self {
        Self {
            tls,
            metrics,
            hosts: Mutex::default(),
        }
    }

    /// The connections to `to`.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] when there are requests to [`MAX_HOSTS`] other hosts.
    pub(super) fn host(&self, to: &Destination) -> Result<Arc<Host>, Error> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(to) {
            return Ok(Arc::clone(host));
        }
        if hosts.len() >= MAX_HOSTS {
            hosts.retain(|_, host| host.in_use());
        }
        if hosts.len() >= MAX_HOSTS {
            return Err(Error::connect(to, "too many upstream hosts are in use"));
        }
        let host = Arc::new(Host::new(to.clone(), self));
        hosts.insert(to.clone(), Arc::clone(&host));
        Ok(host)
    }
}

/// What to do for a request, decided under the lock and done outside of it.
enum Next {
    Use(Lent),
    Await(Opening),
    OpenHttp1,
    Refuse(&'static str),
}

impl Host {
    fn new(to: Destination, pool: &Pool) -> Self {
        Self {
            to,
            tls: pool.tls.clone(),
            metrics: Arc::clone(&pool.metrics),
            http1_in_use: Arc::new(Semaphore::new(MAX_HTTP1_IN_USE)),
            state: Mutex::default(),
        }
    }

    /// A connection for one request: a free one, else a new one.
    ///
    /// With `newer_than`, only one that was opened after that moment. New HTTP/2 connections are opened
    /// one at a time, and everybody who waits shares the outcome, good or bad.
    pub(super) async fn lend(self: &Arc<Self>, newer_than: Option<Instant>) -> Result<Lent, Error> {
        loop {
            match self.next(newer_than) {
                Next::Use(lent) => return Ok(lent),
                Next::Refuse(why) => return Err(Error::connect(&self.to, why)),
                Next::Await(opening) => {
                    let opened = opening.await;
                    opened.map_err(|why| Error::connect(&self.to, why))?;
                }
                Next::OpenHttp1 => {
                    let opened = self.open().await;
                    match opened.map_err(|why| Error::connect(&self.to, why))? {
                        Connection::Http1(sender) => match self.http1_lease(Instant::now()) {
                            Some(lease) => return Ok(Lent::Http1(sender, lease)),
                            None => return Err(Error::connect(&self.to, FULL)),
                        },
                        other => self.state().add(other),
                    }
                }
            }
        }
    }

    fn next(self: &Arc<Self>, newer_than: Option<Instant>) -> Next {
        let mut state = self.state();
        state.drop_unusable();
        if let Some((sender, slot)) = state.http2_slot(newer_than) {
            return Next::Use(Lent::Http2(sender, slot));
        }
        if state.speaks_http1 {
            let idle = state.idle_http1(newer_than);
            let Some(lease) =
                self.http1_lease(idle.as_ref().map_or_else(Instant::now, |i| i.opened))
            else {
                return Next::Refuse(FULL);
            };
            return match idle {
                Some(idle) => Next::Use(Lent::Http1(idle.sender, lease)),
                None => Next::OpenHttp1,
            };
        }
        if state.http2.len() >= MAX_HTTP2_CONNECTIONS {
            return Next::Refuse(FULL);
        }
        let opening = state.opening.get_or_insert_with(|| self.start_opening());
        Next::Await(opening.clone())
    }

    /// Opens a connection in a task of its own, so that it is there even if who asked for it left.
    fn start_opening(self: &Arc<Self>) -> Opening {
        let host = Arc::clone(self);
        let task = tokio::spawn(async move {
            let opened = host.open().await;
            let mut state = host.state();
            state.opening = None;
            opened.map(|connection| state.add(connection))
        });
        let joined = async move { task.await.unwrap_or_else(|error| Err(error.to_string())) };
        joined.boxed().shared()
    }

    async fn open(self: &Arc<Self>) -> Result<Connection, String> {
        let host = Arc::downgrade(self);
        let sweep = move || {
            if let Some(host) = host.upgrade() {
                host.state().drop_unusable();
            }
        };
        let open_now = &self.metrics.upstream.connections;
        connection::open(&self.to, &self.tls, open_now, sweep).await
    }

    /// Keeps an HTTP/1.1 connection for a later request.
    pub(super) fn keep_http1(&self, sender: Http1Sender, opened: Instant) {
        self.state().keep_http1(sender, opened);
    }

    fn http1_lease(self: &Arc<Self>, opened: Instant) -> Option<Http1Lease> {
        let permit = Arc::clone(&self.http1_in_use).try_acquire_owned().ok()?;
        Some(Http1Lease {
            host: Arc::clone(self),
            opened,
            _permit: permit,
        })
    }

    /// Whether a request is on its way to this host; the idle connections of others may be closed.
    fn in_use(self: &Arc<Self>) -> bool {
        let is_busy = |c: &Http2| c.load.idle().is_zero();
        Arc::strong_count(self) > 1 || self.state().http2.iter().any(is_busy)
    }

    #[cfg(test)]
    pub(super) fn has_idle_http1(&self) -> bool {
        self.state().http1.iter().any(|c| c.sender.is_ready())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a request finds no place.
const FULL: &str = "every connection is in use";

impl State {
    fn add(&mut self, connection: Connection) {
        let opened = Instant::now();
        match connection {
            Connection::Http2(sender, load) => {
                self.speaks_http1 = false;
                self.http2.push(Http2 {
                    sender,
                    load,
                    opened,
                });
            }
            Connection::Http1(sender) => {
                self.speaks_http1 = true;
                self.keep_http1(sender, opened);
            }
        }
    }

    fn keep_http1(&mut self, sender: Http1Sender, opened: Instant) {
        if self.http1.len() < MAX_HTTP1_IDLE {
            self.http1.push(IdleHttp1 {
                sender,
                opened,
                since: Instant::now(),
            });
        }
    }

    fn drop_unusable(&mut self) {
        self.http2
            .retain(|c| !c.sender.is_closed() && c.load.idle() < IDLE_TIMEOUT);
        self.http1
            .retain(|c| !c.sender.is_closed() && c.since.elapsed() < IDLE_TIMEOUT);
    }

    /// A place on the first connection that has one: the later ones fall idle first and are closed.
    fn http2_slot(&self, newer_than: Option<Instant>) -> Option<(Http2Sender, Slot)> {
        self.http2
            .iter()
            .filter(|c| newer_than.is_none_or(|moment| c.opened >= moment))
            .find(|c| c.load.reserve())
            .map(|c| (c.sender.clone(), Slot(Arc::clone(&c.load))))
    }

    /// The idle connection that was used last.
    fn idle_http1(&mut self, newer_than: Option<Instant>) -> Option<IdleHttp1> {
        let usable = |c: &IdleHttp1| {
            c.sender.is_ready() && newer_than.is_none_or(|moment| c.opened >= moment)
        };
        let at = self.http1.iter().rposition(usable)?;
        Some(self.http1.swap_remove(at))
    }
}
