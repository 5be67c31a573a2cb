//! Metrics say exactly what happened: how many requests, records and bytes, and what is held now.

use s2_api::v1::stream::proto::AppendInput;
use serde_json::json;

use crate::{
    harness::{
        Ask, BASIN, CIPHERS, Client, Counts, Encoding, Frame, KEY, Live, Packed, Session, Stack,
        append, delivered, frame, input, metered, read, record, records, until,
    },
    oversize::{full, noise, text},
};

/// What one append sends, beside a command.
const RECORDS: u64 = 7;

fn batch() -> AppendInput {
    let data = (0..RECORDS).map(|at| {
        let body = "b".repeat(usize::try_from(at).unwrap() * 50);
        record(&[(b"name", b"value"), (b"n", b"")], body)
    });
    let fence = record(&[(b"", b"fence")], "");
    input(data.chain([fence]))
}

/// What S2 meters the data records of the batch as.
fn data_bytes(batch: &AppendInput) -> f64 {
    let is_command = |name: &[u8]| name.is_empty();
    let data = batch.records.iter().filter(|record| {
        let first = record.headers.first();
        !first.is_some_and(|header| is_command(&header.name))
    });
    let sizes = data.map(|record| metered(&record.headers, &record.body));
    sizes.sum::<usize>() as f64
}

