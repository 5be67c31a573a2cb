//! Calls that S2 does not have go nowhere, and those that it has are routed as S2 routes them.

use serde_json::json;
use streamseal::server::Authenticate;

use crate::harness::{Answer, Ask, BASIN, KEY, Stack, Twin};

/// What must not reach the upstream.
const SECRET: &str = "a secret record body";

/// Paths that are none of S2's v1 API, although some routers would find records or a page there.
pub const UNKNOWN: [&str; 26] = [
    "/",
    "/v1",
    "/v1/",
    "/v2/streams/e/records",
    "/v2/streams",
    "/streams/e/records",
    "/api/v1/streams/e/records",
    "/api/v1/basins",
    "/v1beta/streams/e/records",
    "/v1/streams/e/records/append",
    "/v1/unknown",
    "/v1/records",
    "/v1/health",
    "/v1/access-tokens/",
    "/v1/access-tokens/a/b",
    "/v1/locations/other",
    "/v1/locations/default/x",
    "/v1/metrics/test-basin/s/x",
    "/health/",
    "/ping/x",
    "/metrics",
    "/metrics/x",
    "/dashboard",
    "/dashboard/",
    "/dashboard/config.json",
    "/dashboard/assets/app.js",
];

/// Every path of S2's v1 API.
const KNOWN: [&str; 16] = [
    "/v1/basins",
    "/v1/basins/none-basin",
    "/v1/streams",
    "/v1/streams/none",
    "/v1/streams/none/records",
    "/v1/streams/none/records/tail",
    "/v1/access-tokens",
    "/v1/access-tokens/id",
    "/v1/access-tokens/a%2Fb",
    "/v1/locations",
    "/v1/locations/default",
    "/v1/metrics",
    "/v1/metrics/test-basin",
    "/v1/metrics/test-basin/s",
    "/health",
    "/ping",
];

const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW",
];

fn secret(method: &str, path: &str) -> Ask {
    Ask::new(method, path).json(&json!({ "records": [{ "body": SECRET }] }))
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_go_nowhere() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let before = stack.lite.seen().len();
    for client in [stack.h1().await, stack.h2().await] {
        for path in UNKNOWN {
            for method in METHODS {
                let answer = client.ask(secret(method, path)).await;
                // S2 answers a browser that asks about any path; the proxy does so by itself.
                let wanted = if method == "OPTIONS" { 200 } else { 404 };
                let got = (answer.status, answer.body.len());
                assert_eq!(got, (wanted, 0), "{method} {path}");
            }
        }
    }
    assert_eq!(stack.lite.seen()[before..].len(), 0);
    assert!(!stack.tap.saw(SECRET.as_bytes()));
}

