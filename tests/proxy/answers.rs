//! Answers look as S2's own do: compressed as asked, with the lengths and figures of the plain records.

use serde_json::json;

use crate::harness::{
    Ask, Encoding, KEY, Live, Packed, Stack, append, delivered, gunzip, input, metered, read,
    record, records,
};

#[tokio::test(flavor = "multi_thread")]
async fn responses_are_compressed_as_asked() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h1().await;
    for (stream, size) in [("long", 1100), ("short", 20)] {
        let batch = input([record(&[], "y".repeat(size))]);
        client
            .ask(append(stream, Encoding::Json, Packed::Not, &batch))
            .await;
    }
    for (accept, used) in [
        ("gzip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, zstd", "zstd"),
        ("br", ""),
    ] {
        for encoding in [Encoding::Json, Encoding::Proto] {
            let ask =
                |stream| read(stream, "seq_num=0", encoding).header("accept-encoding", accept);
            let mut answer = client.ask(ask("long")).await;
            assert_eq!(
                answer.header("content-encoding").unwrap_or_default(),
                used,
                "{accept}"
            );
            assert!(answer.header("vary").unwrap().contains("accept-encoding"));
            answer.body = match used {
                "gzip" => gunzip(&answer.body).into(),
                "zstd" => zstd::decode_all(&*answer.body).unwrap().into(),
                _ => answer.body,
            };
            assert_eq!(delivered(encoding, &answer).records()[0].body.len(), 1100);
            let short = client.ask(ask("short")).await;
            assert_eq!(short.header("content-encoding"), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_compressed_one_by_one() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    for size in [1100, 20] {
        let batch = input([record(&[], "y".repeat(size))]);
        client
            .ask(append("s", Encoding::Json, Packed::Not, &batch))
            .await;
    }
    for (accept, flag) in [
        ("gzip", 0x40),
        ("zstd", 0x20),
        ("gzip, zstd", 0x20),
        ("br", 0),
    ] {
        for (query, flag) in [("seq_num=0&count=1", flag), ("seq_num=1&count=1", 0)] {
            let ask = read("s", query, Encoding::Frames).header("accept-encoding", accept);
            let answer = client.ask(ask).await;
            assert_eq!(answer.body[3], flag, "{accept}, {query}");
            assert_eq!(answer.header("content-encoding"), None);
            assert_eq!(delivered(Encoding::Frames, &answer).records().len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_tells_the_length_of_the_plain_body() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aes-256-gcm")).await;
    for client in [stack.h1().await, stack.h2().await] {
        let batch = input([record(&[(b"n", b"v")], "z".repeat(3000))]);
        client
            .ask(append("s", Encoding::Proto, Packed::Not, &batch))
            .await;
        let query = records("s") + "?seq_num=0&count=1";
        let whole = client.ask(Ask::get(&query).key(&KEY)).await;
        let head = client.ask(Ask::new("HEAD", &query).key(&KEY)).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        let length = whole.body.len().to_string();
        assert_eq!(head.header("content-length"), Some(length.as_str()));
        assert_eq!(head.header("content-type"), whole.header("content-type"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn event_ids_count_plain_bytes() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    let records =
        (0..7_u8).map(|at| record(&[(b"name", &[at; 300])], vec![at; usize::from(at) * 10]));
    let batch = input(records);
    client
        .ask(append("s", Encoding::Proto, Packed::Not, &batch))
        .await;
    let bytes = |from: usize| -> usize {
        let records = batch.records[from..].iter();
        records
            .map(|record| metered(&record.headers, &record.body))
            .sum()
    };
    let answer = client
        .ask(read("s", "seq_num=0&count=7", Encoding::Events))
        .await;
    let got = delivered(Encoding::Events, &answer);
    assert_eq!(got.ids, [format!("6,7,{}", bytes(0))]);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(
        answer.header("cache-control"),
        Some("no-cache, no-transform")
    );
    assert!(
        answer.text().ends_with("data: [DONE]\n\n"),
        "{}",
        answer.text()
    );

    let resume = read("s", "seq_num=0&count=9", Encoding::Events);
    let answer = client.ask(resume.header("last-event-id", "3,4,100")).await;
    let resumed = delivered(Encoding::Events, &answer);
    assert_eq!(resumed.ids, [format!("6,7,{}", 100 + bytes(4))]);
    assert_eq!(resumed.records()[0].seq_num, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_tell_the_tail() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let mut batch = input([record(&[], "hello")]);
    batch.records[0].timestamp = Some(1000);
    for client in [stack.h1().await, stack.h2().await] {
        client
            .ask(append("s", Encoding::Proto, Packed::Not, &batch))
            .await;
        let mut live = Live::new(client.open(read("s", "seq_num=0", Encoding::Events)).await);
        let first = live.event().await.unwrap().unwrap();
        assert!(first.starts_with("event: batch\nid: "), "{first}");
        let ping = live.event().await.unwrap().unwrap();
        assert!(
            ping.starts_with("event: ping\ndata: {\"timestamp\":"),
            "{ping}"
        );
        let tail = stack.stored("s").await.len();
        let tail = format!("\"tail\":{{\"seq_num\":{tail},\"timestamp\":1000}}}}");
        assert!(ping.ends_with(&tail), "{ping}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_asked_for_before_the_range_is_checked() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    let create = Ask::post("/v1/streams").json(&json!({ "stream": "empty" }));
    assert_eq!(client.ask(create).await.status, 201);
    let ask = Ask::get(records("empty") + "?seq_num=5");
    let answer = client.ask(ask.clone()).await;
    assert_eq!((answer.status, answer.code().as_str()), (422, "invalid"));
    let answer = client.ask(ask.key(&KEY)).await;
    assert_eq!(answer.status, 416);
    assert_eq!(
        answer.json(),
        json!({ "tail": { "seq_num": 0, "timestamp": 0 } })
    );
}
