//! What is refused in the `[listen]` section.

use std::io::Write as _;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::*;

#[test]
fn every_mistake_is_reported_with_its_key() {
    fn keys(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = self_signed();
        change(&mut config);
        let key = |problem: &String| problem.split(':').next().unwrap().to_owned();
        problems(&config).iter().map(key).collect()
    }
    let anywhere: SocketAddr = ([0, 0, 0, 0], 80).into();
    assert_eq!(keys(|_| {}), [""; 0]);
    assert_eq!(keys(|c| c.plaintext = true), ["listen.plaintext"]);
    assert_eq!(
        keys(|c| {
            *c = plaintext();
            c.address = anywhere;
        }),
        ["listen.plaintext"]
    );
    assert_eq!(
        keys(|c| {
            *c = plaintext();
            c.address = anywhere;
            c.plaintext_anywhere = true;
        }),
        [""; 0]
    );
    assert_eq!(keys(|c| *c = Config::default()), ["listen.tls.cert_file"]);
    assert_eq!(
        keys(|c| c.tls.cert_file = "c".into()),
        ["listen.tls.cert_file"]
    );
    assert_eq!(
        keys(|c| c.tls.key_file = "k".into()),
        ["listen.tls.key_file"]
    );
    assert_eq!(
        keys(|c| {
            c.tls.key_file = "k".into();
            c.tls.cert_file = "c".into();
            c.authenticate = Authenticate::Mtls;
            c.basin_domain = "Upper.example".to_owned();
        }),
        [
            "listen.tls.self_signed",
            "listen.authenticate",
            "listen.basin_domain"
        ]
    );
    assert_eq!(
        keys(|c| c.tls.client_crl_file = "crl".into()),
        ["listen.tls.client_crl_file"]
    );
    assert_eq!(
        keys(|c| {
            c.tls.client_ca_file = "/nowhere/ca.pem".into();
            c.tls.client_crl_file = "/nowhere/crl.pem".into();
        }),
        ["listen.tls.client_ca_file", "listen.tls.client_crl_file"]
    );
    assert_eq!(
        keys(|c| c.authenticate = Authenticate::Mtls),
        ["listen.authenticate"]
    );
    assert_eq!(
        keys(|c| {
            c.tls.self_signed = false;
            c.tls.cert_file = "/nowhere/cert.pem".into();
            c.tls.key_file = "/nowhere/key.pem".into();
            c.tls.client_ca_file = "/nowhere/ca.pem".into();
        }),
        [
            "listen.tls.cert_file",
            "listen.tls.key_file",
            "listen.tls.client_ca_file"
        ]
    );
}

#[test]
fn a_budget_too_small_for_one_request_is_refused_and_sizes_are_written_exactly() {
    for (bytes, written, works) in [
        (16 << 20, "16 MiB", true),
        ((16 << 20) + 1, "16777217 B", true),
        (1 << 34, "16 GiB", true),
        ((16 << 20) - 1024, "16383 KiB", false),
        (0, "0 B", false),
    ] {
        let limits = Limits {
            max_inflight_bytes: bytesize::ByteSize::b(bytes),
            ..Limits::default()
        };
        let text = toml::to_string(&limits).unwrap();
        assert!(
            text.contains(&format!("max_inflight_bytes = \"{written}\"")),
            "{text}"
        );
        assert_eq!(toml::from_str::<Limits>(&text).unwrap(), limits);
        assert_eq!(limits.problems().is_empty(), works, "{written}");
    }
}

