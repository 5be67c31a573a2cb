//! The HTTP client that spans leave through: one HTTP/1.1 connection for each batch.

use std::{pin::Pin, sync::Arc, time::Duration};

use http::{HeaderValue, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::Handle,
};
use tokio_rustls::TlsConnector;

use crate::telemetry::rarely::Rarely;

/// Longest time for a batch, from the connection to the answer: the default of OTLP exporters.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read. A collector answers with a few bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Where a collector listens.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    tls: bool,
    host: String,
    port: u16,
    authority: HeaderValue,
}

impl Endpoint {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text
            .parse()
            .map_err(|error| format!("not a URL: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("must start with \"http://\" or \"https://\"".to_owned()),
        };
        let authority = uri
            .authority()
            .filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or("names no host")?;
        if authority.as_str().contains('@') {
            return Err("must not hold a user name or password".to_owned());
        }
        let default = if tls { 443 } else { 80 };
        Ok(Self {
            tls,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(default),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| "names no host")?,
        })
    }
}

/// Sends batches to a collector.
#[derive(Clone)]
pub(super) struct Client(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    tls: Option<TlsConnector>,
    /// Where connections run: the thread that asks is none of the runtime's.
    runtime: Handle,
    failed: Rarely,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Client").field(&self.0.endpoint).finish()
    }
}

impl Client {
    /// Sends to this endpoint, on the runtime that runs this.
    ///
    /// # Errors
    /// When the system has no root certificates for a collector with TLS.
    pub(super) fn new(endpoint: Endpoint) -> Result<Self, String> {
        let tls = endpoint.tls.then(connector).transpose()?;
        Ok(Self(Arc::new(Inner {
            endpoint,
            tls,
            runtime: Handle::try_current().map_err(|error| error.to_string())?,
            failed: Rarely::default(),
        })))
    }
}

impl HttpClient for Client {
    fn send_bytes<'s, 'f>(
        &'s self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            let inner = Arc::clone(&self.0);
            let sent = self.0.runtime.spawn(async move {
                let sent = tokio::time::timeout(TIMEOUT, inner.send(request)).await;
                sent.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}").into()))
            });
            let sent = sent.await.unwrap_or_else(|error| Err(error.into()));
            let wrong = match &sent {
                Ok(answer) if answer.status().is_success() => None,
                // Not what it says: it may repeat what it got.
                Ok(answer) => Some(format!("it answered {}", answer.status())),
                Err(error) => Some(error.to_string()),
            };
            if let Some(error) = wrong
                && let Some(batches) = self.0.failed.again()
            {
                tracing::warn!(batches, error, "traces could not be sent to the collector");
            }
            sent
        })
    }
}

impl Inner {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let to = &self.endpoint;
        let tcp = TcpStream::connect((&*to.host, to.port)).await?;
        match &self.tls {
            None => self.send_on(tcp, request).await,
            Some(tls) => {
                let name = ServerName::try_from(to.host.clone())?;
                self.send_on(tls.connect(name, tcp).await?, request).await
            }
        }
    }

    async fn send_on<I>(&self, io: I, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        // It ends with its only request.
        tokio::spawn(async move { drop(connection.await) });
        let mut request = request.map(Full::new);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
        request
            .headers_mut()
            .insert(header::HOST, self.endpoint.authority.clone());
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

/// TLS with the system's root certificates.
fn connector() -> Result<TlsConnector, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err("the system has no root certificates to know the collector by".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
