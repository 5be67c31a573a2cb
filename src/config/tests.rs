//! Reading and checking configurations, and the files that are shipped.

use std::io::Write as _;

use super::*;
use crate::{file::OptionalFile, store::PlainStreams, stream::StreamPath};

const REFERENCE: &str = include_str!("../../config/reference.toml");
const SHIPPED: [(&str, &str); 5] = [
    (
        "quickstart.toml",
        include_str!("../../config/quickstart.toml"),
    ),
    (
        "example-sidecar.toml",
        include_str!("../../config/example-sidecar.toml"),
    ),
    (
        "example-legacy-gateway.toml",
        include_str!("../../config/example-legacy-gateway.toml"),
    ),
    (
        "example-api-keys.toml",
        include_str!("../../config/example-api-keys.toml"),
    ),
    (
        "example-kms-gateway.toml",
        include_str!("../../config/example-kms-gateway.toml"),
    ),
];

/// Loads `text` as a file, with these environment variables.
fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, Error> {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let variables = variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    Config::load_from(Some(file.path()), variables)
}

fn mistakes(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    match load(text, variables) {
        Err(Error::Mistakes(mistakes)) => mistakes,
        other => panic!("{other:?}"),
    }
}

fn keys(problems: &[String]) -> Vec<&str> {
    let key = |problem: &'_ String| problem.find(':').unwrap();
    problems.iter().map(|p| &p[..key(p)]).collect()
}

/// A configuration that makes sense: everything local, certificate made at start.
fn sound() -> Config {
    let mut config = Config::default();
    config.listen.tls.self_signed = true;
    config
}

#[test]
fn reference_is_exactly_the_defaults() {
    assert_eq!(load(REFERENCE, &[]).unwrap(), Config::default());
}

#[test]
fn reference_writes_out_every_key() {
    let reference: toml::Table = REFERENCE.parse().unwrap();
    // Rules have no defaults; the reference shows them in comments.
    let effective: toml::Table = Config::default().to_toml().unwrap().parse().unwrap();
    assert_eq!(reference, effective);
}

#[test]
fn shipped_files_have_no_unknown_keys() {
    for (name, text) in SHIPPED {
        let loaded = load(text, &[]);
        assert!(loaded.is_ok(), "{name}: {:?}", loaded.err());
    }
}

#[test]
fn shipped_quickstart_makes_sense_as_it_is() {
    let [(_, quickstart), ..] = SHIPPED;
    assert_eq!(load(quickstart, &[]).unwrap().check(), [""; 0]);
}

/// The rules of a shipped file, with a key in each file that it names; `None` when it is not sound.
fn rules_of(text: &str) -> Option<Rules> {
    let mut key = tempfile::NamedTempFile::new().unwrap();
    key.write_all(b"AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=")
        .unwrap();
    let there = |line: &str| match line.split_once("_file = ") {
        Some((name, _)) => format!("{name}_file = {:?}\n", key.path()),
        None => format!("{line}\n"),
    };
    let text: String = text.lines().map(there).collect();
    load(&text, &[]).ok()?.rules().ok()
}

#[test]
fn no_cut_of_a_shipped_file_seals_less_unsaid() {
    let samples = [
        "orders-sample",
        "legacy-sample",
        "pay-sample",
        "events-sample",
    ];
    let seals = |rules: &Rules, basin: &str| {
        let path: StreamPath = format!("{basin}/a/b").parse().unwrap();
        let cipher = match rules.stream(&path) {
            Some(rule) => rule.cipher,
            None => rules.basin(&path.basin).flatten(),
        };
        cipher.is_some()
    };
    let mut refused = 0;
    for (name, text) in SHIPPED {
        let whole = rules_of(text).unwrap();
        let last = whole.in_force();
        assert_eq!(whole.unsaid(&last), [""; 0], "{name}");
        let lines: Vec<_> = text.split_inclusive('\n').collect();
        for kept in 0..lines.len() {
            let Some(cut) = rules_of(&lines[..kept].concat()) else {
                continue;
            };
            if !cut.unsaid(&last).is_empty() {
                refused += 1;
                continue;
            }
            for basin in samples {
                let is_less = seals(&whole, basin) && !seals(&cut, basin);
                assert!(!is_less, "{name} up to line {kept}: {basin}");
            }
        }
    }
    assert!(refused > 40, "{refused}");
}

