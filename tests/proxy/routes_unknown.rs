//! With `upstream.forward_unknown`, calls of a future API go up, but for bodies that could be records of a
//! stream with encryption.

use serde_json::json;
use streamseal::{
    config::Config,
    registry::rules::{BasinRule, KeySource, RuleCipher, StreamRule},
    server::Authenticate,
};

use crate::harness::{Ask, BASIN, Client, KEY, Seen, Stack, channel, project};

/// What must not reach the upstream.
const SECRET: &str = "a secret record body";

fn forwarding(config: &mut Config) {
    config.upstream.forward_unknown = true;
}

fn secret(basin: &str, path: &str) -> Ask {
    let body = json!({ "records": [{ "body": SECRET }] });
    Ask::post(path).basin(basin).json(&body)
}

async fn create(client: &Client, basin: &str, cipher: Option<&str>) {
    let body = json!({ "basin": basin, "config": { "stream_cipher": cipher } });
    let made = client.ask(Ask::post("/v1/basins").json(&body)).await;
    assert_eq!(made.status, 201, "{}", made.text());
}

/// A deployment with a plain basin and one that encrypts.
async fn two_basins() -> Stack {
    let stack = Stack::with(forwarding).await;
    let client = stack.h2().await;
    create(&client, "plain-basin", None).await;
    create(&client, BASIN, Some("aegis-256")).await;
    stack
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_calls_go_up_when_the_operator_says_so() {
    let stack = two_basins().await;
    for client in [stack.h1().await, stack.h2().await] {
        for (ask, line) in [
            (Ask::get("/v1/schemas?x=1"), "GET /v1/schemas?x=1"),
            (Ask::new("DELETE", "/v3/jobs/7"), "DELETE /v3/jobs/7"),
            (Ask::new("OPTIONS", "/v3/jobs"), "OPTIONS /v3/jobs"),
            (Ask::get("/metrics").without("s2-basin"), "GET /metrics"),
        ] {
            let before = stack.lite.seen().len();
            client.ask(ask).await;
            let seen = stack.lite.seen().split_off(before);
            let [one] = &*seen else {
                panic!("{line}: {seen:?}")
            };
            let (method, path) = line.split_once(' ').unwrap();
            assert!(one.line.starts_with(method) && one.line.ends_with(path));
        }
        let before = stack.lite.seen().len();
        let ask = secret("plain-basin", "/v1/schemas").header("content-encoding", "identity");
        client.ask(ask.without("content-encoding")).await;
        let seen = stack.lite.seen().split_off(before);
        let has = |seen: &Seen, header: &str| seen.headers.iter().any(|have| have == header);
        assert!(has(&seen[0], "s2-basin: plain-basin"), "{seen:?}");
    }
    // A body that is allowed arrives as it was sent.
    crate::harness::until("the body is there", async || {
        stack.tap.saw(SECRET.as_bytes())
    })
    .await;
}

/// What of these requests is not refused with their status, or goes up all the same.
async fn passing(stack: &Stack, asks: Vec<(Ask, u16)>) -> Vec<String> {
    let mut faults = Vec::new();
    for client in [stack.h1().await, stack.h2().await] {
        for (ask, status) in &asks {
            let before = stack.lite.seen().len();
            let answer = client.ask(ask.clone()).await;
            let text = answer.text();
            let says_why = *status != 403
                || answer.code() == "permission_denied" && text.contains("forward_unknown");
            let went = stack.lite.seen().split_off(before);
            if answer.status != *status || !says_why || !went.is_empty() {
                faults.push(format!("{ask:?}: {} {text} {went:?}", answer.status));
            }
        }
    }
    if stack.tap.saw(SECRET.as_bytes()) {
        faults.push("the secret is on the wire".to_owned());
    }
    faults
}

/// The same for requests that are not allowed.
async fn allowed(stack: &Stack, asks: Vec<Ask>) -> Vec<String> {
    passing(stack, asks.into_iter().map(|ask| (ask, 403)).collect()).await
}

const NONE: Vec<String> = Vec::new();

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_could_be_secret_records_stay() {
    let stack = two_basins().await;
    let asks = vec![
        secret(BASIN, "/v1/schemas"),
        secret(BASIN, "/v1/schemas").without("s2-basin"),
        secret("plain-basin", "/v3/test-basin/append"),
        secret("plain-basin", "/v3/test%2Dbasin/append"),
        secret("plain-basin", "/v3/append?to=test-basin"),
        // The client believes that it is encrypted.
        secret("plain-basin", "/v1/schemas").key(&KEY),
    ];
    assert_eq!(allowed(&stack, asks).await, NONE);
    // Without a body there is nothing to keep.
    let before = stack.lite.seen().len();
    stack.h2().await.ask(Ask::get("/v1/schemas")).await;
    assert_eq!(stack.lite.seen()[before..].len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn basins_that_seal_by_rule_take_no_unknown_bodies() {
    let stack = Stack::with(|config| {
        forwarding(config);
        let basin = |glob: &str, stream_cipher| BasinRule {
            r#match: glob.into(),
            stream_cipher,
        };
        config.basins = vec![
            basin("audit-*", RuleCipher::Aegis256),
            basin("clear-*", RuleCipher::None),
        ];
        let stream = |glob: &str, cipher| StreamRule {
            r#match: glob.into(),
            cipher,
            key: KeySource::Header,
            key_file: Default::default(),
            header_overrides: false,
        };
        config.streams = vec![
            stream("open-*/**", RuleCipher::None),
            stream("mixed-*/app/*", RuleCipher::Aegis256),
        ];
    })
    .await;
    let asks = ["audit-prod", "mixed-prod"].map(|basin| secret(basin, "/v1/schemas"));
    assert_eq!(allowed(&stack, asks.into()).await, NONE);
    for basin in ["clear-prod", "open-prod", "other-prod"] {
        let before = stack.lite.seen().len();
        stack.h2().await.ask(secret(basin, "/v1/schemas")).await;
        assert_eq!(stack.lite.seen()[before..].len(), 1, "{basin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_stream_guards_its_basin_without_a_cipher() {
    let stack = two_basins().await;
    let client = stack.h2().await;
    let made = client.ask(Ask::new("PUT", "/v1/streams/s")).await;
    assert_eq!(made.json()["cipher"], "aegis-256");
    let clear = Ask::new("PATCH", format!("/v1/basins/{BASIN}"));
    let clear = clear.json(&json!({ "stream_cipher": null }));
    assert_eq!(client.ask(clear).await.status, 200);
    let asks = vec![secret(BASIN, "/v1/schemas")];
    assert_eq!(allowed(&stack, asks).await, NONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn lookalikes_and_trace_stay_in_any_case() {
    let stack = two_basins().await;
    let mut asks = Vec::new();
    for path in [
        "/v2/streams/e/records",
        "/v2/streams",
        "/streams/e/records",
        "/api/v1/streams/e/records",
        "/api/v1/Streams",
        "/v1/x/%73treams/e",
        "/v1/%2573treams/e",
        "/a/b/c/d/basins/x",
        "/v9/records",
        "/v9/x/../streams/e/records",
        "/v9/x;y/streams;z/e",
        "/v9\\streams\\e",
        "/v1/streams/e/records/append",
        "/v1/x/%zz",
    ] {
        if path.parse::<http::Uri>().is_ok() {
            asks.push((secret("plain-basin", path), 404));
        }
    }
    for (path, status) in [("/v1/schemas", 404), ("/v1/streams/s/records", 405)] {
        asks.push((Ask::new("TRACE", path).basin("plain-basin"), status));
    }
    assert_eq!(passing(&stack, asks).await, NONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn contradictory_basins_are_refused() {
    let stack = Stack::with(|config| {
        forwarding(config);
        config.listen.basin_domain = "b.test".to_owned();
    })
    .await;
    create(&stack.h2().await, BASIN, Some("aegis-256")).await;
    let before = stack.lite.seen().len();
    let client = stack.h1().await;
    for (basin, status) in [("plain-basin", 400), (BASIN, 403)] {
        let ask = secret(basin, "/v1/schemas").header("host", format!("{BASIN}.b.test"));
        assert_eq!(client.ask(ask).await.status, status, "{basin}");
    }
    let by_host = secret(BASIN, "/v1/schemas").without("s2-basin");
    let by_host = by_host.header("host", format!("{BASIN}.b.test"));
    assert_eq!(client.ask(by_host).await.status, 403);
    assert_eq!(stack.lite.seen()[before..].len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn api_keys_allow_no_unknown_call() {
    let stack = Stack::with(|config| {
        forwarding(config);
        project(config, "tests", &["test-*/**"]);
    })
    .await;
    let token = stack.create_project("tests").await;
    let client = stack.h2().await;
    let before = stack.lite.seen().len();
    for ask in [Ask::get("/v1/schemas"), secret(BASIN, "/v1/schemas")] {
        assert_eq!(client.ask(token.on(ask)).await.status, 403);
    }
    assert_eq!(stack.lite.seen()[before..].len(), 0);
}

#[test]
fn proxys_own_token_excludes_unknown_calls() {
    let mut config = Config::default();
    config.listen.tls.self_signed = true;
    config.listen.authenticate = Authenticate::None;
    forwarding(&mut config);
    assert_eq!(config.check(), Vec::<String>::new());
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "token-of-the-proxy").unwrap();
    config.upstream.access_token_file = token.path().into();
    let problems = config.check();
    let [problem] = &*problems else {
        panic!("{problems:?}")
    };
    assert!(
        problem.starts_with("upstream.forward_unknown: "),
        "{problem}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_turns_unknown_calls_off() {
    let mut stack = Stack::with(|config| {
        forwarding(config);
        config.listen.authenticate = Authenticate::None;
    })
    .await;
    let client = stack.h2().await;
    let before = stack.lite.seen().len();
    client.ask(Ask::get("/v1/schemas")).await;
    // A body that is under way does not go up with a token that has come meanwhile.
    let (body, slow) = channel();
    let other = stack.h2().await;
    let pending = Ask::post("/v1/schemas").basin("plain-basin");
    let pending = tokio::spawn(async move { other.send(pending, slow).await.unwrap().status() });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let waiting = stack.reload(|config| {
        let file = config.store.path.with_file_name("token");
        std::fs::write(&file, "token-of-the-proxy").unwrap();
        config.upstream.access_token_file = file.into();
        config.upstream.forward_unknown = false;
    });
    assert_eq!(waiting.unwrap(), Vec::<String>::new());
    body.send(Ok(SECRET.into())).await.unwrap();
    drop(body);
    assert_eq!(pending.await.unwrap(), 403);
    assert_eq!(client.ask(Ask::get("/v1/schemas")).await.status, 404);
    assert_eq!(stack.lite.seen()[before..].len(), 1);
}
