//! TLS towards the upstream: which roots are trusted and what the proxy presents.

use std::{path::Path, sync::Arc};

use rustls::{ClientConfig, ConfigBuilder, RootCertStore, client::WantsClientCert};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsConnector;

use super::config::TlsConfig;
use crate::file;

/// The protocols offered, the preferred one first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Builds the connector that every `https://` connection uses.
///
/// `in_use` says whether an endpoint is `https://`: only then are the system's roots read.
///
/// # Errors
///
/// Every file that cannot be used, with its key.
pub(super) fn connector(config: &TlsConfig, in_use: bool) -> Result<TlsConnector, Vec<String>> {
    let roots = match config.ca_file.path() {
        Some(path) => roots_from(path),
        None if in_use => system_roots(),
        None => Ok(RootCertStore::empty()),
    };
    let identity = identity(config);
    match (roots, identity) {
        (Ok(roots), Ok(identity)) => client_config(roots, identity)
            .map(|config| TlsConnector::from(Arc::new(config)))
            .map_err(|problem| vec![problem]),
        (roots, identity) => {
            let mut problems = Vec::from_iter(roots.err());
            problems.extend(identity.err().unwrap_or_default());
            Err(problems)
        }
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client_config(roots: RootCertStore, identity: Option<Identity>) -> Result<ClientConfig, String> {
    let builder = verifying(roots).map_err(|error| format!("upstream.tls: {error}"))?;
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("upstream.tls.client_cert_file: {error}"))?,
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

fn roots_from(path: &Path) -> Result<RootCertStore, String> {
    const KEY: &str = "upstream.tls.ca_file";
    let mut roots = RootCertStore::empty();
    for certificate in file::certificates(KEY, path)? {
        roots
            .add(certificate)
            .map_err(|error| format!("{KEY}: {}: {error}", path.display()))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err(
            "upstream.tls.ca_file: not set, and the system has no root certificates".into(),
        );
    }
    Ok(roots)
}

fn identity(config: &TlsConfig) -> Result<Option<Identity>, Vec<String>> {
    const CERT: &str = "upstream.tls.client_cert_file";
    const KEY: &str = "upstream.tls.client_key_file";
    match (
        config.client_cert_file.path(),
        config.client_key_file.path(),
    ) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(vec![format!("{CERT}: is set without {KEY}")]),
        (None, Some(_)) => Err(vec![format!("{KEY}: is set without {CERT}")]),
        (Some(chain), Some(key)) => {
            match (file::certificates(CERT, chain), file::private_key(KEY, key)) {
                (Ok(chain), Ok(key)) => Ok(Some((chain, key))),
                (chain, key) => Err([chain.err(), key.err()].into_iter().flatten().collect()),
            }
        }
    }
}
