//! When a part of a batch fails, or somebody writes between its parts, the client never hears that nothing was
//! written, and never gets an ack for what is not there whole.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use s2_api::v1::stream::{
    proto::{AppendAck, AppendInput, StreamPosition},
    s2s::{SessionMessage, TerminalMessage},
};

use crate::{
    harness::{
        Ask, Encoding, Frame, KEY, Player, Session, Stack, ack, append, frame, input, record,
        records, until,
    },
    oversize::{bodies, full, noise, send},
};

/// What the upstream has got of its last append session.
fn got(stack: &Stack) -> Vec<AppendInput> {
    let seen = stack.lite.last("POST").unwrap_or_default();
    let mut bytes = BytesMut::from(&seen.body[..]);
    let frames = std::iter::from_fn(|| Frame::take(&mut bytes));
    let input = |frame| match frame {
        Frame::Message { payload, .. } => AppendInput::decode(payload).unwrap(),
        Frame::Terminal { .. } => panic!("a terminal frame in a request"),
    };
    frames.map(input).collect()
}

/// A session whose first part of two is acked by hand, and whose second part is on its way.
async fn after_the_first_part() -> (Stack, Session, Player) {
    let stack = Stack::with_one_record().await;
    let player = stack.lite.play(&records("s"));
    let session = stack.append_session().await;
    session.send(frame(&full(37, noise))).await;
    until("the first part is there", async || got(&stack).len() == 1).await;
    let at = |seq_num| {
        Some(StreamPosition {
            seq_num,
            timestamp: 1,
        })
    };
    let end = 1 + got(&stack)[0].records.len() as u64;
    let ack = AppendAck {
        start: at(1),
        end: at(end),
        tail: at(end),
    };
    player.play(frame(&ack)).await;
    until("the second part is there", async || got(&stack).len() == 2).await;
    assert_eq!(got(&stack)[1].match_seq_num, Some(end));
    (stack, session, player)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_fails_after_the_first_part_promises_nothing() {
    for (status, body) in [
        (412, r#"{"seq_num_mismatch":77}"#),
        (412, r#"{"fencing_token_mismatch":"other"}"#),
        (502, r#"{"code":"hot_server","message":"try again"}"#),
        (503, r#"{"code":"server_draining","message":"going"}"#),
        (429, r#"{"code":"rate_limited","message":"slower"}"#),
    ] {
        let (_stack, mut session, player) = after_the_first_part().await;
        let body = body.to_owned();
        let terminal = SessionMessage::from(TerminalMessage { status, body });
        player.play(terminal.encode()).await;
        let end = session.live.frame().await.unwrap().unwrap();
        assert_eq!(end.failure(), (500, "other".to_owned()), "{status}");
        assert!(session.live.frame().await.unwrap().is_none());
    }
}

/// SDKs take a clean end for one after which nothing can be repeated.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_after_the_first_part_breaks_off() {
    for is_clean in [true, false] {
        let (_stack, mut session, player) = after_the_first_part().await;
        match is_clean {
            true => drop(player),
            false => player.break_off().await,
        }
        let end = session.live.frame().await;
        assert!(end.is_err(), "{is_clean}: {end:?}");
    }
}

/// A full batch of which each record starts with the number of the batch.
fn marked(number: u32, count: usize) -> AppendInput {
    let mut batch = full(count, noise);
    for record in &mut batch.records {
        let body = [&number.to_be_bytes()[..], &record.body[4..]].concat();
        record.body = body.into();
    }
    batch
}

/// Appends batches by unary requests; returns the acks, and the numbers of batches without one.
async fn unary_writer(stack: &Stack, next: &AtomicU32) -> Vec<(u32, Option<AppendAck>)> {
    let mut all = Vec::new();
    for _ in 0..5 {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let answer = send(stack, &marked(number, 37)).await;
        if answer.status != 200 {
            let error = (answer.status, answer.code());
            assert_eq!(error, (500, "other".to_owned()), "{}", answer.text());
        }
        let ack = (answer.status == 200).then(|| ack(Encoding::Proto, &answer));
        all.push((number, ack));
    }
    all
}

/// The same by sessions, of one batch each because an error ends them.
async fn session_writer(stack: &Stack, next: &AtomicU32) -> Vec<(u32, Option<AppendAck>)> {
    let client = stack.h2().await;
    let mut all = Vec::new();
    for _ in 0..5 {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let mut session = Session::append(&client, Ask::post(records("s")).key(&KEY)).await;
        session.send(frame(&marked(number, 37))).await;
        session.finish();
        let answer = session.live.frame().await.unwrap().unwrap();
        if let Frame::Terminal { .. } = answer {
            assert_eq!(answer.failure(), (500, "other".to_owned()));
        }
        let ack = matches!(answer, Frame::Message { .. }).then(|| answer.ack());
        all.push((number, ack));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acked_batch_is_whole_whoever_else_writes() {
    let stack = Stack::with_one_record().await;
    let next = AtomicU32::new(1);
    let small = async {
        for _ in 0..20 {
            let one = input([record(&[], 0_u32.to_be_bytes().to_vec())]);
            let ask = append("s", Encoding::Proto, crate::harness::Packed::Not, &one);
            ack(Encoding::Proto, &stack.h2().await.ask(ask).await);
        }
    };
    let (one, two, three, ()) = tokio::join!(
        unary_writer(&stack, &next),
        unary_writer(&stack, &next),
        session_writer(&stack, &next),
        small,
    );
    let stored: Vec<Bytes> = bodies(&stack).await;
    let number = |body: &Bytes| u32::from_be_bytes(body[..4].try_into().unwrap());
    let mut acked = 0;
    for (batch, ack) in [one, two, three].concat() {
        let of_it = stored.iter().skip(1).filter(|body| number(body) == batch);
        let Some(ack) = ack else {
            // Its beginning is there.
            assert!((1..37).contains(&of_it.count()), "batch {batch}");
            continue;
        };
        acked += 1;
        let [start, end] = [ack.start, ack.end].map(|at| at.unwrap().seq_num as usize);
        assert_eq!((end - start, of_it.count()), (37, 37), "batch {batch}");
        assert!(stored[start..end].iter().all(|body| number(body) == batch));
    }
    assert!(acked > 0, "nothing was acked");
}