#[test]
fn effective_configuration_reads_back_the_same() {
    let text = r#"
        [limits]
        drain_timeout = "1m 30s"
        [[basins]]
        match = "audit-*"
        stream_cipher = "aegis-256"
        [[streams]]
        match = "legacy-*/**"
        cipher = "aes-256-gcm"
        key = "file"
        key_file = "legacy.key"
    "#;
    let config = load(text, &[]).unwrap();
    assert_eq!(config.limits.drain_timeout.as_secs(), 90);
    let rendered = config.to_toml().unwrap();
    assert_eq!(load(&rendered, &[]).unwrap(), config, "{rendered}");
}

#[test]
fn environment_wins_over_the_file() {
    let variables = [
        ("STREAMSEAL_LISTEN__ADDRESS", "0.0.0.0:9000"),
        ("STREAMSEAL_LISTEN__TLS__CERT_FILE", "/run/tls.pem"),
        ("STREAMSEAL_LIMITS__DRAIN_TIMEOUT", "5s"),
    ];
    let config = load("[listen]\naddress = \"127.0.0.1:1\"", &variables).unwrap();
    assert_eq!(config.listen.address, ([0, 0, 0, 0], 9000).into());
    let certificate = config.listen.tls.cert_file.path();
    assert_eq!(certificate, Some(Path::new("/run/tls.pem")));
    assert_eq!(config.limits.drain_timeout.as_secs(), 5);
}

#[test]
fn variables_that_set_nothing_name_the_right_one() {
    for (name, value, right) in [
        ("LISTEN_AUTHENTICATE", "mtls", "LISTEN__AUTHENTICATE"),
        ("LISTEN__AUTENTICATE", "mtls", "LISTEN__AUTHENTICATE"),
        ("AUTHENTICATE", "mtls", "LISTEN__AUTHENTICATE"),
        ("LISTEN__TLS_CERT_FILE", "c", "LISTEN__TLS__CERT_FILE"),
        ("listen_tls_cert_file", "c", "LISTEN__TLS__CERT_FILE"),
        ("STORE_PLAIN_STREAMS", "refuse", "STORE__PLAIN_STREAMS"),
        ("KEYS__ROTATE_AFTER_AGE", "1h", "KEYS__ROTATE_AFTER__AGE"),
    ] {
        let name = format!("STREAMSEAL_{name}");
        assert_eq!(
            mistakes("", &[(&name, value)]),
            [format!(
                "{name} sets nothing; did you mean STREAMSEAL_{right}?"
            )]
        );
    }
    for name in [
        "STREAMSEAL_",
        "STREAMSEAL_QQQQ",
        "STREAMSEAL_LISTEN__QQQQQQ",
    ] {
        let found = mistakes("", &[(name, "")]);
        assert!(
            found[0].starts_with(&format!("{name} sets nothing; a variable")),
            "{found:?}"
        );
    }
}

#[test]
fn lists_of_tables_cannot_be_set_by_a_variable() {
    let rule = "[{match=\"audit-*/**\",cipher=\"aegis-256\"}]";
    for (name, list) in [
        ("STREAMSEAL_STREAMS", "streams"),
        ("STREAMSEAL_BASINS", "basins"),
        ("STREAMSEAL_PROJECTS", "projects"),
        ("STREAMSEAL_STREAMS__0__MATCH", "streams"),
    ] {
        let wanted = format!("{name} sets nothing: [[{list}]] can only be written in the file");
        assert_eq!(mistakes("", &[(name, rule)]), [wanted]);
    }
    let section = mistakes("", &[("STREAMSEAL_STORE", "{create=true}")]);
    assert!(
        section[0].starts_with("STREAMSEAL_STORE sets nothing"),
        "{section:?}"
    );
}

