//! A small HTTP client that sends exactly what it is told, over HTTP/1.1 or HTTP/2.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::BASIN;

/// Any request body.
pub type AnyBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// One connection.
pub struct Client(Sender, Option<std::net::TcpStream>);

enum Sender {
    H1(tokio::sync::Mutex<http1::SendRequest<AnyBody>>),
    H2(http2::SendRequest<AnyBody>),
}

/// A request to send.
#[derive(Debug, Clone)]
pub struct Ask {
    method: Method,
    uri: String,
    headers: HeaderMap,
    body: Bytes,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body as it came.
    pub body: Bytes,
}

impl Ask {
    /// A request in [`BASIN`].
    pub fn new(method: &str, uri: impl Into<String>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("s2-basin", HeaderValue::from_static(BASIN));
        Self {
            method: method.parse().unwrap(),
            uri: uri.into(),
            headers,
            body: Bytes::new(),
        }
    }

    pub fn get(uri: impl Into<String>) -> Self {
        Self::new("GET", uri)
    }

    pub fn post(uri: impl Into<String>) -> Self {
        Self::new("POST", uri)
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name: HeaderName = name.parse().unwrap();
        let value = HeaderValue::from_bytes(value.as_ref()).unwrap();
        self.headers.append(name, value);
        self
    }

    /// Asks in another basin.
    pub fn basin(self, basin: &str) -> Self {
        self.without("s2-basin").header("s2-basin", basin)
    }

    /// Removes a header, such as the basin.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    /// Sends this key.
    pub fn key(self, key: &[u8]) -> Self {
        self.header("s2-encryption-key", super::base64(key))
    }

    /// Sends this JSON.
    pub fn json(self, body: &serde_json::Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// The bytes it sends.
    pub fn body_bytes(&self) -> &Bytes {
        &self.body
    }

    /// Sends these bytes.
    pub fn body(self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.header("content-type", content_type).raw(body)
    }

    /// Sends these bytes without saying what they are.
    pub fn raw(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The S2 error code, or nothing.
    pub fn code(&self) -> String {
        let json: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        let code = json.and_then(|json| json["code"].as_str().map(str::to_owned));
        code.unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Client {
    /// Connects over TLS, trusting this certificate alone, with this ALPN protocol.
    pub async fn tls(address: SocketAddr, certificate: &str, alpn: &str) -> Self {
        Self::in_window(address, certificate, alpn, 1 << 20).await
    }

    /// The same with so many bytes of each answer before the client has taken some.
    pub async fn in_window(
        address: SocketAddr,
        certificate: &str,
        alpn: &str,
        window: u32,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let (io, socket) = dial(address).await;
        let name = ServerName::try_from("localhost").unwrap();
        let io = TlsConnector::from(Arc::new(config))
            .connect(name, io)
            .await
            .unwrap();
        let io = TokioIo::new(io);
        match alpn {
            "h2" => {
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(window)
                    .initial_connection_window_size(1 << 22)
                    .handshake(io)
                    .await
                    .unwrap();
                tokio::spawn(connection);
                Self(Sender::H2(sender), Some(socket))
            }
            _ => {
                let (sender, connection) = http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                Self(Sender::H1(sender.into()), Some(socket))
            }
        }
    }

    /// Speaks HTTP/2 over what is connected already.
    pub async fn over<I>(io: I) -> hyper::Result<Self>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await?;
        tokio::spawn(connection);
        Ok(Self(Sender::H2(sender), None))
    }

    /// Connects without TLS, by HTTP/2 prior knowledge.
    pub async fn plain(address: SocketAddr) -> Self {
        let (io, socket) = dial(address).await;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self(Sender::H2(sender), Some(socket))
    }

    /// Connects without TLS, by HTTP/1.1.
    pub async fn plain_http1(address: SocketAddr) -> Self {
        let (io, socket) = dial(address).await;
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
        tokio::spawn(connection);
        Self(Sender::H1(sender.into()), Some(socket))
    }

    /// Closes the connection under everything that still uses it, as when the process dies.
    pub fn vanish(&self) {
        let socket = self.1.as_ref().expect("a socket of its own");
        // The other side may have been quicker.
        let _closed = socket.shutdown(std::net::Shutdown::Both);
    }

    /// Sends one request and reads the whole answer.
    pub async fn ask(&self, ask: Ask) -> Answer {
        self.try_ask(ask).await.unwrap()
    }

    /// Sends one request and reads the whole answer, unless the connection breaks.
    pub async fn try_ask(&self, ask: Ask) -> hyper::Result<Answer> {
        let (parts, body) = self.try_open(ask).await?.into_parts();
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.collect().await?.to_bytes(),
        })
    }

    /// Sends one request and returns the answer with its body still to come.
    pub async fn open(&self, ask: Ask) -> Response<Incoming> {
        self.try_open(ask).await.unwrap()
    }

    async fn try_open(&self, ask: Ask) -> hyper::Result<Response<Incoming>> {
        let body = Full::new(ask.body.clone())
            .map_err(|never| match never {})
            .boxed_unsync();
        self.send(ask, body).await
    }

    /// Sends one request with any body.
    pub async fn send(&self, ask: Ask, body: AnyBody) -> hyper::Result<Response<Incoming>> {
        let uri = match &self.0 {
            Sender::H1(_) => ask.uri.clone(),
            Sender::H2(_) => format!("https://localhost{}", ask.uri),
        };
        let mut request = Request::builder()
            .method(ask.method)
            .uri(uri)
            .body(body)
            .unwrap();
        *request.headers_mut() = ask.headers;
        match &self.0 {
            Sender::H1(sender) => {
                let host = HeaderValue::from_static("localhost");
                request.headers_mut().entry("host").or_insert(host);
                let mut sender = sender.lock().await;
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::H2(sender) => {
                let mut sender = sender.clone();
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}

/// Connects, and keeps a second handle on the socket.
async fn dial(address: SocketAddr) -> (TcpStream, std::net::TcpStream) {
    let io = TcpStream::connect(address).await.unwrap();
    io.set_nodelay(true).unwrap();
    let io = io.into_std().unwrap();
    let socket = io.try_clone().unwrap();
    (TcpStream::from_std(io).unwrap(), socket)
}
