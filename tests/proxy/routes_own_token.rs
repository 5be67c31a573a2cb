//! Clients that come in without a right of their own do not act with the proxy's token as they like.

use std::path::Path;

use serde_json::json;
use streamseal::{config::Config, server::Authenticate};

use crate::harness::{
    Answer, Ask, Authority, BASIN, Encoding, Packed, Stack, append, channel, input, meet,
    presenting, project, read, record, records,
};

/// Gives the proxy a token of its own.
fn own_token(config: &mut Config) {
    let file = config.store.path.with_file_name("token");
    std::fs::write(&file, "token-of-the-proxy").unwrap();
    config.upstream.access_token_file = file.into();
}

/// A deployment that asks clients for nothing.
async fn open_gateway() -> Stack {
    let stack = Stack::with(|config| {
        own_token(config);
        config.listen.authenticate = Authenticate::None;
    })
    .await;
    make_basin(&stack).await;
    stack
}

/// Makes a basin around the proxy.
async fn make_basin(stack: &Stack) {
    let config = json!({ "create_stream_on_append": true });
    let make = json!({ "basin": BASIN, "config": config });
    let made = stack.direct().await;
    let made = made.ask(Ask::post("/v1/basins").json(&make)).await;
    assert_eq!(made.status, 201, "{}", made.text());
}

fn access_token_calls() -> Vec<Ask> {
    vec![
        Ask::get("/v1/access-tokens"),
        Ask::new("HEAD", "/v1/access-tokens"),
        Ask::post("/v1/access-tokens").json(&json!({ "id": "x", "scope": {} })),
        Ask::new("DELETE", "/v1/access-tokens/x"),
    ]
}

fn account_calls() -> Vec<Ask> {
    vec![
        Ask::get("/v1/basins"),
        Ask::get("/v1/locations"),
        Ask::get("/v1/locations/default"),
        Ask::new("PUT", "/v1/locations/default").json(&json!({ "location": "x" })),
        Ask::get("/v1/metrics?set=active-basins"),
    ]
}

fn basin_changes() -> Vec<Ask> {
    let basin = format!("/v1/basins/{BASIN}");
    vec![
        Ask::post("/v1/basins").json(&json!({ "basin": "new-basin" })),
        Ask::new("PUT", "/v1/basins/new-basin"),
        Ask::new("PUT", &basin),
        Ask::new("PATCH", &basin).json(&json!({ "create_stream_on_read": true })),
        Ask::new("DELETE", &basin),
    ]
}

fn refused(answer: &Answer, ask: &Ask) -> String {
    assert_eq!(answer.status, 403, "{ask:?}: {}", answer.text());
    let is_head = answer.body.is_empty();
    assert!(is_head || answer.code() == "permission_denied", "{ask:?}");
    answer.text()
}

