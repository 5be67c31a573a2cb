//! Every request has an id that client, upstream and logs share, and its place in a trace goes on with it.

use http::Response;
use http_body_util::BodyExt as _;
use serde_json::json;

use crate::harness::{
    AnyBody, Ask, BASIN, Encoding, KEY, Packed, Seen, Session, Stack, append, frame, input, read,
    record, records,
};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Sealed and plain, unary and sessions, records and calls about streams, good and bad.
fn asks() -> Vec<Ask> {
    let batch = input([record(&[], "x")]);
    let mut asks = Vec::new();
    for stream in ["s", "plain"] {
        asks.extend(Encoding::APPENDS.map(|how| append(stream, how, Packed::Not, &batch)));
        asks.extend(Encoding::READS.map(|how| read(stream, "seq_num=0&count=1", how)));
        asks.push(Ask::get(records(stream) + "/tail"));
        asks.push(Ask::get(format!("/v1/streams/{stream}")));
    }
    asks.push(Ask::post("/v1/streams").json(&json!({ "stream": "made" })));
    asks.push(Ask::get(format!("/v1/basins/{BASIN}")));
    asks.push(Ask::get("/v1/access-tokens"));
    asks.push(Ask::get("/v1/no-such-thing"));
    asks.push(Ask::get(records("s") + "?seq_num=x").key(&KEY));
    asks.push(Ask::get(records("s") + "?seq_num=0").key(&[7; 32]));
    asks
}

async fn stack() -> Stack {
    let stack = Stack::with_one_record().await;
    let client = stack.h2().await;
    let plain = json!({ "stream_cipher": null, "create_stream_on_append": true });
    let patch = Ask::new("PATCH", format!("/v1/basins/{BASIN}"));
    assert_eq!(client.ask(patch.json(&plain)).await.status, 200);
    let create = Ask::post("/v1/streams").json(&json!({ "stream": "plain" }));
    assert_eq!(client.ask(create).await.status, 201);
    stack
}

fn values<'a>(seen: &'a Seen, name: &str) -> Vec<&'a str> {
    let of = |header: &'a String| header.strip_prefix(name)?.strip_prefix(": ");
    seen.headers.iter().filter_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_id_goes_up_and_comes_back() {
    let stack = stack().await;
    for client in [stack.h1().await, stack.h2().await] {
        for ask in asks() {
            let before = stack.lite.seen().len();
            let answer = client
                .ask(ask.clone().header("s2-request-id", "My.id_1-2"))
                .await;
            assert_eq!(answer.header("s2-request-id"), Some("My.id_1-2"), "{ask:?}");
            for seen in &stack.lite.seen()[before..] {
                assert_eq!(values(seen, "s2-request-id"), ["My.id_1-2"], "{seen:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_usable_id_gets_one() {
    let stack = stack().await;
    let client = stack.h2().await;
    let mut ids = Vec::new();
    for id in [
        None,
        Some("no id"),
        Some(""),
        Some("a/b"),
        Some(&*"x".repeat(129)),
    ] {
        for mut ask in asks() {
            if let Some(id) = id {
                ask = ask.header("s2-request-id", id);
            }
            let before = stack.lite.seen().len();
            let answer = client.ask(ask).await;
            let made = answer.header("s2-request-id").unwrap().to_owned();
            assert_eq!(made.len(), 32, "{made}");
            assert!(made.bytes().all(|c| c.is_ascii_hexdigit()), "{made}");
            for seen in &stack.lite.seen()[before..] {
                assert_eq!(values(seen, "s2-request-id"), [&*made], "{seen:?}");
            }
            ids.push(made);
        }
    }
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all, "ids are made for one request each");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_proxy_asks_of_its_own_carries_the_id_and_the_trace() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aes-256-gcm")).await;
    let before = stack.lite.seen().len();
    let ask = read("s", "seq_num=0", Encoding::Proto);
    let ask = ask
        .header("s2-request-id", "the-id")
        .header("traceparent", PARENT);
    let answer = stack.h2().await.ask(ask).await;
    assert_eq!(answer.status, 416, "{}", answer.text());
    // It asks whether the stream is there and whether it may create it, and creates it.
    let seen = &stack.lite.seen()[before..];
    assert!(seen.len() > 3, "{seen:?}");
    for seen in seen {
        assert_eq!(values(seen, "s2-request-id"), ["the-id"], "{seen:?}");
        assert_eq!(values(seen, "traceparent"), [PARENT], "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_under_the_common_name_is_taken_over() {
    let stack = stack().await;
    let ask = Ask::get("/v1/streams").header("x-request-id", "from-a-balancer");
    let answer = stack.h2().await.ask(ask).await;
    assert_eq!(answer.header("s2-request-id"), Some("from-a-balancer"));
    let seen = stack.lite.last("GET").unwrap();
    assert_eq!(values(&seen, "s2-request-id"), ["from-a-balancer"]);
    assert_eq!(values(&seen, "x-request-id"), ["from-a-balancer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstreams_own_id_stays() {
    let stack = stack().await;
    stack.lite.lie(|_| {
        let answer = Response::builder().status(503);
        let answer = answer.header("s2-request-id", "the-upstreams");
        let answer = answer.header("content-type", "application/json");
        let body: AnyBody = http_body_util::Full::from("{}")
            .map_err(|never| match never {})
            .boxed_unsync();
        Some(answer.body(body).unwrap())
    });
    let client = stack.h2().await;
    for ask in [Ask::get("/v1/access-tokens"), Ask::get("/v1/streams/plain")] {
        let answer = client.ask(ask.header("s2-request-id", "mine")).await;
        let ids: Vec<_> = answer.headers.get_all("s2-request-id").iter().collect();
        assert_eq!(ids, ["the-upstreams"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_traces_of_its_own_the_proxy_passes_on_the_clients() {
    let stack = stack().await;
    let client = stack.h2().await;
    // What it says is not the proxy's business: the third is no valid one.
    for (parent, state) in [(PARENT, "a=b,c=d"), (PARENT, ""), ("no trace", "no state")] {
        for ask in asks() {
            let before = stack.lite.seen().len();
            let ask = ask
                .header("traceparent", parent)
                .header("tracestate", state);
            client.ask(ask).await;
            for seen in &stack.lite.seen()[before..] {
                assert_eq!(values(seen, "traceparent"), [parent], "{seen:?}");
                assert_eq!(values(seen, "tracestate"), [state], "{seen:?}");
            }
        }
    }
    let before = stack.lite.seen().len();
    for ask in asks() {
        client.ask(ask).await;
    }
    for seen in &stack.lite.seen()[before..] {
        assert_eq!(values(seen, "traceparent"), [""; 0], "{seen:?}");
    }
    // An append session.
    let ask = Ask::post(records("s")).key(&KEY);
    let ask = ask.header("traceparent", PARENT);
    let mut session = Session::append(&client, ask).await;
    session.send(frame(&input([record(&[], "x")]))).await;
    session.live.frame().await.unwrap().unwrap().ack();
    let seen = stack.lite.last("POST").unwrap();
    assert_eq!(values(&seen, "traceparent"), [PARENT]);
}
