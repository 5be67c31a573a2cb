//! What a client sends is taken as S2 takes it or refused as S2 refuses it; what is refused leaves no
//! trace upstream.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use s2_api::v1::stream::proto::{AppendInput, AppendRecord};
use serde_json::json;

use crate::harness::{Ask, BASIN, Frame, KEY, Stack, Twin, gzip, records, zstd};

/// S2's limit on one batch and one record, metered.
const MIB: usize = 1 << 20;
/// S2's limit on one body.
const BODY: usize = 2 << 20;

fn post() -> Ask {
    Ask::post(records("s")).key(&KEY)
}

/// Bytes that do not compress.
fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

fn batch(bodies: &[usize]) -> Vec<u8> {
    let records = bodies.iter().map(|length| AppendRecord {
        timestamp: Some(1),
        headers: Vec::new(),
        body: noise(*length),
    });
    let input = AppendInput {
        records: records.collect(),
        ..AppendInput::default()
    };
    input.encode_to_vec()
}

async fn sealed_stack(cipher: &str) -> Stack {
    let stack = Stack::start().await;
    stack.create_basin(Some(cipher)).await;
    let first = json!({ "records": [{ "body": "first" }] });
    assert_eq!(stack.h2().await.ask(post().json(&first)).await.status, 200);
    stack
}