/// What S2's router makes of a request: nothing, a refused method with those it has, or a call.
fn routed(answer: &Answer) -> (Option<u16>, Option<String>) {
    let is_unrouted = [404, 405].contains(&answer.status) && answer.body.is_empty();
    let has_type = answer.headers.contains_key("content-type");
    let status = (is_unrouted && !has_type).then_some(answer.status);
    let allow = answer.header("allow").map(str::to_owned);
    (status, allow.filter(|_| status.is_some()))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_and_method_is_routed_as_in_s2() {
    let twin = Twin::start().await;
    let make = json!({ "basin": BASIN });
    twin.same_code(Ask::post("/v1/basins").json(&make)).await;
    // The proxy has none of the upstream's pages and of its process's metrics.
    let is_not_ours = |path: &str| path.starts_with("/metrics");
    let unknown = UNKNOWN.into_iter().filter(|path| !is_not_ours(path));
    for path in KNOWN.into_iter().chain(unknown) {
        for method in METHODS {
            // This s2-lite answers no page; the one that does answers any path.
            if method == "OPTIONS" && UNKNOWN.contains(&path) {
                continue;
            }
            let ask = Ask::new(method, path);
            let (ours, native) = twin.both(&ask).await;
            assert_eq!(routed(&ours), routed(&native), "{method} {path}");
            // s2-lite may answer a deletion with a conflict, and carry it out.
            if KNOWN.contains(&path) && method != "DELETE" {
                assert_eq!(ours.status, native.status, "{method} {path}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_names_below_metrics_are_refused_as_in_s2() {
    let twin = Twin::start().await;
    let before = twin.stack.lite.seen().len();
    for path in [
        "/v1/metrics/short",
        "/v1/metrics/UPPERCASE",
        "/v1/metrics/%FF%FF%FF%FF%FF",
        "/v1/metrics/test-basin/%2E%2e",
        "/v1/metrics/test-basin/%FF",
        "/v1/metrics/short/s",
        "/v1/metrics//s",
    ] {
        let answer = twin.same_code(Ask::get(path)).await;
        assert_eq!(answer.code(), "bad_path", "{path}");
    }
    for path in ["/v1/metrics/", "/v1/metrics/test-basin/"] {
        assert_eq!(twin.same(Ask::get(path)).await.status, 404, "{path}");
    }
    assert_eq!(twin.stack.lite.seen().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_is_refused_and_echoes_no_token() {
    let stack = Stack::with(|config| {
        let file = config.store.path.with_file_name("token");
        std::fs::write(&file, "token-of-the-proxy").unwrap();
        config.upstream.access_token_file = file.into();
        config.listen.authenticate = Authenticate::None;
    })
    .await;
    // As an upstream or a load balancer does that answers TRACE.
    stack.lite.lie(|seen| {
        let echo = format!("{}\r\n{}", seen.line, seen.headers.join("\r\n"));
        let body = http_body_util::Full::new(bytes::Bytes::from(echo));
        let body = http_body_util::BodyExt::map_err(body, |never| match never {});
        let answer = http::Response::builder().header("content-type", "text/plain");
        let body = http_body_util::BodyExt::boxed_unsync(body);
        Some(answer.body(body).unwrap())
    });
    let before = stack.lite.seen().len();
    for client in [stack.h1().await, stack.h2().await] {
        for path in KNOWN.into_iter().chain(UNKNOWN) {
            let answer = client.ask(Ask::new("TRACE", path)).await;
            let wanted = if KNOWN.contains(&path) { 405 } else { 404 };
            assert_eq!((answer.status, answer.body.len()), (wanted, 0), "{path}");
            assert!(!format!("{answer:?}").contains("token-of-the-proxy"));
        }
    }
    assert_eq!(stack.lite.seen().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_without_a_body_take_none_along() {
    let stack = Stack::with_one_record().await;
    let mut leaked = Vec::new();
    for client in [stack.h1().await, stack.h2().await] {
        for (method, path) in [
            ("GET", "/v1/basins"),
            ("GET", "/v1/basins/test-basin"),
            ("GET", "/v1/streams"),
            ("GET", "/v1/streams/s"),
            ("GET", "/v1/streams/s/records/tail"),
            ("GET", "/v1/streams/s/records?seq_num=0&count=1"),
            ("GET", "/v1/access-tokens"),
            ("DELETE", "/v1/access-tokens/id"),
            ("GET", "/v1/locations"),
            ("GET", "/v1/metrics?set=x"),
            ("GET", "/v1/metrics/test-basin/s"),
            ("GET", "/health"),
            ("OPTIONS", "/v1/streams/s/records"),
        ] {
            let before = stack.lite.seen().len();
            let body = format!("{SECRET} of {method} {path}");
            let ask = Ask::new(method, path).body("application/json", body.clone());
            client.ask(ask.key(&KEY)).await;
            assert!(stack.lite.seen().len() > before, "{method} {path}");
            if stack.tap.saw(body.as_bytes()) {
                leaked.push((method, path));
            }
        }
    }
    assert_eq!(leaked, []);
    assert!(!stack.tap.saw(SECRET.as_bytes()));
}
