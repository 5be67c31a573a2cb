//! A session passes on its pace and every sign of life.

use std::time::Duration;

use bytes::Bytes;
use s2_api::v1::stream::{proto::ReadBatch, s2s::advise_reconnect};

use crate::harness::{
    Encoding, Frame, Live, RECONNECT, Stack, batch, frame, heartbeat, input, read, record, records,
    sealed_batch, second_ack, until,
};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_comes_through_at_once() {
    let stack = Stack::with_one_record().await;
    let (player, mut live) = stack.played_read(Encoding::Frames).await;
    for tail in [1, 5] {
        // A batch of nothing says nothing: clients take it for a fault.
        player.play(frame(&ReadBatch::default())).await;
        player.play(frame(&heartbeat(tail))).await;
        let frame = live.frame().await.unwrap().unwrap();
        assert_eq!(frame.batch(), heartbeat(tail));
    }
    drop(player);
    assert_eq!(live.frame().await.unwrap(), None);

    let (player, mut live) = stack.played_read(Encoding::Events).await;
    player.play(frame(&heartbeat(1))).await;
    let event = live.event().await.unwrap().unwrap();
    assert!(event.starts_with("event: ping\n"), "{event}");
    drop(player);
    assert_eq!(live.event().await.unwrap().as_deref(), Some("data: [DONE]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_to_reconnect_comes_through() {
    let stack = Stack::with_one_record().await;
    let player = stack.lite.play(&records("s"));
    let ask = read("s", "seq_num=0", Encoding::Frames).header("accept-encoding", "zstd");
    let mut live = Live::new(stack.h2().await.open(ask).await);
    let compressed = 0x20;
    let long = "x".repeat(5000);
    for (batch, compression) in [
        (sealed_batch("short"), 0),
        (sealed_batch(&long), compressed),
        (heartbeat(1), 0),
    ] {
        for advised in [false, true, false] {
            let plain = frame(&batch);
            player
                .play(if advised {
                    advise_reconnect(plain)
                } else {
                    plain
                })
                .await;
            let Some(Frame::Message { flag, .. }) = live.frame().await.unwrap() else {
                panic!("no batch")
            };
            let wanted = if advised { RECONNECT } else { 0 };
            assert_eq!(flag, wanted | compression);
        }
    }
    let player = stack.lite.play(&records("s"));
    let mut session = stack.append_session().await;
    let mut arrived = 0;
    for (ack, wanted) in [
        (frame(&second_ack()), 0),
        (advise_reconnect(frame(&second_ack())), RECONNECT),
    ] {
        session.send(frame(&input([record(&[], "x")]))).await;
        until("the input arrives", async || {
            stack.lite.last("POST").unwrap().body.len() > arrived
        })
        .await;
        arrived = stack.lite.last("POST").unwrap().body.len();
        player.play(ack).await;
        let frame = session.live.frame().await.unwrap().unwrap();
        assert_eq!(frame.ack(), second_ack());
        assert!(matches!(frame, Frame::Message { flag, .. } if flag == wanted));
    }
}

/// Waits until a figure has stopped growing, and returns it.
pub async fn settled(figure: impl Fn() -> usize) -> usize {
    let mut last = (figure(), 0);
    until("it settles", async || {
        let now = figure();
        last = if now == last.0 {
            (now, last.1 + 1)
        } else {
            (now, 0)
        };
        // 60 looks, 5 ms apart.
        last.1 == 60
    })
    .await;
    last.0
}

/// Frames of a batch of about a mebibyte.
fn large(count: usize) -> impl Iterator<Item = Bytes> {
    (0..count).map(|at| {
        frame(&input(
            (0..10).map(|_| record(&[], vec![letter(at); 100_000])),
        ))
    })
}

fn letter(at: usize) -> u8 {
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[at]
}

fn event_batch(event: &str) -> ReadBatch {
    let data = event.split_once("\ndata: ").unwrap().1;
    batch(Encoding::Events, &serde_json::from_str(data).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_slows_the_upstream_down() {
    const BACKLOG: usize = 30;
    let stack = Stack::with_one_record().await;
    let mut session = stack.append_session().await;
    for frame in large(BACKLOG) {
        session.send(frame).await;
        session.live.frame().await.unwrap().unwrap().ack();
    }
    for (client, encoding) in [
        (stack.h2().await, Encoding::Frames),
        (stack.h1().await, Encoding::Events),
    ] {
        let before = stack.tap.answered();
        let query = format!("seq_num=1&count={}", BACKLOG * 10);
        let mut live = Live::new(client.open(read("s", &query, encoding)).await);
        let ahead = settled(|| stack.tap.answered() - before).await;
        assert!(
            ahead > 0 && ahead < BACKLOG * MIB / 2,
            "{ahead} bytes ahead"
        );
        let mut next = 1;
        while next <= BACKLOG * 10 {
            let batch = match encoding {
                Encoding::Frames => live.frame().await.unwrap().unwrap().batch(),
                _ => event_batch(&live.event().await.unwrap().unwrap()),
            };
            for record in batch.records {
                assert_eq!(record.seq_num, next as u64);
                assert!(record.body.len() == 100_000 && record.body[0] == letter((next - 1) / 10));
                next += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upstream_slows_the_client_down() {
    const INPUTS: usize = 40;
    let stack = Stack::with_one_record().await;
    let mut session = stack.append_session().await;
    stack.tap.hold(true);
    let mut frames = large(INPUTS).peekable();
    let mut sent = 0;
    while let Some(frame) = frames.peek() {
        let sending = session.send(frame.clone());
        if tokio::time::timeout(Duration::from_millis(500), sending)
            .await
            .is_err()
        {
            break;
        }
        frames.next();
        sent += 1;
    }
    assert!(
        sent < INPUTS / 2 + 8,
        "{sent} MB taken while the upstream took nothing"
    );
    stack.tap.hold(false);
    for frame in frames {
        session.send(frame).await;
    }
    session.finish();
    for at in 0..INPUTS as u64 {
        let ack = session.live.frame().await.unwrap().unwrap().ack();
        assert_eq!(ack.start.unwrap().seq_num, 1 + at * 10);
    }
    assert_eq!(session.live.frame().await.unwrap(), None);
}
