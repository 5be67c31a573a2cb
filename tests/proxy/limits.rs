//! Every read ends where S2's own encrypted streams end, in sizes of the plain records.

use bytes::Bytes;
use serde_json::json;

use crate::harness::{
    Answer, Ask, Client, Encoding, Packed, Stack, append, delivered, input, metered, read, record,
    until,
};

/// A basin that the upstream itself encrypts.
const NATIVE: &str = "native-basin";

/// The same stream twice: sealed by the proxy, and encrypted by the upstream itself.
struct Pair {
    stack: Stack,
    proxy: Client,
    native: Client,
}

impl Pair {
    async fn start() -> Self {
        let stack = Stack::start().await;
        stack.create_basin(Some("aegis-256")).await;
        let (proxy, native) = (stack.h2().await, stack.direct().await);
        let config = json!({ "stream_cipher": "aegis-256", "create_stream_on_append": true,
            "create_stream_on_read": true });
        let basin = Ask::post("/v1/basins").json(&json!({ "basin": NATIVE, "config": config }));
        assert_eq!(native.ask(basin).await.status, 201);
        Self {
            stack,
            proxy,
            native,
        }
    }

    /// Appends records with bodies of these sizes to both, with the same timestamps.
    async fn fill(&self, stream: &str, sizes: &[usize]) {
        for (size, at) in sizes.iter().zip(1..) {
            let mut record = record(&[], Bytes::from(vec![b'r'; *size]));
            record.timestamp = Some(1000 * at);
            let ask = append(stream, Encoding::Proto, Packed::Not, &input([record]));
            assert_eq!(self.proxy.ask(ask.clone()).await.status, 200);
            assert_eq!(self.native.ask(ask.basin(NATIVE)).await.status, 200);
        }
    }

    /// The same question to both.
    async fn both(&self, ask: Ask) -> (Answer, Answer) {
        let native = self.native.ask(ask.clone().basin(NATIVE));
        tokio::join!(self.proxy.ask(ask), native)
    }
}

/// What must be the same, with the time in pings masked.
fn comparable(answer: &Answer) -> (u16, Vec<Option<&str>>, String) {
    let headers = [
        "content-type",
        "content-length",
        "content-encoding",
        "vary",
        "cache-control",
    ];
    let text = answer.text();
    let masked = text
        .split("\n\n")
        .map(|event| match event.split_once("\"tail\"") {
            Some((_, tail)) if event.starts_with("event: ping") => format!("ping {tail}"),
            _ => event.to_owned(),
        });
    let body = masked.collect::<Vec<_>>().join("\n\n");
    (
        answer.status,
        headers.map(|name| answer.header(name)).to_vec(),
        body,
    )
}

/// Bounds of every kind, in every relation to the records of [`reads_end_where_native_reads_end`].
#[rustfmt::skip]
const QUERIES: &[&str] = &[
    "seq_num=0", "", "seq_num=2", "seq_num=7", "seq_num=8", "seq_num=8&clamp=true", "tail_offset=2",
    "tail_offset=100", "timestamp=3500", "timestamp=1", "timestamp=7000", "timestamp=7001",
    "seq_num=0&count=0", "seq_num=0&count=3", "seq_num=9&count=0", "seq_num=0&bytes=0",
    "seq_num=0&bytes=1", "seq_num=0&bytes=12", "seq_num=0&bytes=13", "seq_num=0&bytes=14",
    "seq_num=0&bytes=113", "seq_num=0&bytes=120", "seq_num=0&bytes=121", "seq_num=0&bytes=1121",
    "seq_num=0&bytes=100000", "seq_num=0&bytes=1121&count=3", "seq_num=0&count=5&bytes=1130",
    "seq_num=0&until=3000", "seq_num=0&until=3001", "seq_num=0&until=1", "timestamp=5&until=5",
    "seq_num=0&timestamp=5", "seq_num=x", "count=-1&seq_num=0", "seq_num=0&until=3000&bytes=14",
    "seq_num=0&count=18446744073709551615", "seq_num=0&bytes=18446744073709551615",
    "seq_num=7&wait=0", "seq_num=0&clamp=true", "seq_num=0&unknown=1", "tail_offset=0&clamp=true",
    "seq_num=0&count=2000&bytes=2000000", "timestamp=3500&count=2", "timestamp=3500&bytes=1008",
];

