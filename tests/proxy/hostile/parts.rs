//! The parts of a batch that had to be split are one batch to the client, whatever the upstream acks.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use s2_api::v1::stream::proto::AppendInput;

use super::script::{ack, ack_bytes, unary_ack};
use crate::harness::{Encoding, Packed, Stack, append, frame, input, record, records, until};

/// Two records that fill a batch to the byte, do not compress, and go up one by one.
fn full() -> AppendInput {
    let mut state = 1_u64;
    let mut noise = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    let mut half = || record(&[], (0..(1 << 19) - 8).map(|_| noise()).collect::<Vec<_>>());
    input([half(), half()])
}

/// Acks of the two parts, and whether they make an ack of the batch.
const ACKS: &[([(u64, u64); 2], bool)] = &[
    ([(1, 2), (2, 3)], true),
    ([(1, 2), (7, 8)], false),
    ([(1, 2), (1, 2)], false),
    ([(1, 2), (0, 1)], false),
    ([(1, 2), (2, 4)], false),
    ([(5, 6), (u64::MAX - 1, u64::MAX)], false),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_append_is_acked_once_and_for_as_many_records() {
    for (acks, whole) in ACKS {
        let stack = Stack::with_one_record().await;
        let part = Arc::new(AtomicUsize::new(0));
        stack.lite.lie(move |seen| {
            let (start, end) = acks[part.load(SeqCst).min(1)];
            let is_append = seen.line.starts_with("POST ");
            part.fetch_add(usize::from(is_append), SeqCst);
            is_append.then(|| unary_ack(&ack_bytes(start, end)))
        });
        let ask = append("s", Encoding::Proto, Packed::Not, &full());
        let answer = stack.h2().await.ask(ask).await;
        if *whole {
            let acked = crate::harness::ack(Encoding::Proto, &answer);
            assert_eq!(
                (acked.start.unwrap().seq_num, acked.end.unwrap().seq_num),
                (1, 3)
            );
        } else {
            assert_eq!((answer.status, &*answer.code()), (500, "other"), "{acks:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_acked_once_and_for_as_many_records() {
    for (acks, whole) in ACKS {
        let stack = Stack::with_one_record().await;
        let player = stack.lite.play(&records("s"));
        let mut session = stack.append_session().await;
        session.send(frame(&full())).await;
        for (at, (start, end)) in acks.iter().enumerate() {
            let sent = (at + 1) << 19;
            until("the part arrives", async || {
                stack.lite.last("POST").unwrap().body.len() >= sent
            })
            .await;
            player.play(ack(*start, *end)).await;
        }
        let got = session.live.frame().await.unwrap().unwrap();
        if *whole {
            let (start, end) = (got.ack().start.unwrap(), got.ack().end.unwrap());
            assert_eq!((start.seq_num, end.seq_num), (1, 3));
        } else {
            assert_eq!(got.failure(), (500, "other".to_owned()), "{acks:?}");
        }
    }
}
