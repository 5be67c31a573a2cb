//! A client that floods a connection loses it, and others do not notice.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::clients::{plaintext, works};
use crate::harness::{
    BASIN, CONTINUATION, DEADLINE, HEADERS, KEY, RST_STREAM, SETTINGS, Stack, base64, http2_frame,
    literal, records, until,
};

/// Frames of an append to stream `s` on HTTP/2 stream `id`, whose body never comes.
fn request(id: u32) -> Vec<u8> {
    let key = base64(&KEY);
    let block = [
        literal(":method", "POST"),
        literal(":scheme", "http"),
        literal(":authority", "localhost"),
        literal(":path", &records("s")),
        literal("s2-basin", BASIN),
        literal("content-type", "s2s/proto"),
        literal("s2-encryption-key", &key),
    ]
    .concat();
    http2_frame(HEADERS, 4, id, &block)
}

/// A connection that speaks HTTP/2 by hand.
async fn by_hand(stack: &Stack) -> TcpStream {
    let mut io = TcpStream::connect(stack.address).await.unwrap();
    let start = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &http2_frame(SETTINGS, 0, 0, &[])[..],
    ];
    io.write_all(&start.concat()).await.unwrap();
    io
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_opened_and_reset_at_once_end_the_connection() {
    let stack = plaintext(DEADLINE).await;
    let mut io = by_hand(&stack).await;
    let (mut from, mut to) = io.split();
    let flood = async {
        let mut opened = 0;
        for id in (1..200_000).step_by(2) {
            let cancel = http2_frame(RST_STREAM, 0, id, &8_u32.to_be_bytes());
            if to.write_all(&[request(id), cancel].concat()).await.is_err() {
                break;
            }
            opened += 1;
        }
        opened
    };
    let mut rest = Vec::new();
    let read = from.read_to_end(&mut rest);
    let (opened, closed, ()) =
        tokio::join!(flood, tokio::time::timeout(DEADLINE, read), works(&stack));
    let _reset = closed.expect("the connection stays open");
    assert!(opened < 100_000, "{opened} streams opened");
    works(&stack).await;
    // None of those sessions is left upstream.
    until("the sessions are gone", async || {
        stack.lite.seen().iter().all(|seen| seen.end.is_some())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_streams_than_allowed_are_refused_one_by_one() {
    let stack = plaintext(DEADLINE).await;
    let mut io = by_hand(&stack).await;
    for id in (1..801).step_by(2) {
        if io.write_all(&request(id)).await.is_err() {
            break;
        }
    }
    works(&stack).await;
    let sessions = || {
        let seen = stack.lite.seen();
        seen.iter().filter(|seen| seen.end.is_none()).count()
    };
    until("some sessions run", async || sessions() > 0).await;
    // The limit of one connection.
    assert!(sessions() <= 200, "{}", sessions());
    drop(io);
    until("the sessions are gone", async || sessions() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_headers_is_refused() {
    let stack = plaintext(DEADLINE).await;
    let mut io = by_hand(&stack).await;
    let (mut from, mut to) = io.split();
    let flood = async {
        let mut sent = 0;
        let header = literal("x", &"y".repeat(16_000));
        let open = http2_frame(HEADERS, 0, 1, &header);
        let mut wrote = to.write_all(&open).await;
        let more = http2_frame(CONTINUATION, 0, 1, &header);
        while wrote.is_ok() && sent < 100 << 20 {
            sent += more.len();
            wrote = to.write_all(&more).await;
        }
        sent
    };
    let mut rest = Vec::new();
    let read = tokio::time::timeout(DEADLINE, from.read_to_end(&mut rest));
    let (sent, closed) = tokio::join!(flood, read);
    let _reset = closed.expect("the connection stays open");
    assert!(sent < 16 << 20, "{sent} bytes taken");
    let mut io = TcpStream::connect(stack.address).await.unwrap();
    io.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
    let mut sent = 0;
    while sent < 100 << 20 && io.write_all(&[b'y'; 16_384]).await.is_ok() {
        sent += 16_384;
    }
    assert!(sent < 16 << 20, "{sent} bytes taken");
    works(&stack).await;
}
