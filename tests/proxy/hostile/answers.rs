//! Runs the table of answers: each to every request that it is meant for, in every encoding.

use std::sync::Arc;

use bytes::BytesMut;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use s2_api::v1::stream::proto::AppendInput;
use tokio::sync::Notify;

use super::{
    ATTACKS, Attack, On, Outcome,
    script::{FORGED, Reply, SEALED},
};
use crate::harness::{
    Answer, Ask, Encoding, End, Frame, KEY, Live, Packed, Stack, ack, append, channel, contains,
    delivered, frame, input, read, record, records, until,
};

/// In every record that is appended: never upstream.
const SECRET: &str = "what only the client may see";

const README: &str = include_str!("../../../README.md");

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_about_appends_has_its_outcome() {
    let stack = Stack::with_one_record().await;
    for attack in attacks(On::Appends) {
        for encoding in [Encoding::Json, Encoding::Proto] {
            let what = format!("{}: {encoding:?} append", attack.name);
            let reply = attack.reply;
            stack.lite.lie(move |seen| is("POST", seen).then(reply));
            let ask = append("s", encoding, Packed::Not, &secrets(2));
            let answer = stack.h2().await.ask(ask).await;
            check_append(&what, attack.outcome, encoding, &answer);
            works_again(&stack, &what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_about_sessions_has_its_outcome() {
    let stack = Stack::with_one_record().await;
    for attack in attacks(On::Sessions) {
        let what = format!("{}: append session", attack.name);
        let (reply, gate) = (attack.reply, Arc::new(Notify::new()));
        let opens = Arc::clone(&gate);
        stack
            .lite
            .lie(move |seen| is("POST", seen).then(|| gated(reply(), Arc::clone(&opens))));
        session(&stack, &what, attack.outcome, &gate).await;
        works_again(&stack, &what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_about_reads_has_its_outcome() {
    let stack = Stack::with_one_record().await;
    let client = stack.h2().await;
    for attack in attacks(On::Reads) {
        for encoding in Encoding::READS {
            let what = format!("{}: {encoding:?} read", attack.name);
            let reply = attack.reply;
            stack.lite.lie(move |seen| is("GET", seen).then(reply));
            let ask = read("s", "seq_num=0&count=3", encoding);
            let answer = client.try_ask(ask).await.ok();
            check_read(&what, attack.outcome, encoding, answer.as_ref());
            works_again(&stack, &what).await;
        }
    }
}

fn attacks(on: On) -> impl Iterator<Item = &'static Attack> {
    let all = ATTACKS.iter();
    all.filter(move |attack| [on, On::Everything].contains(&attack.on))
}

fn is(method: &str, seen: &crate::harness::Seen) -> bool {
    seen.line.starts_with(&format!("{method} ")) && seen.line.contains("/streams/s/records")
}

fn secrets(count: usize) -> AppendInput {
    input((0..count).map(|_| record(&[], SECRET)))
}

fn check_append(what: &str, outcome: Outcome, encoding: Encoding, answer: &Answer) {
    let got = (answer.status, &*answer.code());
    match outcome {
        Outcome::Refused(status, code) => assert_eq!(got, (status, code), "{what}"),
        Outcome::BrokenOff | Outcome::Ends => assert_eq!(got, (500, "other"), "{what}"),
        Outcome::Named(words) => {
            named(words);
            let ack = ack(encoding, answer);
            assert_eq!(ack.end.unwrap().seq_num - ack.start.unwrap().seq_num, 2);
        }
    }
    assert!(!contains(&answer.body, FORGED.as_bytes()), "{what}");
}

/// Holds the body of a session back until the gate opens: acks of what was not sent would be another lie.
fn gated(reply: Reply, gate: Arc<Notify>) -> Reply {
    if reply.status() != 200 {
        return reply;
    }
    reply.map(|mut body| {
        let chunks = async_chunks(gate, async move || body.frame().await);
        StreamBody::new(chunks).boxed_unsync()
    })
}

fn async_chunks<T>(
    gate: Arc<Notify>,
    next: impl AsyncFnMut() -> Option<T>,
) -> impl stream::Stream<Item = T> {
    stream::unfold((Some(gate), next), |(gate, mut next)| async {
        if let Some(gate) = gate {
            gate.notified().await;
        }
        Some((next().await?, (None, next)))
    })
}

/// A session with inputs of two records and of one.
async fn session(stack: &Stack, what: &str, outcome: Outcome, gate: &Notify) {
    let (sender, body) = channel();
    let ask = Ask::post(records("s")).key(&KEY);
    let ask = ask.header("content-type", "s2s/proto");
    let response = stack.h2().await.send(ask, body).await.unwrap();
    if response.status() != 200 {
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let (answer, headers) = (body, Default::default());
        let answer = Answer {
            status,
            headers,
            body: answer,
        };
        return check_append(what, outcome, Encoding::Frames, &answer);
    }
    for count in [2, 1] {
        sender.send(Ok(frame(&secrets(count)))).await.unwrap();
    }
    until("the inputs arrive", async || {
        let seen = stack.lite.last("POST").unwrap();
        let mut body = BytesMut::from(&seen.body[..]);
        std::iter::from_fn(|| Frame::take(&mut body)).count() == 2
    })
    .await;
    gate.notify_one();
    check_session(what, outcome, Live::new(response)).await;
}

async fn check_session(what: &str, outcome: Outcome, mut live: Live) {
    let mut sent = vec![1, 2];
    let end = loop {
        match live.frame().await {
            Ok(Some(frame @ Frame::Message { .. })) => {
                let ack = frame.ack();
                let count = ack.end.unwrap().seq_num - ack.start.unwrap().seq_num;
                assert_eq!(Some(count), sent.pop(), "{what}");
            }
            end => break end,
        }
    };
    match outcome {
        Outcome::Refused(status, code) => {
            let end = end.expect(what).expect(what).failure();
            assert_eq!(end, (status, code.to_owned()), "{what}");
            assert_eq!(live.frame().await.unwrap(), None, "{what}");
        }
        Outcome::BrokenOff => assert!(end.is_err(), "{what}: {end:?}"),
        Outcome::Ends => {
            assert_eq!(end.unwrap(), None, "{what}");
            assert_eq!(sent.len(), 2, "{what}");
        }
        Outcome::Named(words) => {
            named(words);
            assert_eq!(end.unwrap(), None, "{what}");
            assert!(sent.is_empty(), "{what}");
        }
    }
}

fn check_read(what: &str, outcome: Outcome, encoding: Encoding, answer: Option<&Answer>) {
    let is_session = matches!(
        encoding,
        Encoding::Events | Encoding::EventsBase64 | Encoding::Frames
    );
    let Some(answer) = answer else {
        assert_eq!(outcome, Outcome::BrokenOff, "{what}");
        return assert!(is_session, "{what}");
    };
    let got = delivered(encoding, answer);
    let failed = |status: u16, code: &str| {
        // Once its head is out, an event stream has no status.
        let status = if answer.status == 200 && encoding != Encoding::Frames {
            0
        } else {
            status
        };
        let code = code.to_owned();
        assert_eq!(got.end, End::Failed { status, code }, "{what}");
        assert_eq!(got.batches, [], "{what}");
        assert!(!contains(&answer.body, FORGED.as_bytes()), "{what}");
        let base64 = crate::harness::leaks(&answer.body, FORGED.as_bytes());
        assert!(!base64, "{what}");
    };
    match outcome {
        Outcome::Refused(status, code) => failed(status, code),
        // It may break off before its head is through.
        Outcome::BrokenOff => {
            assert_eq!(answer.status, 500, "{what}");
            failed(500, "other");
        }
        Outcome::Named(words) => {
            named(words);
            assert_eq!(got.end, End::Clean, "{what}");
            let bodies = got.records();
            assert_eq!(bodies.len(), 3, "{what}");
            let known = |body: &[u8]| SEALED.iter().any(|sealed| sealed.as_bytes() == body);
            assert!(bodies.iter().all(|record| known(&record.body)), "{what}");
        }
        Outcome::Ends => panic!("{what}: no outcome of reads"),
    }
}

/// The README names it, in words that may be wrapped.
pub fn named(words: &str) {
    let readme = README.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(readme.contains(words), "the README does not say: {words}");
}

/// Nothing of the client's was in clear upstream, and nothing is left of the lie.
async fn works_again(stack: &Stack, what: &str) {
    for seen in stack.lite.seen() {
        assert!(
            !contains(&[&seen.body[..], b"...."].concat(), SECRET.as_bytes()),
            "{what}"
        );
    }
    stack.lite.be_honest();
    let ask = read("s", "seq_num=0&count=1", Encoding::Json);
    let answer = stack.h2().await.ask(ask).await;
    assert_eq!(answer.status, 200, "after {what}: {}", answer.text());
    assert_eq!(answer.json()["records"][0]["body"], "first", "{what}");
}
