//! TLS towards the upstream: which roots are trusted and what the proxy presents.

use std::{path::Path, sync::Arc};

use rustls::{ClientConfig, ConfigBuilder, RootCertStore, client::WantsClientCert};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsConnector;

use super::config::TlsConfig;
use crate::{
    certificate::{Certificate, Role, identity_mistake, strong, weakness},
    file,
};

/// The protocols offered, the preferred one first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

const CERT: &str = "upstream.tls.client_cert_file";
const KEY: &str = "upstream.tls.client_key_file";

/// What every `https://` connection uses.
pub(super) struct Tls {
    pub(super) connector: TlsConnector,
    /// The certificates that are trusted.
    roots: Vec<CertificateDer<'static>>,
    /// Whether the configuration names them; otherwise they are the system's.
    are_named: bool,
    /// What the proxy presents, its own certificate first; empty for nothing.
    chain: Vec<CertificateDer<'static>>,
}

impl Tls {
    /// Reads the files that the configuration names.
    ///
    /// `in_use` says whether an endpoint is `https://`: only then are the system's roots read.
    ///
    /// # Errors
    ///
    /// Every file that cannot be used, with its key.
    pub(super) fn load(config: &TlsConfig, in_use: bool) -> Result<Self, Vec<String>> {
        let roots = match config.ca_file.path() {
            Some(path) => roots_from(path),
            None if in_use => system_roots(),
            None => Ok((Vec::new(), RootCertStore::empty())),
        };
        match (roots, identity(config)) {
            (Ok((roots, store)), Ok(identity)) => {
                let chain = identity.as_ref().map(|(chain, _)| chain.clone());
                let config_of = client_config(store, identity).map_err(|problem| vec![problem])?;
                Ok(Self {
                    connector: TlsConnector::from(Arc::new(config_of)),
                    roots,
                    are_named: config.ca_file.is_set(),
                    chain: chain.unwrap_or_default(),
                })
            }
            (roots, identity) => {
                let mut problems = Vec::from_iter(roots.err());
                problems.extend(identity.err().unwrap_or_default());
                Err(problems)
            }
        }
    }

    /// Whether a connection of the one is as good as one of the other. A private key is as much the same
    /// as the certificate that it belongs to.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.roots, &self.chain) == (&other.roots, &other.chain)
    }

    /// The certificates that the configuration names.
    pub(super) fn certificates(&self) -> impl Iterator<Item = Certificate> {
        let roots = self.roots.iter().filter(|_| self.are_named);
        let roots = roots.filter_map(|der| Certificate::read(Role::UpstreamCa, der));
        let chain = self.chain.iter();
        roots.chain(chain.filter_map(|der| Certificate::read(Role::UpstreamClient, der)))
    }
}

type Roots = (Vec<CertificateDer<'static>>, RootCertStore);
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client_config(roots: RootCertStore, identity: Option<Identity>) -> Result<ClientConfig, String> {
    let builder = verifying(roots).map_err(|error| format!("upstream.tls: {error}"))?;
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| identity_mistake(&error, CERT, KEY))?,
    };
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

fn verifying(
    roots: RootCertStore,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    Ok(builder
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots))
}

fn roots_from(path: &Path) -> Result<Roots, String> {
    const KEY: &str = "upstream.tls.ca_file";
    let mut roots = RootCertStore::empty();
    let found = file::certificates(KEY, path)?;
    // A bundle may hold old roots beside others: only those are of no use.
    if let Some(mistake) = found.iter().map(weakness).collect::<Option<Vec<_>>>() {
        return Err(format!("{KEY}: {}: {}", path.display(), mistake.join("; ")));
    }
    for certificate in &found {
        roots
            .add(certificate.clone())
            .map_err(|error| format!("{KEY}: {}: {error}", path.display()))?;
    }
    Ok((found, roots))
}

fn system_roots() -> Result<Roots, String> {
    let found = rustls_native_certs::load_native_certs().certs;
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.iter().cloned());
    if usable == 0 {
        return Err(
            "upstream.tls.ca_file: not set, and the system has no root certificates".into(),
        );
    }
    Ok((found, roots))
}

fn identity(config: &TlsConfig) -> Result<Option<Identity>, Vec<String>> {
    match (
        config.client_cert_file.path(),
        config.client_key_file.path(),
    ) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(vec![format!("{CERT}: is set without {KEY}")]),
        (None, Some(_)) => Err(vec![format!("{KEY}: is set without {CERT}")]),
        (Some(chain), Some(key)) => {
            let found =
                file::certificates(CERT, chain).and_then(|found| strong(CERT, chain, found));
            match (found, file::private_key(KEY, key)) {
                (Ok(chain), Ok(key)) => Ok(Some((chain, key))),
                (chain, key) => Err([chain.err(), key.err()].into_iter().flatten().collect()),
            }
        }
    }
}
