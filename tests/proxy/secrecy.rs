//! The upstream sees neither a key nor a byte of any record, and what it stores is S2's own format.

use s2_api::v1::stream::proto::{AppendInput, AppendRecord};
use serde_json::json;

use crate::harness::{
    Ask, CIPHERS, Encoding, End, KEY, Packed, Seen, Stack, ack, append, base64, delivered, input,
    leaks, open, read, record, records, seal,
};

const BODY: &[u8] = b"<<the body of a record of which nobody may know>>";
const NAME: &[u8] = b"x-header-name-of-which-nobody-may-know";
const VALUE: &[u8] = b"a header value, likewise not to be known";

/// A batch large and repetitive enough to be compressed wherever something compresses.
fn secret_input() -> AppendInput {
    let long = [BODY, &[b'.'; 2000], BODY].concat();
    input([
        record(&[(NAME, VALUE)], BODY),
        record(&[], long),
        record(&[(NAME, b""), (NAME, VALUE)], ""),
    ])
}

/// What leaked to the upstream: on the wire, or in the HTTP requests it made of it.
fn leaked(stack: &Stack) -> Vec<String> {
    let wire = stack.tap.bytes();
    assert!(!wire.is_empty());
    let secrets = [BODY, NAME, VALUE, &KEY];
    let mut found = Vec::new();
    for secret in secrets {
        let name = String::from_utf8_lossy(secret);
        if leaks(&wire, secret) {
            found.push(format!("{name} on the wire"));
        }
        for seen in stack.lite.seen() {
            if leaks(&whole(&seen), secret) {
                found.push(format!("{name} in {}", seen.line));
            }
        }
    }
    found
}