#[test]
fn every_mistaken_variable_is_reported_beside_the_file() {
    let variables = [
        ("STREAMSEAL_LISTEN_ADDRESS", "127.0.0.1:1"),
        ("STREAMSEAL_LIMITS__MAX_CONNECTIONS", "many"),
        ("STREAMSEAL_STREAMS", "[]"),
    ];
    let found = mistakes("[listen]\nadress = 1", &variables);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found[0].starts_with("STREAMSEAL_LISTEN_ADDRESS"),
        "{found:?}"
    );
    assert!(found[1].starts_with("STREAMSEAL_STREAMS"), "{found:?}");
    assert!(found[2].starts_with("listen.adress"), "{found:?}");
}

/// As Kubernetes makes them for services called `streamseal` and `streamseal-admin`.
const SERVICE_LINKS: [(&str, &str); 12] = [
    ("SERVICE_HOST", "10.0.0.1"),
    ("SERVICE_PORT", "8443"),
    ("SERVICE_PORT_HTTPS", "8443"),
    ("PORT", "tcp://10.0.0.1:8443"),
    ("PORT_8443_TCP", "tcp://10.0.0.1:8443"),
    ("PORT_8443_TCP_PROTO", "tcp"),
    ("PORT_8443_TCP_PORT", "8443"),
    ("PORT_8443_TCP_ADDR", "fd00::1"),
    ("ADMIN_SERVICE_HOST", "10.0.0.1"),
    ("ADMIN_SERVICE_PORT_METRICS", "9090"),
    ("ADMIN_PORT", "tcp://[fd00::1]:9090"),
    ("ADMIN_PORT_9090_UDP_ADDR", "10.0.0.1"),
];

#[test]
fn service_links_and_known_variables_are_left_alone() {
    let names = SERVICE_LINKS.map(|(name, value)| (format!("STREAMSEAL_{name}"), value));
    let mut variables: Vec<_> = names
        .iter()
        .map(|(name, value)| (&**name, *value))
        .collect();
    variables.extend([
        ("STREAMSEAL_LOG", "debug"),
        ("STREAMSEAL_PROGRAM", "/usr/bin/streamseal"),
        ("STREAMSEAL_DIFFERENTIAL_OPS", "10"),
        ("STREAMSEAL_CRASH_SEED", "1"),
        ("STREAMSEAL_FUZZ_SEED", "1"),
        ("STREAMSEAL_BENCH_ROUNDS", "1"),
        ("STREAMSEAL_TEST_SERVICE", "1"),
        ("STREAMSEALED", "1"),
    ]);
    assert_eq!(load("", &variables).unwrap(), Config::default());
}

#[test]
fn what_only_looks_like_a_service_link_is_a_mistake() {
    for (name, value) in [
        ("LISTEN_PORT", "8443"),
        ("PORT", "8443"),
        ("SERVICE_HOST", "localhost"),
        ("SERVICE_PORT", "tcp://10.0.0.1:8443"),
        ("PORT_8443_TCP", "8443"),
        ("PORT_X_TCP_ADDR", "10.0.0.1"),
        ("PORT_8443_TCP_NAME", "x"),
    ] {
        let name = format!("STREAMSEAL_{name}");
        let found = mistakes("", &[(&name, value)]);
        assert!(
            found[0].starts_with(&format!("{name} sets nothing")),
            "{found:?}"
        );
    }
}

#[test]
fn every_key_of_the_reference_has_a_variable() {
    fn set(path: &mut Vec<String>, value: &toml::Value) {
        if let toml::Value::Table(table) = value {
            for (key, value) in table {
                path.push(key.to_ascii_uppercase());
                set(path, value);
                path.pop();
            }
            return;
        }
        let name = format!("STREAMSEAL_{}", path.join("__"));
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let loaded = load("", &[(&name, &text)]);
        assert_eq!(loaded.unwrap(), Config::default(), "{name}={text}");
    }
    let reference: toml::Table = REFERENCE.parse().unwrap();
    set(&mut Vec::new(), &toml::Value::Table(reference));
    let config = load("", &[("STREAMSEAL_STORE__PLAIN_STREAMS", "refuse")]).unwrap();
    assert_eq!(config.store.plain_streams, Some(PlainStreams::Refuse));
}

