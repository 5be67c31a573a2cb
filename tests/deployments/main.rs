//! The deployments of the README, run as it prints them: its configuration, its shell commands line by line, the
//! program and the real `s2` CLI, with `s2-lite` in place of s2.dev.
//!
//! Needs what `tests/deployments/install` installs, and curl.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "that is how a test fails"
)]
#![allow(missing_docs, reason = "tests are read, not linked to")]

#[allow(dead_code, unused_imports, reason = "other tests need the rest of it")]
#[path = "../proxy/harness/mod.rs"]
mod harness;
mod host;
mod readme;

use prost::Message as _;
use s2_api::v1::stream::proto::{ReadBatch, SequencedRecord};

use harness::{Ask, Client, Lite, contains, records};
use host::Host;
use readme::Section;

const SIDECAR: &str = include_str!("../../config/example-sidecar.toml");
const GATEWAY: &str = include_str!("../../config/example-legacy-gateway.toml");
const API_KEYS: &str = include_str!("../../config/example-api-keys.toml");

/// What the test changes in the text of the README: addresses, paths, the token.
type Changes<'a> = &'a [(&'a str, &'a str)];

#[tokio::test(flavor = "multi_thread")]
async fn sidecar_works_as_printed() {
    let section = Section::of("### As a sidecar");
    let config = section.only("toml");
    is_part_of(config, SIDECAR);
    let lite = Lite::start().await;
    let upstream = format!("http://{}", lite.address);
    let endpoints: Changes = &[
        ("https://a.s2.dev", &upstream),
        ("https://{basin}.b.s2.dev", &upstream),
    ];
    let mut host = Host::new();
    host.configure(config, endpoints);
    host.start();
    let said = host.run(
        section.only("sh"),
        &[("127.0.0.1:8443", &host.address().to_string())],
    );
    assert!(said.contains("two coffees"), "{said}");
    is_sealed(&lite, "orders-berlin/new", "two coffees", 1).await;
}

/// A host with a certificate and an access token, on which the commands before the start were run and the proxy runs.
/// The configuration names these directories, which are one here.
fn started(
    token_file: &str,
    before: &str,
    (config, upstream): (&str, &str),
    directories: &[&str],
) -> Host {
    let mut host = Host::new();
    host.certify();
    host.write(token_file, "any");
    let dir = host.path();
    host.run(before, &[("/run/secrets", &dir)]);
    let mut changes = vec![("https://s2.internal", upstream)];
    changes.extend(directories.iter().map(|directory| (*directory, &*dir)));
    host.configure(config, &changes);
    host.start();
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_works_as_printed() {
    let section = Section::of("### As a gateway for clients that cannot send a key");
    let config = section.only("toml");
    is_part_of(config, GATEWAY);
    let [before, after] = section.all("sh")[..] else {
        panic!("other blocks than expected");
    };
    let lite = Lite::start().await;
    let upstream = format!("http://{}", lite.address);
    let host = started(
        "s2-access-token",
        before,
        (config, &upstream),
        &["/run/secrets", "/etc/streamseal"],
    );
    let dir = host.path();
    let proxy = format!("localhost:{}", host.address().port());
    let said = host.run(
        after,
        &[
            ("https://s2.internal", &upstream),
            ("/run/secrets", &dir),
            ("proxy:8443", &proxy),
        ],
    );
    assert!(said.contains(r#""body":"21 degrees""#), "{said}");
    is_sealed(&lite, "legacy-meters/cellar", "21 degrees", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn api_keys_work_as_printed() {
    let section = Section::of("### For clients that can set an access token and nothing else");
    let [before, after] = section.all("sh")[..] else {
        panic!("other blocks than expected");
    };
    let lite = Lite::start().await;
    let upstream = format!("http://{}", lite.address);
    let host = started(
        "payments.s2-token",
        before,
        (API_KEYS, &upstream),
        &["/run/secrets", "/etc/streamseal", "/var/lib/streamseal"],
    );
    let proxy = format!("localhost:{}", host.address().port());
    let create = format!("project create --admin http://{}", host.admin());
    let said = host.run(
        after,
        &[("proxy:8443", &proxy), ("project create", &create)],
    );
    assert!(said.contains("12 euros"), "{said}");
    is_sealed(&lite, "pay-berlin/cards", "12 euros", 1).await;
}

/// What "Use it" shows for the CLI and for curl, in one shell.
#[tokio::test(flavor = "multi_thread")]
async fn use_it_works_as_printed() {
    let commands = Section::of("## Use it").all("sh").join("\n");
    let lite = Lite::start().await;
    let upstream = format!("http://{}", lite.address);
    let mut host = Host::new();
    host.certify();
    let config = format!(
        "[listen.tls]\ncert_file = \"{0}/tls.pem\"\nkey_file = \"{0}/tls.key\"\n\
         [upstream]\naccount_endpoint = \"{upstream}\"\nbasin_endpoint = \"{upstream}\"\n",
        host.path()
    );
    host.configure(&config, &[]);
    host.start();
    let proxy = format!("localhost:{}", host.address().port());
    let said = host.run(&commands, &[("proxy:8443", &proxy)]);
    let lines: Vec<_> = said.lines().collect();
    assert!(lines.iter().any(|line| line.ends_with("hello")), "{said}");
    assert_eq!(said.matches(r#""body":"hello""#).count(), 2, "{said}");
    is_sealed(&lite, "my-basin-0001/notes", "hello", 2).await;
}

/// The README shows a part of the file that it names: the same keys with the same values.
fn is_part_of(shown: &str, file: &str) {
    let shown: toml::Table = shown.parse().unwrap();
    let file: toml::Table = file.parse().unwrap();
    for (name, value) in shown {
        let other = file.get(&name).unwrap_or_else(|| panic!("no {name}"));
        match (value, other) {
            (toml::Value::Table(shown), toml::Value::Table(file)) => {
                for (key, value) in shown {
                    assert_eq!(file.get(&key), Some(&value), "{name}.{key}");
                }
            }
            (shown, file) => assert_eq!(&shown, file, "{name}"),
        }
    }
}

/// The upstream has so many records of the stream, and the plaintext is neither in them nor in any request.
async fn is_sealed(lite: &Lite, path: &str, plaintext: &str, count: usize) {
    let (basin, stream) = path.split_once('/').unwrap();
    let stored = stored(lite, basin, stream).await;
    assert_eq!(stored.len(), count, "{path}");
    for record in stored {
        assert!(record.body.len() > plaintext.len() + 28, "{path}");
        assert!(!contains(&record.body, plaintext.as_bytes()), "{path}");
    }
    for seen in lite.seen() {
        assert!(!contains(&seen.body, plaintext.as_bytes()), "{}", seen.line);
    }
}

/// What the upstream has of a stream, read past the proxy.
async fn stored(lite: &Lite, basin: &str, stream: &str) -> Vec<SequencedRecord> {
    let ask = Ask::get(format!("{}?seq_num=0", records(stream)))
        .basin(basin)
        .header("accept", "application/protobuf");
    let answer = Client::plain(lite.address).await.ask(ask).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    ReadBatch::decode(answer.body).unwrap().records
}
