//! One client connection: handshake, HTTP/1.1 or HTTP/2, requests handed to the handler.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::Watcher},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{error::Elapsed, sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::{
    Handler, LiveTls, Peer,
    balancer::{AddressRange, HeaderError, client_address},
    config::Limits,
    half_closed::ReadSessions,
    linger::{LastBody, Lingering},
    live::UnreadableCertificate,
    socket,
};
use crate::{
    body::Cutoff,
    drain::Drain,
    received::ReceivedBody,
    telemetry::{label::HandshakeFailure, metrics::Metrics},
};

/// Requests at once on one HTTP/2 connection: what s2-lite offers; S2's clients use at most 100.
const MAX_STREAMS: u32 = 200;
/// Bytes a client may send on one stream before they are read: a batch of 1 MiB and its framing fit
/// without waiting for a window update.
const STREAM_WINDOW: u32 = 1024 * 1024 + 64 * 1024;
/// Bytes a client may send on one connection before any is read: some full streams. This is memory that a
/// client takes without asking, so that all connections together take at most this times
/// `limits.max_connections`. s2-lite offers 1 MiB.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Bytes of response body buffered per stream while the client's window is shut.
const SEND_BUFFER: usize = 256 * 1024;
/// Header bytes accepted in a request: s2-lite's figure.
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// Read buffer of an HTTP/1.1 connection, which also bounds a request's head.
const HTTP1_BUFFER: usize = 64 * 1024;
/// How often a quiet HTTP/2 connection is checked, and how long the answer may take: the same as S2's
/// clients do from their side.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What all connections of a listener share.
pub(super) struct Shared<H> {
    pub(super) handler: Arc<H>,
    pub(super) tls: LiveTls,
    pub(super) limits: Limits,
    pub(super) balancers: Vec<AddressRange>,
    pub(super) http: auto::Builder<TokioExecutor>,
    pub(super) drain: Drain,
    /// How long a connection may last, whatever goes on.
    pub(super) max_age: Option<Duration>,
    pub(super) metrics: Option<Arc<Metrics>>,
}

/// The HTTP settings of every connection.
pub(super) fn http(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .half_close(true)
        .max_buf_size(HTTP1_BUFFER);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADER_LIST)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    http
}

/// A connection on which HTTP begins.
enum Begun {
    Plain(Lingering<TcpStream>),
    Tls(Box<TlsStream<Lingering<TcpStream>>>),
}

/// Why HTTP does not begin on a connection.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("the balancer in listen.proxy_protocol: {0}")]
    ProxyHeader(#[from] HeaderError),
    #[error("TLS handshake failed: {0}")]
    Tls(#[from] io::Error),
    #[error("cannot read the client certificate")]
    Certificate(#[from] UnreadableCertificate),
    #[error("TLS handshake took too long")]
    Timeout(#[from] Elapsed),
}

impl HandshakeError {
    fn label(&self) -> HandshakeFailure {
        match self {
            Self::ProxyHeader(_) => HandshakeFailure::ProxyHeader,
            Self::Tls(_) | Self::Certificate(_) => HandshakeFailure::Tls,
            Self::Timeout(_) => HandshakeFailure::Timeout,
        }
    }
}

impl<H: Handler> Shared<H> {
    /// Serves one connection until it ends. `graceful` tells it to finish what is running and close.
    pub(super) async fn serve(
        self: Arc<Self>,
        tcp: TcpStream,
        address: SocketAddr,
        graceful: Watcher,
    ) {
        socket::prepare(&tcp, address);
        let mut peer = Peer {
            address,
            certificate: None,
        };
        let tcp = Lingering::new(tcp);
        let body = tcp.body();
        let handshake = self.handshake(tcp, &mut peer);
        let handshake = timeout(self.limits.handshake_timeout, handshake);
        let handshake = tokio::select! {
            biased;
            handshake = handshake => handshake.map_err(HandshakeError::from).flatten(),
            // Nothing was asked yet.
            () = self.drain.begun() => return,
        };
        match handshake {
            Ok(Begun::Plain(io)) => {
                let socket = io.socket();
                self.serve_http(io, (body, socket), peer, graceful).await;
            }
            Ok(Begun::Tls(io)) => {
                let (tcp, tls) = io.get_ref();
                let is_http2 = tls.alpn_protocol() == Some(b"h2");
                let socket = tcp.socket().filter(|_| !is_http2);
                self.serve_http(*io, (body, socket), peer, graceful).await;
            }
            Err(error) => {
                if let Some(metrics) = &self.metrics {
                    metrics.clients.handshake_failures.of(error.label()).inc();
                }
                debug!(peer = %peer.address, "{error}");
            }
        }
    }

    /// Reads what precedes HTTP: a balancer's header and the TLS handshake, where they are to be.
    async fn handshake(
        &self,
        mut tcp: Lingering<TcpStream>,
        peer: &mut Peer,
    ) -> Result<Begun, HandshakeError> {
        let from = peer.address.ip();
        if self.balancers.iter().any(|range| range.contains(from))
            && let Some(client) = client_address(&mut tcp).await?
        {
            peer.address = client;
        }
        let Some(tls) = self.tls.handshake() else {
            return Ok(Begun::Plain(tcp));
        };
        let io = tls.acceptor.accept(tcp).await?;
        peer.certificate = tls.presented(io.get_ref().1)?;
        Ok(Begun::Tls(Box::new(io)))
    }

    async fn serve_http<I>(
        &self,
        io: I,
        (body, socket): (LastBody, Option<OwnedFd>),
        peer: Peer,
        graceful: Watcher,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let address = peer.address;
        let requested = Arc::new(AtomicBool::new(false));
        let cutoff = Cutoff::default();
        let sessions = ReadSessions::default();
        let service = {
            let (handler, requested) = (Arc::clone(&self.handler), Arc::clone(&requested));
            let (cutoff, sessions) = (cutoff.clone(), sessions.clone());
            service_fn(move |request: Request<Incoming>| {
                let mut request = ReceivedBody::of_request(request);
                requested.store(true, Ordering::Relaxed);
                body.note(&request);
                sessions.asked();
                let (version, method) = (request.version(), request.method().clone());
                let sessions = sessions.clone();
                request.extensions_mut().insert(cutoff.clone());
                let response = Arc::clone(&handler).handle(request, peer.clone());
                async move {
                    let response = response.await;
                    sessions.answered(version, &method, &response);
                    Ok::<_, Infallible>(response)
                }
            })
        };
        let connection = self.http.serve_connection(TokioIo::new(io), service);
        let mut connection = pin!(graceful.watch(connection.into_owned()));
        let mut over = pin!(async {
            tokio::select! {
                () = cutoff.cut() => {}
                () = aged(self.max_age) => {}
                () = sessions.left(socket) => {}
            }
        });
        // hyper times HTTP/1.1 request heads, but neither the wait for a connection's first bytes nor
        // an HTTP/2 connection that never asks for anything.
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = &mut over => return,
            () = sleep(self.limits.header_timeout) => {
                if !requested.load(Ordering::Relaxed) {
                    debug!(peer = %address, "no request in time");
                    return;
                }
                tokio::select! {
                    ended = connection => ended,
                    () = over => return,
                }
            }
        };
        if let Err(error) = ended {
            debug!(peer = %address, %error, "connection broke off");
        }
    }
}

/// Waits until a connection is this old: for ever, where it may be of any age.
async fn aged(max_age: Option<Duration>) {
    match max_age {
        Some(age) => sleep(age).await,
        None => std::future::pending().await,
    }
}
