//! What clients of a real listener see.

use std::sync::Mutex;

use bytes::Bytes;
use http::Version;
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
    task::JoinHandle,
};

use super::*;

mod balancer;
mod config;
mod half_closed;
mod mtls;

/// Answers with the request's HTTP version; `/wait` not before it is released. `/events` is a read session that ends
/// when it is released.
#[derive(Default)]
struct Echo {
    arrived: Notify,
    release: Notify,
    /// A read session, or a request that waits, is over.
    dropped: Notify,
    peers: Mutex<Vec<Peer>>,
}

impl Handler for Echo {
    async fn handle(self: Arc<Self>, request: Request<ReceivedBody>, peer: Peer) -> Response<Body> {
        self.peers.lock().unwrap().push(peer);
        if request.uri().path() == "/wait" {
            let _request = Session(Arc::clone(&self));
            self.arrived.notify_one();
            self.release.notified().await;
        }
        if request.uri().path() == "/events" {
            return self.events();
        }
        let version = format!("{:?}", request.version());
        let body = Full::from(version).map_err(|never| match never {});
        Response::new(body.boxed_unsync())
    }
}

/// Tells the handler when a read session, or a request that waits, is over.
struct Session(Arc<Echo>);

impl Drop for Session {
    fn drop(&mut self) {
        self.0.dropped.notify_one();
    }
}

impl Echo {
    fn events(self: Arc<Self>) -> Response<Body> {
        let session = Session(self);
        let end = futures_util::stream::once(async move {
            session.0.arrived.notify_one();
            session.0.release.notified().await;
            Ok(http_body::Frame::data(Bytes::from_static(
                b"data: [DONE]\n\n",
            )))
        });
        let mut response = Response::new(http_body_util::StreamBody::new(end).boxed_unsync());
        let events = http::HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert("content-type", events);
        response
    }
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new().unwrap())
}

struct Running {
    address: SocketAddr,
    certificate: Option<String>,
    handler: Arc<Echo>,
    drain: Drain,
    served: JoinHandle<()>,
}

impl Running {
    fn start(config: Config, limits: &Limits) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), config, limits)
    }

    fn start_at(address: SocketAddr, config: Config, limits: &Limits) -> Self {
        let config = Config { address, ..config };
        let server = Server::bind(&config, limits, metrics()).unwrap();
        let drain = Drain::new();
        let handler = Arc::new(Echo::default());
        let address = server.local_addr();
        let certificate = server.tls().self_signed_pem();
        let served = tokio::spawn(server.serve(Arc::clone(&handler), drain.clone()));
        Self {
            address,
            certificate,
            handler,
            drain,
            served,
        }
    }

    fn stop(&self) {
        self.drain.begin();
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Connects as a client that trusts nothing but the certificate the server made.
    async fn tls(&self, alpn: &[u8]) -> impl AsyncRead + AsyncWrite + Unpin + Send + use<> {
        self.tls_over(alpn, self.tcp().await).await
    }

    async fn tls_over(
        &self,
        alpn: &[u8],
        tcp: TcpStream,
    ) -> impl AsyncRead + AsyncWrite + Unpin + Send + use<> {
        let pem = self.certificate.as_ref().unwrap();
        let root = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let connector = connector(root, alpn, None);
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let io = connector.connect(name, tcp).await.unwrap();
        assert_eq!(io.get_ref().1.alpn_protocol(), Some(alpn));
        io
    }
}

fn connector(
    root: CertificateDer<'static>,
    alpn: &[u8],
    identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(vec![chain], key).unwrap(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config).into()
}

async fn over_http1<I>(io: I, path: &str) -> hyper::Result<Bytes>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header("host", "h");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await?;
    Ok(response.collect().await?.to_bytes())
}

async fn over_http2<I>(io: I, path: &str) -> hyper::Result<Bytes>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await?;
    tokio::spawn(connection);
    let request = Request::get(format!("http://h{path}")).version(Version::HTTP_2);
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await?;
    Ok(response.collect().await?.to_bytes())
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what)
        .await
        .expect("it should have happened by now")
}

/// Waits until the server closes a connection on which nothing is sent.
async fn is_cut(mut io: TcpStream) {
    let mut rest = Vec::new();
    // A reset is as good as an end.
    let _ = within(io.read_to_end(&mut rest)).await;
}

fn plaintext() -> Config {
    Config {
        plaintext: true,
        ..Config::default()
    }
}

fn self_signed() -> Config {
    let mut config = Config::default();
    config.tls.self_signed = true;
    config
}