/// A certificate with an RSA key of 1,024 bits: `openssl req -x509 -newkey rsa:1024 -subj "/O=Example/CN=short"`.
const SHORT_RSA: &str = "\
-----BEGIN CERTIFICATE-----
MIICIjCCAYugAwIBAgIUSb0AA+oQKxS+cqC2u8IbNDzDcLYwDQYJKoZIhvcNAQEL
BQAwIjEQMA4GA1UECgwHRXhhbXBsZTEOMAwGA1UEAwwFc2hvcnQwIBcNMjYxMjAx
MTUzODI2WhgPMjEyNjExMDcxNTM4MjZaMCIxEDAOBgNVBAoMB0V4YW1wbGUxDjAM
BgNVBAMMBXNob3J0MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDHsk0bKTbg
LMOFX2PaaL4rG9dewPP6QrVkl5vN98iPzGpmNY/YOKuK1kXZHzejQ/De59LL6Tps
d3gnlwzCDy8rRlPv8zJS1Q/XoTAZSFaPE9R7D9SXoqzHaxmw5iaMxk3oQmhwE4Hn
tODqMxyD6nF6IrPXy3veBMqp1wF/zaAhywIDAQABo1MwUTAdBgNVHQ4EFgQUFYOA
nVrSV9Fy+lVYYe1vsfpLVgYwHwYDVR0jBBgwFoAUFYOAnVrSV9Fy+lVYYe1vsfpL
VgYwDwYDVR0TAQH/BAUwAwEB/zANBgkqhkiG9w0BAQsFAAOBgQBkROpkrRh03u4V
BpaftwzEcYsT+K1pGlAM+nKle35FZaoLoE85NHdFDuu/APu7HEOZ26l82ka16ykY
mTzhtJN0HXvyH6WHX+SuWZEV8x2RcG2358/Ak5fJrFj+UibJ/g/pFVyESQvPrMRs
Dvt6PkTmRlhz1Qy+Ijl5VguEzwqwzw==
-----END CERTIFICATE-----
";

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// PEM of a self-signed certificate of "O=Example, CN=one" and of its key.
fn certificate(is_ca: IsCa) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = named(is_ca).self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn named(is_ca: IsCa) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let name = &mut params.distinguished_name;
    *name = rcgen::DistinguishedName::new();
    name.push(DnType::OrganizationName, "Example");
    name.push(DnType::CommonName, "one");
    params.is_ca = is_ca;
    params
}

/// PEM of a certificate of "O=Example, CN=one" that another one issued.
fn issued() -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "authority");
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let params = named(IsCa::NoCa);
    let key = KeyPair::generate().unwrap();
    params.signed_by(&key, &issuer).unwrap().pem()
}

/// The only mistake of a listener with this certificate and key.
fn mistake_of(cert: &str, key: &str, client_ca: Option<&str>) -> Option<String> {
    let (cert, key) = (file(cert), file(key));
    let client_ca = client_ca.map(file);
    let mut config = Config::default();
    config.tls.cert_file = cert.path().into();
    config.tls.key_file = key.path().into();
    if let Some(ca) = &client_ca {
        config.tls.client_ca_file = ca.path().into();
    }
    let mut problems = problems(&config);
    assert!(problems.len() <= 1, "{problems:?}");
    problems.pop()
}

#[test]
fn mistaken_certificates_are_explained() {
    let (cert, key) = certificate(IsCa::NoCa);
    let (other, other_key) = certificate(IsCa::ExplicitNoCa);
    let issued = issued();
    let (ca, _) = certificate(IsCa::Ca(BasicConstraints::Unconstrained));
    let of = |cert: &str, key: &str, ca: Option<&str>| mistake_of(cert, key, ca).unwrap();
    let misfit = "listen.tls.key_file: the private key does not belong to the first certificate in listen.tls.cert_file";
    assert!(of(&cert, &other_key, None).starts_with(misfit));
    assert!(of(&(ca.clone() + &cert), &key, None).starts_with(misfit));
    let short = "\"O=Example, CN=short\" has an RSA key of 1024 bits, and needs 2048 or more";
    for mistake in [of(SHORT_RSA, &key, None), of(&cert, &key, Some(SHORT_RSA))] {
        assert!(mistake.ends_with(short), "{mistake}");
    }
    for no_ca in [&issued, &other, &(ca.clone() + &other)] {
        let mistake = of(&cert, &key, Some(no_ca));
        assert!(
            mistake.starts_with("listen.tls.client_ca_file: /"),
            "{mistake}"
        );
        assert!(
            mistake.contains("\"O=Example, CN=one\" is not an authority's"),
            "{mistake}"
        );
    }
    for authority in [&ca, &cert] {
        assert_eq!(mistake_of(&cert, &key, Some(authority)), None);
    }
    assert_eq!(
        mistake_of(&(cert.clone() + &key), &(cert + &key), Some(&ca)),
        None
    );
}
