//! With a collector named, each request is a span in its client's trace, and the upstream goes on from it.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{
    Ask, BASIN, Collector, Encoding, KEY, Packed, Seen, Session, Stack, append, frame, input,
    leaks, read, record, records, until,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
/// Kind and status of OTLP.
const SERVER: i32 = 2;
const ERROR: i32 = 2;

async fn stack(collector: &Collector, sample_ratio: f64) -> Stack {
    let endpoint = collector.endpoint();
    let stack = Stack::with(move |config| {
        config.traces.otlp_endpoint = endpoint;
        config.traces.sample_ratio = sample_ratio;
    })
    .await;
    stack.create_basin(Some("aegis-256")).await;
    stack
}

fn in_trace(ask: Ask, flags: &str) -> Ask {
    ask.header("traceparent", format!("00-{TRACE}-{PARENT}-{flags}"))
}

/// Trace, span and flags that the upstream was told.
fn told(seen: &Seen) -> (String, String, String) {
    let of = |header: &String| Some(header.strip_prefix("traceparent: ")?.to_owned());
    let found: Vec<String> = seen.headers.iter().filter_map(of).collect();
    let [parent] = &found[..] else {
        panic!("{seen:?}");
    };
    let parts: Vec<_> = parent.split('-').map(str::to_owned).collect();
    assert_eq!((parts.len(), &*parts[0]), (4, "00"), "{parent}");
    (parts[1].clone(), parts[2].clone(), parts[3].clone())
}

