//! Failures are counted by their reason, once each, and as nobody else's.

use bytes::{BufMut as _, BytesMut};
use s2_api::v1::stream::{
    proto::AppendRecord,
    s2s::{SessionMessage, TerminalMessage},
};
use serde_json::json;
use streamseal::{
    crypto::{Cipher, Key, StreamCipher, Text},
    stream::StreamId,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::{
    Act, Ask, BASIN, CIPHERS, Encoding, Fake, KEY, Live, Packed, Stack, append, base64, frame,
    input, read, record, records, seal, sealed_batch, until,
};

fn raw(body: impl Into<bytes::Bytes>) -> AppendRecord {
    record(&[], body)
}

/// Something sealed with the right key that is no record.
fn sealed_nonsense(cipher: Cipher, stream: &str) -> AppendRecord {
    let id = StreamId::new(&BASIN.parse().unwrap(), &stream.parse().unwrap());
    let cipher = StreamCipher::new(cipher, &Key::from_bytes(KEY), id);
    let sealed = cipher.seal(Text::Encoded, &mut BytesMut::new(), |out| out.put_u8(0xff));
    raw(sealed.unwrap().as_bytes().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_do_not_open_are_counted_by_reason() {
    for (cipher, name) in Cipher::ALL.into_iter().zip(CIPHERS) {
        assert_eq!(cipher.as_str(), name);
        let stack = Stack::start().await;
        stack.create_basin(Some(name)).await;
        let client = stack.h2().await;
        for reason in [
            "truncated",
            "format",
            "authentication",
            "headers_in_clear",
            "malformed",
        ] {
            let batch = input([raw("good")]);
            let first = append(reason, Encoding::Proto, Packed::Not, &batch);
            assert_eq!(client.ask(first).await.status, 200);
            let mut good = seal(name, KEY, reason, &raw("more")).body.to_vec();
            let last = good.len() - 1;
            let bad = match reason {
                "truncated" => raw(good[..9].to_vec()),
                "format" => raw("a plain body"),
                "authentication" => {
                    good[last] ^= 1;
                    raw(good)
                }
                "headers_in_clear" => record(&[(b"a", b"b")], good),
                _ => sealed_nonsense(cipher, reason),
            };
            stack.store(reason, [bad]).await;
            let before = stack.counts();
            for encoding in [Encoding::Json, Encoding::Events, Encoding::Frames] {
                client
                    .ask(read(reason, "seq_num=1&count=1", encoding))
                    .await;
            }
            let code = "decryption_failed";
            let request = |operation: &str, encoding: &str| {
                format!(
                    r#"requests_total{{code="{code}",encoding="{encoding}",operation="{operation}"}}"#
                )
            };
            let families = [
                "decryption_failures_total",
                "requests_total",
                "opened_records_total",
                "key_errors_total",
                "upstream_errors_total",
            ];
            let by = [
                (
                    &*format!(r#"decryption_failures_total{{reason="{reason}"}}"#),
                    3.0,
                ),
                (&*request("read", "json"), 1.0),
                (&*request("read_session", "sse"), 1.0),
                (&*request("read_session", "s2s"), 1.0),
            ];
            stack.moved(&before, &families, &by).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_of_no_use_are_counted_by_reason() {
    let stack = Stack::with_one_record().await;
    let batch = input([raw("never stored")]);
    for client in [stack.h1().await, stack.h2().await] {
        for (reason, values) in [
            ("missing", vec![]),
            ("several", vec![base64(&KEY), base64(&KEY)]),
            ("invalid", vec!["-".repeat(44)]),
            ("malformed", vec![String::new()]),
            ("wrong_key", vec![base64(&[9; 32])]),
        ] {
            let before = stack.counts();
            for ask in [
                append("s", Encoding::Json, Packed::Not, &batch),
                append("s", Encoding::Frames, Packed::Not, &batch),
                read("s", "seq_num=0", Encoding::Proto),
                read("s", "seq_num=0", Encoding::Events),
            ] {
                let ask = ask.without("s2-encryption-key");
                let ask = values
                    .iter()
                    .fold(ask, |ask, value| ask.header("s2-encryption-key", value));
                client.ask(ask).await;
            }
            let series = format!(r#"key_errors_total{{reason="{reason}"}}"#);
            let families = ["key_errors_total", "decryption_failures_total"];
            stack.moved(&before, &families, &[(&series, 4.0)]).await;
        }
    }
}

fn session(operation: &str, encoding: &str, code: &str) -> String {
    format!(r#"requests_total{{code="{code}",encoding="{encoding}",operation="{operation}"}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_lost_is_counted_for_each_exchange() {
    let stack = Stack::with_one_record().await;
    let before = stack.counts();
    let (h1, h2) = (stack.h1().await, stack.h2().await);
    let mut lives = Vec::new();
    for client in [&h1, &h2] {
        let mut live = Live::new(client.open(read("s", "seq_num=0", Encoding::Events)).await);
        live.event().await.unwrap().unwrap();
        lives.push(live);
    }
    let mut appends = stack.append_session().await;
    appends.send(frame(&input([raw("acked")]))).await;
    appends.live.frame().await.unwrap().unwrap().ack();
    stack.tap.cut();
    appends.live.frame().await.unwrap_err();
    // Reads go on, and end when their clients leave.
    for mut live in lives {
        while !live.event().await.unwrap().unwrap().contains("acked") {}
    }
    let families = ["upstream_errors_total", "requests_total"];
    let by = [
        (r#"upstream_errors_total{kind="lost"}"#, 3.0),
        (&*session("read_session", "sse", "ok"), 2.0),
        (&*session("append_session", "s2s", "broken_off"), 1.0),
    ];
    stack.moved(&before, &families, &by).await;
    stack.tap.cut();
    until("the connection is no longer counted", async || {
        stack.counts().only(&["upstream_connections"]).sum() == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_and_what_the_upstream_says_is_told_apart() {
    let stack = Stack::with_one_record().await;
    let families = ["upstream_errors_total", "requests_total"];
    // The client breaks its append session off, or dies in it.
    for dies in [false, true] {
        let before = stack.counts();
        let client = stack.h2().await;
        let ask = Ask::post(records("s")).key(&KEY);
        let mut session_of = crate::harness::Session::append(&client, ask).await;
        session_of.send(frame(&input([raw("acked")]))).await;
        session_of.live.frame().await.unwrap().unwrap().ack();
        if dies {
            client.vanish();
        } else {
            session_of.break_off().await;
        }
        let series = session("append_session", "s2s", "client_left");
        stack.moved(&before, &families, &[(&series, 1.0)]).await;
    }
    // It leaves before there is an answer.
    let before = stack.counts();
    let player = stack.lite.play(&records("s"));
    let client = stack.h2().await;
    let poll = client.ask(read("s", "seq_num=1&wait=60", Encoding::Json));
    let arrived = until("the poll arrives", async || {
        stack.lite.last("GET").unwrap().line.contains("wait=60")
    });
    tokio::select! {
        _ = poll => panic!("answered"),
        () = arrived => {}
    }
    player.left().await;
    let series = session("read", "json", "client_left");
    stack.moved(&before, &families, &[(&series, 1.0)]).await;
    // The upstream ends sessions with an error of its own.
    let terminal = SessionMessage::from(TerminalMessage {
        status: 503,
        body: r#"{"code":"server_draining"}"#.to_owned(),
    });
    let before = stack.counts();
    for encoding in [Encoding::Json, Encoding::Events, Encoding::Frames] {
        let player = stack.lite.play(&records("s"));
        player.play(terminal.encode()).await;
        drop(player);
        stack.h2().await.ask(read("s", "seq_num=0", encoding)).await;
    }
    let by = [
        (&*session("read", "json", "503"), 1.0),
        (&*session("read_session", "sse", "503"), 1.0),
        (&*session("read_session", "s2s", "503"), 1.0),
    ];
    stack.moved(&before, &families, &by).await;
    // An answer breaks off in the middle, and is read again.
    let before = stack.counts();
    let player = stack.lite.play(&records("s"));
    let client = stack.h2().await;
    let (answer, ()) = tokio::join!(client.ask(read("s", "seq_num=0", Encoding::Json)), async {
        player.play(frame(&sealed_batch("half an answer"))).await;
        player.break_off().await;
    });
    assert_eq!(answer.status, 200);
    let by = [
        (r#"upstream_errors_total{kind="lost"}"#, 1.0),
        (&*session("read", "json", "ok"), 1.0),
    ];
    stack.moved(&before, &families, &by).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_wrong_with_the_upstream_is_counted_by_kind() {
    let lite = std::sync::Arc::new(crate::harness::Lite::start().await);
    let fake = Fake::start(lite.address).await;
    let stack = Stack::over(lite, |config| fake.aim(config)).await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    let families = ["upstream_errors_total", "requests_total"];
    for (act, kind, code) in [
        // A read is sent once more.
        (Act::Drop, Some(("lost", 2.0)), "other"),
        (
            Act::Answer(302, String::new()),
            Some(("redirect", 1.0)),
            "other",
        ),
        (Act::Answer(404, "{}".to_owned()), None, "404"),
        (Act::Answer(503, "{}".to_owned()), None, "503"),
    ] {
        let before = stack.counts();
        fake.script(move |_| act.clone());
        let ask = read("s", "seq_num=0", Encoding::Json).without("s2-encryption-key");
        client.ask(ask).await;
        let kind =
            kind.map(|(kind, count)| (format!(r#"upstream_errors_total{{kind="{kind}"}}"#), count));
        let request = session("read", "json", code);
        let mut by = vec![(&*request, 1.0)];
        by.extend(kind.as_ref().map(|(kind, count)| (&**kind, *count)));
        stack.moved(&before, &families, &by).await;
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let stack = Stack::with(|config| {
        config.upstream.account_endpoint = endpoint.clone();
        config.upstream.basin_endpoint = endpoint;
    })
    .await;
    let before = stack.counts();
    let answer = stack.h2().await.ask(Ask::get("/v1/streams/s")).await;
    assert_eq!(answer.status, 502);
    let by = [
        (r#"upstream_errors_total{kind="connect"}"#, 1.0),
        (&*session("forward", "other", "hot_server"), 1.0),
    ];
    stack.moved(&before, &families, &by).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_fail_are_counted_and_leave_no_connection() {
    let quick = std::time::Duration::from_millis(200);
    let stack = Stack::with(|config| config.limits.handshake_timeout = quick).await;
    let families = ["handshake_failures_total", "connections_accepted_total"];
    for (reason, said) in [("tls", &b"GET / HTTP/1.1\r\n\r\n"[..]), ("timeout", b"")] {
        let before = stack.counts();
        let mut tcp = TcpStream::connect(stack.address).await.unwrap();
        tcp.write_all(said).await.unwrap();
        let _closed = tcp.read_to_end(&mut Vec::new()).await;
        let series = format!(r#"handshake_failures_total{{reason="{reason}"}}"#);
        let by = [("connections_accepted_total", 1.0), (&*series, 1.0)];
        stack.moved(&before, &families, &by).await;
        until("no connection is left", async || {
            stack.counts().of("connections") == 0.0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_weighed_and_its_failures_are_counted() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    let batch = input([raw("x")]);
    let fresh = |stream: &str| append(stream, Encoding::Json, Packed::Not, &batch);
    for stream in ["a", "b", "c"] {
        assert_eq!(client.ask(fresh(stream)).await.status, 200);
    }
    let counts = stack.counts();
    assert_eq!(counts.of(r#"store_entries{kind="basin"}"#), 1.0);
    assert_eq!(counts.of(r#"store_entries{kind="stream"}"#), 3.0);
    let path = stack.config.store.path.clone();
    let size = std::fs::metadata(&path).unwrap().len();
    assert_eq!(counts.of("store_size_bytes"), size as f64);
    let committed = r#"store_operations_total{operation="commit",outcome="ok"}"#;
    assert!(counts.of(committed) >= 4.0, "{counts:?}");

    std::fs::rename(&path, path.with_file_name("away")).unwrap();
    let before = stack.counts();
    assert_eq!(client.ask(fresh("d")).await.status, 502);
    let by = [
        (
            r#"store_operations_total{operation="stream",outcome="error"}"#,
            1.0,
        ),
        (
            r#"store_operation_duration_seconds_count{operation="stream"}"#,
            1.0,
        ),
    ];
    let families = [
        "store_operations_total",
        "store_operation_duration_seconds_count",
    ];
    stack.moved(&before, &families, &by).await;
    let delete = Ask::new("DELETE", "/v1/streams/a").json(&json!({}));
    assert_eq!(client.ask(delete).await.status, 502);
    let failed = r#"store_operations_total{operation="commit",outcome="error"}"#;
    assert_eq!(stack.counts().of(failed), 1.0);
}
