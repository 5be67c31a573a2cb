//! The connections to one host, and the choice of one for a request.
//!
//! Each client has HTTP/2 connections of its own, apart for sessions and for other calls: peers limit resets by
//! connection, so what one client cancels must not end the requests of another. An idle connection goes to the
//! client that needs one next. Above [`OWN_CONNECTIONS`], clients share the least busy ones.

use std::{
    net::SocketAddr,
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
    connect::Preferred,
    connection::{self, Connection, Http1Sender, Http2Sender, Load},
    endpoint::Destination,
    lease::{Http1Lease, Lent, Slot},
};
use crate::telemetry::metrics::Metrics;

/// A connection without requests is closed after this time, as in S2's own clients.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// The same for HTTP/1.1, where a request may cross the peer's closing: before the balancers whose limit is 60 s.
const HTTP1_IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// HTTP/2 connections up to which each client gets its own.
const OWN_CONNECTIONS: usize = 128;
/// HTTP/2 connections of one lane. A client has at most 200 requests at once on its connection; those that it dropped
/// keep their place for up to a second.
const MAX_LANE_CONNECTIONS: usize = 8;
/// HTTP/2 connections to one host: with [`connection::MAX_STREAMS`] each, 23 040 requests at once.
const MAX_HTTP2_CONNECTIONS: usize = 256;
/// Connections that are opened at the same time. Further requests wait for one of them.
const MAX_OPENING: usize = 16;
/// HTTP/1.1 connections in use to one host, each one request: a fraction of the usual 28 000 local ports.
const MAX_HTTP1_IN_USE: usize = 4096;
/// HTTP/1.1 connections kept for later.
const MAX_HTTP1_IDLE: usize = 64;

/// The requests that share connections: those of one client, either sessions or other calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lane {
    /// The client's end of its connection; `None` for the proxy's own calls.
    pub(super) client: Option<SocketAddr>,
    pub(super) is_session: bool,
}

/// The connections to one host.
pub(super) struct Host {
    to: Destination,
    tls: TlsConnector,
    metrics: Arc<Metrics>,
    http1_in_use: Arc<Semaphore>,
    preferred: Preferred,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    http2: Vec<Http2>,
    http1: Vec<IdleHttp1>,
    speaks_http1: bool,
    /// The attempts to open a connection, each with the lane that it is for.
    opening: Vec<(Lane, Opening)>,
}

struct Http2 {
    sender: Http2Sender,
    load: Arc<Load>,
    opened: Instant,
    /// The lane whose requests are on it, or were last.
    lane: Lane,
}

struct IdleHttp1 {
    sender: Http1Sender,
    opened: Instant,
    until: Instant,
}

type Opening = Shared<BoxFuture<'static, Result<(), String>>>;

/// The step that gets a request its connection, chosen under the lock and done outside of it.
enum Next {
    Use(Lent),
    Await(Opening),
    OpenHttp1,
    Refuse(&'static str),
}

/// Why a request finds no place.
const FULL: &str = "every connection is in use";

impl Host {
    pub(super) fn new(to: Destination, tls: TlsConnector, metrics: Arc<Metrics>) -> Self {
        Self {
            to,
            tls,
            metrics,
            http1_in_use: Arc::new(Semaphore::new(MAX_HTTP1_IN_USE)),
            preferred: Preferred::default(),
            state: Mutex::default(),
        }
    }

    /// Returns a connection for one request of a lane: a free one, else a new one. With `newer_than`, only one that
    /// was opened after that moment.
    ///
    /// # Errors
    /// [`Error::Connect`]: no connection can be opened, and there is no other with a free place.
    pub(super) async fn lend(
        self: &Arc<Self>,
        lane: Lane,
        newer_than: Option<Instant>,
    ) -> Result<Lent, Error> {
        loop {
            match self.next(lane, newer_than) {
                Next::Use(lent) => return Ok(lent),
                Next::Refuse(why) => return Err(Error::connect(&self.to, why)),
                Next::Await(opening) => {
                    if let Err(why) = opening.await {
                        let shared = self.state().least_busy(lane, newer_than);
                        return shared.ok_or_else(|| Error::connect(&self.to, why));
                    }
                }
                Next::OpenHttp1 => {
                    let opened = self.open().await;
                    match opened.map_err(|why| Error::connect(&self.to, why))? {
                        Connection::Http1(sender) => match self.http1_lease(Instant::now()) {
                            Some(lease) => return Ok(Lent::Http1(sender, lease)),
                            None => return Err(Error::connect(&self.to, FULL)),
                        },
                        other => self.state().add(other, lane),
                    }
                }
            }
        }
    }