/// Request line, headers and body: what the server made of compressed headers.
fn whole(seen: &Seen) -> Vec<u8> {
    let head = format!("{}\n{}\n", seen.line, seen.headers.join("\n"));
    [head.as_bytes(), &seen.body].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_never_sees_plaintext() {
    for cipher in CIPHERS {
        let stack = Stack::start().await;
        stack.create_basin(Some(cipher)).await;
        for client in [stack.h1().await, stack.h2().await] {
            for encoding in Encoding::APPENDS {
                for packed in Packed::ALL {
                    let answer = client
                        .ask(append("s", encoding, packed, &secret_input()))
                        .await;
                    ack(encoding, &answer);
                }
            }
            for encoding in Encoding::READS {
                let answer = client.ask(read("s", "seq_num=0&count=24", encoding)).await;
                let delivered = delivered(encoding, &answer);
                assert_eq!(delivered.end, End::Clean, "{encoding:?}");
                assert!(delivered.records().iter().any(|record| record.body == BODY));
            }
        }
        assert_eq!(leaked(&stack), Vec::<String>::new(), "{cipher}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_stream_would_be_seen() {
    let stack = Stack::start().await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    for encoding in Encoding::APPENDS {
        let ask = append("s", encoding, Packed::Not, &secret_input());
        let canary = ask
            .without("s2-encryption-key")
            .header("x-canary", base64(&KEY));
        ack(encoding, &client.ask(canary).await);
    }
    let found = leaked(&stack).join("\n");
    for secret in [BODY, NAME, VALUE] {
        let seen = format!("{} on the wire", String::from_utf8_lossy(secret));
        assert!(found.contains(&seen), "{found}");
    }
    let key = format!("{} in POST", String::from_utf8_lossy(&KEY));
    assert!(found.contains(&key), "{found}");
}

#[rustfmt::skip]
const GETS: [&str; 18] = [
    "/health", "/ping", "/metrics", "/dashboard", "/", "/v1/basins", "/v1/basins/test-basin",
    "/v1/streams", "/v1/streams/s", "/v1/access-tokens", "/v1/locations", "/v1/metrics",
    "/v1/streams/s/records/tail", "/v1/streams/plain/records/tail", "/v1/unknown", "/v2/streams",
    "/v1/streams/s/records?seq_num=0&count=1", "/v1/streams/plain/records?seq_num=0&count=1",
];

/// Every kind of request there is, and some that there are not.
fn every_route() -> Vec<Ask> {
    let basin = json!({ "basin": "other-basin", "config": { "stream_cipher": "aegis-256" } });
    let batch = json!({ "records": [{ "body": "x" }] });
    let mut asks = vec![
        Ask::post("/v1/basins").json(&basin),
        Ask::post("/v1/streams").json(&json!({ "stream": "made" })),
        Ask::new("PUT", "/v1/streams/ensured"),
        Ask::new("PATCH", "/v1/streams/s").json(&json!({})),
        Ask::new("PUT", "/v1/basins/other-basin-2"),
        Ask::new("PATCH", "/v1/basins/other-basin-2").json(&json!({})),
        Ask::post(records("s")).json(&batch),
        Ask::post(records("plain")).json(&batch),
        Ask::new("OPTIONS", records("s")).header("origin", "https://page.example"),
        Ask::new("DELETE", "/v1/streams/made"),
        Ask::new("DELETE", "/v1/basins/other-basin-2"),
        Ask::post("/v1/unknown").json(&batch),
        Ask::new("HEAD", records("s") + "?seq_num=0&count=1"),
    ];
    asks.extend(GETS.map(Ask::get));
    for kind in ["accept", "content-type"] {
        let value = if kind == "accept" {
            "text/event-stream"
        } else {
            "s2s/proto"
        };
        for stream in ["s", "plain"] {
            let ask = Ask::get(records(stream) + "?seq_num=0&count=1");
            asks.push(ask.header(kind, value));
        }
    }
    asks
}

#[tokio::test(flavor = "multi_thread")]
async fn key_reaches_the_upstream_on_no_route() {
    let stack = Stack::start().await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    let plain = Ask::post(records("plain")).json(&json!({ "records": [{ "body": "x" }] }));
    assert_eq!(client.ask(plain).await.status, 200);
    let config = json!({ "stream_cipher": "aegis-256" });
    let cipher = Ask::new("PATCH", "/v1/basins/test-basin").json(&config);
    assert_eq!(client.ask(cipher).await.status, 200);

    let before = stack.lite.seen().len();
    for client in [stack.h1().await, stack.h2().await] {
        for ask in every_route() {
            client.ask(ask.clone().key(&KEY)).await;
            let twice = ask.key(&[7; 32]).header("S2-Encryption-Key", base64(&KEY));
            client.ask(twice).await;
        }
    }
    let seen = stack.lite.seen();
    assert!(seen.len() > before + 60, "{} requests", seen.len() - before);
    for seen in &seen {
        let named = |header: &String| header.starts_with("s2-encryption-key");
        assert!(!seen.headers.iter().any(named), "{}", seen.line);
        assert!(!leaks(&whole(seen), &KEY), "{}", seen.line);
    }
    assert!(!leaks(&stack.tap.bytes(), &KEY));
}

/// Records of all shapes: with and without headers, long values, empty bodies, no text.
fn shapes() -> Vec<AppendRecord> {
    let long = "v".repeat(300);
    vec![
        record(&[], ""),
        record(&[], "hello"),
        record(&[(b"x-test", b"hello")], "secret payload"),
        record(
            &[(b"a", b""), (b"k", long.as_bytes())],
            &[0, 1, 2, 0xff][..],
        ),
        record(
            &[(b"dup", b"1"), (b"dup", b"1"), (b"\xff\x00", b"\xfe")],
            vec![0x01; 70_000],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_opens_every_record_that_the_upstream_holds() {
    for cipher in CIPHERS {
        let stack = Stack::start().await;
        stack.create_basin(Some(cipher)).await;
        let client = stack.h2().await;
        let name = "stream/名前 #%20";
        for encoding in [Encoding::Base64, Encoding::Proto, Encoding::Frames] {
            let answer = client
                .ask(append(name, encoding, Packed::Not, &input(shapes())))
                .await;
            ack(encoding, &answer);
        }
        let text = input([record(&[(b"a", b"b")], "text")]);
        client
            .ask(append(name, Encoding::Json, Packed::Zstd, &text))
            .await;
        let stored = stack.stored(name).await;
        let clear = [shapes(), shapes(), shapes(), text.records].concat();
        assert_eq!(stored.len(), clear.len());
        for (stored, clear) in stored.iter().zip(&clear) {
            let opened = open(cipher, KEY, name, stored).unwrap();
            assert_eq!(opened, (clear.headers.clone(), clear.body.clone()));
            open(cipher, KEY, "another", stored).unwrap_err();
        }
        let mut bodies: Vec<_> = stored.iter().map(|record| record.body.clone()).collect();
        bodies.sort();
        bodies.dedup();
        assert_eq!(bodies.len(), clear.len(), "no nonce comes twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_s2_sealed_opens() {
    for cipher in CIPHERS {
        let stack = Stack::start().await;
        stack.create_basin(Some(cipher)).await;
        let client = stack.h1().await;
        let create = Ask::post("/v1/streams").json(&json!({ "stream": "moved" }));
        assert_eq!(client.ask(create).await.json()["cipher"], cipher);
        let sealed = shapes()
            .iter()
            .map(|clear| seal(cipher, KEY, "moved", clear))
            .collect::<Vec<_>>();
        stack.store("moved", sealed).await;
        for encoding in Encoding::READS
            .into_iter()
            .filter(|encoding| encoding.is_binary())
        {
            let answer = client
                .ask(read("moved", "seq_num=0&count=5", encoding))
                .await;
            let opened = delivered(encoding, &answer).records();
            assert_eq!(
                opened.len(),
                shapes().len(),
                "{encoding:?}: {}",
                answer.text()
            );
            for (opened, clear) in opened.iter().zip(shapes()) {
                assert_eq!(
                    (&opened.headers, &opened.body),
                    (&clear.headers, &clear.body)
                );
            }
        }
    }
}

#[test]
fn the_search_finds_every_form_at_every_offset() {
    for before in 0..4 {
        let text = [&b"abcdefg"[..before], BODY, b"xyz"].concat();
        assert!(leaks(&text, BODY));
        assert!(leaks(base64(&text).as_bytes(), BODY), "{before}");
        let hex: String = text.iter().map(|byte| format!("{byte:02X}")).collect();
        assert!(leaks(hex.as_bytes(), BODY));
    }
    assert!(!leaks(&KEY, BODY));
}
