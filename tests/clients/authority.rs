//! A certificate authority and the certificate that it gave to the proxy, as files: clients trust the
//! authority, and nobody skips a check.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use streamseal::server::TlsConfig;

/// What it made.
pub struct Made {
    /// The authority's own certificate.
    pub file: PathBuf,
    /// The proxy's certificate and key.
    pub server: TlsConfig,
}

/// Makes both in `dir`.
pub fn make(dir: &Path) -> Made {
    let write = |name: &str, pem: String| {
        let file = dir.join(name);
        std::fs::write(&file, pem).unwrap();
        file
    };
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "Test Authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();

    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).unwrap();
    params.use_authority_key_identifier_extension = true;
    params
        .distinguished_name
        .push(DnType::CommonName, "streamseal");
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    Made {
        file: write("authority.pem", authority.pem()),
        server: TlsConfig {
            cert_file: write("certificate.pem", certificate.pem()).into(),
            key_file: write("key.pem", key.serialize_pem()).into(),
            ..TlsConfig::default()
        },
    }
}
