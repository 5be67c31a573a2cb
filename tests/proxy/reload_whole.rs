//! A new configuration comes in force whole or not at all, and only where it is sound here and now.

use serde_json::json;
use streamseal::{
    config::Config,
    keys::ClientRules,
    registry::rules::{KeySource, RuleCipher, StreamRule},
    server::Authenticate,
};

use crate::{
    harness::{Ask, Authority, BASIN, KEY, Stack, base64, records},
    keys::OTHER,
};

/// A rule that has the key come from the client.
fn seals(glob: &str) -> StreamRule {
    StreamRule {
        r#match: glob.to_owned(),
        cipher: RuleCipher::Aegis256,
        key: KeySource::Header,
        key_file: Default::default(),
        header_overrides: false,
    }
}

/// A mistake, and the key that it is in.
type Wrong = (&'static str, Box<dyn Fn(&mut Config)>);

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_is_read_again_and_a_bad_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(dir.path().join("key"), text).unwrap();
    write(&base64(&KEY));
    let rule = |name: &str| StreamRule {
        key: KeySource::File,
        key_file: dir.path().join("key").into(),
        ..seals(&format!("{BASIN}/{name}"))
    };
    let rules = vec![rule("used"), rule("fresh")];
    let mut stack = Stack::with(|config| config.streams = rules).await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    let append = |stream: &str| {
        let batch = json!({ "records": [{ "body": "a body" }] });
        Ask::post(records(stream)).json(&batch)
    };
    let code = async |ask: Ask| client.ask(ask).await.code();
    assert_eq!(client.ask(append("used")).await.status, 200);
    write("no key");
    let refused = stack.reload(|config| config.basins.clear()).unwrap_err();
    assert!(refused.contains("streams[0].key_file"), "{refused}");
    assert!(!refused.contains("no key\""), "{refused}");
    assert_eq!(client.ask(append("used")).await.status, 200);
    assert_eq!(
        (stack.reloads().applied(), stack.reloads().refused()),
        (0, 1)
    );
    write(&base64(&OTHER));
    assert_eq!(stack.reload(|_| {}), Ok(Vec::new()));
    assert_eq!(
        (stack.reloads().applied(), stack.reloads().refused()),
        (1, 1)
    );
    // The stream is known to be written with the old one.
    assert_eq!(code(append("used")).await, "decryption_failed");
    assert_eq!(client.ask(append("fresh")).await.status, 200);
    // By its owner's word, then: it is the new key that this one has.
    stack.say_none();
    assert_eq!(
        stack.reload(|config| config.streams.clear()),
        Ok(Vec::new())
    );
    let read = Ask::get(records("fresh") + "?seq_num=0");
    assert_eq!(client.ask(read.clone().key(&OTHER)).await.status, 200);
    assert_eq!(code(read.key(&KEY)).await, "decryption_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_applied_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::start().await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    // What is wrong comes last, or first.
    let missing = dir.path().join("missing");
    let wrong: [Wrong; 3] = [
        ("listen.tls.client_ca_file", {
            let missing = missing.clone();
            Box::new(move |config| config.listen.tls.client_ca_file = missing.clone().into())
        }),
        ("upstream.tls.ca_file", {
            let missing = missing.clone();
            Box::new(move |config| config.upstream.tls.ca_file = missing.clone().into())
        }),
        ("limits.max_connections", {
            Box::new(|config| config.limits.max_connections = 0)
        }),
    ];
    for (key, wrong) in wrong {
        let refused = stack.reload(|config| {
            config.streams = vec![seals("test-basin/**")];
            wrong(config);
        });
        let refused = refused.unwrap_err();
        assert!(refused.contains(key), "{refused}");
        let body = format!("plain in spite of {key}");
        let batch = json!({ "records": [{ "body": body }] });
        let answer = client.ask(Ask::post(records("s")).json(&batch)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(stack.tap.saw(body.as_bytes()));
    }
    // Keys that wait do not hold up the rest.
    let waiting = stack.reload(|config| {
        config.streams = vec![seals("test-basin/**")];
        config.limits.max_connections = 7;
        config.listen.basin_domain = "b.example".into();
    });
    let waiting = waiting.unwrap();
    assert_eq!(waiting, ["limits.max_connections", "listen.basin_domain"]);
    let refused = client
        .ask(Ask::post(records("s")).json(&json!({ "records": [{}] })))
        .await;
    assert!(
        refused.text().contains("missing encryption key"),
        "{}",
        refused.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_came_in_unasked_ever_acts_with_the_proxys_token() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("clients");
    std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(dir.path().join("token"), "the-proxys-own-token").unwrap();
    let mut stack = Stack::start().await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    // As a start with the file it would be sound. But this client is in, and was never asked who it is.
    let refused = stack.reload(|config| {
        config.listen.authenticate = Authenticate::Mtls;
        config.clients = ClientRules::Any;
        config.listen.tls.client_ca_file = dir.path().join("ca.pem").into();
        config.upstream.access_token_file = dir.path().join("token").into();
    });
    let refused = refused.unwrap_err();
    assert!(
        refused.contains("listen.authenticate cannot change while"),
        "{refused}"
    );
    assert_eq!(client.ask(Ask::get("/v1/streams")).await.status, 200);
    assert!(!stack.tap.saw(b"the-proxys-own-token"));
    let last = stack.lite.last("GET").unwrap();
    assert!(!last.headers.iter().any(|header| header.contains("token")));
}