#[tokio::test]
async fn both_http_versions_share_a_plaintext_port() {
    let server = Running::start(plaintext(), &Limits::default());
    let first = within(over_http1(server.tcp().await, "/")).await.unwrap();
    let second = within(over_http2(server.tcp().await, "/")).await.unwrap();
    assert_eq!(
        (&first[..], &second[..]),
        (&b"HTTP/1.1"[..], &b"HTTP/2.0"[..])
    );
}

#[tokio::test]
async fn both_http_versions_share_a_tls_port_under_a_self_signed_certificate() {
    let server = Running::start(self_signed(), &Limits::default());
    let io = server.tls(b"http/1.1").await;
    assert_eq!(within(over_http1(io, "/")).await.unwrap(), "HTTP/1.1");
    let io = server.tls(b"h2").await;
    assert_eq!(within(over_http2(io, "/")).await.unwrap(), "HTTP/2.0");
}

#[tokio::test]
async fn stalled_handshake_is_cut() {
    let limits = Limits {
        handshake_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = Running::start(self_signed(), &limits);
    is_cut(server.tcp().await).await;
}

#[tokio::test]
async fn connection_without_a_request_is_cut() {
    let limits = Limits {
        header_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = Running::start(plaintext(), &limits);
    is_cut(server.tcp().await).await;
    for part in [&b"PRI * HTTP/2"[..], b"GET / HTTP/1.1\r\nhost:"] {
        let mut io = server.tcp().await;
        io.write_all(part).await.unwrap();
        is_cut(io).await;
    }
}

#[tokio::test]
async fn connections_over_the_limit_wait() {
    let limits = Limits {
        max_connections: 1,
        ..Limits::default()
    };
    let server = Running::start(plaintext(), &limits);
    let io = server.tcp().await;
    let first = tokio::spawn(over_http1(io, "/wait"));
    within(server.handler.arrived.notified()).await;
    let second = tokio::spawn(over_http1(server.tcp().await, "/wait"));
    server.handler.release.notify_one();
    within(first).await.unwrap().unwrap();
    within(server.handler.arrived.notified()).await;
    server.handler.release.notify_one();
    within(second).await.unwrap().unwrap();
}

/// Sends a request whose body is only sent once its answer has come, as it may before the body is read.
async fn is_answered_early(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    let head = format!(
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n",
        1 << 20
    );
    io.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    io.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(b"HTTP/1.1"), "{}", answer.escape_ascii());
    // The client's half is still open: nothing it sends is met by a reset.
    for _ in 0..16 {
        io.write_all(&[b' '; 1 << 16]).await.unwrap();
        io.flush().await.unwrap();
    }
    io.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_answer_before_the_body_is_read_is_not_lost() {
    let server = Running::start(plaintext(), &Limits::default());
    within(is_answered_early(server.tcp().await)).await;
    let server = Running::start(self_signed(), &Limits::default());
    within(is_answered_early(server.tls(b"http/1.1").await)).await;
}

#[tokio::test]
async fn running_requests_end_before_the_server_does() {
    let server = Running::start(plaintext(), &Limits::default());
    let mut running = Vec::new();
    running.push(tokio::spawn(over_http1(server.tcp().await, "/wait")));
    within(server.handler.arrived.notified()).await;
    let io = server.tcp().await;
    running.push(tokio::spawn(async move { over_http2(io, "/wait").await }));
    within(server.handler.arrived.notified()).await;
    server.stop();
    within(async {
        while TcpStream::connect(server.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!server.served.is_finished());
    server.handler.release.notify_waiters();
    for request in running {
        within(request).await.unwrap().unwrap();
    }
    within(server.served).await.unwrap();
}

#[tokio::test]
async fn requests_that_do_not_end_are_cut_after_the_drain_timeout() {
    let limits = Limits {
        drain_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = Running::start(plaintext(), &limits);
    let request = tokio::spawn(over_http2(server.tcp().await, "/wait"));
    within(server.handler.arrived.notified()).await;
    server.stop();
    within(server.served).await.unwrap();
    within(request).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn shutdown_does_not_wait_for_idle_connections() {
    let server = Running::start(plaintext(), &Limits::default());
    let idle = server.tcp().await;
    within(over_http2(server.tcp().await, "/")).await.unwrap();
    server.stop();
    within(server.served).await.unwrap();
    drop(idle);
}

#[tokio::test]
async fn address_in_use_is_named() {
    let server = Running::start(plaintext(), &Limits::default());
    let config = Config {
        address: server.address,
        ..plaintext()
    };
    let error = Server::bind(&config, &Limits::default(), metrics())
        .err()
        .unwrap();
    assert!(error.to_string().starts_with("listen.address"), "{error}");
}