    fn next(self: &Arc<Self>, lane: Lane, newer_than: Option<Instant>) -> Next {
        let mut state = self.state();
        state.drop_unusable();
        if let Some(lent) = state.own_or_idle(lane, newer_than) {
            return Next::Use(lent);
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
        if let Some((_, opening)) = state.opening.iter().find(|(of, _)| *of == lane) {
            return Next::Await(opening.clone());
        }
        let of_lane = state.http2.iter().filter(|c| c.lane == lane).count();
        if lane.client.is_some() && of_lane >= MAX_LANE_CONNECTIONS {
            return Next::Refuse(FULL);
        }
        let open = state.http2.len() + state.opening.len();
        if open >= OWN_CONNECTIONS
            && let Some(lent) = state.least_busy(lane, newer_than)
        {
            return Next::Use(lent);
        }
        match state.opening.first() {
            Some((_, opening)) if state.opening.len() >= MAX_OPENING => {
                Next::Await(opening.clone())
            }
            _ if open >= MAX_HTTP2_CONNECTIONS => Next::Refuse(FULL),
            _ => {
                let opening = self.start_opening(lane);
                state.opening.push((lane, opening.clone()));
                Next::Await(opening)
            }
        }
    }

    /// Opens a connection in a task of its own, so that it is there even if its request is gone.
    fn start_opening(self: &Arc<Self>, lane: Lane) -> Opening {
        let attempt = OpeningEntry {
            host: Arc::clone(self),
            lane,
        };
        let task = tokio::spawn(async move {
            let opened = attempt.host.open().await;
            opened.map(|connection| attempt.host.state().add(connection, lane))
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
        connection::open(&self.to, &self.tls, &self.preferred, open_now, sweep).await
    }

    /// Keeps an HTTP/1.1 connection for a later request, for at most this time.
    pub(super) fn keep_http1(&self, sender: Http1Sender, opened: Instant, limit: Duration) {
        self.state().keep_http1(sender, opened, limit);
    }

    fn http1_lease(self: &Arc<Self>, opened: Instant) -> Option<Http1Lease> {
        let permit = Arc::clone(&self.http1_in_use).try_acquire_owned().ok()?;
        Some(Http1Lease {
            host: Arc::clone(self),
            opened,
            idle_limit: HTTP1_IDLE_TIMEOUT,
            _permit: permit,
        })
    }

    /// Returns true while a request is on its way to this host. The idle connections of others may be closed.
    pub(super) fn in_use(self: &Arc<Self>) -> bool {
        let is_busy = |c: &Http2| c.load.streams() > 0;
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

/// Takes an attempt off the list, however it ends.
struct OpeningEntry {
    host: Arc<Host>,
    lane: Lane,
}

impl Drop for OpeningEntry {
    fn drop(&mut self) {
        let lane = self.lane;
        self.host.state().opening.retain(|(of, _)| *of != lane);
    }
}

impl State {
    fn add(&mut self, connection: Connection, lane: Lane) {
        let opened = Instant::now();
        match connection {
            Connection::Http2(sender, load) => {
                self.speaks_http1 = false;
                self.http2.push(Http2 {
                    sender,
                    load,
                    opened,
                    lane,
                });
            }
            Connection::Http1(sender) => {
                self.speaks_http1 = true;
                self.keep_http1(sender, opened, HTTP1_IDLE_TIMEOUT);
            }
        }
    }

    fn keep_http1(&mut self, sender: Http1Sender, opened: Instant, limit: Duration) {
        if self.http1.len() < MAX_HTTP1_IDLE {
            let until = Instant::now() + limit.min(HTTP1_IDLE_TIMEOUT);
            self.http1.push(IdleHttp1 {
                sender,
                opened,
                until,
            });
        }
    }

    /// Drops the connections that take no further requests. What runs on them goes on.
    fn drop_unusable(&mut self) {
        self.http2.retain(|c| {
            !c.sender.is_closed() && !c.load.is_retired() && c.load.idle() < IDLE_TIMEOUT
        });
        let now = Instant::now();
        self.http1
            .retain(|c| !c.sender.is_closed() && now < c.until);
    }

    /// A place on one of the lane's connections, else on an idle one, which becomes the lane's. The first of each:
    /// the later ones fall idle and are closed.
    fn own_or_idle(&mut self, lane: Lane, newer_than: Option<Instant>) -> Option<Lent> {
        let usable = |c: &&mut Http2| c.is_usable(newer_than);
        let mut own = self.http2.iter_mut().filter(usable);
        let own = own.find_map(|c| {
            let is_busy = c.lane == lane && c.load.streams() > 0;
            is_busy.then(|| c.lend()).flatten()
        });
        own.or_else(|| {
            let mut idle = self.http2.iter_mut().filter(usable);
            let idle = idle.find(|c| c.load.streams() == 0)?;
            idle.lane = lane;
            idle.lend()
        })
    }

    /// A place on the least busy connection, of the same kind if there is one, and a suspect one at last.
    fn least_busy(&self, lane: Lane, newer_than: Option<Instant>) -> Option<Lent> {
        let usable = self.http2.iter().filter(|c| c.is_newer(newer_than));
        let mut usable: Vec<_> = usable.collect();
        usable.sort_by_key(|c| {
            let is_of_other_kind = c.lane.is_session != lane.is_session;
            (c.load.is_suspect(), is_of_other_kind, c.load.streams())
        });
        usable.into_iter().find_map(Http2::lend)
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

impl Http2 {
    fn is_usable(&self, newer_than: Option<Instant>) -> bool {
        !self.load.is_suspect() && self.is_newer(newer_than)
    }

    fn is_newer(&self, than: Option<Instant>) -> bool {
        than.is_none_or(|moment| self.opened >= moment)
    }

    fn lend(&self) -> Option<Lent> {
        let slot = Slot::on(&self.load)?;
        Some(Lent::Http2(self.sender.clone(), slot))
    }
}
