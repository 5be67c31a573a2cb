//! The quickstart's own S2 client: one request, one connection, plain HTTP/1.1.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::cli::Failure;

/// Talks to one of the two servers.
pub(super) struct Client {
    address: SocketAddr,
    tls: Option<TlsConnector>,
}

impl Client {
    /// A client of the server at `address`, without TLS.
    pub(super) fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// A client of the server at `address` that trusts this certificate and no other.
    ///
    /// # Errors
    /// When the certificate cannot be used.
    pub(super) fn tls(address: SocketAddr, certificate: &str) -> Result<Self, Failure> {
        let other = |error: &dyn std::fmt::Display| Failure::Other(format!("quickstart: {error}"));
        let certificate =
            CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|e| other(&e))?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate).map_err(|e| other(&e))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| other(&e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            address,
            tls: Some(TlsConnector::from(Arc::new(config))),
        })
    }

    /// Sends one request and returns the whole answer.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, Failure> {
        let io = TcpStream::connect(self.address).await?;
        match &self.tls {
            None => exchange(io, request).await,
            Some(tls) => {
                let name = ServerName::try_from("localhost").map_err(failure)?;
                exchange(tls.connect(name, io).await?, request).await
            }
        }
    }
}

async fn exchange<I>(io: I, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Failure>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(failure)?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(failure)?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(failure)?.to_bytes();
    Ok(Response::from_parts(parts, body))
}

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure::Other(format!("quickstart: {error}"))
}
