//! No key, no token and no record is ever in a log, in the audit log or in a trace, whatever clients send and
//! however much is logged.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use s2_api::v1::stream::s2s::CompressionAlgorithm;
use serde_json::json;
use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
};

use crate::harness::{
    Answer, Ask, BASIN, CIPHERS, Client, Collector, Encoding, Frame, Lite, Packed, Program, Stack,
    append, base64, input, leaks, read, record, records, seal,
};

/// The stream's key.
pub const GOOD: [u8; 32] = *b"the-good-key-is-in-no-log-line-1";
/// Another one.
pub const WRONG: [u8; 32] = *b"the-wrong-key-is-in-no-log-line2";
/// The key in the operator's file.
const FILED: [u8; 32] = *b"the-filed-key-is-in-no-log-line3";
/// A key in a query string.
const ASKED: [u8; 32] = *b"the-asked-key-is-in-no-log-line4";
/// A secret that is no key: not base64.
const MALFORMED: &str = "!this-is-no-base64-but-still-a-secret!";
/// A secret of 45 characters.
const LONG: &str = "this-secret-is-a-character-longer-than-a-key!";
/// Sixteen bytes: half a key.
const HALF: &[u8; 16] = b"half-a-key-only!";
/// An access token.
const TOKEN: &str = "the-access-token-is-in-no-log-line";
/// What stands in records.
const BODY: &str = "a body that is in no log line";
const NAME: &[u8] = b"x-header-that-is-in-no-log-line";
const VALUE: &[u8] = b"a value that is in no log line";

/// What must be in no log.
fn secrets() -> [&'static [u8]; 11] {
    let [body, malformed, long, token] = [BODY, MALFORMED, LONG, TOKEN].map(str::as_bytes);
    [
        &GOOD, &WRONG, &FILED, &ASKED, malformed, long, HALF, body, NAME, VALUE, token,
    ]
}

fn assert_no_secret(log: &[u8]) {
    for secret in secrets() {
        // By lines only where there is something to show.
        if leaks(log, secret) {
            let line = log
                .split(|byte| *byte == b'\n')
                .find(|line| leaks(line, secret));
            let line = String::from_utf8_lossy(line.unwrap_or_default());
            panic!("{} is in the log: {line}", String::from_utf8_lossy(secret));
        }
    }
}

/// What a client sends in the key header.
fn headers() -> Vec<(&'static str, Vec<String>)> {
    vec![
        ("the key", vec![base64(&GOOD)]),
        ("no key", vec![]),
        ("the wrong key", vec![base64(&WRONG)]),
        ("no base64", vec![MALFORMED.to_owned()]),
        ("45 characters", vec![LONG.to_owned()]),
        ("half a key", vec![base64(HALF)]),
        ("an empty key", vec![String::new()]),
        ("two keys", vec![base64(&GOOD), base64(&WRONG)]),
        (
            "two keys, the wrong first",
            vec![base64(&WRONG), base64(&GOOD)],
        ),
        (
            "a key in hex",
            vec![GOOD.iter().map(|byte| format!("{byte:02x}")).collect()],
        ),
    ]
}

/// Every kind of request for records, and the other routes, without a key.
fn asks(stream: &str) -> Vec<Ask> {
    let batch = input([record(&[(NAME, VALUE)], BODY)]);
    let mut asks: Vec<Ask> = Encoding::APPENDS
        .into_iter()
        .map(|encoding| append(stream, encoding, Packed::Not, &batch))
        .collect();
    asks.extend(Encoding::READS.map(|encoding| read(stream, "seq_num=0&count=1", encoding)));
    asks.push(append(stream, Encoding::Json, Packed::Zstd, &batch));
    asks.push(Ask::get(records(stream) + "/tail"));
    asks.push(Ask::get("/v1/streams"));
    asks.push(Ask::get("/v1/unknown"));
    // Bodies that do not decode.
    let good = Frame::encode(CompressionAlgorithm::None, &batch);
    let torn = [&good[..], BODY.as_bytes()].concat();
    asks.push(Ask::post(records(stream)).body("s2s/proto", torn));
    asks.push(Ask::post(records(stream)).body("application/protobuf", BODY));
    asks.extend(wrong_types().map(|json| Ask::post(records(stream)).json(&json)));
    let torn = format!("{{\"records\": [{{\"body\": \"{BODY}\" {BODY}");
    asks.push(Ask::post(records(stream)).body("application/json", torn));
    let no_base64 = Ask::post(records(stream)).json(&json!({ "records": [{ "body": BODY }] }));
    asks.push(no_base64.header("s2-format", "base64"));
    let query = format!("?s2-encryption-key={}", base64(&ASKED));
    asks.push(Ask::get(records(stream) + &query));
    asks.push(Ask::post(records(stream) + &query).json(&json!({ "records": [{ "body": BODY }] })));
    asks.push(Ask::get(format!("/v1/streams{query}")));
    asks.into_iter()
        .map(|ask| ask.without("s2-encryption-key"))
        .collect()
}

