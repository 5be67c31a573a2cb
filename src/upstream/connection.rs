//! Opening one connection: TCP, TLS where asked for, and the HTTP version the two sides agree on.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus::IntGauge;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_util::io::InspectReader;

use super::{
    body::RequestBody,
    connect::{Preferred, connect},
    endpoint::Destination,
};
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
/// Time without a byte from the peer after which a connection is asked for a sign of life, and the time that the
/// answer may take. The interval is short, so that other requests leave a dead connection within 3 s
/// ([`SUSPECT_AFTER`]). Both together are the 30 s of
/// S2's own clients: a peer that pauses for some seconds loses nothing.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(29);
/// Time without a byte from the peer after which a connection takes no new requests until one arrives, and a request
/// that only reads is also sent elsewhere. A living peer answers a ping before: half a second is longer than a round
/// trip to the other side of the earth.
const SUSPECT_AFTER: Duration = Duration::from_millis(1_500);
/// Cancelled requests after which a connection takes no further ones. Peers count resets over the life of a
/// connection: h2 ends one after 1,024 stream errors, and other servers have lower limits.
const MAX_RESETS: usize = 200;
/// Streams that this side reset and whose late frames are ignored: all that one connection can have until it is
/// retired. A late frame of a stream beyond them would count as an error of the peer.
const MAX_RESET_STREAMS: usize = MAX_RESETS + MAX_STREAMS;
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
    opened: Instant,
    /// When the last byte of the peer arrived, in milliseconds after `opened`.
    last_read: AtomicU64,
    /// Requests that this side cancelled.
    resets: AtomicUsize,
    /// The peer announced its end, or there were too many resets.
    is_retired: AtomicBool,
}

struct Now {
    streams: usize,
    /// When `streams` last became 0.
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
    preferred: &Preferred,
    open_now: &OpenNow,
    sweep: impl Fn() + Send + 'static,
) -> Result<Connection, String> {
    let mut address = None;
    let opening = async {
        let tcp = connect((to.host(), to.port()), preferred)
            .await
            .map_err(|error| error.to_string())?;
        address = tcp.peer_addr().ok().map(|address| address.ip());
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
    let opened = timeout(CONNECT_TIMEOUT, opening)
        .await
        .unwrap_or_else(|_| Err(format!("no connection within {CONNECT_TIMEOUT:?}")));
    preferred.set(address.filter(|_| opened.is_ok()));
    opened
}

impl Load {
    fn new() -> Self {
        let opened = Instant::now();
        Self {
            limit: AtomicUsize::new(0),
            now: Mutex::new(Now {
                streams: 0,
                since: opened,
            }),
            opened,
            last_read: AtomicU64::new(0),
            resets: AtomicUsize::new(0),
            is_retired: AtomicBool::new(false),
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

    /// Gives a place back. `is_whole` says that the answer was received to its end: otherwise the request was, or may
    /// have been, reset.
    pub(super) fn release(&self, is_whole: bool) {
        if !is_whole && self.resets.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_RESETS {
            self.retire();
        }
        let mut now = self.now();
        now.streams = now.streams.saturating_sub(1);
        if now.streams == 0 {
            now.since = Instant::now();
        }
    }

    /// Lets the requests that are running end, and takes no others.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Relaxed)
    }

    /// The requests that are running.
    pub(super) fn streams(&self) -> usize {
        self.now().streams
    }

    /// Whether the peer should have given a sign of life and did not.
    pub(super) fn is_suspect(&self) -> bool {
        self.quiet() > SUSPECT_AFTER
    }

    /// Waits until the connection is suspect.
    pub(super) async fn suspected(&self) {
        while !self.is_suspect() {
            let wait = SUSPECT_AFTER.saturating_sub(self.quiet());
            tokio::time::sleep(wait + Duration::from_millis(1)).await;
        }
    }

    /// Time since the last byte of the peer.
    fn quiet(&self) -> Duration {
        let last_read = Duration::from_millis(self.last_read.load(Ordering::Relaxed));
        (self.opened + last_read).elapsed()
    }

    fn note_read(&self) {
        let after = self.opened.elapsed().as_millis();
        self.last_read.store(after as u64, Ordering::Relaxed);
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
    let load = Arc::new(Load::new());
    let read = Arc::clone(&load);
    let io = InspectReader::new(io, move |_| read.note_read());
    let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_max_send_streams(SETTINGS_PENDING)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_concurrent_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(None)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
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
    load.limit.store(limit, Ordering::Relaxed);
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
