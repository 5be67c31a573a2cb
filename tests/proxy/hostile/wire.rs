//! An upstream that breaks HTTP itself, or floods it: the client gets an error in time, and the proxy
//! reads no more than it needs to refuse.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use streamseal::registry::rules::{KeySource, RuleCipher, StreamRule};

use crate::harness::{
    CONTINUATION, DATA, Encoding, GOAWAY, HEADERS, Lite, PUSH_PROMISE, Packed, Peer, RST_STREAM,
    Raw, SETTINGS, Says, Stack, WINDOW_UPDATE, append, http2_frame as h2, input, literal, read,
    record,
};

/// Of a flood of 100 MB the proxy reads less than this, the buffers of two sockets included.
const BOUND: usize = 16 << 20;

/// Longest time to an answer: connecting may take three seconds.
const IN_TIME: Duration = Duration::from_secs(10);

/// Flags of HTTP/2 frames.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200` in HPACK.
const OK: &[u8] = &[0x88];

/// Nothing was sent, or the peer says that it did nothing: safe to repeat.
const UNSENT: (u16, &str) = (502, "hot_server");
/// Sent, and no usable answer: it may have taken effect.
const LOST: (u16, &str) = (500, "other");

type Row = (&'static str, Peer, (u16, &'static str));

#[rustfmt::skip]
const GREETINGS: &[Row] = &[
    ("nothing",                              Peer::Greets(|| once(b"")),                            UNSENT),
    ("HTTP/1.1 where HTTP/2 is spoken",      Peer::Greets(|| once(b"HTTP/1.1 200 OK\r\n\r\n")),     UNSENT),
    ("100 MB of zeros for settings",         Peer::Greets(|| ever(b"", &[0; 16_384])),              UNSENT),
    ("no place for any stream",              Peer::Greets(|| once(&settings(3, 0))),                UNSENT),
    ("a window no peer may have",            Peer::Greets(|| once(&settings(4, u32::MAX))),         UNSENT),
];