/// Keys of the reference that are written as text, and take only some of it: addresses, words, times and sizes.
const SOME_TEXT_ONLY: [&str; 19] = [
    "admin.address",
    "keys.check",
    "keys.on_plain",
    "keys.rotate_after.age",
    "keys.rotate_after.bytes",
    "kms.cache_bytes",
    "kms.cache_idle",
    "kms.cache_ttl",
    "kms.provider",
    "limits.compression",
    "limits.drain_timeout",
    "limits.handshake_timeout",
    "limits.header_timeout",
    "limits.max_inflight_bytes",
    "limits.oversize_batches",
    "listen.address",
    "listen.authenticate",
    "store.kind",
    "store.unknown_streams",
];

/// Every key of the reference that is written as text, with its value.
fn texts_of_the_reference() -> Vec<(String, String)> {
    fn collect(path: &mut Vec<String>, value: &toml::Value, texts: &mut Vec<(String, String)>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    path.push(key.clone());
                    collect(path, value, texts);
                    path.pop();
                }
            }
            toml::Value::String(text) => texts.push((path.join("."), text.clone())),
            _ => {}
        }
    }
    let reference: toml::Table = REFERENCE.parse().unwrap();
    let mut texts = Vec::new();
    collect(&mut Vec::new(), &toml::Value::Table(reference), &mut texts);
    texts
}

/// The value that `key` has in a configuration, as the configuration is written out.
fn written_value(config: &Config, key: &str) -> toml::Value {
    let written: toml::Table = config.to_toml().unwrap().parse().unwrap();
    let value = toml::Value::Table(written);
    key.split('.')
        .fold(value, |value, name| value[name].clone())
}

#[test]
fn a_text_key_takes_any_text_from_a_variable() {
    let keys: Vec<_> = texts_of_the_reference()
        .into_iter()
        .map(|(key, _)| key)
        .filter(|key| !SOME_TEXT_ONLY.contains(&&**key))
        .collect();
    let names: Vec<_> = keys.iter().map(|key| variable(key)).collect();
    for text in [
        "0123",
        "true",
        "false",
        "123456789012",
        "1e5",
        "-1",
        "1.50",
        "inf",
        "null",
        "'x'",
        "\"x\"",
        "[x]",
        "[1, 2]",
        "{a=1}",
        "{",
        " x ",
        "",
        "1_000",
        "99999999999999999999999999",
    ] {
        let variables: Vec<_> = names.iter().map(|name| (&**name, text)).collect();
        let config = load("", &variables).unwrap();
        for key in &keys {
            assert_eq!(written_value(&config, key), text.into(), "{key}");
        }
    }
}

/// The variable that sets a key.
fn variable(key: &str) -> String {
    format!("STREAMSEAL_{}", key.replace('.', "__").to_ascii_uppercase())
}

#[test]
fn other_keys_read_their_variables_by_their_types() {
    for (key, text, value) in [
        ("listen.plaintext", "true", toml::Value::Boolean(true)),
        ("limits.max_connections", "007", 7.into()),
        ("keys.rotate_after.records", "10", 10.into()),
        ("traces.sample_ratio", "0.5", 0.5.into()),
        ("traces.sample_ratio", "1", 1.0.into()),
        ("limits.drain_timeout", "90s", "1m 30s".into()),
        ("limits.max_inflight_bytes", "20971520", "20 MiB".into()),
        ("limits.max_inflight_bytes", "1 GiB", "1 GiB".into()),
        ("store.plain_streams", "refuse", "refuse".into()),
    ] {
        let name = variable(key);
        let config = load("", &[(&name, text)]).unwrap();
        assert_eq!(written_value(&config, key), value, "{name}={text}");
    }
    for (key, text) in [
        ("listen.plaintext", "yes"),
        ("listen.authenticate", "0"),
        ("limits.max_connections", "-1"),
        ("limits.drain_timeout", "90"),
        ("store.kind", "true"),
    ] {
        let name = variable(key);
        let found = mistakes("", &[(&name, text)]);
        assert!(found[0].contains("expected"), "{found:?}");
        assert!(found[0].contains(&name), "{found:?}");
    }
}