/// Records where JSON has something else in their place.
fn wrong_types() -> [serde_json::Value; 9] {
    [
        json!({ "records": [{ "body": BODY, "headers": BODY }] }),
        json!({ "records": [{ "body": BODY, "headers": [[BODY]] }] }),
        json!({ "records": [{ "body": BODY, "headers": [[BODY, BODY, BODY]] }] }),
        json!({ "records": [{ "body": [BODY] }] }),
        json!({ "records": [{ "body": "x", "timestamp": BODY }] }),
        json!({ "records": [BODY] }),
        json!({ "records": BODY }),
        json!({ BODY: BODY }),
        json!(BODY),
    ]
}

/// Everything that a client can get wrong about a key, and everything that it can get right.
async fn provoke(connect: impl AsyncFn() -> Client) {
    let client = connect().await;
    for (name, values) in headers() {
        for stream in ["s", "spoiled", "filed", "plain"] {
            for mut ask in asks(stream) {
                ask = ask.header("authorization", format!("Bearer {TOKEN}"));
                for value in &values {
                    ask = ask.header("s2-encryption-key", value);
                }
                // A refusal before the body is read may end a connection of HTTP/1.1.
                let answer = match stream {
                    "plain" => connect().await.ask(ask).await,
                    _ => client.ask(ask).await,
                };
                if answer.status >= 400 {
                    assert_answer_tells_nothing(name, &answer);
                }
            }
        }
    }
}

/// An answer to a client with the wrong key must not show the right one, nor repeat what it sent.
fn assert_answer_tells_nothing(name: &str, answer: &Answer) {
    for secret in [
        &GOOD[..],
        &WRONG,
        &FILED,
        &ASKED,
        MALFORMED.as_bytes(),
        LONG.as_bytes(),
        HALF,
    ] {
        assert!(!leaks(&answer.body, secret), "{name}: {}", answer.text());
    }
}

/// Makes the streams that [`provoke`] asks for: a plain one, and one with a record that does not open.
pub async fn prepare(client: &Client, upstream: &Client) {
    let basin =
        |cipher: Option<&str>| json!({ "stream_cipher": cipher, "create_stream_on_append": true });
    let create = Ask::post("/v1/basins").json(&json!({ "basin": BASIN, "config": basin(None) }));
    assert_eq!(client.ask(create).await.status, 201);
    let plain = Ask::post("/v1/streams").json(&json!({ "stream": "plain" }));
    assert_eq!(client.ask(plain).await.status, 201);
    let cipher = Ask::new("PATCH", format!("/v1/basins/{BASIN}")).json(&basin(Some("aegis-256")));
    assert_eq!(client.ask(cipher).await.status, 200);
    for stream in ["s", "spoiled", "filed"] {
        let create = Ask::post("/v1/streams").json(&json!({ "stream": stream }));
        assert_eq!(client.ask(create).await.status, 201);
    }
    let mut spoiled = seal(
        "aegis-256",
        GOOD,
        "spoiled",
        &record(&[(NAME, VALUE)], BODY),
    );
    spoiled.headers = record(&[(NAME, VALUE)], "").headers;
    let mut raw = append("spoiled", Encoding::Proto, Packed::Not, &input([spoiled]));
    raw = raw.without("s2-encryption-key");
    assert_eq!(upstream.ask(raw).await.status, 200);
}

pub fn rules(key_file: &Path) -> serde_json::Value {
    json!([{ "match": "*/filed", "cipher": "aegis-256", "key": "file", "key_file": key_file }])
}

