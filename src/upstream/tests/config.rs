//! What is refused in the `[upstream]` section.

use super::*;
use crate::upstream::endpoint::Endpoint;

#[test]
fn every_mistake_is_reported_and_no_secret_is_shown() {
    let mut token = tempfile::NamedTempFile::new().unwrap();
    token.write_all(b"two secrets").unwrap();
    let config = Config {
        account_endpoint: "http://{basin}.example".to_owned(),
        basin_endpoint: "https://user:secrets@host".to_owned(),
        access_token_file: token.path().into(),
        forward_unknown: false,
        tls: TlsConfig {
            ca_file: "/nowhere/ca.pem".into(),
            client_cert_file: "/nowhere/cert.pem".into(),
            ..TlsConfig::default()
        },
    };
    let problems = problems(&config);
    let keys: Vec<&str> = problems
        .iter()
        .map(|problem| problem.split([':', ' ']).next().unwrap())
        .collect();
    assert_eq!(
        keys,
        [
            "upstream.basin_endpoint",
            "upstream.account_endpoint",
            "upstream.access_token_file",
            "upstream.tls.ca_file",
            "upstream.tls.client_cert_file",
        ]
    );
    assert!(!problems.join(" ").contains("secrets"), "{problems:?}");
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

#[test]
fn mistaken_certificates_are_explained() {
    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }
    fn mistake(ca: &str, cert: &str, key: &str) -> Option<String> {
        let [ca, cert, key] = [ca, cert, key].map(file);
        let mut config = Config::default();
        config.tls.ca_file = ca.path().into();
        config.tls.client_cert_file = cert.path().into();
        config.tls.client_key_file = key.path().into();
        let mut problems = problems(&config);
        assert!(problems.len() <= 1, "{problems:?}");
        problems.pop()
    }
    let [(cert, key), (_, other_key)] = [(); 2].map(|()| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    });
    assert_eq!(mistake(&cert, &cert, &key), None);
    // A bundle may hold an old root beside others.
    assert_eq!(mistake(&(SHORT_RSA.to_owned() + &cert), &cert, &key), None);
    for (found, key, wanted) in [
        (
            mistake(SHORT_RSA, &cert, &key),
            "ca_file",
            "RSA key of 1024 bits",
        ),
        (
            mistake(&cert, SHORT_RSA, &key),
            "client_cert_file",
            "RSA key of 1024 bits",
        ),
        (
            mistake(&cert, &cert, &other_key),
            "client_key_file",
            "does not belong",
        ),
        (
            mistake(&cert, &key, &key),
            "client_cert_file",
            "holds a private key, and no",
        ),
        (
            mistake(&key, &cert, &key),
            "ca_file",
            "holds a private key, and no",
        ),
    ] {
        let found = found.unwrap();
        let is_right =
            found.starts_with(&format!("upstream.tls.{key}: ")) && found.contains(wanted);
        assert!(is_right, "{found}");
    }
}

#[test]
fn endpoints_end_after_host_and_port() {
    for good in [
        "http://127.0.0.1:8080",
        "https://a.b/",
        "http://[::1]:80",
        "https://{basin}.b.s2.dev",
    ] {
        Endpoint::parse(good).unwrap();
    }
    for bad in [
        "",
        "127.0.0.1:8080",
        "ftp://host",
        "http://",
        "http://host/path",
        "http://host?q",
        "http://host/#f",
        "http://user@host",
        "http://host:port",
        "http://host:99999",
        "http://{basin}.{basin}",
        "http://host/{basin}",
    ] {
        Endpoint::parse(bad).expect_err(bad);
    }
}
