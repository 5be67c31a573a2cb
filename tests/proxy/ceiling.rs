//! No data record of an AES-256-GCM stream goes beyond sequence number 2^32 − 1, whatever the upstream
//! says of the tail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use s2_api::v1::stream::proto::{AppendAck, AppendInput, StreamPosition};
use streamseal::registry::rules::{KeySource, RuleCipher, StreamRule};

use crate::harness::{Answer, AnyBody, Encoding, Packed, Stack, append, input, read, record};

/// The last number that a data record may have: random nonces of 96 bits allow 2^32 records to a key.
pub const LAST: u64 = (1 << 32) - 1;

/// An upstream whose stream is as long as it says.
pub struct Edge {
    pub stack: Stack,
    pub line: Arc<Line>,
}

/// What the upstream makes believe.
#[derive(Default)]
pub struct Line {
    pub tail: AtomicU64,
    /// Records that each append is acked with.
    pub size: AtomicU64,
    /// Appends are not answered.
    pub holds_appends: AtomicBool,
    /// Tails are looked up, but not told.
    pub holds_tails: AtomicBool,
}

impl Edge {
    pub async fn start(cipher: RuleCipher) -> Self {
        let rule = StreamRule {
            r#match: "test-basin/**".to_owned(),
            cipher,
            key: KeySource::Header,
            key_file: Default::default(),
            header_overrides: false,
        };
        let stack = Stack::with(|config| config.streams = vec![rule]).await;
        let edge = Self {
            stack,
            line: Arc::default(),
        };
        let line = Arc::clone(&edge.line);
        edge.stack.lite.lie(move |seen| line.answer(&seen.line));
        edge
    }

    pub async fn append(&self, stream: &str, encoding: Encoding, batch: &AppendInput) -> Answer {
        self.line.size.store(batch.records.len() as u64, SeqCst);
        let ask = append(stream, encoding, Packed::Not, batch);
        self.stack.h2().await.ask(ask).await
    }

    pub fn asked(&self, method: &str, ends: &str) -> usize {
        let seen = self.stack.lite.seen();
        let is = |line: &str| line.starts_with(method) && line.ends_with(ends);
        seen.iter().filter(|seen| is(&seen.line)).count()
    }

    pub fn appends(&self) -> usize {
        self.asked("POST", "/records")
    }
}

