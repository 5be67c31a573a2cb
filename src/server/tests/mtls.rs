//! Clients that must present a certificate.

use std::io::Write as _;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::HandshakeKind;

use super::*;

fn file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

#[tokio::test]
async fn client_without_a_certificate_of_the_ca_is_refused() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    leaf.distinguished_name
        .push(DnType::OrganizationName, "Example");
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    let (ca_pem, cert_pem, key_pem) = (
        file(&ca.pem()),
        file(&leaf.pem()),
        file(&key.serialize_pem()),
    );
    let mut config = Config {
        authenticate: Authenticate::Mtls,
        ..Config::default()
    };
    config.tls.cert_file = cert_pem.path().into();
    config.tls.key_file = key_pem.path().into();
    config.tls.client_ca_file = ca_pem.path().into();
    let server = Running::start(config, &Limits::default());
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let connecting = |identity| connector(ca.der().clone(), b"http/1.1", identity);
    let known = connecting(Some((leaf.der().clone(), key)));
    for (connector, comes_in, resumes) in [
        (&connecting(None), false, false),
        (&known, true, false),
        (&known, true, true),
    ] {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        // In TLS 1.3 the client learns of a refusal only when it reads.
        let io = connector.connect(name, server.tcp().await).await.unwrap();
        let kind = io.get_ref().1.handshake_kind();
        assert_eq!(kind == Some(HandshakeKind::Resumed), resumes);
        let answer = within(over_http1(io, "/")).await;
        assert_eq!(answer.is_ok(), comes_in);
    }
    // A resumed connection knows whose it is, too.
    let peers = server.handler.peers.lock().unwrap();
    let subjects = peers.iter().map(|peer| peer.subject());
    let name = Some("CN=rcgen self signed cert, O=Example");
    assert_eq!(subjects.collect::<Vec<_>>(), [name, name]);
}
