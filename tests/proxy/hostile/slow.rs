//! Who drips, or says nothing, is given up on: after 30 s for what the proxy itself asks, after 60 s for
//! records. One test, for all of it is waiting.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{future::join_all, stream};
use http::Response;
use http_body_util::{BodyExt as _, StreamBody};

use super::script::Reply;
use crate::harness::{
    Answer, Ask, Encoding, KEY, Packed, Stack, append, channel, frame, heartbeat, input, read,
    record, records,
};

/// The timeouts, and some time to answer.
const CONTROL: Duration = Duration::from_secs(30 + 10);
const RECORDS: Duration = Duration::from_secs(60 + 10);

/// Between two drops.
const DROP: Duration = Duration::from_millis(200);

/// An answer that never ends and never says anything.
fn drips(status: u16, content_type: &str, drop: &Bytes) -> Reply {
    let drops = stream::unfold(drop.clone(), |drop| async {
        tokio::time::sleep(DROP).await;
        Some((Ok(http_body::Frame::data(drop.clone())), drop))
    });
    let response = Response::builder().status(status);
    let response = response.header("content-type", content_type);
    response
        .body(StreamBody::new(drops).boxed_unsync())
        .unwrap()
}

type Drips = (u16, &'static str, Bytes);
type Row = (&'static str, Ask, Drips, Duration, (u16, &'static str));

/// Each is about another stream, by its name.
fn attacks() -> Vec<Row> {
    let batch = input([record(&[], "x")]);
    let json = |status, drop: &'static [u8]| (status, "application/json", Bytes::from_static(drop));
    let frames = |drop: &[u8]| (200, "s2s/proto", Bytes::copy_from_slice(drop));
    let late = (504, "upstream_timeout");
    let beat = frame(&heartbeat(1));
    let unary = |name| append(name, Encoding::Json, Packed::Not, &batch);
    let session = |name| append(name, Encoding::Frames, Packed::Not, &batch);
    let poll = |name| read(name, "seq_num=0", Encoding::Json);
    vec![
        ("ack", unary("ack"), frames(b"\x0a"), RECORDS, late),
        (
            "refusal1",
            unary("refusal1"),
            json(503, b" "),
            RECORDS,
            late,
        ),
        (
            "refusal2",
            session("refusal2"),
            json(503, b" "),
            RECORDS,
            late,
        ),
        ("refusal3", poll("refusal3"), json(404, b" "), RECORDS, late),
        ("beats", poll("beats"), frames(&beat), RECORDS, late),
        (
            "nothings",
            poll("nothings"),
            frames(b"\0\0\x01\0"),
            RECORDS,
            late,
        ),
        (
            "bytes",
            poll("bytes"),
            frames(b"\0"),
            RECORDS,
            (500, "other"),
        ),
        (
            "probe",
            poll("probe"),
            json(200, b" "),
            CONTROL,
            (502, "hot_server"),
        ),
        (
            "list",
            Ask::get("/v1/streams?prefix=list"),
            json(200, b" "),
            CONTROL,
            late,
        ),
    ]
}

async fn timed(within: Duration, answer: impl Future<Output = Answer>) -> (Duration, Answer) {
    let begun = std::time::Instant::now();
    let answer = tokio::time::timeout(within, answer).await;
    let answer = answer.expect("no answer in time");
    (begun.elapsed(), answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_drips_is_given_up_on_and_nobody_else_waits() {
    let stack = Stack::with_one_record().await;
    let batch = input([record(&[], "x")]);
    let client = stack.h2().await;
    for (name, ..) in attacks()
        .iter()
        .filter(|row| !["probe", "list"].contains(&row.0))
    {
        let made = append(name, Encoding::Json, Packed::Not, &batch);
        assert_eq!(client.ask(made).await.status, 200);
    }
    let lies: Vec<(String, Drips)> = attacks()
        .into_iter()
        .map(|(name, _, drips, ..)| match name {
            "probe" => ("/v1/streams?prefix=probe".to_owned(), drips),
            "list" => ("/v1/streams?prefix=list".to_owned(), drips),
            name => (format!("/v1/streams/{name}/"), drips),
        })
        .collect();
    stack.lite.lie(move |seen| {
        let (_, (status, kind, drop)) = lies.iter().find(|(path, _)| seen.line.contains(path))?;
        Some(drips(*status, kind, drop))
    });
    let rows = attacks()
        .into_iter()
        .map(|(what, ask, _, within, outcome)| {
            let client = &client;
            async move {
                let (_, answer) = timed(within, client.ask(ask)).await;
                assert_eq!((answer.status, &*answer.code()), outcome, "{what}");
            }
        });
    let others = async {
        let ask = append("s", Encoding::Json, Packed::Not, &batch);
        let (took, answer) = timed(RECORDS, client.ask(ask)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(
            took < Duration::from_secs(5),
            "another client waited {took:?}"
        );
    };
    tokio::join!(join_all(rows), slow_client(&stack), others);
}

/// A client that drips its body is given up on, too.
async fn slow_client(stack: &Stack) {
    let (sender, body) = channel();
    let ask = Ask::post(records("s")).key(&KEY);
    let ask = ask.header("content-type", "application/json");
    let client = stack.h2().await;
    let dripping = async {
        while sender.send(Ok(Bytes::from_static(b" "))).await.is_ok() {
            tokio::time::sleep(DROP).await;
        }
    };
    let answer = async {
        let response = tokio::time::timeout(RECORDS, client.send(ask, body)).await;
        let response = response.expect("no answer in time").unwrap();
        assert_eq!(response.status(), 408);
    };
    tokio::select! {
        () = answer => {}
        () = dripping => panic!("left before it was answered"),
    }
}
