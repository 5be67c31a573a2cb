//! What is refused in the `[listen]` section.

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