#[tokio::test(flavor = "multi_thread")]
async fn reads_end_where_native_reads_end() {
    let pair = Pair::start().await;
    pair.fill("s", &[5, 92, 0, 992, 5, 5, 300]).await;
    for query in QUERIES {
        for encoding in Encoding::READS {
            let bounds = ["count", "bytes", "until"];
            let endless = !bounds.iter().any(|bound| query.contains(bound));
            let unary = matches!(
                encoding,
                Encoding::Json | Encoding::Base64 | Encoding::Proto
            );
            if endless && !unary {
                continue;
            }
            let ask = read("s", query, encoding).header("accept-encoding", "gzip;q=0");
            let (proxy, native) = pair.both(ask).await;
            if [400, 422].contains(&native.status) {
                assert_eq!(
                    (proxy.status, proxy.code()),
                    (native.status, native.code()),
                    "{query}"
                );
            } else {
                assert_eq!(
                    comparable(&proxy),
                    comparable(&native),
                    "{query} {encoding:?}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_exceeds_the_byte_limit_is_no_error() {
    let pair = Pair::start().await;
    pair.fill("s", &[5]).await;
    let answer = pair
        .proxy
        .ask(read("s", "seq_num=0&bytes=12", Encoding::Json))
        .await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, r#"{"records":[]}"#)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mebibyte_means_plain_bytes() {
    let pair = Pair::start().await;
    pair.fill("halves", &[524_280, 524_280, 5]).await;
    pair.fill("many", &[100_000; 12]).await;
    for stream in ["halves", "many"] {
        for encoding in [Encoding::Json, Encoding::Proto] {
            let (proxy, native) = pair.both(read(stream, "seq_num=0", encoding)).await;
            let (proxy, native) = (delivered(encoding, &proxy), delivered(encoding, &native));
            assert_eq!(proxy, native, "{stream} {encoding:?}");
            let records = native.records();
            let bytes: usize = records
                .iter()
                .map(|record| metered(&record.headers, &record.body))
                .sum();
            assert!(bytes <= 1 << 20 && bytes > 1_000_000, "{bytes}");
        }
    }
    let both = pair
        .proxy
        .ask(read("halves", "seq_num=0", Encoding::Proto))
        .await;
    assert_eq!(delivered(Encoding::Proto, &both).records().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_records_are_one_answer() {
    let pair = Pair::start().await;
    for _ in 0..2 {
        let mut batch = input((0..700).map(|_| record(&[], "r")));
        for (record, at) in batch.records.iter_mut().zip(1..) {
            record.timestamp = Some(at);
        }
        let ask = append("s", Encoding::Proto, Packed::Not, &batch);
        assert_eq!(pair.proxy.ask(ask.clone()).await.status, 200);
        assert_eq!(pair.native.ask(ask.basin(NATIVE)).await.status, 200);
    }
    let (proxy, native) = pair.both(read("s", "seq_num=0", Encoding::Json)).await;
    assert_eq!(comparable(&proxy), comparable(&native));
    assert_eq!(delivered(Encoding::Json, &proxy).records().len(), 1000);
    let ask = read("s", "seq_num=0&count=1400", Encoding::Frames);
    assert_eq!(
        delivered(Encoding::Frames, &pair.proxy.ask(ask).await)
            .records()
            .len(),
        1400
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_waits_as_natively() {
    let pair = Pair::start().await;
    pair.fill("s", &[5]).await;
    for query in [
        "seq_num=1&wait=1",
        "seq_num=5&clamp=true&wait=1",
        "seq_num=0&wait=1",
    ] {
        for encoding in [
            Encoding::Json,
            Encoding::Proto,
            Encoding::Events,
            Encoding::Frames,
        ] {
            let query = match encoding {
                Encoding::Json | Encoding::Proto => query.to_owned(),
                _ => format!("{query}&count=10"),
            };
            let (proxy, native) = pair.both(read("s", &query, encoding)).await;
            assert_eq!(
                comparable(&proxy),
                comparable(&native),
                "{query} {encoding:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_answers_with_the_first_batch() {
    let pair = Pair::start().await;
    pair.fill("s", &[5]).await;
    let poll = pair.both(read("s", "seq_num=1&wait=30", Encoding::Json));
    let more = async {
        let polls = || {
            pair.stack
                .lite
                .seen()
                .into_iter()
                .filter(|seen| seen.line.contains("wait=30"))
        };
        until("both polls arrive", async || polls().count() == 2).await;
        pair.fill("s", &[7]).await;
    };
    let ((proxy, native), ()) = tokio::join!(poll, more);
    let (proxy, native) = (proxy.json(), native.json());
    assert_eq!(proxy["records"][0]["body"], "rrrrrrr");
    assert_eq!(proxy["tail"]["seq_num"], 2);
    assert_eq!(proxy["records"], native["records"]);
}
