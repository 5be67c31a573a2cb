//! What goes in comes out, whatever each side writes it in.

use s2_api::v1::stream::proto::{AppendInput, AppendRecord, SequencedRecord};
use serde_json::json;

use crate::harness::{
    Answer, CIPHERS, Client, Encoding, End, Frame, Packed, Stack, ack, append, delivered, input,
    read, record,
};

/// Early enough that S2 never caps it at the time of arrival.
const LONG_AGO: u64 = 1_000_000;

/// Where a trim command trims to: big-endian, and text as well.
const TRIM_POINT: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 1];

/// Records of every shape that the encoding can write.
fn shapes(encoding: Encoding) -> Vec<AppendRecord> {
    let mut shapes = vec![
        record(&[], "a body"),
        record(&[], ""),
        record(
            &[(b"dup", b"1"), (b"dup", b"2"), (b"dup", b"1")],
            "duplicates",
        ),
        record(
            &[
                (b"empty", b""),
                ("näme".as_bytes(), "välue \"\\\n\t".as_bytes()),
            ],
            "ünïcode\u{0}",
        ),
        record(&[(b"only", b"headers")], ""),
        record(&[], "x".repeat(5000)),
    ];
    if encoding.is_binary() {
        shapes.push(record(
            &[(b"\xff\x00", b"\x80\x81")],
            (0..=255).collect::<Vec<u8>>(),
        ));
    }
    for (record, at) in shapes.iter_mut().zip(0..) {
        record.timestamp = Some(LONG_AGO + at);
    }
    shapes
}

/// What a read in this encoding must show of a record: text shows bytes that are none as U+FFFD.
fn shown(encoding: Encoding, clear: &AppendRecord, seq_num: u64) -> SequencedRecord {
    let show = |bytes: &bytes::Bytes| match encoding.is_binary() {
        true => bytes.clone(),
        false => String::from_utf8_lossy(bytes).into_owned().into(),
    };
    let mut headers = clear.headers.clone();
    for header in &mut headers {
        header.name = show(&header.name);
        header.value = show(&header.value);
    }
    SequencedRecord {
        seq_num,
        timestamp: clear.timestamp.unwrap(),
        headers,
        body: show(&clear.body),
    }
}