#[test]
fn a_list_is_read_from_a_variable_word_by_word() {
    for (text, list) in [
        ("", &[][..]),
        ("[]", &[]),
        ("10.0.0.0/8", &["10.0.0.0/8"]),
        ("10.0.0.7, 2001:db8::/32", &["10.0.0.7", "2001:db8::/32"]),
        ("[10.0.0.7,::1]", &["10.0.0.7", "::1"]),
        ("[\"10.0.0.7\", \"::1\"]", &["10.0.0.7", "::1"]),
    ] {
        let config = load("", &[("STREAMSEAL_LISTEN__PROXY_PROTOCOL", text)]).unwrap();
        let found = written_value(&config, "listen.proxy_protocol");
        assert_eq!(found, list.to_vec().into(), "{text}");
    }
    let found = mistakes("", &[("STREAMSEAL_LISTEN__PROXY_PROTOCOL", "10.0.0.7,x")]);
    assert!(
        found[0].contains("STREAMSEAL_LISTEN__PROXY_PROTOCOL"),
        "{found:?}"
    );
    let found = mistakes("[listen]\nproxy_protocol = [\"::1\", \"x\"]", &[]);
    let wanted =
        "listen.proxy_protocol[1]: expected an IP address or a network such as \"10.0.0.0/8\"";
    assert!(found[0].starts_with(wanted), "{found:?}");
}

#[test]
fn a_variable_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt as _;
    let value = OsString::from_vec(b"/run/\xff".to_vec());
    let variables = [("STREAMSEAL_STORE__PATH".into(), value)];
    let error = Config::load_from(None, variables.into_iter()).unwrap_err();
    let wanted = "STREAMSEAL_STORE__PATH: the value is not UTF-8";
    assert!(error.to_string().ends_with(wanted), "{error}");
}

#[test]
fn missing_file_is_an_error() {
    let error = Config::load(Some(Path::new("/nowhere/streamseal.toml"))).unwrap_err();
    assert!(matches!(error, Error::Unreadable { .. }), "{error}");
}

#[test]
fn broken_toml_is_an_error() {
    let error = load("[listen", &[]).unwrap_err();
    assert!(matches!(error, Error::Syntax(_)), "{error}");
}

#[test]
fn every_unknown_key_and_value_is_reported_at_once() {
    let text = r#"
        lisen = 1
        [listen]
        adress = "127.0.0.1:1"
        address = "localhost"
        authenticate = "all"
        [upstream.tls]
        ca = "x"
        [[streams]]
        match = "a/*"
        cipher = "aegis-256"
        [[streams]]
        match = "b/*"
        cipher = "rot13"
    "#;
    let found = mistakes(text, &[("STREAMSEAL_LIMITS__MAX_CONNECTIONS", "many")]);
    assert_eq!(
        keys(&found),
        [
            "limits.max_connections",
            "lisen",
            "listen.address",
            "listen.adress",
            "listen.authenticate",
            "streams[1]",
            "upstream.tls.ca",
        ],
    );
    assert!(
        found[0].ends_with("STREAMSEAL_LIMITS__MAX_CONNECTIONS"),
        "{found:?}"
    );
    assert!(found[1].ends_with(".toml"), "{found:?}");
}

#[test]
fn every_rule_says_its_cipher() {
    for (rule, key) in [("basins", "stream_cipher"), ("streams", "cipher")] {
        let found = mistakes(&format!("[[{rule}]]\nmatch = \"audit-prod/**\"\n"), &[]);
        let wanted = format!("{rule}[0]: missing field `{key}`");
        assert!(found[0].starts_with(&wanted), "{found:?}");
    }
    let text = "[[basins]]\nmatch = \"audit-*\"\nstream_cipher = \"none\"\n";
    let rules = load(text, &[]).unwrap().rules().unwrap();
    assert_eq!(rules.basin(&"audit-prod".parse().unwrap()), Some(None));
}

#[test]
fn callers_may_not_act_with_our_token() {
    let mut token = tempfile::NamedTempFile::new().unwrap();
    token.write_all(b"secret").unwrap();
    let mut config = sound();
    assert_eq!(config.check(), [""; 0]);
    config.upstream.access_token_file = token.path().into();
    assert_eq!(keys(&config.check()), ["upstream.access_token_file"]);
    config.listen.authenticate = Authenticate::None;
    assert_eq!(config.check(), [""; 0]);
}

