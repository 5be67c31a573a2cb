//! Opening one connection: TCP, TLS where asked for, and the HTTP version the two sides agree on.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus::IntGauge;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_rustls::TlsConnector;

use super::{body::RequestBody, endpoint::Destination};
use crate::telemetry::{
    label::Protocol,
    metrics::{Each, Held},
};

/// Time to open a connection, from name lookup to the peer's HTTP/2 settings. The connect timeout of
/// S2's own clients.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Most requests at once on one HTTP/2 connection, as in S2's own clients: under the smallest limit
/// (100) that servers are advised to set (RFC 9113 section 6.5.2).
pub(super) const MAX_STREAMS: usize = 90;
/// Bytes a peer may send on one stream before it is read. A client that does not take what it reads makes
/// the proxy hold this much, so it is half of S2's largest batch: at a millisecond to the upstream, one
/// stream still gets about 500 MB/s.
const STREAM_WINDOW: u32 = 512 * 1024;
/// Bytes a peer may send on one connection before any is read: every stream's, for the streams are those of
/// different clients, and slow readers must not hold up the others.
const CONNECTION_WINDOW: u32 = MAX_STREAMS as u32 * STREAM_WINDOW;
/// Bytes of request body buffered per stream while the peer's window is shut: one batch's worth would
/// be held for every stream, a quarter keeps the pipe full.
const SEND_BUFFER: usize = 256 * 1024;
/// Header bytes accepted in a response: what s2-lite itself accepts in a request.
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// How often a busy connection is checked, and how long the answer may take: S2's own clients'.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// hyper has no event for "the settings have arrived", so a new connection is looked at this often.
const SETTINGS_POLL: Duration = Duration::from_millis(1);
/// Stands for "no settings yet": a limit that no peer would state.
const SETTINGS_PENDING: usize = (1 << 30) + 7;
/// How often the connections that were idle for too long are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);

pub(super) type Http2Sender = http2::SendRequest<RequestBody>;
pub(super) type Http1Sender = http1::SendRequest<RequestBody>;

/// A connection that is ready for its first request.
pub(super) enum Connection {
    Http1(Http1Sender),
    Http2(Http2Sender, Arc<Load>),
}

/// How busy one HTTP/2 connection is.
pub(super) struct Load {
    /// The peer's own limit.
    limit: AtomicUsize,
    now: Mutex<Now>,
}

struct Now {
    streams: usize,
    since: Instant,
}

/// The connections that are open now.
pub(super) type OpenNow = Each<Protocol, IntGauge>;

/// Opens a connection to `to`, which counts as open until it is over. `sweep` is called from time to time while it lives and once it is over.
///
/// # Errors
///
/// Why there is no connection; nothing of any request was sent.
pub(super) async fn open(
    to: &Destination,
    tls: &TlsConnector,
    open_now: &OpenNow,
    sweep: impl Fn() + Send + 'static,
) -> Result<Connection, String> {
    let opening = async {
        let tcp = TcpStream::connect((to.host(), to.port()))
            .await
            .map_err(|error| error.to_string())?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        if !to.tls {
            return http2_on(tcp, open_now, sweep).await;
        }
        let name = ServerName::try_from(to.host().to_owned()).map_err(|error| error.to_string())?;
        let io = tls
            .connect(name, tcp)
            .await
            .map_err(|error| format!("TLS: {error}"))?;
        match io.get_ref().1.alpn_protocol() {
            Some(b"h2") => http2_on(io, open_now, sweep).await,
            _ => http1_on(io, open_now, sweep).await,
        }
    };
    timeout(CONNECT_TIMEOUT, opening)
        .await
        .unwrap_or_else(|_| Err(format!("no connection within {CONNECT_TIMEOUT:?}")))
}

impl Load {
    fn new(limit: usize) -> Self {
        Self {
            limit: AtomicUsize::new(limit),
            now: Mutex::new(Now {
                streams: 0,
                since: Instant::now(),
            }),
        }
    }

    /// Takes a place for one more request, if there is one. It must be given back with [`Load::release`].
    pub(super) fn reserve(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed).min(MAX_STREAMS);
        let mut now = self.now();
        let free = now.streams < limit;
        now.streams += usize::from(free);
        free
    }

    pub(super) fn release(&self) {
        let mut now = self.now();
        now.streams = now.streams.saturating_sub(1);
        now.since = Instant::now();
    }

    /// How long there has been no request on the connection.
    pub(super) fn idle(&self) -> Duration {
        let now = self.now();
        match now.streams {
            0 => now.since.elapsed(),
            _ => Duration::ZERO,
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn http2_on<I>(
    io: I,
    open_now: &OpenNow,
    sweep: impl Fn() + Send + 'static,
) -> Result<Connection, String>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_max_send_streams(SETTINGS_PENDING)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADER_LIST)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake::<_, RequestBody>(TokioIo::new(io))
        .await
        .map_err(|error| format!("HTTP/2: {error}"))?;
    // Waiting for the settings proves that the peer speaks HTTP/2, before anything of a request is sent.
    let mut tick = interval(SETTINGS_POLL);
    while connection.current_max_send_streams() == SETTINGS_PENDING {
        tokio::select! {
            _ = &mut connection => return Err("the peer does not answer in HTTP/2".to_owned()),
            _ = tick.tick() => {}
        }
    }
    let limit = connection.current_max_send_streams();
    if limit == 0 {
        return Err("the peer accepts no HTTP/2 streams".to_owned());
    }
    let load = Arc::new(Load::new(limit));
    let stated = Arc::clone(&load);
    let driver = std::future::poll_fn(move |cx| {
        let over = Pin::new(&mut connection).poll(cx);
        let limit = connection.current_max_send_streams();
        stated.limit.store(limit, Ordering::Relaxed);
        over.map(|_| ())
    });
    let held = Held::new(open_now.of(Protocol::Http2));
    tokio::spawn(drive(driver, held, sweep));
    Ok(Connection::Http2(sender, load))
}

async fn http1_on<I>(
    io: I,
    open_now: &OpenNow,
    sweep: impl Fn() + Send + 'static,
) -> Result<Connection, String>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(io))
        .await
        .map_err(|error| format!("HTTP/1.1: {error}"))?;
    let driver = async move {
        let _ = connection.await;
    };
    let held = Held::new(open_now.of(Protocol::Http1));
    tokio::spawn(drive(driver, held, sweep));
    Ok(Connection::Http1(sender))
}

/// Runs a connection until it is over. Errors are not looked at: every request on it learns its own.
async fn drive(connection: impl Future<Output = ()>, _held: Held, sweep: impl Fn()) {
    let mut connection = std::pin::pin!(connection);
    let mut tick = interval(SWEEP_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut connection => break,
            _ = tick.tick() => sweep(),
        }
    }
    sweep();
}
