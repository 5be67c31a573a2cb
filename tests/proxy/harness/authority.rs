//! Certificate authorities of a test, what they issue, and clients that present it.

use std::{net::SocketAddr, path::Path, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, date_time_ymd,
};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Answer, Ask, Client};

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub struct Issued {
    /// The certificate.
    pub pem: String,
    /// Its private key.
    pub key_pem: String,
}

impl Authority {
    /// A fresh one.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for `localhost` to this name.
    pub fn issue(&self, name: &str) -> Issued {
        self.issue_with(name, |_| {})
    }

    /// Issues one that is special.
    pub fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name = named(name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Issued {
            pem: params.signed_by(&key, &self.0).unwrap().pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

impl Authority {
    /// Its revocation list, in PEM, of certificates with these serial numbers.
    pub fn revoke(&self, serials: &[u64]) -> String {
        self.revoke_with(serials, |_| {})
    }

    /// A revocation list that is special.
    pub fn revoke_with(
        &self,
        serials: &[u64],
        change: impl FnOnce(&mut CertificateRevocationListParams),
    ) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let mut params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(3000, 1, 1),
            crl_number: 1u64.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        change(&mut params);
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

impl Issued {
    /// Writes it as `NAME.pem` and `NAME.key`.
    pub fn write(&self, dir: &Path, name: &str) {
        std::fs::write(dir.join(format!("{name}.pem")), &self.pem).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), &self.key_pem).unwrap();
    }

    /// The certificate.
    pub fn der(&self) -> CertificateDer<'static> {
        der(&self.pem)
    }

    /// Certificate and key as rustls takes them.
    pub fn identity(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).unwrap();
        (vec![self.der()], key)
    }
}

/// The certificate in this PEM.
pub fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// Certificates to trust.
pub fn roots<'a>(pems: impl IntoIterator<Item = &'a str>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for pem in pems {
        roots.add(der(pem)).unwrap();
    }
    roots
}

/// TLS of an HTTP/2 client that trusts these authorities and presents this. It resumes its sessions.
pub fn presenting<'a>(
    trusted: impl IntoIterator<Item = &'a str>,
    identity: Option<&Issued>,
) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(trusted));
    let mut config = match identity.map(Issued::identity) {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// What a client gets to know of a connection.
pub struct Met {
    /// Whether it was resumed.
    pub kind: HandshakeKind,
    /// The server's own certificate.
    pub certificate: CertificateDer<'static>,
    /// The client.
    pub client: Client,
}

/// Connects and asks; in TLS 1.3 a client learns only with the answer that it is let in.
pub async fn meet(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    ask: Ask,
) -> Result<(Met, Answer), String> {
    let io = connect(address, config).await.map_err(|e| e.to_string())?;
    let tls = io.get_ref().1;
    let (kind, certificate) = (tls.handshake_kind().unwrap(), tls.peer_certificates());
    let certificate = certificate.unwrap()[0].clone().into_owned();
    let client = Client::over(io).await.map_err(|e| e.to_string())?;
    let answer = client.try_ask(ask).await.map_err(|e| e.to_string())?;
    let met = Met {
        kind,
        certificate,
        client,
    };
    Ok((met, answer))
}

async fn connect(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let io = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::clone(config))
        .connect(name, io)
        .await
}