fn requests(operation: &str, encoding: &str, code: &str) -> String {
    format!(r#"requests_total{{code="{code}",encoding="{encoding}",operation="{operation}"}}"#)
}

async fn moved(stack: &Stack, before: &Counts, families: &[&str], by: &[(String, f64)]) {
    let by: Vec<(&str, f64)> = by.iter().map(|(series, by)| (&**series, *by)).collect();
    stack.moved(before, families, &by).await;
}

/// Appends to and reads from a stream for each encoding of appends, in every encoding. Those of `plain` streams
/// carry no key.
async fn traffic(client: &Client, prefix: &str) {
    let keyed = |ask: Ask| match prefix {
        "plain" => ask.without("s2-encryption-key"),
        _ => ask,
    };
    for written in Encoding::APPENDS {
        let stream = format!("{prefix}{written:?}");
        let append = append(&stream, written, Packed::Not, &batch());
        assert_eq!(client.ask(keyed(append)).await.status, 200);
        for encoding in Encoding::READS {
            let query = format!("seq_num=0&count={}", RECORDS + 1);
            let answer = client.ask(keyed(read(&stream, &query, encoding))).await;
            let records = delivered(encoding, &answer).records();
            assert_eq!(records.len() as u64, RECORDS + 1);
        }
    }
}

fn traffic_requests() -> Vec<(String, f64)> {
    vec![
        (requests("append", "json", "ok"), 2.0),
        (requests("append", "proto", "ok"), 1.0),
        (requests("append_session", "s2s", "ok"), 1.0),
        (requests("read", "json", "ok"), 8.0),
        (requests("read", "proto", "ok"), 4.0),
        (requests("read_session", "sse", "ok"), 8.0),
        (requests("read_session", "s2s", "ok"), 4.0),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_in_every_encoding_counts_once() {
    for cipher in CIPHERS {
        let stack = Stack::start().await;
        stack.create_basin(Some(cipher)).await;
        let create = [(requests("basin", "other", "ok"), 1.0)];
        moved(&stack, &Counts::parse(""), &["requests_total"], &create).await;
        for (client, prefix) in [(stack.h1().await, "h1"), (stack.h2().await, "h2")] {
            let before = stack.counts();
            let seen = stack.lite.seen().len();
            traffic(&client, prefix).await;
            moved(&stack, &before, &["requests_total"], &traffic_requests()).await;

            let bytes = data_bytes(&batch());
            let records = RECORDS as f64;
            let of = |family: &str| format!(r#"{family}{{cipher="{cipher}"}}"#);
            let families = [
                "sealed_records_total",
                "sealed_bytes_total",
                "opened_records_total",
                "opened_bytes_total",
                "seal_duration_seconds_count",
                "open_duration_seconds_count",
            ];
            let amounts = [
                4.0 * records,
                4.0 * bytes,
                24.0 * records,
                24.0 * bytes,
                4.0,
                24.0,
            ];
            let by: Vec<_> = families.map(of).into_iter().zip(amounts).collect();
            moved(&stack, &before, &families, &by).await;

            // What went upstream, by the upstream's own count; one answer took one measure.
            let now = stack.counts();
            let sum = |counts: &Counts| counts.only(&["upstream_duration_seconds_count"]).sum();
            let sent = stack.lite.seen().len() - seen;
            assert_eq!(sum(&now) - sum(&before), sent as f64);
            let unrouted = r#"upstream_duration_seconds_count{operation="unrouted"}"#;
            assert_eq!(now.of(unrouted), 0.0);
            let errors = ["upstream_errors_total", "key_errors_total"];
            assert_eq!(now.only(&errors).since(&before.only(&errors)), []);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_plain_streams_count_as_what_they_are() {
    let stack = Stack::start().await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    let before = stack.counts();
    traffic(&client, "plain").await;
    moved(&stack, &before, &["requests_total"], &traffic_requests()).await;
    let sealing = ["sealed_records_total", "opened_records_total"];
    assert_eq!(stack.counts().only(&sealing).sum(), 0.0);

    let before = stack.counts();
    let create = Ask::post("/v1/streams").json(&json!({ "stream": "made" }));
    let bad_path = Ask::get(format!("/v1/streams/{}/records", "x".repeat(600)));
    let unknown_encoding = append("made", Encoding::Json, Packed::Not, &batch());
    for ask in [
        create,
        Ask::get("/v1/streams"),
        Ask::get(records("made") + "/tail"),
        Ask::get(format!("/v1/basins/{BASIN}")),
        Ask::get("/v1/basins/no-such-basin"),
        Ask::get("/v1/streams/made"),
        Ask::get("/v1/access-tokens"),
        Ask::get("/nothing"),
        Ask::new("PUT", "/v1/basins"),
        bad_path,
        Ask::new("HEAD", records("made") + "?seq_num=0"),
        unknown_encoding.header("content-encoding", "br"),
    ] {
        client.ask(ask).await;
    }
    let by = [
        (requests("stream", "other", "ok"), 2.0),
        (requests("tail", "other", "ok"), 1.0),
        (requests("basin", "other", "ok"), 1.0),
        (requests("basin", "other", "404"), 1.0),
        (requests("forward", "other", "ok"), 1.0),
        // `s2-lite` has no access tokens.
        (requests("forward", "other", "501"), 1.0),
        // What S2 does not have goes nowhere.
        (requests("unrouted", "other", "404"), 1.0),
        (requests("unrouted", "other", "405"), 1.0),
        (requests("unrouted", "other", "bad_path"), 1.0),
        // Nothing is there to read.
        (requests("read", "json", "416"), 1.0),
        (requests("append", "json", "415"), 1.0),
    ];
    moved(&stack, &before, &["requests_total"], &by).await;
}

async fn gauges_are(stack: &Stack, wanted: &[(&str, f64)]) {
    for (series, value) in wanted {
        until(&format!("{series} is {value}"), async || {
            stack.counts().of(series) == *value
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_is_told_until_it_is_closed() {
    let stack = Stack::with_one_record().await;
    let limit = stack.config.limits.max_connections as f64;
    assert_eq!(stack.counts().of("connections_limit"), limit);
    gauges_are(&stack, &[("connections", 0.0)]).await;
    let before = stack.counts();
    let (h1, h2) = (stack.h1().await, stack.h2().await);
    let mut session = Session::append(&h2, Ask::post(records("s")).key(&KEY)).await;
    session.send(frame(&input([record(&[], "acked")]))).await;
    session.live.frame().await.unwrap().unwrap().ack();
    let mut following = Live::new(h1.open(read("s", "seq_num=0", Encoding::Events)).await);
    following.event().await.unwrap().unwrap();
    gauges_are(
        &stack,
        &[
            ("connections", 2.0),
            (r#"sessions{operation="append_session"}"#, 1.0),
            (r#"sessions{operation="read_session"}"#, 1.0),
            (r#"requests_active{operation="append_session"}"#, 1.0),
            (r#"requests_active{operation="read_session"}"#, 1.0),
            (r#"upstream_connections{protocol="h2"}"#, 2.0),
            (r#"upstream_connections{protocol="h1"}"#, 0.0),
        ],
    )
    .await;
    session.finish();
    assert_eq!(session.live.frame().await.unwrap(), None);
    // To leave is how a client ends a read session.
    drop(following);
    drop((h1, h2, session));
    let by = [
        (requests("append_session", "s2s", "ok"), 1.0),
        (requests("read_session", "sse", "ok"), 1.0),
        ("connections_accepted_total".to_owned(), 2.0),
    ];
    let families = ["requests_total", "connections_accepted_total"];
    moved(&stack, &before, &families, &by).await;
    gauges_are(&stack, &[("connections", 0.0)]).await;
    assert_eq!(
        stack.counts().only(&["sessions", "requests_active"]).sum(),
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn splits_and_compressions_are_counted() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    let families = [
        "split_batches_total",
        "split_parts_total",
        "compressed_records_total",
        "sealed_records_total",
        "seal_duration_seconds_count",
    ];
    for encoding in [Encoding::Proto, Encoding::Frames] {
        for (batch, splits, parts, compressed) in [
            (full(37, noise), 1.0, 2.0, 0.0),
            (full(37, text), 0.0, 0.0, 37.0),
            (batch(), 0.0, 0.0, 0.0),
        ] {
            let before = stack.counts();
            let answer = client.ask(append("s", encoding, Packed::Not, &batch)).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let sealed = if batch.records.len() == 37 {
                37
            } else {
                RECORDS
            } as f64;
            let by = [splits, parts, compressed, sealed, 1.0];
            let mut by: Vec<(String, f64)> = families
                .map(str::to_owned)
                .into_iter()
                .zip(by)
                .filter(|(_, by)| *by != 0.0)
                .collect();
            for (series, _) in &mut by {
                if series.contains("seal") {
                    *series += r#"{cipher="aegis-256"}"#;
                }
            }
            moved(&stack, &before, &families, &by).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_and_commands_are_not_records() {
    let stack = Stack::with_one_record().await;
    let before = stack.counts();
    let fence = input([record(&[(b"", b"fence")], "token")]);
    let client = stack.h2().await;
    let fenced = client
        .ask(append("s", Encoding::Proto, Packed::Not, &fence))
        .await;
    assert_eq!(fenced.status, 200, "{}", fenced.text());
    let mut following = Live::new(client.open(read("s", "seq_num=1", Encoding::Frames)).await);
    let command = following.frame().await.unwrap().unwrap().batch();
    assert_eq!(command.records.len(), 1);
    let heartbeat = following.frame().await.unwrap().unwrap();
    assert!(matches!(&heartbeat, Frame::Message { .. }) && heartbeat.batch().records.is_empty());
    drop(following);
    let none = [
        "sealed_records_total",
        "sealed_bytes_total",
        "opened_records_total",
        "opened_bytes_total",
        "seal_duration_seconds_count",
        "open_duration_seconds_count",
    ];
    moved(&stack, &before, &none, &[]).await;
}