pub fn write_key(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("filed.key");
    std::fs::write(&path, base64(&FILED)).unwrap();
    path
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_in_the_code_s_own_events() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
    // Everything that streamseal itself says, without the cap on what libraries say.
    let own = Targets::new().with_target("streamseal", LevelFilter::TRACE);
    let subscriber = tracing_subscriber::registry().with(lines.with_ansi(false).with_filter(own));
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let key_file = write_key(dir.path());
    let collector = Collector::start(200).await;
    let audit = dir.path().join("audit.log");
    let mut stack = Stack::with(|config| {
        config.streams = serde_json::from_value(rules(&key_file)).unwrap();
        config.audit.file = audit.clone();
        config.traces.otlp_endpoint = collector.endpoint();
    })
    .await;
    prepare(&stack.h2().await, &stack.direct().await).await;
    provoke(async || stack.h1().await).await;
    provoke(async || stack.h2().await).await;
    stack.tap.cut();
    stack.stop().await;
    let log = log.0.lock().unwrap().clone();
    assert_tells_what_happened(&String::from_utf8_lossy(&log));
    assert_no_secret(&log);
    assert_no_secret_told(&audit, &collector);
}

/// The log is not empty, and the failures are in it.
fn assert_tells_what_happened(log: &str) {
    for text in [
        "POST /v1/streams/s/records",
        "missing encryption key for stream cipher",
        "encryption key is not the one this stream was written with",
        "invalid base64",
        "45",
        "record decryption failed",
        "never in a query string",
    ] {
        assert!(log.contains(text), "not in the log: {text}");
    }
}

/// Audit log and traces are not empty, and there is no secret in them.
fn assert_no_secret_told(audit: &Path, collector: &Collector) {
    let audit = std::fs::read(audit).unwrap();
    assert!(String::from_utf8_lossy(&audit).contains("\"stream\":\"spoiled\""));
    assert_no_secret(&audit);
    let spans = collector.spans();
    let is_spoiled = |name: &String| name == "spoiled";
    let mut names = spans
        .iter()
        .filter_map(|span| span.attributes.get("s2.stream"));
    assert!(names.any(is_spoiled), "{} spans", spans.len());
    assert_no_secret(&collector.bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_in_the_loudest_log_of_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let lite = Lite::start().await;
    let rules = rules(&write_key(dir.path()));
    let loudest = "trace,h2=trace,hyper=trace,rustls=trace";
    let mut program = Program::start(dir.path(), lite.address, &rules, loudest);
    let collector = Collector::start(200).await;
    let audit = dir.path().join("audit.log");
    let (file, endpoint) = (audit.display(), collector.endpoint());
    program.configure(&format!(
        "[audit]\nfile = \"{file}\"\n[traces]\notlp_endpoint = \"{endpoint}\""
    ));
    program.start_again();
    let h2 = program.client("h2").await;
    prepare(&h2, &Client::plain(lite.address).await).await;
    provoke(async || program.client("h2").await).await;
    provoke(async || program.client("http/1.1").await).await;
    drop(h2);
    let program = tokio::task::spawn_blocking(move || {
        program.stop();
        program
    });
    let program = program.await.unwrap();
    assert_tells_what_happened(&program.log());
    assert_no_secret(&std::fs::read(dir.path().join("log")).unwrap());
    assert_no_secret_told(&audit, &collector);
}

#[tokio::test(flavor = "multi_thread")]
async fn key_errors_name_the_cipher_and_the_header_and_never_the_value() {
    for cipher in CIPHERS {
        let stack = Stack::start().await;
        stack.create_basin(Some(cipher)).await;
        let client = stack.h2().await;
        let create = Ask::post("/v1/streams").json(&json!({ "stream": "s" }));
        assert_eq!(client.ask(create).await.status, 201);
        for (name, values) in headers() {
            let names_cipher = ["no key", "no base64", "half a key"].contains(&name);
            if !names_cipher && !["45 characters", "an empty key", "a key in hex"].contains(&name) {
                continue;
            }
            for mut ask in asks("s").into_iter().take(10) {
                for value in &values {
                    ask = ask.header("s2-encryption-key", value);
                }
                let answer = client.ask(ask).await;
                let text = answer.text();
                assert_eq!(
                    (answer.status, answer.code().as_str()),
                    (422, "invalid"),
                    "{name}: {text}"
                );
                assert!(text.contains("s2-encryption-key"), "{name}: {text}");
                assert!(!names_cipher || text.contains(cipher), "{name}: {text}");
                assert_answer_tells_nothing(name, &answer);
            }
        }
        let direct = stack
            .direct()
            .await
            .ask(Ask::get(records("s") + "/tail"))
            .await;
        assert_eq!(direct.json()["tail"]["seq_num"], 0, "nothing was written");
    }
}