#[rustfmt::skip]
const ATTACKS: &[Row] = &[
    ("100 MB of headers",                    Peer::Http2(|| ever(&open(OK), &more(&header()))),     LOST),
    ("100 MB in one header",                 Peer::Http2(one_header),                               LOST),
    ("continuations of nothing",             Peer::Http2(|| ever(&open(OK), &more(b""))),           LOST),
    ("100 MB of trailers",                   Peer::Http2(trailers),                                 LOST),
    ("100 MB of early hints",                Peer::Http2(|| ever(b"", &hints())),                  LOST),
    ("data past every window",               Peer::Http2(|| ever(&closed(&s2s()), &h2(DATA, 0, 1, &[0; 16_384]))), LOST),
    ("data before headers",                  Peer::Http2(|| once(&h2(DATA, 0, 1, b"x"))),           LOST),
    ("a status of three letters",            Peer::Http2(|| once(&whole(&literal(":status", "abc")))), LOST),
    ("no status",                            Peer::Http2(|| once(&whole(&literal("x", "y")))),      LOST),
    ("two statuses",                         Peer::Http2(|| once(&whole(&[OK, OK].concat()))),     LOST),
    ("a header of capitals",                 Peer::Http2(|| once(&whole(&[OK, &literal("X", "y")].concat()))), LOST),
    ("a line break in a header",             Peer::Http2(|| once(&whole(&[OK, &literal("x", "a\r\nb: c")].concat()))), LOST),
    ("headers that do not decode",           Peer::Http2(|| once(&whole(&[0x80]))),                LOST),
    ("a pushed answer",                      Peer::Http2(|| once(&h2(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02\x88"))), LOST),
    ("an answer to what was never asked",    Peer::Http2(|| once(&h2(HEADERS, END_HEADERS, 7, OK))), LOST),
    ("a frame of 16 MiB",                    Peer::Http2(|| once(b"\xff\xff\xff\0\0\0\0\0\x01")),   LOST),
    ("HTTP/1.1 in the middle of HTTP/2",     Peer::Http2(|| once(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK")), LOST),
    ("a window that overflows",              Peer::Http2(|| once(&overflow())),                     LOST),
    ("a reset",                              Peer::Http2(|| once(&h2(RST_STREAM, 0, 1, &8_u32.to_be_bytes()))), LOST),
    ("a reset that says nothing was done",   Peer::Http2(|| once(&h2(RST_STREAM, 0, 1, &7_u32.to_be_bytes()))), UNSENT),
    ("a goodbye that covers the request",    Peer::Http2(|| ever(&h2(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 2]), &[0; 16_384])), LOST),

    ("100 MB of headers over HTTP/1.1",      Peer::Http1(|| ever(b"HTTP/1.1 200 OK\r\n", "x: yyyyyyyyyyyyyy\r\n".repeat(1000).as_bytes())), LOST),
    ("100 MB in one header over HTTP/1.1",   Peer::Http1(|| ever(b"HTTP/1.1 200 OK\r\nx: ", &[b'y'; 16_384])), LOST),
    ("a status line of 100 MB",              Peer::Http1(|| ever(b"HTTP/1.1 200 ", &[b'O'; 16_384])), LOST),
    ("100 MB of trailers over HTTP/1.1",     Peer::Http1(|| ever(&[CHUNKED, b"0\r\n"].concat(), "x: yyyyyyyyyyyyyy\r\n".repeat(1000).as_bytes())), LOST),
    ("a chunk's size of 100 MB",             Peer::Http1(|| ever(&[CHUNKED, b"1;"].concat(), &[b'y'; 16_384])), LOST),
    ("a chunk of 2^64 bytes",                Peer::Http1(|| once(&[CHUNKED, b"fffffffffffffffff\r\n"].concat())), LOST),
    ("two lengths",                          Peer::Http1(|| once(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxy")), LOST),
    ("an answer that is not HTTP",           Peer::Http1(|| once(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")),   LOST),
];

/// What HTTP/2 allows to be read and thrown away frame by frame: early hints, which are no part of an
/// answer, and data of an exchange that the proxy has left already.
const FORGOTTEN: [&str; 2] = ["100 MB of early hints", "data past every window"];

const CHUNKED: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: s2s/proto\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_speak_http2_is_sent_nothing() {
    let lite = Arc::new(Lite::start().await);
    join_all(GREETINGS.iter().map(|row| run(row, &lite))).await;
    assert!(lite.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_http_is_an_error_in_time_and_floods_are_not_read() {
    let lite = Arc::new(Lite::start().await);
    for row in ATTACKS {
        run(row, &lite).await;
    }
    assert!(lite.seen().is_empty());
}

async fn run((what, peer, outcome): &Row, lite: &Arc<Lite>) {
    let raw = Raw::start(*peer).await;
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::over(Arc::clone(lite), |config| {
        config.streams = vec![sealed()];
        raw.aim(config, dir.path());
    })
    .await;
    let batch = input([record(&[], "x")]);
    for (is_session, ask) in [
        (false, append("s", Encoding::Json, Packed::Not, &batch)),
        (true, append("s", Encoding::Frames, Packed::Not, &batch)),
        (false, read("s", "seq_num=0", Encoding::Proto)),
    ] {
        // A peer answers the first request of a connection: let each be one.
        stack.restart(|_| {}).await;
        let before = raw.pushed();
        let client = stack.h2().await;
        let answer = tokio::time::timeout(IN_TIME, client.try_ask(ask)).await;
        match answer.unwrap_or_else(|_| panic!("{what}: no answer in time")) {
            Ok(answer) => {
                let got = (answer.status, &*answer.code());
                assert_eq!(got, *outcome, "{what}: {}", answer.text());
            }
            // A session that had begun breaks off.
            Err(broken) => assert!(is_session, "{what}: {broken}"),
        }
        let (pushed, forgotten) = (raw.pushed() - before, FORGOTTEN.contains(what));
        assert!(pushed < BOUND || forgotten, "{what}: {pushed} bytes read");
    }
}

fn sealed() -> StreamRule {
    StreamRule {
        r#match: "test-basin/**".to_owned(),
        cipher: RuleCipher::Aegis256,
        key: KeySource::Header,
        key_file: Default::default(),
        header_overrides: false,
    }
}

fn once(bytes: &[u8]) -> Says {
    ever(bytes, &[])
}

fn ever(once: &[u8], for_ever: &[u8]) -> Says {
    Says {
        once: once.to_vec(),
        for_ever: for_ever.to_vec(),
    }
}

fn settings(id: u8, value: u32) -> Vec<u8> {
    h2(
        SETTINGS,
        0,
        0,
        &[&[0, id][..], &value.to_be_bytes()].concat(),
    )
}

/// Headers that others continue.
fn open(block: &[u8]) -> Vec<u8> {
    h2(HEADERS, 0, 1, block)
}

/// Headers that are the whole answer.
fn whole(block: &[u8]) -> Vec<u8> {
    h2(HEADERS, END_HEADERS | END_STREAM, 1, block)
}

/// Headers that a body follows.
fn closed(block: &[u8]) -> Vec<u8> {
    h2(HEADERS, END_HEADERS, 1, block)
}

fn more(block: &[u8]) -> Vec<u8> {
    h2(CONTINUATION, 0, 1, block)
}

fn header() -> Vec<u8> {
    literal("x", &"y".repeat(16_000))
}

fn s2s() -> Vec<u8> {
    [OK, &literal("content-type", "s2s/proto")].concat()
}

fn hints() -> Vec<u8> {
    let link = literal("link", &"y".repeat(15_000));
    closed(&[literal(":status", "103"), link].concat())
}

fn one_header() -> Says {
    // Its value is announced as 127 + 0x7ff_ffff bytes.
    let begins = [OK, b"\0\x01x\x7f\xff\xff\xff\x3f"].concat();
    ever(&open(&begins), &more(&[b'y'; 16_384]))
}

fn trailers() -> Says {
    let begins = [closed(&s2s()), h2(HEADERS, END_STREAM, 1, &header())].concat();
    ever(&begins, &more(&header()))
}

fn overflow() -> Vec<u8> {
    let most = 0x7fff_ffff_u32.to_be_bytes();
    h2(WINDOW_UPDATE, 0, 0, &most).repeat(2)
}
