//! TLS towards clients: the listener's certificate, and the certificates asked of clients.

mod clients;

use std::sync::Arc;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use rustls::{ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use self::clients::AskedOfClients;
use super::config::Config;
use crate::{
    certificate::{Certificate, ClientVerifier, Role, identity_mistake, strong},
    file::{self, OptionalFile},
};

/// The protocols offered, the preferred one first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

const CERT_KEY: &str = "listen.tls.cert_file";
const KEY_KEY: &str = "listen.tls.key_file";

/// What new connections to the listener need for TLS.
pub(super) struct Tls {
    pub(super) config: Arc<ServerConfig>,
    /// The certificate that was made because none was named.
    made: Option<Made>,
    chain: Vec<CertificateDer<'static>>,
    clients: Option<AskedOfClients>,
}

/// A certificate that clients cannot know.
#[derive(Clone)]
struct Made {
    certificate: CertificateDer<'static>,
    key: Arc<PrivatePkcs8KeyDer<'static>>,
    pem: String,
}

impl Tls {
    /// Loads or makes the certificate; nothing for a plaintext listener. One that was made `before` is
    /// kept: clients may know it by now.
    ///
    /// # Errors
    ///
    /// Every file that cannot be used, with its key; never what a file holds.
    pub(super) fn load(
        config: &Config,
        before: Option<&Self>,
    ) -> Result<Option<Self>, Vec<String>> {
        if config.plaintext {
            return Ok(None);
        }
        let identity = if config.tls.self_signed {
            let made = before.and_then(|before| before.made.clone());
            let made = made.map_or_else(|| make(config), Ok);
            made.map(Identity::from).map_err(|problem| vec![problem])
        } else {
            identity(&config.tls.cert_file, &config.tls.key_file)
        };
        let clients = AskedOfClients::load(&config.tls);
        match (identity, clients) {
            (Ok(identity), Ok(clients)) => Self::new(identity, clients)
                .map(Some)
                .map_err(|problem| vec![problem]),
            (identity, clients) => {
                let mut problems = identity.err().unwrap_or_default();
                problems.extend(clients.err().unwrap_or_default());
                Err(problems)
            }
        }
    }

    fn new(identity: Identity, clients: Option<AskedOfClients>) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = identity.chain.clone();
        let verifier = match &clients {
            Some(asked) => Arc::clone(&asked.verifier.0),
            None => WebPkiClientVerifier::no_client_auth(),
        };
        // Sessions that clients may resume are remembered in here: a new configuration knows none, so that
        // no client comes back in past the authorities and revocation lists of now.
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("listen.tls: {error}"))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(identity.chain, identity.key)
            .map_err(|error| identity_mistake(&error, CERT_KEY, KEY_KEY))?;
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        Ok(Self {
            config: Arc::new(config),
            made: identity.made,
            chain,
            clients,
        })
    }

    /// The certificate in PEM, when it was made and clients cannot know it.
    pub(super) fn self_signed_pem(&self) -> Option<&str> {
        self.made.as_ref().map(|made| made.pem.as_str())
    }

    /// The certificates in use.
    pub(super) fn certificates(&self) -> impl Iterator<Item = Certificate> {
        let read = |role| move |der| Certificate::read(role, der);
        let chain = self.chain.iter().filter_map(read(Role::Listener));
        chain.chain(self.clients.iter().flat_map(AskedOfClients::certificates))
    }

    /// The check of client certificates, if the listener asks for them.
    pub(super) fn verifier(&self) -> Option<&Arc<ClientVerifier>> {
        self.clients.as_ref().map(|asked| &asked.verifier)
    }
}

struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    made: Option<Made>,
}

impl From<Made> for Identity {
    fn from(made: Made) -> Self {
        Self {
            chain: vec![made.certificate.clone()],
            key: made.key.clone_key().into(),
            made: Some(made),
        }
    }
}

fn identity(chain: &OptionalFile, key: &OptionalFile) -> Result<Identity, Vec<String>> {
    let (Some(chain), Some(key)) = (chain.path(), key.path()) else {
        return Err(vec![format!("{CERT_KEY}: needs a certificate and its key")]);
    };
    let chain =
        file::certificates(CERT_KEY, chain).and_then(|found| strong(CERT_KEY, chain, found));
    match (chain, file::private_key(KEY_KEY, key)) {
        (Ok(chain), Ok(key)) => Ok(Identity {
            chain,
            key,
            made: None,
        }),
        (chain, key) => Err([chain.err(), key.err()].into_iter().flatten().collect()),
    }
}

/// A certificate for this host's loopback names, the listener's address and the basin domain.
fn make(config: &Config) -> Result<Made, String> {
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
    let make = || -> Result<Made, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.self_signed(&key)?;
        Ok(Made {
            certificate: certificate.der().clone(),
            key: Arc::new(key.serialize_der().into()),
            pem: certificate.pem(),
        })
    };
    make().map_err(|error| format!("listen.tls.self_signed: {error}"))
}