#[test]
fn mistakes_of_every_section_are_found_together() {
    let text = r#"
        [upstream]
        basin_endpoint = "ftp://x"
        [kms]
        provider = "aws"
        [limits]
        max_connections = 0
        [[streams]]
        match = "a/["
        cipher = "aegis-256"
        [[streams]]
        match = "basin-b1/*"
        cipher = "aegis-256"
        key = "file"
        key_file = "/nowhere/key"
        [[streams]]
        match = "basin-c1/*"
        cipher = "none"
        key = "file"
        key_file = "/nowhere/key"
        [[streams]]
        match = "secret-*"
        cipher = "aegis-256"
    "#;
    assert_eq!(
        keys(&load(text, &[]).unwrap().check()),
        [
            "listen.tls.cert_file",
            "limits.max_connections",
            "kms.aws.key_id",
            "upstream.basin_endpoint",
            "streams[0].match",
            "streams[1].key_file",
            "streams[2].cipher",
            "streams[3].match",
        ]
    );
}

/// A project that makes sense, and the file that its pepper is in.
fn project(pepper: &[u8]) -> (ProjectRule, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(pepper).unwrap();
    let rule = ProjectRule {
        name: "payments".parse().unwrap(),
        r#match: vec!["pay-*/**".to_owned()],
        access_token_file: OptionalFile::default(),
        pepper_file: file.path().into(),
    };
    (rule, file)
}

#[test]
fn a_project_needs_a_whole_pepper() {
    const GOOD: &[u8] = b"AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=\n";
    let check = |pepper: &[u8]| {
        let (rule, _file) = project(pepper);
        let mut config = sound();
        config.listen.authenticate = Authenticate::ApiKey;
        config.projects = vec![rule];
        config.check()
    };
    assert_eq!(check(GOOD), [""; 0]);
    // Nothing, 31 bytes, 33 bytes, not base64, a key without its end.
    for bad in [
        &b""[..],
        b"\n",
        b"AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHw==",
        b"AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAh",
        b"!secret!",
        b"AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA",
    ] {
        let found = check(bad);
        assert_eq!(keys(&found), ["projects[0].pepper_file"], "{found:?}");
        let content = String::from_utf8_lossy(bad);
        let content = content.trim();
        assert!(
            content.is_empty() || !found[0].contains(content),
            "{found:?}"
        );
    }
    let (mut rule, file) = project(GOOD);
    drop(file);
    let mut config = sound();
    config.listen.authenticate = Authenticate::ApiKey;
    config.projects = vec![rule.clone()];
    assert_eq!(keys(&config.check()), ["projects[0].pepper_file"]);
    rule.pepper_file = OptionalFile::default();
    config.projects = vec![rule];
    assert_eq!(config.check(), ["projects[0].pepper_file: is missing"]);
}

#[test]
fn a_project_that_reaches_no_stream_is_a_mistake() {
    let (mut rule, _file) = project(b"AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=");
    rule.r#match.push("pay-*".to_owned());
    let mut config = sound();
    config.listen.authenticate = Authenticate::ApiKey;
    config.projects = vec![rule];
    let found = config.check();
    assert_eq!(keys(&found), ["projects[0].match"]);
    assert!(found[0].contains("write `pay-*/**`"), "{found:?}");
}

#[test]
fn projects_and_api_keys_go_together() {
    let mut config = sound();
    config.listen.authenticate = Authenticate::ApiKey;
    assert_eq!(keys(&config.check()), ["listen.authenticate"]);
    let (rule, _file) = project(b"AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=");
    config.projects = vec![rule.clone()];
    assert_eq!(config.check(), [""; 0]);
    config.listen.authenticate = Authenticate::None;
    assert_eq!(keys(&config.check()), ["projects"]);
    config.listen.authenticate = Authenticate::ApiKey;
    config.projects = vec![rule.clone(), rule];
    assert_eq!(keys(&config.check()), ["projects[1].name"]);
    let managed = "[[streams]]\nmatch = \"pay-*/*\"\ncipher = \"aegis-256\"\nkey = \"managed\"\n";
    config.projects.clear();
    config.streams = load(managed, &[]).unwrap().streams;
    let found = config.check();
    assert_eq!(keys(&found), ["listen.authenticate", "streams[0].key"]);
}

