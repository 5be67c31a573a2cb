//! Appends and reads of an encrypted stream answer as S2 with its own encryption does, but for the
//! differences that are written down here.

use prost::Message as _;
use s2_api::v1::stream::proto::{AppendInput, AppendRecord, Header};
use serde_json::{Value, json};

use crate::harness::{Ask, BASIN, KEY, Twin, gzip, records, zstd};

/// Case, our status and code, S2's, why.
type Difference = (
    &'static str,
    (u16, &'static str),
    (u16, &'static str),
    &'static str,
);

/// What is different on purpose.
const INTENDED: [Difference; 9] = [
    (
        "append without a key",
        (422, "invalid"),
        (400, "bad_header"),
        "documented S2 code",
    ),
    (
        "read without a key",
        (422, "invalid"),
        (400, "bad_header"),
        "documented S2 code",
    ),
    (
        "no base64",
        (422, "invalid"),
        (400, "bad_header"),
        "documented S2 code",
    ),
    (
        "half a key",
        (422, "invalid"),
        (400, "bad_header"),
        "documented S2 code",
    ),
    (
        "45 characters",
        (422, "invalid"),
        (400, "bad_header"),
        "documented S2 code",
    ),
    (
        "empty key",
        (422, "invalid"),
        (400, "bad_header"),
        "documented S2 code",
    ),
    (
        "two keys",
        (422, "invalid"),
        (200, ""),
        "who put the second one there may have meant that one",
    ),
    (
        "append with another key",
        (400, "decryption_failed"),
        (200, ""),
        "S2 poisons the stream",
    ),
    (
        "key in the query",
        (400, "bad_query"),
        (200, ""),
        "it would be logged on its way",
    ),
];

fn append(batch: &Value) -> Ask {
    Ask::post(records("s")).json(batch).key(&KEY)
}

pub fn get(query: &str) -> Ask {
    Ask::get(records("s") + query).key(&KEY)
}

async fn twin(cipher: &Value) -> Twin {
    let twin = Twin::start().await;
    let config = json!({ "stream_cipher": cipher, "create_stream_on_append": true });
    let body = json!({ "basin": BASIN, "config": config });
    assert_eq!(
        twin.same(Ask::post("/v1/basins").json(&body)).await.status,
        201
    );
    twin
}

/// Eight records at times 1000, 1001, …, of growing size, one of them a command.
pub async fn filled(cipher: &Value) -> Twin {
    let twin = twin(cipher).await;
    let record = |at: u64| match at {
        3 => json!({ "timestamp": 1003, "headers": [["", "fence"]], "body": "" }),
        at => json!({
            "timestamp": 1000 + at,
            "headers": (1..at).map(|n| [format!("name {n}"), "x".repeat(n as usize)]).collect::<Vec<_>>(),
            "body": "body ".repeat(at as usize),
        }),
    };
    for part in [0..3, 3..6, 6..8] {
        let batch = json!({ "records": part.map(record).collect::<Vec<_>>() });
        assert_eq!(twin.same(append(&batch)).await.status, 200);
    }
    twin
}

#[tokio::test(flavor = "multi_thread")]
async fn json_appends_answer_alike() {
    for cipher in [json!("aegis-256"), json!("aes-256-gcm"), Value::Null] {
        let twin = twin(&cipher).await;
        let one = |body: &str| json!({ "timestamp": 5, "body": body });
        let many = |count: usize| json!({ "records": vec![one("x"); count] });
        // A key for a stream that is not encrypted is refused: that is no append to compare.
        let append = |batch: &Value| match cipher.is_null() {
            true => append(batch).without("s2-encryption-key"),
            false => append(batch),
        };
        for batch in [
            json!({ "records": [one("a")] }),
            json!({ "records": [one("a")], "match_seq_num": 1 }),
            json!({ "records": [one("a")], "match_seq_num": 1 }),
            json!({ "records": [one("a"), { "timestamp": 9, "headers": [["n", ""], ["n", "v"]] }] }),
            json!({ "records": [{ "timestamp": 9 }] }),
            json!({ "records": [{ "timestamp": 9, "headers": [["", "fence"]], "body": "token" }] }),
            json!({ "records": [one("a")], "fencing_token": "other" }),
            json!({ "records": [one("a")], "fencing_token": "token" }),
            json!({ "records": [one("a")], "unknown": 1 }),
            json!({ "records": [{ "timestamp": 9, "headers": [["", "trim"]], "body": "short" }] }),
            json!({ "records": [{ "timestamp": 9, "headers": [["", "unheard-of"]] }] }),
            json!({ "records": [{ "timestamp": 9, "headers": [["a", "b"], ["", "fence"]] }] }),
            json!({ "records": [one(&"x".repeat(37))], "fencing_token": "x".repeat(37) }),
            json!({ "records": [] }),
            json!({ "records": [one(&"x".repeat(1 << 20))] }),
            many(1000),
            many(1001),
        ] {
            twin.same(append(&batch)).await;
        }
        // S2 repeats what it could not read; nothing of a body stands in an answer of ours.
        for batch in [
            json!({}),
            json!([]),
            json!({ "records": [{ "timestamp": "soon" }] }),
            json!({ "records": [{ "body": 7 }] }),
        ] {
            let refused = twin.same_code(append(&batch)).await;
            assert_eq!(refused.code(), "bad_json");
        }
        for (format, body) in [
            ("base64", "AAH/"),
            ("base64", "?"),
            ("json-binsafe", "AA=="),
            ("hex", ""),
        ] {
            let batch = json!({ "records": [{ "timestamp": 9, "body": body }] });
            twin.same(append(&batch).header("s2-format", format)).await;
        }
        for format in ["raw", "base64"] {
            let read = get("?seq_num=0").header("s2-format", format);
            let read = match cipher.is_null() {
                true => read.without("s2-encryption-key"),
                false => read,
            };
            twin.same(read).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proto_and_compressed_appends_answer_alike() {
    let twin = twin(&json!("aegis-256")).await;
    let header = Header {
        name: vec![0xff].into(),
        value: vec![0].into(),
    };
    let input = |body: &[u8], match_seq_num| AppendInput {
        records: vec![AppendRecord {
            timestamp: Some(7),
            headers: vec![header.clone()],
            body: body.to_vec().into(),
        }],
        match_seq_num,
        fencing_token: None,
    };
    let kinds = ["application/protobuf", "application/x-protobuf"];
    let accepts = [
        "application/protobuf",
        "application/json",
        "text/html",
        "*/*",
    ];
    for (kind, accept) in kinds
        .iter()
        .flat_map(|kind| accepts.map(|accept| (kind, accept)))
    {
        let body = input(&[0, 0x80, 0xff], None).encode_to_vec();
        let ask = || Ask::post(records("s")).key(&KEY).header("accept", accept);
        assert_eq!(twin.same(ask().body(kind, body.clone())).await.status, 200);
        let packed = ask()
            .header("content-encoding", "gzip")
            .body(kind, gzip(&body));
        assert_eq!(twin.same(packed).await.status, 200);
        let packed = ask()
            .header("content-encoding", "zstd")
            .body(kind, zstd(&body));
        assert_eq!(twin.same(packed).await.status, 200);
        let unmet = input(b"", Some(0)).encode_to_vec();
        assert_eq!(twin.same(ask().body(kind, unmet)).await.status, 412);
        let empty = AppendInput::default().encode_to_vec();
        assert_eq!(twin.same(ask().body(kind, empty)).await.status, 422);
    }
    for (accept, format) in [
        ("application/protobuf", "raw"),
        ("application/json", "raw"),
        ("*/*", "base64"),
    ] {
        let ask = get("?seq_num=0")
            .header("accept", accept)
            .header("s2-format", format);
        assert_eq!(twin.same(ask).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_differences_are_those_intended() {
    let one = json!({ "records": [{ "timestamp": 1, "body": "x" }] });
    let bare = || Ask::post(records("s")).json(&one);
    let keyed = |key: &str| bare().header("s2-encryption-key", key);
    for (case, ours, native, why) in INTENDED {
        let twin = filled(&json!("aegis-256")).await;
        let ask = match case {
            "append without a key" => bare(),
            "read without a key" => Ask::get(records("s") + "?seq_num=0"),
            "no base64" => keyed("!!!!"),
            "half a key" => keyed("AAAA"),
            "45 characters" => keyed(&"A".repeat(45)),
            "empty key" => keyed(""),
            "two keys" => bare().key(&KEY).key(&KEY),
            "append with another key" => bare().key(&[7; 32]),
            "key in the query" => get("?seq_num=0&s2-encryption-key=x"),
            other => panic!("{other}"),
        };
        let (we, they) = twin.both(&ask).await;
        assert_eq!((we.status, &*we.code()), ours, "{case}: {why}");
        assert_eq!((they.status, &*they.code()), native, "{case}: {why}");
    }
}
