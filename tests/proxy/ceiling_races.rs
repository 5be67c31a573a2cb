//! Nor is an AES-256-GCM stream overfilled by several at once, each of whom alone would fit.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use futures_util::future::join_all;
use streamseal::registry::rules::RuleCipher;

use crate::{
    ceiling::{Edge, LAST, ack, batch},
    harness::{Ask, Encoding, Frame, KEY, Session, frame, records, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn inputs_in_flight_count() {
    let edge = Edge::start(RuleCipher::Aes256Gcm).await;
    // Room for five.
    edge.line.tail.store(LAST - 4, SeqCst);
    let line = Arc::clone(&edge.line);
    edge.stack
        .lite
        .lie(move |seen| match seen.line.ends_with("/tail") {
            true => line.answer(&seen.line),
            false => None,
        });
    let player = edge.stack.lite.play(&records("s"));
    let client = edge.stack.h2().await;
    let mut session = Session::append(&client, Ask::post(records("s")).key(&KEY)).await;
    for kinds in ["dd", "dd", "dd", "d"] {
        session.send(frame(&batch(kinds))).await;
    }
    // The third does not fit behind the two that nobody has acked yet.
    let sent = || edge.stack.lite.last("POST").unwrap();
    until("the session is ended", async || sent().end.is_some()).await;
    let mut body = bytes::BytesMut::from(&sent().body[..]);
    let count = std::iter::from_fn(|| Frame::take(&mut body)).count();
    assert_eq!(count, 2);
    for start in [LAST - 4, LAST - 2] {
        player.play(frame(&ack(start, start + 2))).await;
        let acked = session.live.frame().await.unwrap().unwrap().ack();
        assert_eq!(acked, ack(start, start + 2));
    }
    drop(player);
    let end = session.live.frame().await.unwrap().unwrap().failure();
    assert_eq!(end, (422, "invalid".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_at_once_do_not_overshoot_together() {
    const CLIENTS: usize = 8;
    for known in [false, true] {
        let edge = Edge::start(RuleCipher::Aes256Gcm).await;
        edge.line.tail.store(LAST, SeqCst);
        if known {
            // A command leaves the room for data as it is when it goes right after the last.
            edge.line.tail.store(LAST - 1, SeqCst);
            assert_eq!(
                edge.append("s", Encoding::Json, &batch("d")).await.status,
                200
            );
        }
        let before = edge.appends();
        edge.line.size.store(1, SeqCst);
        edge.line.holds_appends.store(true, SeqCst);
        edge.line.holds_tails.store(!known, SeqCst);
        let one = batch("d");
        let all = join_all((0..CLIENTS).map(|_| edge.append("s", Encoding::Json, &one)));
        let let_go = async {
            // Gives those a chance who would ask each for themselves.
            let asked = until("two ask", async || edge.asked("GET", "/tail") >= 2);
            let _one_asks = tokio::time::timeout(Duration::from_millis(300), asked).await;
            edge.line.holds_tails.store(false, SeqCst);
            until("one goes", async || edge.appends() > before).await;
            edge.line.holds_appends.store(false, SeqCst);
        };
        let (answers, ()) = tokio::join!(all, let_go);
        let status = |status| {
            answers
                .iter()
                .filter(|answer| answer.status == status)
                .count()
        };
        assert_eq!((status(200), status(422)), (1, CLIENTS - 1), "{known}");
        assert_eq!(edge.appends(), before + 1, "{known}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_from_before_an_ack_is_not_believed_after_it() {
    let edge = Edge::start(RuleCipher::Aes256Gcm).await;
    edge.line.tail.store(LAST - 2, SeqCst);
    assert_eq!(
        edge.append("s", Encoding::Json, &batch("d")).await.status,
        200
    );
    // Room for two. The first takes one place and waits for its ack.
    edge.line.holds_appends.store(true, SeqCst);
    edge.line.holds_tails.store(true, SeqCst);
    let one = batch("d");
    let first = edge.append("s", Encoding::Json, &one);
    let second = async {
        until("the first goes", async || edge.appends() == 2).await;
        // The upstream looks the tail up before it carries the first one out.
        edge.line.tail.store(LAST - 1, SeqCst);
        let asks = edge.asked("GET", "/tail");
        let two = batch("dd");
        let second = edge.append("s", Encoding::Json, &two);
        let asked = async {
            until("the second asks", async || {
                edge.asked("GET", "/tail") > asks
            })
            .await;
            edge.line.holds_appends.store(false, SeqCst);
        };
        tokio::join!(second, asked).0
    };
    let first_then_tail = async {
        let first = first.await;
        edge.line.holds_tails.store(false, SeqCst);
        first
    };
    let (first, second) = tokio::join!(first_then_tail, second);
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!((second.status, &*second.code()), (422, "invalid"));
    assert_eq!(edge.appends(), 2);
}
