//! Reads of an encrypted stream answer as S2 with its own encryption does, wherever they start and
//! however they end.

use serde_json::{Value, json};

use crate::{
    harness::{Answer, Ask, KEY, records, shape},
    native::{filled, get},
};

/// Combinations of where a read starts and where it ends.
fn queries() -> Vec<String> {
    let starts = [
        "",
        "seq_num=0",
        "seq_num=3",
        "seq_num=7",
        "seq_num=8",
        "seq_num=9",
        "tail_offset=2",
        "tail_offset=100",
        "timestamp=0",
        "timestamp=1003",
        "timestamp=1008",
        "timestamp=99999",
    ];
    let ends = [
        "",
        "count=0",
        "count=2",
        "count=99",
        "bytes=0",
        "bytes=7",
        "bytes=8",
        "bytes=30",
        "bytes=100",
        "count=3&bytes=60",
        "until=1004",
        "until=1000&count=5",
    ];
    let more = ["", "clamp=true", "wait=0"];
    let mut all = Vec::new();
    for (start, end) in starts.iter().flat_map(|start| ends.map(|end| (start, end))) {
        for more in more {
            let parts = [*start, end, more];
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            all.push(format!("?{}", parts.join("&")));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn unary_reads_answer_alike() {
    let media = ["application/json", "application/protobuf"];
    for (cipher, accept) in ["aegis-256", "aes-256-gcm"].into_iter().zip(media) {
        let twin = filled(&json!(cipher)).await;
        for query in queries() {
            twin.same(get(&query).header("accept", accept)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn event_streams_answer_alike() {
    let twin = filled(&json!("aegis-256")).await;
    let is_bounded = |query: &String| {
        ["count", "bytes", "until"]
            .iter()
            .any(|end| query.contains(end))
    };
    for query in queries().into_iter().filter(is_bounded) {
        let ask = get(&query).header("accept", "text/event-stream");
        let (ours, native) = twin.both(&ask).await;
        assert_eq!(events(&ours), events(&native), "{query}");
    }
    for last in ["2,1,20", "6,7,500", "7,8,600", "9,0,0", "x", "1,2"] {
        let ask = get("?seq_num=0&count=8&bytes=5000").header("accept", "text/event-stream");
        let (ours, native) = twin.both(&ask.header("last-event-id", last)).await;
        assert_eq!(ours.code(), native.code(), "{last}");
        if ours.code().is_empty() {
            assert_eq!(events(&ours), events(&native), "{last}");
        }
    }
}

/// Status, records and the id of the last event: how they are cut into events is nobody's promise.
fn events(answer: &Answer) -> (u16, Vec<Value>, Option<String>, bool) {
    let text = answer.text();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: {"));
    let records = data.flat_map(|json| {
        let json: Value = serde_json::from_str(&format!("{{{json}")).unwrap();
        json["records"].as_array().cloned().unwrap_or_default()
    });
    let id = text.lines().rev().find(|line| line.starts_with("id:"));
    let done = text.contains("[DONE]");
    (
        answer.status,
        records.collect(),
        id.map(str::to_owned),
        done,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_reads_answer_alike() {
    let twin = filled(&json!("aes-256-gcm")).await;
    let asks = [
        "?seq_num=8&wait=1",
        "?seq_num=20&wait=1&clamp=true",
        "?seq_num=6&wait=1",
    ];
    let answers = asks.map(|query| twin.same(get(query)));
    let answers = futures_util::future::join_all(answers).await;
    let counts = answers
        .iter()
        .map(|answer| answer.json()["records"].as_array().unwrap().len());
    assert_eq!(counts.collect::<Vec<_>>(), [0, 0, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_reads_tails_and_heads_answer_alike() {
    let twin = filled(&json!("aegis-256")).await;
    for query in [
        "?seq_num=-1",
        "?seq_num=",
        "?seq_num=18446744073709551616",
        "?count=x",
        "?bytes=1.5",
        "?clamp=maybe",
        "?clamp=1",
        "?wait=-1",
        "?wait=4294967296",
        "?until=x",
        "?tail_offset=x",
        "?seq_num=1&seq_num=1",
        "?count=1&count=2",
    ] {
        let answer = twin.same_code(get(query)).await;
        assert_eq!(answer.code(), "bad_query", "{query}");
    }
    for query in [
        "?seq_num=1&timestamp=1",
        "?seq_num=1&tail_offset=1",
        "?timestamp=5&until=5",
        "?timestamp=6&until=5",
        "?unknown=1&seq_num=0",
        "?seq%5Fnum=0",
        "?seq_num=%30",
        "?seq_num=+1",
        "?&&seq_num=0&",
        "?seq_num=0#x",
    ] {
        twin.same(get(query)).await;
    }
    twin.same(get("?seq_num=0").header("s2-format", "hex"))
        .await;
    twin.same(get("/tail")).await;
    twin.same(Ask::get(records("s") + "/tail")).await;
    twin.same(Ask::get(records("missing") + "/tail")).await;
    for accept in ["application/json", "application/protobuf"] {
        let head = Ask::new("HEAD", records("s") + "?seq_num=0")
            .key(&KEY)
            .header("accept", accept);
        let (ours, native) = twin.both(&head).await;
        assert_eq!(shape(&ours), shape(&native));
        assert_eq!(
            ours.header("content-length"),
            native.header("content-length")
        );
        assert!(ours.body.is_empty());
    }
}