#[test]
fn keys_of_a_service_need_one() {
    let rule = "[[streams]]\nmatch = \"a-*/**\"\ncipher = \"aegis-256\"\nkey = \"kms\"\n";
    let tls = "[listen.tls]\nself_signed = true\n";
    let without = load(&format!("{tls}{rule}"), &[]).unwrap();
    assert_eq!(
        without.check(),
        ["streams[0].key: \"kms\" needs kms.provider"]
    );
    let aws = "[kms]\nprovider = \"aws\"\n[kms.aws]\nkey_id = \"alias/streams\"\n";
    let with = load(&format!("{tls}{aws}{rule}"), &[]).unwrap();
    assert_eq!(with.check(), [""; 0]);
}

/// A gateway with a certificate authority and a token of its own, as far as a check of its sections needs it.
fn gateway(clients: &str) -> String {
    format!(
        "{clients}\n[listen]\nauthenticate = \"mtls\"\n[listen.tls]\nself_signed = true\nclient_ca_file = \"/nowhere/ca.pem\"\n\
         [upstream]\naccess_token_file = \"/nowhere/token\"\n"
    )
}

#[test]
fn gateway_with_its_own_token_says_what_clients_may_do() {
    let rules = "[[clients]]\nsubject = \"CN=a\"\nmatch = [\"a-*/**\"]\nscopes = [\"append\"]";
    let clients = |text: &str| {
        let problems = load(text, &[]).unwrap().check();
        let is_of_clients = |problem: &String| problem.starts_with("clients");
        problems
            .into_iter()
            .filter(is_of_clients)
            .collect::<Vec<_>>()
    };
    let [missing] = &clients(&gateway(""))[..] else {
        panic!("one problem");
    };
    for form in [
        "[[clients]]",
        "clients = \"any\"",
        "subject = ",
        "scopes = ",
    ] {
        assert!(missing.contains(form), "{missing}");
    }
    assert_eq!(clients(&gateway("clients = \"any\"")), [""; 0]);
    assert_eq!(clients(&gateway(rules)), [""; 0]);
    let without_token = gateway("").replace("access_token_file", "basin_endpoint");
    assert_eq!(clients(&without_token), [""; 0]);
    for other in ["upstream", "api-key", "none"] {
        for written in [rules, "clients = \"any\""] {
            let text = gateway(written).replace("\"mtls\"", &format!("{other:?}"));
            let problems = clients(&text);
            assert!(problems[0].starts_with("clients: need listen.authenticate = \"mtls\""));
        }
    }
    let wrong = "[[clients]]\nsubject = \"a\"\nmatch = [\"x\"]\nscopes = []";
    assert_eq!(clients(&gateway(wrong)).len(), 3);
}

#[test]
fn clients_are_written_out_as_they_were_read() {
    let rules = "[[clients]]\nsan = \"a.example.org\"\nmatch = [\"a-*/**\"]\nscopes = [\"append\", \"read\"]";
    for clients in ["clients = \"any\"", rules] {
        let config = load(&gateway(clients), &[]).unwrap();
        let written = config.to_toml().unwrap();
        assert!(
            written.contains(clients.lines().last().unwrap()),
            "{written}"
        );
        assert_eq!(load(&written, &[]).unwrap(), config);
    }
    for (clients, expected) in [
        (
            "clients = \"all\"",
            "clients: expected [[clients]] tables or \"any\"",
        ),
        (
            "clients = 3",
            "clients: expected [[clients]] tables or \"any\"",
        ),
        (
            "[[clients]]\nmatch = [\"a/b\"]\nscopes = [\"write\"]",
            "expected one of append, read, manage",
        ),
        (
            "[[clients]]\nname = \"x\"\nmatch = []\nscopes = []",
            "unknown field",
        ),
    ] {
        let found = mistakes(&gateway(clients), &[]).join("\n");
        assert!(found.contains(expected), "{expected} not in {found}");
    }
}
