//! Nothing in an upstream's answer leads a client elsewhere, where it would take its key and records.

use crate::harness::{Ask, Encoding, KEY, Packed, Stack, append, input, read, record, records};

/// Headers that would.
pub const LEADS: &[(&str, &str)] = &[
    ("location", "https://elsewhere.example/"),
    ("refresh", "0; url=https://elsewhere.example/"),
    ("alt-svc", r#"h2="elsewhere.example:443"; ma=2592000"#),
];

/// One request of each way through the proxy.
fn every_way() -> Vec<(&'static str, Ask)> {
    let batch = input([record(&[], "x")]);
    vec![
        ("append", append("s", Encoding::Json, Packed::Not, &batch)),
        (
            "session",
            append("s", Encoding::Frames, Packed::Not, &batch),
        ),
        ("read", read("s", "seq_num=0", Encoding::Json)),
        ("events", read("s", "seq_num=0", Encoding::Events)),
        ("tail", Ask::get(records("s") + "/tail").key(&KEY)),
        ("list", Ask::get("/v1/streams").key(&KEY)),
        ("basin", Ask::get("/v1/basins/test-basin").key(&KEY)),
        ("create", Ask::new("PUT", "/v1/streams/new").key(&KEY)),
        ("delete", Ask::new("DELETE", "/v1/streams/gone").key(&KEY)),
        ("tokens", Ask::get("/v1/access-tokens").key(&KEY)),
        ("health", Ask::get("/health").key(&KEY)),
        ("locations", Ask::get("/v1/locations").key(&KEY)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_refused_on_every_way() {
    let stack = Stack::with_one_record().await;
    for status in [300, 301, 302, 303, 305, 307, 308] {
        stack.lite.lie(move |_| Some(super::script::status(status)));
        for client in [stack.h1().await, stack.h2().await] {
            for (way, ask) in every_way() {
                let answer = client.ask(ask).await;
                let got = (answer.status, &*answer.code());
                assert_eq!(got, (500, "other"), "{way}, {status}");
                assert_leads_nowhere(way, &answer.headers);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_answers_lose_what_leads_elsewhere() {
    let stack = Stack::with_one_record().await;
    for status in [200, 201, 304, 404, 503] {
        stack.lite.lie(move |_| Some(super::script::status(status)));
        let client = stack.h2().await;
        for (way, ask) in every_way() {
            let answer = client.ask(ask).await;
            assert_leads_nowhere(way, &answer.headers);
            if ["tokens", "health", "locations"].contains(&way) {
                assert_eq!(answer.status, status, "{way}");
            }
        }
    }
}

fn assert_leads_nowhere(way: &str, headers: &http::HeaderMap) {
    for (name, _) in LEADS {
        assert!(!headers.contains_key(*name), "{way}: {name}");
    }
    assert!(!format!("{headers:?}").contains("elsewhere"), "{way}");
}
