//! An append session answers as S2's own does: one ack per input, in order, then how it ended.

use bytes::Bytes;

use s2_api::v1::stream::{
    proto::AppendInput,
    s2s::{CompressionAlgorithm, SessionMessage, TerminalMessage},
};
use serde_json::json;

use crate::harness::{
    Ask, Client, Encoding, Frame, KEY, Session, Stack, delivered, frame, input, read, record,
    records,
};

/// A basin that the upstream itself encrypts.
const NATIVE: &str = "native-basin";

/// A bad frame that takes the end of the body to be wrong.
const HALF_A_FRAME: &str = "half a frame";

async fn stack() -> Stack {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    stack
}

async fn session(client: &Client, stream: &str) -> Session {
    Session::append(client, Ask::post(records(stream)).key(&KEY)).await
}

/// One record large enough to be compressed.
fn one(body: &str) -> AppendInput {
    input([record(&[], body.repeat(300))])
}

async fn next_ack(session: &mut Session) -> (u64, u64) {
    let ack = session.live.frame().await.unwrap().unwrap().ack();
    (ack.start.unwrap().seq_num, ack.end.unwrap().seq_num)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_input_gets_one_ack_in_order() {
    let stack = stack().await;
    for (client, stream) in [(stack.h1().await, "h1"), (stack.h2().await, "h2")] {
        // The head is there before any input.
        let mut session = session(&client, stream).await;
        let compressions = [
            CompressionAlgorithm::None,
            CompressionAlgorithm::Zstd,
            CompressionAlgorithm::Gzip,
        ];
        for (compression, at) in compressions.into_iter().zip(0..) {
            let frame = Frame::encode(compression, &one("request, answer"));
            assert_eq!(frame[3] >> 5, compression as u8);
            session.send(frame).await;
            assert_eq!(next_ack(&mut session).await, (at, at + 1));
        }
        let mut sent = Vec::new();
        for size in 1..=20 {
            let batch = input((0..size).map(|at| record(&[], format!("{size}/{at}"))));
            sent.extend(batch.records.clone());
            session.send(frame(&batch)).await;
        }
        session.finish();
        let mut seq_num = 3;
        for size in 1..=20 {
            assert_eq!(next_ack(&mut session).await, (seq_num, seq_num + size));
            seq_num += size;
        }
        assert_eq!(session.live.frame().await.unwrap(), None);
        let query = format!("seq_num=3&count={}", sent.len());
        let answer = client.ask(read(stream, &query, Encoding::Frames)).await;
        let got = delivered(Encoding::Frames, &answer).records();
        assert!(
            got.iter()
                .map(|got| &got.body)
                .eq(sent.iter().map(|sent| &sent.body))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_may_come_in_pieces() {
    let stack = stack().await;
    let client = stack.h2().await;
    let mut session = session(&client, "s").await;
    let two = [frame(&one("first")), frame(&one("second"))].concat();
    for piece in two.chunks(7) {
        session.send(piece.to_vec()).await;
    }
    session.send(two).await;
    session.finish();
    for at in 0..4 {
        assert_eq!(next_ack(&mut session).await, (at, at + 1));
    }
    assert_eq!(session.live.frame().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_inputs_ends_cleanly() {
    let stack = stack().await;
    for client in [stack.h1().await, stack.h2().await] {
        let mut session = session(&client, "s").await;
        session.finish();
        assert_eq!(session.live.frame().await.unwrap(), None);
    }
}

/// Bytes that are no input.
fn bad_frames() -> Vec<(&'static str, Bytes)> {
    let terminal = SessionMessage::from(TerminalMessage {
        status: 200,
        body: "{}".into(),
    });
    let raw = |flag: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len() + 1).unwrap().to_be_bytes();
        Bytes::from([&length[1..], &[flag], payload].concat())
    };
    let bomb = zstd::encode_all(&*vec![0_u8; 3 << 20], 0).unwrap();
    vec![
        ("a frame without a flag", Bytes::from_static(&[0, 0, 0])),
        ("a terminal frame", terminal.encode()),
        ("compression 3", raw(0x60, b"x")),
        (
            "a frame over 2 MiB",
            Bytes::from_static(&[0xff, 0xff, 0xff, 0]),
        ),
        ("no protobuf", raw(0, &[0xff; 9])),
        ("no zstd", raw(0x20, b"no zstd at all")),
        ("no gzip", raw(0x40, b"no gzip at all")),
        ("a bomb", raw(0x20, &bomb)),
        (HALF_A_FRAME, frame(&one("x")).slice(..50)),
    ]
}

/// Inputs that break a rule.
fn invalid_inputs() -> Vec<(&'static str, Bytes)> {
    let command = |op: &'static [u8]| vec![record(&[(b"", op)], "abc")];
    let two_headers = vec![record(&[(b"a", b""), (b"", b"b")], "")];
    let invalid = [
        ("an empty batch", vec![]),
        ("1001 records", vec![record(&[], "x"); 1001]),
        ("a batch over 1 MiB", vec![record(&[], vec![0; 400_000]); 3]),
        (
            "a record over 1 MiB",
            vec![record(&[], vec![0; (1 << 20) - 7])],
        ),
        ("an unknown command", command(b"explode")),
        ("a trim point of 3 bytes", command(b"trim")),
        ("an empty header name", two_headers),
    ];
    let mut mismatch = one("x");
    mismatch.match_seq_num = Some(99);
    let mut long_token = one("x");
    long_token.fencing_token = Some("t".repeat(37));
    let conditions = [
        ("another sequence number", frame(&mismatch)),
        ("a long fencing token", frame(&long_token)),
    ];
    let invalid = invalid.map(|(what, records)| (what, frame(&input(records))));
    invalid.into_iter().chain(conditions).collect()
}

/// Acks and end of a session of two good inputs, a bad one, and more.
async fn poisoned(client: &Client, ask: Ask, bad: Bytes, half: bool) -> (usize, Frame) {
    let mut session = Session::append(client, ask).await;
    session
        .send([frame(&one("good")), frame(&one("good too")), bad].concat())
        .await;
    if half {
        session.finish();
    } else {
        session.send(frame(&one("never stored"))).await;
    }
    let mut acks = 0;
    loop {
        match session.live.frame().await.unwrap() {
            Some(terminal @ Frame::Terminal { .. }) => {
                assert_eq!(session.live.frame().await.unwrap(), None);
                return (acks, terminal);
            }
            Some(frame) => {
                assert_eq!(frame.ack().start.unwrap().seq_num, acks as u64);
                acks += 1;
            }
            None => panic!("a clean end"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_input_ends_the_session_after_the_acks_before_it() {
    let stack = stack().await;
    let (client, native) = (stack.h2().await, stack.direct().await);
    let config = json!({ "stream_cipher": "aegis-256", "create_stream_on_append": true });
    let basin = Ask::post("/v1/basins").json(&json!({ "basin": NATIVE, "config": config }));
    assert_eq!(native.ask(basin).await.status, 201);
    for (what, bad) in bad_frames().into_iter().chain(invalid_inputs()) {
        let ask = Ask::post(records(what)).key(&KEY);
        let half = what == HALF_A_FRAME;
        let expected = poisoned(&native, ask.clone().basin(NATIVE), bad.clone(), half).await;
        let got = poisoned(&client, ask.clone(), bad.clone(), half).await;
        assert_eq!(
            (got.0, got.1.failure()),
            (2, expected.1.failure()),
            "{what}"
        );
        let Frame::Terminal { status, json } = &got.1 else {
            unreachable!()
        };
        match status {
            400 => assert_eq!(json["code"], "bad_frame", "{what}"),
            422 => assert_eq!(json["code"], "invalid", "{what}"),
            412 => assert_eq!(*json, json!({ "seq_num_mismatch": 2 })),
            status => panic!("{what}: {status}"),
        }
        assert_eq!(stack.stored(what).await.len(), 2, "{what}");
        let ask = Ask::post(records(&format!("{what}, h1"))).key(&KEY);
        let over_h1 = poisoned(&stack.h1().await, ask, bad, half).await;
        assert_eq!(over_h1.1.failure(), got.1.failure(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_before_the_session_is_a_plain_answer() {
    let stack = stack().await;
    let client = stack.h2().await;
    let mut first = session(&client, "s").await;
    first.send(frame(&one("first"))).await;
    first.finish();
    assert_eq!(next_ack(&mut first).await, (0, 1));
    let body = frame(&one("never stored"));
    let ask = Ask::post(records("s")).body("s2s/proto", body.clone());
    for (ask, status, code) in [
        (ask.clone(), 422, "invalid"),
        (
            ask.clone().header("s2-encryption-key", "AAAA"),
            422,
            "invalid",
        ),
        (ask.clone().key(&[3; 32]), 400, "decryption_failed"),
        // In a basin without a cipher a key is one too many.
        (ask.clone().basin("no-such-basin").key(&KEY), 422, "invalid"),
        (ask.basin("no-such-basin"), 404, "basin_not_found"),
    ] {
        let answer = client.ask(ask).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    assert_eq!(stack.stored("s").await.len(), 1);
}