#[tokio::test(flavor = "multi_thread")]
async fn open_gateway_hands_out_no_access_tokens() {
    let stack = open_gateway().await;
    let before = stack.lite.seen().len();
    for client in [stack.h1().await, stack.h2().await] {
        for ask in access_token_calls() {
            let text = refused(&client.ask(ask.clone()).await, &ask);
            assert!(
                text.is_empty() || text.contains("access token"),
                "{ask:?}: {text}"
            );
        }
        for ask in account_calls() {
            let text = refused(&client.ask(ask.clone()).await, &ask);
            assert!(text.contains("account"), "{ask:?}: {text}");
        }
        for ask in basin_changes() {
            let text = refused(&client.ask(ask.clone()).await, &ask);
            assert!(text.contains("listen.authenticate"), "{ask:?}: {text}");
        }
    }
    assert_eq!(stack.lite.seen()[before..].len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn open_gateway_serves_streams_of_its_basins() {
    let stack = open_gateway().await;
    let client = stack.h2().await;
    let batch = input([record(&[], "x")]);
    let plain = |ask: Ask| ask.without("s2-encryption-key");
    for (ask, wanted) in [
        (Ask::get(format!("/v1/basins/{BASIN}")), 200),
        (Ask::get("/v1/streams"), 200),
        (
            Ask::post("/v1/streams").json(&json!({ "stream": "a" })),
            201,
        ),
        (Ask::new("PUT", "/v1/streams/a"), 200),
        (Ask::new("PATCH", "/v1/streams/a").json(&json!({})), 200),
        (Ask::get("/v1/streams/a"), 200),
        (plain(append("a", Encoding::Json, Packed::Not, &batch)), 200),
        (plain(read("a", "seq_num=0&count=1", Encoding::Json)), 200),
        (Ask::get(records("a") + "/tail"), 200),
        (Ask::get(format!("/v1/metrics/{BASIN}?set=storage")), 501),
        (Ask::new("DELETE", "/v1/streams/a"), 202),
        (Ask::get("/health"), 200),
        (Ask::get("/ping"), 200),
    ] {
        let answer = client.ask(ask.clone()).await;
        // The test's upstream has no metrics, or wants more of the query.
        let is_answer = answer.status == wanted || wanted == 501 && answer.status == 400;
        assert!(is_answer, "{ask:?}: {} {}", answer.status, answer.text());
    }
    let seen = stack.lite.seen();
    let last = seen.last().unwrap();
    let token = "authorization: Bearer token-of-the-proxy".to_owned();
    assert!(last.headers.contains(&token), "{last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_with_the_clients_own_token_pass() {
    for authenticate in [Authenticate::None, Authenticate::Upstream] {
        let stack = Stack::with(|config| config.listen.authenticate = authenticate).await;
        make_basin(&stack).await;
        let client = stack.h2().await;
        let calls = access_token_calls().into_iter().chain(account_calls());
        for ask in calls.chain(basin_changes()) {
            let before = stack.lite.seen().len();
            let ask = ask.header("authorization", "Bearer of-the-client");
            let answer = client.ask(ask.clone()).await;
            assert_ne!(answer.status, 403, "{ask:?}");
            let seen = stack.lite.seen().split_off(before);
            let token = "authorization: Bearer of-the-client".to_owned();
            assert!(!seen.is_empty(), "{ask:?}");
            let is_theirs = |seen: &crate::harness::Seen| seen.headers.contains(&token);
            assert!(seen.iter().all(is_theirs), "{seen:?}");
        }
    }
}

/// A deployment that lets in who has a certificate of this authority.
async fn certified_gateway(dir: &Path, authority: &Authority) -> Stack {
    authority.issue("server").write(dir, "server");
    std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    let stack = Stack::with(|config| {
        own_token(config);
        config.clients = streamseal::keys::ClientRules::Any;
        let listen = &mut config.listen;
        listen.authenticate = Authenticate::Mtls;
        listen.tls = Default::default();
        listen.tls.cert_file = dir.join("server.pem").into();
        listen.tls.key_file = dir.join("server.key").into();
        listen.tls.client_ca_file = dir.join("ca.pem").into();
    })
    .await;
    make_basin(&stack).await;
    stack
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_alone_gets_no_access_token() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("both");
    let stack = certified_gateway(dir.path(), &authority).await;
    let client = authority.issue("client");
    let refusals = access_token_calls()
        .into_iter()
        .chain(account_calls())
        .chain(basin_changes());
    let config = presenting([&*authority.pem()], Some(&client));
    let list = Ask::get("/v1/streams");
    let (met, answer) = meet(stack.address, &config, list).await.unwrap();
    assert_eq!(answer.status, 200);
    let before = stack.lite.seen().len();
    for ask in refusals {
        refused(&met.client.ask(ask.clone()).await, &ask);
    }
    assert_eq!(stack.lite.seen()[before..].len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn api_key_gets_no_access_token() {
    for own in [true, false] {
        let stack = Stack::with(|config| {
            project(config, "tests", &["test-*/**"]);
            if own {
                own_token(config);
            }
        })
        .await;
        make_basin(&stack).await;
        let token = stack.create_project("tests").await;
        let client = stack.h2().await;
        let before = stack.lite.seen().len();
        let calls = access_token_calls().into_iter().chain(account_calls());
        for ask in calls.filter(|ask| !format!("{ask:?}").contains("/v1/basins")) {
            refused(&client.ask(token.on(ask.clone())).await, &ask);
        }
        for (path, status) in [("/v1/streams", 200), ("/nothing", 200)] {
            let preflight = Ask::new("OPTIONS", path).header("origin", "https://page.example");
            assert_eq!(client.ask(preflight).await.status, status, "{path}");
        }
        assert_eq!(stack.lite.seen()[before..].len(), 0);
        let basin = Ask::new("PATCH", format!("/v1/basins/{BASIN}")).json(&json!({}));
        assert_eq!(client.ask(token.on(basin)).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_that_comes_by_reload_is_guarded_at_once() {
    let mut stack = Stack::with(|config| config.listen.authenticate = Authenticate::None).await;
    make_basin(&stack).await;
    let client = stack.h2().await;
    let issue = || Ask::post("/v1/access-tokens").json(&json!({ "id": "x", "scope": {} }));
    assert_ne!(client.ask(issue()).await.status, 403);
    // A basin call that is under way is looked at again once its body is there.
    let (body, slow) = channel();
    let create = Ask::post("/v1/basins").header("content-type", "application/json");
    let other = stack.h2().await;
    let pending = tokio::spawn(async move { other.send(create, slow).await.unwrap().status() });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    stack.reload(own_token).unwrap();
    let whole = json!({ "basin": "new-basin" }).to_string();
    body.send(Ok(whole.into())).await.unwrap();
    drop(body);
    let before = stack.lite.seen().len();
    assert_eq!(pending.await.unwrap(), 403);
    refused(&client.ask(issue()).await, &issue());
    assert_eq!(stack.lite.seen()[before..].len(), 0);
    let batch = input([record(&[], "x")]);
    let sealed = append("a", Encoding::Json, Packed::Not, &batch);
    let plain = sealed.without("s2-encryption-key");
    assert_eq!(client.ask(plain).await.status, 200);
}
