//! A client that means harm gets an error or waits; other clients do not notice.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use http::{Request, Uri};
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::{
    Ask, BASIN, Client, DEADLINE, Encoding, Frame, KEY, Packed, SETTINGS, Stack, append, contains,
    gzip, http2_frame, input, read, record, records, until, zstd,
};

/// Longest time for what another client asks meanwhile.
const UNAFFECTED: Duration = Duration::from_secs(5);

/// A deployment without TLS, for writing bytes by hand. A connection without a request is cut off after
/// `header_timeout`.
pub async fn plaintext(header_timeout: Duration) -> Stack {
    let stack = Stack::with(|config| {
        config.listen.plaintext = true;
        config.listen.tls = Default::default();
        config.limits.header_timeout = header_timeout;
    })
    .await;
    let client = Client::plain(stack.address).await;
    let config =
        serde_json::json!({ "stream_cipher": "aegis-256", "create_stream_on_append": true });
    let basin = serde_json::json!({ "basin": BASIN, "config": config });
    let made = client.ask(Ask::post("/v1/basins").json(&basin)).await;
    assert_eq!(made.status, 201);
    works(&stack).await;
    stack
}

/// Another client, on a connection of its own, appends and reads in time.
pub async fn works(stack: &Stack) {
    let work = async {
        let client = Client::plain(stack.address).await;
        let batch = input([record(&[], "from another client")]);
        let appended = client
            .ask(append("s", Encoding::Json, Packed::Not, &batch))
            .await;
        assert_eq!(appended.status, 200, "{}", appended.text());
        let got = client
            .ask(read("s", "seq_num=0&count=1", Encoding::Json))
            .await;
        assert_eq!(got.status, 200, "{}", got.text());
    };
    let worked = tokio::time::timeout(UNAFFECTED, work).await;
    worked.expect("another client had to wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_in_frames_are_refused() {
    let stack = Stack::with_one_record().await;
    let bomb = vec![b' '; 64 << 20];
    for (flag, packed) in [(0x40, gzip(&bomb)), (0x20, zstd(&bomb))] {
        let length = u32::try_from(packed.len() + 1).unwrap().to_be_bytes();
        let frame = [&length[1..], &[flag], &packed].concat();
        let ask = Ask::post(records("s")).key(&KEY).body("s2s/proto", frame);
        let answer = stack.h2().await.ask(ask).await;
        let end = Frame::take(&mut BytesMut::from(&answer.body[..])).unwrap();
        assert_eq!(end.failure(), (400, "bad_frame".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_bodies_are_left_at_the_limit() {
    let stack = plaintext(DEADLINE).await;
    for (kind, code) in [
        ("application/json", "bad_json"),
        ("application/protobuf", "bad_proto"),
    ] {
        let (sender, body) = crate::harness::channel();
        let ask = Ask::post(records("s"))
            .key(&KEY)
            .header("content-type", kind);
        let client = Client::plain(stack.address).await;
        let sending = async {
            let mut sent = 0;
            let chunk = Bytes::from(vec![b' '; 64 * 1024]);
            while sender.send(Ok(chunk.clone())).await.is_ok() {
                sent += chunk.len();
            }
            sent
        };
        let (answer, sent) = tokio::join!(client.send(ask, body), sending);
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 400);
        let body = http_body_util::BodyExt::collect(answer.into_body()).await;
        let body = body.unwrap().to_bytes();
        assert!(contains(&body, code.as_bytes()));
        assert!(sent < 16 << 20, "{sent} bytes taken");
    }
    works(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_are_cut_off() {
    let stack = plaintext(Duration::from_secs(2)).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let starts: [&[u8]; 4] = [
        b"",
        b"GET /v1/streams HTTP/1.1\r\nhost:",
        preface,
        &[preface, &http2_frame(SETTINGS, 0, 0, &[])[..]].concat(),
    ];
    let cut = starts.map(|start| {
        let address = stack.address;
        let start = start.to_vec();
        async move {
            let mut io = TcpStream::connect(address).await.unwrap();
            io.write_all(&start).await.unwrap();
            let mut rest = Vec::new();
            let closed = tokio::time::timeout(DEADLINE, io.read_to_end(&mut rest)).await;
            let _reset = closed.expect("the connection stays open");
        }
    });
    tokio::join!(join_all(cut), works(&stack));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_connections_of_idle_requests_hold_nobody_up() {
    let stack = plaintext(DEADLINE).await;
    let idle = (0..100).map(|_| async {
        let io = TcpStream::connect(stack.address).await.unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .unwrap();
        tokio::spawn(connection);
        let mut reads = Vec::new();
        for _ in 0..10 {
            let uri: Uri = format!("http://localhost{}?seq_num=0&wait=60", records("s"))
                .parse()
                .unwrap();
            let request = Request::get(uri)
                .header("s2-basin", BASIN)
                .header("accept", "text/event-stream")
                .header("s2-encryption-key", crate::harness::base64(&KEY))
                .body(Empty::<Bytes>::new())
                .unwrap();
            reads.push(sender.clone().send_request(request).await.unwrap());
        }
        (sender, reads)
    });
    let held = join_all(idle).await;
    assert!(
        held.iter()
            .flat_map(|held| &held.1)
            .all(|read| read.status() == 200)
    );
    works(&stack).await;
    drop(held);
    until("the reads are gone", async || {
        stack.lite.seen().iter().all(|seen| seen.end.is_some())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_to_anything_of_the_proxys_own() {
    let stack = Stack::with_one_record().await;
    for path in [
        "/admin",
        "/admin/",
        "/admin/config",
        "/debug/pprof",
        "/config",
        "/keys",
        "/store",
        "/status",
        "/ready",
        "/livez",
        "/v1/admin",
        "/_streamseal",
        "/.well-known/streamseal",
        "/api/apikeys",
        "/metrics",
    ] {
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let ask = Ask::new(method, path).key(&KEY);
            let answer = stack.h2().await.ask(ask).await;
            assert_eq!(
                (answer.status, answer.body.len()),
                (404, 0),
                "{method} {path}"
            );
        }
    }
    let before = stack.lite.seen().len();
    stack.h2().await.ask(Ask::get("/health")).await;
    let seen = stack.lite.seen().split_off(before);
    assert_eq!(seen.len(), 1, "/health is not the upstream's");
}