async fn sealed_twin() -> Twin {
    let twin = Twin::start().await;
    let config = json!({ "stream_cipher": "aegis-256", "create_stream_on_append": true });
    let body = json!({ "basin": BASIN, "config": config });
    twin.same(Ask::post("/v1/basins").json(&body)).await;
    let first = json!({ "records": [{ "timestamp": 1, "body": "first" }] });
    assert_eq!(twin.same(post().json(&first)).await.status, 200);
    twin
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_do_not_decode_are_refused() {
    let twin = sealed_twin().await;
    let before = twin.stack.lite.seen().len();
    for body in [
        "",
        "{",
        "[1",
        "null",
        "{\"records\":[{}]",
        "\u{feff}{}",
        "{\"records\":{}}",
    ] {
        let answer = twin.same_code(post().body("application/json", body)).await;
        assert_eq!(answer.code(), "bad_json", "{body}");
    }
    for body in [
        &b"\xff"[..],
        b"\x0a\x05ab",
        b"\x0a\x02\x1a\x7f",
        b"\x08\x01",
    ] {
        let answer = twin
            .same_code(post().body("application/protobuf", body))
            .await;
        assert!(
            ["bad_proto", "invalid"].contains(&&*answer.code()),
            "{body:?}"
        );
    }
    for kind in [
        "",
        "text/plain",
        "application/octet-stream",
        "multipart/form-data",
    ] {
        let answer = twin.same(post().body(kind, "{}")).await;
        assert_eq!(answer.code(), "bad_json", "{kind}");
    }
    assert_eq!(twin.same(post()).await.code(), "bad_json");
    assert_eq!(twin.stack.lite.seen().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_do_not_decode_end_the_session() {
    let twin = sealed_twin().await;
    for frame in [
        &[0, 0, 0][..],
        &[0, 0, 1, 0x80],
        &[0, 0, 3, 0x80, 1, 2],
        &[0, 0, 2, 0, 0xff],
        &[0, 0, 2, 0x60, 0],
        &[0, 0, 2, 0x20, 0],
        &[0, 0, 9, 0, 1],
        &[0xff, 0xff, 0xff, 0],
    ] {
        let (ours, native) = twin.both(&post().body("s2s/proto", frame.to_vec())).await;
        let ends = [ours, native].map(|answer| {
            assert_eq!(answer.status, 200);
            let end = Frame::take(&mut BytesMut::from(&answer.body[..])).expect("no terminal");
            end.failure()
        });
        assert_eq!(ends[0], ends[1], "{frame:?}");
        assert_eq!(ends[0], (400, "bad_frame".to_owned()), "{frame:?}");
    }
    let tail = twin.same(Ask::get(records("s") + "/tail")).await;
    assert_eq!(tail.json()["tail"]["seq_num"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_over_two_mebibytes_are_refused_however_small_they_travel() {
    let twin = sealed_twin().await;
    let before = twin.stack.lite.seen().len();
    let bomb = vec![b' '; 64 << 20];
    let bodies = [
        (None, vec![b' '; BODY + 1]),
        (Some("gzip"), gzip(&bomb)),
        (Some("zstd"), zstd(&bomb)),
        (Some("gzip"), gzip(&bomb[..BODY + 1])),
        (Some("zstd"), [zstd(&bomb[..BODY]), zstd(b" ")].concat()),
    ];
    for (encoding, body) in bodies {
        for (kind, code) in [
            ("application/json", "bad_json"),
            ("application/protobuf", "bad_proto"),
        ] {
            let ask = post().body(kind, body.clone());
            let ask = match encoding {
                Some(encoding) => ask.header("content-encoding", encoding),
                None => ask,
            };
            let answer = twin.same(ask).await;
            assert_eq!(answer.code(), code);
            assert!(
                answer.text().contains("length limit exceeded"),
                "{}",
                answer.text()
            );
        }
    }
    let patch = Ask::new("PATCH", format!("/v1/basins/{BASIN}")).header("content-encoding", "gzip");
    let answer = twin.same(patch.body("application/json", gzip(&bomb))).await;
    assert!(
        answer.text().contains("length limit exceeded"),
        "{}",
        answer.text()
    );
    assert_eq!(twin.stack.lite.seen().len(), before);
    // White space up to the limit is fine.
    let mut fine = br#"{"records":[{"timestamp":1,"body":"x"}]}"#.to_vec();
    fine.resize(BODY, b' ');
    let packed = post()
        .header("content-encoding", "gzip")
        .body("application/json", gzip(&fine));
    assert_eq!(twin.same(packed).await.status, 200);
    assert_eq!(
        twin.same(post().body("application/json", fine))
            .await
            .status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unsupported_encodings_are_named() {
    let twin = sealed_twin().await;
    let batch = json!({ "records": [{ "timestamp": 1, "body": "x" }] });
    for encoding in [
        "br",
        "deflate",
        "GZIP",
        "gzip, zstd",
        "identity, gzip",
        "x-gzip",
        "",
    ] {
        let answer = twin
            .same(post().header("content-encoding", encoding).json(&batch))
            .await;
        assert_eq!((answer.status, answer.body.len()), (415, 0), "{encoding}");
        assert!(answer.header("accept-encoding").is_some());
    }
    let plain = post().header("content-encoding", "identity").json(&batch);
    assert_eq!(twin.same(plain).await.status, 200);
    for (encoding, body) in [
        ("gzip", &b"\x1f\x8b\x08"[..]),
        ("zstd", b"\x28\xb5\x2f\xfd"),
        ("zstd", b"x"),
    ] {
        let ask = post().header("content-encoding", encoding);
        let answer = twin.same_code(ask.body("application/json", body)).await;
        assert_eq!(answer.code(), "bad_json", "{encoding} {body:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_outgrows_the_limit_once_sealed_is_refused_with_the_numbers() {
    for (cipher, growth) in [("aegis-256", 50), ("aes-256-gcm", 30)] {
        let stack = sealed_stack(cipher).await;
        let client = stack.h2().await;
        let largest = MIB - growth;
        let append = |metered: usize| post().body("application/protobuf", batch(&[metered - 8]));
        let fits = client.ask(append(largest)).await;
        assert_eq!(fits.status, 200, "{}", fits.text());
        let before = stack.lite.seen().len();
        for metered in [largest + 1, MIB] {
            let refused = client.ask(append(metered)).await;
            assert_eq!((refused.status, &*refused.code()), (422, "invalid"));
            for number in [metered, largest] {
                let text = refused.text().replace(',', "");
                assert!(text.contains(&number.to_string()), "no {number} in {text}");
            }
        }
        assert_eq!(stack.lite.seen().len(), before);
        let read = Ask::get(records("s") + "?seq_num=1")
            .key(&KEY)
            .header("s2-format", "base64");
        let read = client.ask(read).await.json();
        let body = read["records"][0]["body"].as_str().unwrap();
        assert_eq!(body, crate::harness::base64(&noise(largest - 8)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_are_too_large_in_clear_are_refused_as_in_s2() {
    let twin = sealed_twin().await;
    let before = twin.stack.lite.seen().len();
    let half = MIB / 2 - 8;
    for bodies in [vec![MIB - 7], vec![half, half + 1], vec![0; 1001], vec![]] {
        let answer = twin
            .same(post().body("application/protobuf", batch(&bodies)))
            .await;
        assert_eq!((answer.status, &*answer.code()), (422, "invalid"));
    }
    assert_eq!(twin.stack.lite.seen().len(), before);
}
