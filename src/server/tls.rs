//! TLS towards clients: the listener's certificate, and the certificates asked of clients.

use std::{path::Path, sync::Arc};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::config::Config;
use crate::{
    certificate,
    file::{self, OptionalFile},
};

/// The protocols offered, the preferred one first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

const CERT_KEY: &str = "listen.tls.cert_file";
const KEY_KEY: &str = "listen.tls.key_file";
const CLIENT_CA_KEY: &str = "listen.tls.client_ca_file";

/// What the listener needs for TLS.
pub(super) struct Tls {
    pub(super) acceptor: TlsAcceptor,
    /// The certificate in PEM, when it was made just now and clients cannot know it.
    pub(super) self_signed_pem: Option<String>,
}

struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pem: Option<String>,
}

impl Tls {
    /// Loads or makes the certificate; nothing for a plaintext listener.
    ///
    /// # Errors
    ///
    /// Every file that cannot be used, with its key; never what a file holds.
    pub(super) fn load(config: &Config) -> Result<Option<Self>, Vec<String>> {
        if config.plaintext {
            return Ok(None);
        }
        let identity = if config.tls.self_signed {
            self_signed(config).map_err(|problem| vec![problem])
        } else {
            identity(&config.tls.cert_file, &config.tls.key_file)
        };
        let clients = match config.tls.client_ca_file.path() {
            Some(path) => client_verifier(path),
            None => Ok(WebPkiClientVerifier::no_client_auth()),
        };
        match (identity, clients) {
            (Ok(identity), Ok(clients)) => Self::new(identity, clients)
                .map(Some)
                .map_err(|problem| vec![problem]),
            (identity, clients) => {
                let mut problems = identity.err().unwrap_or_default();
                problems.extend(clients.err());
                Err(problems)
            }
        }
    }

    fn new(identity: Identity, clients: Arc<dyn ClientCertVerifier>) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("listen.tls: {error}"))?
            .with_client_cert_verifier(clients)
            .with_single_cert(identity.chain, identity.key)
            .map_err(|error| format!("{CERT_KEY}: {error}"))?;
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            self_signed_pem: identity.pem,
        })
    }
}

/// Whose certificate the client presented; `None` when it was not asked for one.
pub(super) fn subject(connection: &ServerConnection) -> Option<Arc<str>> {
    let own = connection.peer_certificates()?.first()?;
    certificate::subject(own)
}

fn identity(chain: &OptionalFile, key: &OptionalFile) -> Result<Identity, Vec<String>> {
    let (Some(chain), Some(key)) = (chain.path(), key.path()) else {
        return Err(vec![format!("{CERT_KEY}: needs a certificate and its key")]);
    };
    let chain = file::certificates(CERT_KEY, chain);
    match (chain, file::private_key(KEY_KEY, key)) {
        (Ok(chain), Ok(key)) => Ok(Identity {
            chain,
            key,
            pem: None,
        }),
        (chain, key) => Err([chain.err(), key.err()].into_iter().flatten().collect()),
    }
}

/// A certificate for this host's loopback names, the listener's address and the basin domain.
fn self_signed(config: &Config) -> Result<Identity, String> {
    let mut names = ["localhost", "127.0.0.1", "::1"]
        .map(str::to_owned)
        .to_vec();
    let address = config.address.ip();
    if !address.is_unspecified() && !address.is_loopback() {
        names.push(address.to_string());
    }
    if !config.basin_domain.is_empty() {
        names.push(config.basin_domain.clone());
        names.push(format!("*.{}", config.basin_domain));
    }
    let make = || -> Result<Identity, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.self_signed(&key)?;
        Ok(Identity {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            pem: Some(certificate.pem()),
        })
    };
    make().map_err(|error| format!("listen.tls.self_signed: {error}"))
}

fn client_verifier(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let unusable =
        |error: &dyn std::fmt::Display| format!("{CLIENT_CA_KEY}: {}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in file::certificates(CLIENT_CA_KEY, path)? {
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| unusable(&error))
}
