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