/// Appends a batch three times, packed in each way, over both protocols in turn.
async fn append_thrice(clients: [&Client; 2], stream: &str, written: Encoding) {
    let clear = shapes(written);
    for (packed, round) in Packed::ALL.into_iter().zip(0..) {
        let ask = append(stream, written, packed, &input(clear.clone()));
        let ack = ack(written, &clients[round % 2].ask(ask).await);
        let (start, end) = (ack.start.unwrap(), ack.end.unwrap());
        assert_eq!(start.seq_num, (round * clear.len()) as u64);
        assert_eq!(end.seq_num, start.seq_num + clear.len() as u64);
        assert_eq!(ack.tail, ack.end);
        if round == 0 {
            let last = clear.last().unwrap().timestamp.unwrap();
            assert_eq!((start.timestamp, end.timestamp), (LONG_AGO, last));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_in_comes_out() {
    for cipher in CIPHERS {
        let stack = Stack::start().await;
        stack.create_basin(Some(cipher)).await;
        let (h1, h2) = (stack.h1().await, stack.h2().await);
        for written in Encoding::APPENDS {
            let stream = format!("{written:?}");
            append_thrice([&h1, &h2], &stream, written).await;
            let clear = shapes(written);
            for reading in Encoding::READS {
                for client in [&h1, &h2] {
                    let query = format!("seq_num=0&count={}", clear.len());
                    let answer = client.ask(read(&stream, &query, reading)).await;
                    let got = delivered(reading, &answer);
                    let shown = |(clear, at)| shown(reading, clear, at);
                    let wanted: Vec<_> = clear.iter().zip(0..).map(shown).collect();
                    assert_eq!(got.records(), wanted, "{written:?} {reading:?}");
                    assert_eq!(got.end, End::Clean);
                }
            }
        }
    }
}

fn command(op: &'static str, payload: impl Into<bytes::Bytes>) -> AppendRecord {
    record(&[(b"", op.as_bytes())], payload)
}

fn with(records: Vec<AppendRecord>, change: impl FnOnce(&mut AppendInput)) -> AppendInput {
    let mut input = input(records);
    change(&mut input);
    input
}

/// Reads the fence at 1 and the trim at 3, after which S2 may forget the first record.
async fn assert_commands(client: &Client, stream: &str, reading: Encoding) {
    let answer = client.ask(read(stream, "seq_num=1&count=4", reading)).await;
    let got = delivered(reading, &answer).records();
    let command = |at| got.iter().find(|record| record.seq_num == at).unwrap();
    for (at, op, payload) in [(1, "fence", &b"token"[..]), (3, "trim", &TRIM_POINT)] {
        let [header] = command(at).headers.as_slice() else {
            panic!("{reading:?}: {:?}", command(at))
        };
        assert_eq!(
            (&header.name[..], &header.value[..]),
            (&b""[..], op.as_bytes())
        );
        assert_eq!(command(at).body, payload);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_stay_in_clear_and_take_effect() {
    for cipher in CIPHERS {
        let stack = Stack::start().await;
        stack.create_basin(Some(cipher)).await;
        let client = stack.h2().await;
        for encoding in Encoding::APPENDS {
            let stream = format!("{encoding:?}");
            let trim = command("trim", TRIM_POINT.to_vec());
            let fence = command("fence", "token");
            let batch = input([record(&[], "first"), fence, record(&[], "third"), trim]);
            ack(
                encoding,
                &client
                    .ask(append(&stream, encoding, Packed::Not, &batch))
                    .await,
            );
            let fenced = |token: &str| {
                with(vec![record(&[], "x")], |input| {
                    input.fencing_token = Some(token.into())
                })
            };
            let wrong = append(&stream, Encoding::Proto, Packed::Not, &fenced("other"));
            let refused = client.ask(wrong).await;
            assert_eq!(refused.status, 412);
            assert_eq!(refused.json(), json!({ "fencing_token_mismatch": "token" }));
            let right = append(&stream, encoding, Packed::Not, &fenced("token"));
            ack(encoding, &client.ask(right).await);
            for reading in Encoding::READS
                .into_iter()
                .filter(|reading| reading.is_binary())
            {
                assert_commands(&client, &stream, reading).await;
            }
        }
    }
}

/// Status and body of a refusal, be it an HTTP answer or a terminal frame.
fn refusal(encoding: Encoding, answer: &Answer) -> (u16, serde_json::Value) {
    match encoding {
        Encoding::Frames => match Frame::all(&answer.body).as_slice() {
            [Frame::Terminal { status, json }] => (*status, json.clone()),
            frames => panic!("{frames:?}"),
        },
        _ => (answer.status, answer.json()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_hold_as_in_s2() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    for encoding in Encoding::APPENDS {
        let stream = format!("{encoding:?}");
        let one = || vec![record(&[], "one")];
        let first = with(one(), |input| input.match_seq_num = Some(0));
        ack(
            encoding,
            &client
                .ask(append(&stream, encoding, Packed::Not, &first))
                .await,
        );
        let again = client
            .ask(append(&stream, encoding, Packed::Not, &first))
            .await;
        let mismatch = json!({ "seq_num_mismatch": 1 });
        assert_eq!(refusal(encoding, &again), (412, mismatch), "{encoding:?}");
        let fenced = with(one(), |input| input.fencing_token = Some("t".into()));
        let fenced = client
            .ask(append(&stream, encoding, Packed::Not, &fenced))
            .await;
        let mismatch = json!({ "fencing_token_mismatch": "" });
        assert_eq!(refusal(encoding, &fenced), (412, mismatch), "{encoding:?}");
        assert_eq!(stack.stored(&stream).await.len(), 1);
    }
}