fn batch() -> Ask {
    let two = input([record(&[], "one"), record(&[], "two")]);
    append("s", Encoding::Proto, Packed::Not, &two)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_span_between_the_clients_and_the_upstreams() {
    let collector = Collector::start(200).await;
    let mut stack = stack(&collector, 1.0).await;
    let client = stack.h2().await;
    let ask = in_trace(batch(), "01").header("tracestate", "vendor=value");
    let answer = client.ask(ask.header("s2-request-id", "the-id")).await;
    assert_eq!(answer.status, 200);
    let seen = stack.lite.last("POST").unwrap();
    assert!(
        seen.headers
            .contains(&"tracestate: vendor=value".to_owned()),
        "{seen:?}"
    );
    stack.stop().await;

    assert_eq!(collector.resource()["service.name"], "streamseal");
    let spans = collector.spans();
    let span = spans.iter().find(|span| span.trace_id == TRACE).unwrap();
    assert_eq!(span.parent_id, PARENT);
    assert_eq!(
        told(&seen),
        (TRACE.to_owned(), span.id.clone(), "01".to_owned())
    );
    assert_eq!((&*span.name, span.kind, span.status), ("append", SERVER, 0));
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("client.address", "127.0.0.1"),
        ("s2.basin", BASIN),
        ("s2.stream", "s"),
        ("streamseal.request_id", "the-id"),
        ("streamseal.operation", "append"),
        ("streamseal.encoding", "proto"),
        ("streamseal.code", "ok"),
        ("streamseal.cipher", "aegis-256"),
        ("streamseal.records", "2"),
    ] {
        assert_eq!(
            span.attributes.get(name).map(|value| &**value),
            Some(value),
            "{span:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_in_the_state_of_a_trace_reaches_no_collector() {
    let collector = Collector::start(200).await;
    let mut stack = stack(&collector, 1.0).await;
    let client = stack.h2().await;
    let key = format!("sk-ss-{}", "Ab3_".repeat(19));
    let before = stack.lite.seen().len();
    let states = [
        vec![format!("vendor={key}")],
        vec!["other=value".to_owned(), format!("vendor=x{key}")],
        vec![
            format!("vendor={}", key.to_uppercase()),
            "other=value".to_owned(),
        ],
    ];
    for states in &states {
        let ask = in_trace(batch(), "01");
        let ask = states
            .iter()
            .fold(ask, |ask, state| ask.header("tracestate", state));
        let answer = client.ask(ask).await;
        assert_eq!((answer.status, &*answer.code()), (400, "bad_header"));
    }
    assert_eq!(stack.lite.seen().len(), before);
    stack.stop().await;

    let spans = collector.spans();
    let ours = spans.iter().filter(|span| span.trace_id == TRACE);
    assert_eq!(ours.count(), states.len());
    for key in [key.to_uppercase(), key] {
        assert!(!leaks(&collector.bytes(), key.as_bytes()));
        assert!(!leaks(&collector.bytes(), &key.as_bytes()[..20]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_request_goes_on_in_its_trace() {
    let collector = Collector::start(200).await;
    let mut stack = stack(&collector, 1.0).await;
    let client = stack.h2().await;
    client.ask(batch()).await;
    let asks = [
        read("s", "seq_num=0&count=1", Encoding::Json),
        read("s", "seq_num=0&count=1", Encoding::Events),
        Ask::get(records("s") + "/tail"),
        Ask::post("/v1/streams").json(&json!({ "stream": "t" })),
        Ask::get(format!("/v1/basins/{BASIN}")),
        Ask::get("/v1/access-tokens"),
    ];
    let before = stack.lite.seen().len();
    let count = asks.len();
    for ask in asks {
        client.ask(in_trace(ask, "01")).await;
    }
    let seen = stack.lite.seen()[before..].to_vec();
    assert!(seen.len() >= count, "{seen:?}");
    let ask = in_trace(Ask::post(records("s")).key(&KEY), "01");
    let mut session = Session::append(&client, ask).await;
    session.send(frame(&input([record(&[], "x")]))).await;
    session.live.frame().await.unwrap().unwrap().ack();
    let seen = [seen, vec![stack.lite.last("POST").unwrap()]].concat();
    session.finish();
    assert!(session.live.frame().await.unwrap().is_none());
    stack.stop().await;

    let spans = collector.spans();
    let ours: Vec<_> = spans.iter().filter(|span| span.trace_id == TRACE).collect();
    assert_eq!(ours.len(), count + 1, "{ours:#?}");
    assert!(ours.iter().all(|span| span.parent_id == PARENT));
    for seen in seen {
        let (trace, span, _) = told(&seen);
        assert_eq!(trace, TRACE);
        assert!(ours.iter().any(|ours| ours.id == span), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_usable_trace_begins_one() {
    let collector = Collector::start(200).await;
    let mut stack = stack(&collector, 1.0).await;
    let client = stack.h2().await;
    for parent in [None, Some("no trace"), Some("00-0-0-00")] {
        let mut ask = Ask::get("/v1/access-tokens");
        if let Some(parent) = parent {
            ask = ask
                .header("traceparent", parent)
                .header("tracestate", "a=b");
        }
        client.ask(ask).await;
        let seen = stack.lite.last("GET").unwrap();
        let (trace, _, flags) = told(&seen);
        assert_eq!((trace.len(), &*flags), (32, "01"));
        // It belongs to a trace that is not known.
        assert!(
            !seen
                .headers
                .iter()
                .any(|header| header.starts_with("tracestate")),
            "{seen:?}"
        );
    }
    stack.stop().await;
    let spans = collector.spans();
    let roots = spans.iter().filter(|span| span.name == "forward");
    assert!(
        roots.clone().all(|span| span.parent_id.is_empty()),
        "{spans:#?}"
    );
    assert_eq!(roots.count(), 3, "{spans:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_begins_a_trace_decides_whether_it_is_kept() {
    for (ratio, flags, kept) in [(1.0, "00", 0), (0.0, "01", 1), (0.0, "00", 0)] {
        let collector = Collector::start(200).await;
        let mut stack = stack(&collector, ratio).await;
        let ask = in_trace(Ask::get("/v1/access-tokens"), flags);
        stack.h2().await.ask(ask).await;
        let (trace, span, onward) = told(&stack.lite.last("GET").unwrap());
        assert_eq!((&*trace, &*onward), (TRACE, flags));
        stack.stop().await;
        let spans = collector.spans();
        let ours = spans.iter().filter(|span| span.trace_id == TRACE);
        assert_eq!(ours.clone().count(), kept, "{ratio} {flags}");
        assert!(ours.clone().all(|ours| ours.id == span));
        // Those that nobody decided on.
        assert_eq!(spans.len() > kept, ratio == 1.0, "{spans:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_not_the_clients_fault_is_an_error() {
    let collector = Collector::start(200).await;
    let mut stack = stack(&collector, 1.0).await;
    let client = stack.h2().await;
    client.ask(batch()).await;
    let no_key = Ask::get(records("s") + "?seq_num=0").header("s2-request-id", "no-key");
    assert_eq!(client.ask(no_key).await.status, 422);
    stack.lite.lie(|_| {
        use http_body_util::BodyExt as _;
        let body = http_body_util::Empty::new().map_err(|never| match never {});
        let answer = http::Response::builder().status(503);
        Some(answer.body(body.boxed_unsync()).unwrap())
    });
    let down = Ask::get("/v1/access-tokens").header("s2-request-id", "down");
    assert_eq!(client.ask(down).await.status, 503);
    stack.stop().await;
    let spans = collector.spans();
    for (id, status, code, fault) in [
        ("no-key", 0, "invalid", "client"),
        ("down", ERROR, "503", "upstream"),
    ] {
        let is_it = |attributes: &std::collections::BTreeMap<String, String>| {
            attributes["streamseal.request_id"] == id
        };
        let span = spans.iter().find(|span| is_it(&span.attributes)).unwrap();
        assert_eq!(span.status, status, "{span:#?}");
        assert_eq!(span.attributes["streamseal.code"], code);
        assert_eq!(span.attributes["streamseal.fault"], fault);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_fails_costs_no_request() {
    // One that answers badly, one that is not there, and one that never answers.
    let bad = Collector::start(500).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoints = [
        bad.endpoint(),
        "http://127.0.0.1:1/v1/traces".to_owned(),
        format!("http://{}/v1/traces", silent.local_addr().unwrap()),
    ];
    for endpoint in endpoints {
        let mut stack = Stack::with(|config| config.traces.otlp_endpoint = endpoint.clone()).await;
        stack.create_basin(Some("aegis-256")).await;
        let client = stack.h2().await;
        // More than fit into one export and into the queue.
        for _ in 0..3000 {
            assert_eq!(client.ask(Ask::get("/v1/nothing")).await.status, 404);
        }
        assert_eq!(client.ask(batch()).await.status, 200);
        let stopping = Instant::now();
        stack.stop().await;
        assert!(stopping.elapsed() < Duration::from_secs(8), "{endpoint}");
    }
    until("the bad one was asked", async || !bad.spans().is_empty()).await;
}
