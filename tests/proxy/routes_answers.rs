//! Pages and scripts of an upstream never reach a browser under the proxy's name.

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde_json::json;

use crate::harness::{
    Answer, AnyBody, Ask, Encoding, Packed, Stack, append, input, read, record, records,
};

/// What an upstream's page does.
const SCRIPT: &str = "<script>fetch('/v1/streams/s/records')</script>";

/// An answer with these `content-type` headers.
fn page(status: u16, types: &[&str]) -> Response<AnyBody> {
    let body = Full::new(Bytes::from_static(SCRIPT.as_bytes()));
    let mut answer = Response::builder().status(status);
    for value in types {
        answer = answer.header("content-type", *value);
    }
    answer
        .body(body.map_err(|never| match never {}).boxed_unsync())
        .unwrap()
}

/// Headers of what a browser runs, or might take for something that it runs.
const ACTIVE: [&[&str]; 20] = [
    &["text/html"],
    &["Text/HTML; charset=utf-8"],
    &["application/xhtml+xml"],
    &["image/svg+xml"],
    &["text/javascript"],
    &["application/javascript"],
    &["application/x-javascript"],
    &["text/ecmascript"],
    &["application/ecmascript"],
    &["text/xml"],
    &["application/xml"],
    &["text/css"],
    &["application/wasm"],
    &["multipart/x-mixed-replace; boundary=x"],
    &["application/json, text/html"],
    &["application/json", "text/html"],
    &["text/html", "application/json"],
    &["*/*"],
    &["unknown/unknown"],
    &[],
];

/// One request of each way through the proxy, of streams with encryption and without.
fn every_way() -> Vec<Ask> {
    let batch = input([record(&[], "x")]);
    let mut asks = vec![
        Ask::get("/v1/basins/test-basin"),
        Ask::get("/v1/streams"),
        Ask::post("/v1/streams").json(&json!({ "stream": "new" })),
        Ask::new("PUT", "/v1/streams/new"),
        Ask::new("DELETE", "/v1/streams/gone"),
    ];
    let of = |stream| {
        [
            append(stream, Encoding::Json, Packed::Not, &batch),
            append(stream, Encoding::Frames, Packed::Not, &batch),
            read(stream, "seq_num=0", Encoding::Json),
            read(stream, "seq_num=0", Encoding::Frames),
            read(stream, "seq_num=0", Encoding::Events),
        ]
    };
    asks.extend(of("s"));
    asks.extend(of("plain").map(|ask| ask.without("s2-encryption-key")));
    asks
}

/// One request of each call that is forwarded as it is.
fn forwarded() -> Vec<Ask> {
    vec![
        Ask::get("/v1/basins"),
        Ask::get("/v1/streams/s"),
        Ask::new("PATCH", "/v1/streams/s").json(&json!({})),
        Ask::get(records("s") + "/tail"),
        Ask::get("/v1/access-tokens"),
        Ask::post("/v1/access-tokens").json(&json!({ "id": "x" })),
        Ask::new("DELETE", "/v1/access-tokens/x"),
        Ask::get("/v1/locations"),
        Ask::get("/v1/metrics"),
        Ask::get("/v1/metrics/test-basin/s"),
        Ask::get("/health"),
        Ask::get("/ping"),
        Ask::new("OPTIONS", "/v1/streams/s"),
    ]
}

/// A stream `s` with encryption and a stream `plain` without.
async fn two_streams() -> Stack {
    let stack = Stack::start().await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    let batch = input([record(&[], "x")]);
    let plain = append("plain", Encoding::Json, Packed::Not, &batch).without("s2-encryption-key");
    assert_eq!(client.ask(plain).await.status, 200);
    let cipher = json!({ "stream_cipher": "aegis-256" });
    let change = Ask::new("PATCH", "/v1/basins/test-basin").json(&cipher);
    assert_eq!(client.ask(change).await.status, 200);
    let sealed = append("s", Encoding::Json, Packed::Not, &batch);
    assert_eq!(client.ask(sealed).await.status, 200);
    stack
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_scripts_never_pass() {
    let stack = two_streams().await;
    for types in ACTIVE {
        for status in [200, 404, 503] {
            // Many sessions that break off on one connection end it.
            let client = stack.h2().await;
            stack.lite.lie(move |_| Some(page(status, types)));
            for ask in forwarded() {
                let answer = client.ask(ask.clone()).await;
                is_refused(&answer, &format!("{types:?} {status} {ask:?}"));
            }
            for ask in every_way() {
                // A session may break off.
                let Ok(answer) = client.try_ask(ask.clone()).await else {
                    continue;
                };
                assert!(answer.status >= 400, "{types:?} {status} {ask:?}");
                assert!(!answer.text().contains("<script>"), "{types:?} {ask:?}");
                let kind = answer.header("content-type");
                assert_eq!(kind, Some("application/json"), "{types:?} {ask:?}");
            }
        }
    }
    stack.lite.lie(|_| Some(page(200, &["text/html"])));
    for ask in forwarded() {
        // The proxy may close an HTTP/1.1 connection whose request it did not read to its end.
        let answer = stack.h1().await.ask(ask.clone()).await;
        is_refused(&answer, &format!("{ask:?}"));
    }
}

fn is_refused(answer: &Answer, what: &str) {
    let got = (answer.status, &*answer.code());
    assert_eq!(got, (500, "other"), "{what}");
    assert!(!answer.text().contains("<script>"), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_answers_need_no_type() {
    let stack = two_streams().await;
    for client in [stack.h1().await, stack.h2().await] {
        // Whether its end is known with its head or not.
        for is_late in [false, true] {
            stack.lite.lie(move |_| {
                let none = futures_util::stream::iter(Vec::new());
                let body = match is_late {
                    true => StreamBody::new(none).boxed_unsync(),
                    false => Full::new(Bytes::new())
                        .map_err(|never| match never {})
                        .boxed_unsync(),
                };
                Some(Response::builder().status(202).body(body).unwrap())
            });
            for ask in forwarded() {
                let answer = client.ask(ask.clone()).await;
                assert_eq!((answer.status, answer.body.len()), (202, 0), "{ask:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_lets_a_browser_guess_its_type() {
    let stack = two_streams().await;
    let client = stack.h2().await;
    let own = [
        Ask::get("/nothing"),
        Ask::new("DELETE", "/v1/streams"),
        Ask::get("/v1/streams?s2-encryption-key=x"),
    ];
    let ways = every_way().into_iter().chain(forwarded()).chain(own);
    for ask in ways {
        let answer = client.open(ask.clone()).await;
        let sniff = answer.headers().get("x-content-type-options");
        assert_eq!(sniff.unwrap(), "nosniff", "{ask:?}");
    }
}