impl Line {
    pub fn answer(self: &Arc<Self>, line: &str) -> Option<Response<AnyBody>> {
        let this = Arc::clone(self);
        if line.ends_with("/records/tail") {
            let tail = self.tail.load(SeqCst);
            let json = format!(r#"{{"tail":{{"seq_num":{tail},"timestamp":1}}}}"#);
            return Some(late("application/json", json, move || {
                this.holds_tails.load(SeqCst)
            }));
        }
        if !line.starts_with("POST ") {
            return None;
        }
        let size = self.size.load(SeqCst);
        let start = self.tail.fetch_add(size, SeqCst);
        let ack = ack(start, start + size).encode_to_vec();
        Some(late("application/protobuf", ack, move || {
            this.holds_appends.load(SeqCst)
        }))
    }
}

/// An answer whose body comes once nothing holds it any more.
fn late(
    content_type: &str,
    body: impl Into<Bytes>,
    held: impl Fn() -> bool + Send + Sync + 'static,
) -> Response<AnyBody> {
    let body = body.into();
    let chunks = futures_util::stream::once(async move {
        while held() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(http_body::Frame::data(body))
    });
    let response = Response::builder().header("content-type", content_type);
    let body = http_body_util::StreamBody::new(chunks).boxed_unsync();
    response.body(body).unwrap()
}

pub fn ack(start: u64, end: u64) -> AppendAck {
    let at = |seq_num| {
        Some(StreamPosition {
            seq_num,
            timestamp: 1,
        })
    };
    AppendAck {
        start: at(start),
        end: at(end),
        tail: at(end),
    }
}

/// A batch of data records (`d`) and commands (`c`).
pub fn batch(kinds: &str) -> AppendInput {
    input(kinds.chars().map(|kind| match kind {
        'd' => record(&[], "data"),
        'c' => record(&[(b"", b"fence")], "token"),
        other => panic!("{other}"),
    }))
}

#[rustfmt::skip]
const BATCHES: &[(u64, &str, bool)] = &[
    // tail        batch    goes
    (0,            "d",     true),
    (LAST - 2,     "ddd",   true),
    (LAST - 2,     "dddd",  false),
    (LAST - 2,     "dddc",  true),
    (LAST - 2,     "dcdc",  true),
    (LAST - 2,     "dccd",  false),
    (LAST,         "d",     true),
    (LAST,         "dd",    false),
    (LAST,         "dc",    true),
    (LAST,         "cd",    false),
    (LAST,         "c",     true),
    (LAST + 1,     "d",     false),
    (LAST + 1,     "c",     true),
    (LAST + 1,     "dc",    false),
    (u64::MAX - 1, "d",     false),
    (u64::MAX - 1, "c",     true),
    (u64::MAX,     "d",     false),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_last_number_is_taken_and_none_after_it() {
    let edge = Edge::start(RuleCipher::Aes256Gcm).await;
    for (at, (tail, kinds, goes)) in BATCHES.iter().enumerate() {
        for encoding in [Encoding::Json, Encoding::Proto] {
            let what = format!("{kinds} at {tail}, {encoding:?}");
            let before = edge.appends();
            edge.line.tail.store(*tail, SeqCst);
            let stream = format!("{at}-{encoding:?}");
            let answer = edge.append(&stream, encoding, &batch(kinds)).await;
            if *goes {
                assert_eq!(answer.status, 200, "{what}: {}", answer.text());
                assert_eq!(edge.appends(), before + 1, "{what}");
            } else {
                assert_eq!((answer.status, &*answer.code()), (422, "invalid"), "{what}");
                assert_eq!(edge.appends(), before, "{what}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fills_up_is_full_for_data_only() {
    let edge = Edge::start(RuleCipher::Aes256Gcm).await;
    edge.line.tail.store(LAST - 3, SeqCst);
    for (kinds, status) in [
        ("dd", 200),
        ("ddd", 422),
        ("c", 200),
        ("dd", 422),
        ("d", 200),
        ("d", 422),
        ("c", 200),
        ("cc", 200),
        ("d", 422),
    ] {
        let answer = edge.append("s", Encoding::Json, &batch(kinds)).await;
        assert_eq!(answer.status, status, "{kinds}: {}", answer.text());
    }
    // The others are not.
    edge.line.tail.store(0, SeqCst);
    assert_eq!(
        edge.append("t", Encoding::Json, &batch("d")).await.status,
        200
    );
    // Nor is it once it was deleted and made anew.
    assert_eq!(
        edge.append("s", Encoding::Json, &batch("d")).await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_cannot_be_had_refuses() {
    let edge = Edge::start(RuleCipher::Aes256Gcm).await;
    let no_tails = [
        (200, ""),
        (200, "{}"),
        (200, "[]"),
        (200, "null"),
        (200, r#"{"tail":null}"#),
        (200, r#"{"tail":{}}"#),
        (200, r#"{"tail":{"seq_num":-1,"timestamp":1}}"#),
        (200, r#"{"tail":{"seq_num":0.5,"timestamp":1}}"#),
        (200, r#"{"tail":{"seq_num":"0","timestamp":1}}"#),
        (
            200,
            r#"{"tail":{"seq_num":18446744073709551616,"timestamp":1}}"#,
        ),
        (200, "<html>"),
        (201, r#"{"tail":{"seq_num":0,"timestamp":1}}"#),
        (206, r#"{"tail":{"seq_num":0,"timestamp":1}}"#),
        (302, r#"{"tail":{"seq_num":0,"timestamp":1}}"#),
        (500, r#"{"tail":{"seq_num":0,"timestamp":1}}"#),
    ];
    for (status, tail) in no_tails {
        edge.stack.lite.lie(move |seen| {
            assert!(seen.line.ends_with("/tail"), "sent: {}", seen.line);
            let body = Full::new(Bytes::from(tail)).map_err(|never| match never {});
            let answer = Response::builder().status(status);
            let answer = answer.header("content-type", "application/json");
            Some(answer.body(body.boxed_unsync()).unwrap())
        });
        for encoding in [Encoding::Json, Encoding::Frames] {
            let answer = edge.append("s", encoding, &batch("d")).await;
            let wanted = match status {
                500 => status,
                // Nothing was appended: clients may try again.
                _ => 502,
            };
            assert_eq!(answer.status, wanted, "{status} {tail}: {}", answer.text());
        }
    }
    assert_eq!(edge.appends(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aegis_stream_has_no_ceiling() {
    let edge = Edge::start(RuleCipher::Aegis256).await;
    for tail in [LAST, LAST + 1, u64::MAX - 4] {
        edge.line.tail.store(tail, SeqCst);
        let answer = edge.append("s", Encoding::Json, &batch("dd")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(edge.asked("GET", "/tail"), 0);
    // Nor is reading limited by it, for either cipher.
    edge.stack.lite.be_honest();
    let answer = edge.stack.h2().await;
    let answer = answer
        .ask(read("s", "seq_num=4294967296", Encoding::Json))
        .await;
    assert_ne!(answer.status, 422, "{}", answer.text());
}
