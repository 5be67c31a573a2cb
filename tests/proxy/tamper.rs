//! A record that is not exactly what was sealed for its stream is refused. A session delivers what precedes it.

use bytes::Bytes;
use s2_api::v1::stream::proto::{AppendRecord, ReadBatch, SequencedRecord};

use crate::harness::{
    Answer, CIPHERS, Client, Encoding, End, Frame, KEY, Live, Packed, Stack, ack, append, contains,
    delivered, input, leaks, read, record, records, seal,
};

/// In the batch before the bad one, which is delivered.
const BEFORE: &str = "a record that was delivered before";
/// In the bad batch, before the bad record: sessions deliver it.
const AHEAD: &[u8] = b"a good record ahead of the bad one";
/// In the bad batch, behind and in the bad record: never delivered.
const BEHIND: &[u8] = b"a good record behind the bad one";
const BAD: &[u8] = b"what stands in the bad record";

/// Every way to spoil a record of stream `stream`.
fn spoiled(cipher: &str, stream: &str) -> Vec<(&'static str, AppendRecord)> {
    let clear = record(&[(b"name", b"value")], BAD);
    let sealed = seal(cipher, KEY, stream, &clear).body;
    let mut with_headers = raw(sealed.clone());
    with_headers.headers = clear.headers.clone();
    let other = CIPHERS.into_iter().find(|other| *other != cipher).unwrap();
    let mut spoiled = vec![
        ("last byte gone", raw(sealed.slice(..sealed.len() - 1))),
        ("all but the head gone", raw(sealed.slice(..10))),
        ("a byte more", raw([&sealed, &b"x"[..]].concat())),
        (
            "moved from another stream",
            seal(cipher, KEY, "another", &clear),
        ),
        (
            "sealed with another key",
            seal(cipher, [9; 32], stream, &clear),
        ),
        (
            "sealed with the other cipher",
            seal(other, KEY, stream, &clear),
        ),
        ("headers in clear", with_headers),
        ("plain record", clear),
        ("plain body", raw(BAD)),
        ("empty body", raw("")),
    ];
    let end = sealed.len() - 1;
    let flips = [
        ("bit flipped in the nonce", 1, 1),
        ("bit flipped in the ciphertext", end - 20, 0x80),
        ("bit flipped in the tag", end, 1),
        ("the other cipher's id", 0, 0b11),
        ("unknown id 0", 0, sealed[0]),
        ("unknown id 3", 0, sealed[0] ^ 3),
        ("unknown id 255", 0, !sealed[0]),
    ];
    for (what, at, bits) in flips {
        let mut body = sealed.to_vec();
        body[at] ^= bits;
        spoiled.push((what, raw(body)));
    }
    spoiled
}

fn raw(body: impl Into<Bytes>) -> AppendRecord {
    record(&[], body)
}

/// A stream with one good batch, made through the proxy.
async fn good_stream(stack: &Stack, stream: &str) {
    let batch = input([record(&[], BEFORE)]);
    let answer = stack
        .h2()
        .await
        .ask(append(stream, Encoding::Proto, Packed::Not, &batch))
        .await;
    ack(Encoding::Proto, &answer);
}

/// A batch with a good record on each side of a bad one.
fn bad_batch(cipher: &str, stream: &str, bad: AppendRecord) -> [AppendRecord; 3] {
    let good = |body| seal(cipher, KEY, stream, &record(&[], body));
    [good(AHEAD), bad, good(BEHIND)]
}

fn clean_of_the_bad_record(what: &str, bytes: &[u8]) {
    assert!(!contains(bytes, BEHIND), "{what}");
    assert!(!contains(bytes, BAD), "{what}");
    let base64 = leaks(bytes, BEHIND) || leaks(bytes, BAD);
    assert!(!base64, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoiled_record_fails_every_read() {
    for cipher in CIPHERS {
        let stack = Stack::start().await;
        stack.create_basin(Some(cipher)).await;
        let client = stack.h2().await;
        for at in 0..spoiled(cipher, "").len() {
            let stream = at.to_string();
            let (what, bad) = spoiled(cipher, &stream).swap_remove(at);
            good_stream(&stack, &stream).await;
            stack.store(&stream, bad_batch(cipher, &stream, bad)).await;
            for encoding in Encoding::READS {
                let what = format!("{what}, {cipher}, {encoding:?}");
                let ask = read(&stream, "seq_num=1&count=3", encoding);
                let answer = client.ask(ask).await;
                assert_refused(&what, encoding, &answer);
                clean_of_the_bad_record(&what, &answer.body);
            }
            let good = client
                .ask(read(&stream, "seq_num=0&count=1", Encoding::Json))
                .await;
            assert_eq!(good.json()["records"][0]["body"], BEFORE);
        }
    }
}

/// A session delivered the record ahead of the bad one, and a whole answer nothing. The error names the bad
/// record, as this encoding has it: server-sent events carry no status, the others 400.
fn assert_refused(what: &str, encoding: Encoding, answer: &Answer) {
    let (got, code) = (delivered(encoding, answer), "decryption_failed".to_owned());
    let (status, content_type) = match encoding {
        Encoding::Events | Encoding::EventsBase64 => (0, "text/event-stream"),
        Encoding::Frames => (400, "s2s/proto"),
        Encoding::Json | Encoding::Base64 | Encoding::Proto => (400, "application/json"),
    };
    assert_eq!(got.end, End::Failed { status, code }, "{what}");
    let is_session = answer.status == 200;
    let bodies: Vec<_> = got
        .records()
        .iter()
        .map(|record| record.body.clone())
        .collect();
    assert_eq!(bodies, vec![AHEAD; usize::from(is_session)], "{what}");
    assert!(
        answer.text().contains("at seq_num 2\""),
        "{what}: {}",
        answer.text()
    );
    assert_eq!(answer.header("content-type"), Some(content_type), "{what}");
}

/// Sessions over both protocols that were given the good batch, and now follow.
async fn followers(h1: &Client, h2: &Client, stream: &str) -> (Live, Live) {
    let open = async |client: &Client, encoding| {
        Live::new(client.open(read(stream, "seq_num=0", encoding)).await)
    };
    let mut frames = open(h2, Encoding::Frames).await;
    let mut events = open(h1, Encoding::Events).await;
    let first = frames.frame().await.unwrap().unwrap().batch();
    assert_eq!(first.records[0].body, BEFORE);
    let first = events.event().await.unwrap().unwrap();
    assert!(first.starts_with("event: batch\n") && first.contains(BEFORE));
    // Following now: what comes next is a batch of its own.
    let heartbeat = frames.frame().await.unwrap().unwrap().batch();
    assert!(heartbeat.records.is_empty());
    let ping = events.event().await.unwrap().unwrap();
    assert!(ping.starts_with("event: ping\n"));
    (frames, events)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_delivers_what_precedes_the_bad_record_only() {
    for cipher in CIPHERS {
        let stack = Stack::start().await;
        stack.create_basin(Some(cipher)).await;
        let (h1, h2) = (stack.h1().await, stack.h2().await);
        for at in 0..spoiled(cipher, "").len() {
            let stream = at.to_string();
            let (what, bad) = spoiled(cipher, &stream).swap_remove(at);
            good_stream(&stack, &stream).await;
            let (mut frames, mut events) = followers(&h1, &h2, &stream).await;
            stack.store(&stream, bad_batch(cipher, &stream, bad)).await;

            let ahead = frames.frame().await.unwrap().unwrap().batch();
            let ahead: Vec<_> = ahead.records.iter().map(|record| &record.body).collect();
            assert_eq!(ahead, [AHEAD], "{what}");
            let end = frames.frame().await.unwrap().unwrap().failure();
            assert_eq!(end, (400, "decryption_failed".to_owned()), "{what}");
            assert_eq!(frames.frame().await.unwrap(), None, "{what}");
            clean_of_the_bad_record(what, &frames.received);
            let ahead = events.event().await.unwrap().unwrap();
            assert!(ahead.starts_with("event: batch\n"), "{ahead}");
            let end = events.event().await.unwrap().unwrap();
            let error = "event: error\ndata: {\"code\":\"decryption_failed\"";
            assert!(end.starts_with(error), "{end}");
            assert_eq!(events.event().await.unwrap(), None, "{what}");
            clean_of_the_bad_record(what, &events.received);
        }
    }
}

/// A batch as the upstream would send it.
fn forged(stored: impl IntoIterator<Item = AppendRecord>) -> Bytes {
    let record = |(stored, seq_num): (AppendRecord, u64)| SequencedRecord {
        seq_num,
        timestamp: 1,
        headers: stored.headers,
        body: stored.body,
    };
    let batch = ReadBatch {
        records: stored.into_iter().zip(0..).map(record).collect(),
        tail: None,
    };
    Frame::encode(s2_api::v1::stream::s2s::CompressionAlgorithm::None, &batch)
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_from_upstream_never_looks_like_records() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    good_stream(&stack, "s").await;
    let client = stack.h2().await;
    let cut = forged([seal("aegis-256", KEY, "s", &record(&[], BAD))]);
    let garbage = [
        ("half a frame", cut.slice(..cut.len() / 2)),
        (
            "no protobuf",
            Bytes::from_static(b"\0\0\x06\0\xff\xff\xff\xff\xff"),
        ),
        (
            "no frame",
            Bytes::from_static(b"\xff\xff\xff\0HTTP/1.1 200 OK"),
        ),
        ("compression 3", Bytes::from_static(b"\0\0\x02\x60x")),
    ];
    for (what, bytes) in garbage {
        for encoding in Encoding::READS {
            let player = stack.lite.play(&records("s"));
            let (answer, ()) = tokio::join!(
                client.ask(read("s", "seq_num=0&count=1", encoding)),
                async {
                    player.play(bytes.clone()).await;
                    drop(player);
                }
            );
            let got = delivered(encoding, &answer);
            assert!(
                matches!(got.end, End::Failed { .. }),
                "{what} {encoding:?}: {got:?}"
            );
            assert_eq!(got.batches, []);
            clean_of_the_bad_record(what, &answer.body);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_batch_is_refused() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aes-256-gcm")).await;
    good_stream(&stack, "s").await;
    let mut forgeries = spoiled("aes-256-gcm", "s");
    // What only a forger can serve, for S2 itself refuses to store it.
    forgeries.extend([
        ("an unknown command", record(&[(b"", b"explode")], BAD)),
        ("a spoiled command", record(&[(b"", b"trim")], BAD)),
        (
            "a command and a header",
            record(&[(b"", b"fence"), (b"x", b"")], BAD),
        ),
    ]);
    for (what, bad) in forgeries {
        for encoding in [Encoding::Json, Encoding::Events, Encoding::Frames] {
            let player = stack.lite.play(&records("s"));
            player
                .play(forged([
                    bad.clone(),
                    seal("aes-256-gcm", KEY, "s", &record(&[], BEHIND)),
                ]))
                .await;
            drop(player);
            let answer = stack
                .h1()
                .await
                .ask(read("s", "seq_num=0&count=2", encoding))
                .await;
            let got = delivered(encoding, &answer);
            assert!(
                matches!(got.end, End::Failed { .. }),
                "{what} {encoding:?}: {got:?}"
            );
            clean_of_the_bad_record(what, &answer.body);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_opens_nothing() {
    for cipher in CIPHERS {
        // Without the key check, so that the key meets the records themselves.
        let stack = Stack::with(|config| config.keys.check = streamseal::keys::Check::Off).await;
        stack.create_basin(Some(cipher)).await;
        good_stream(&stack, "s").await;
        for encoding in Encoding::READS {
            let ask = read("s", "seq_num=0&count=1", encoding).without("s2-encryption-key");
            let answer = stack.h2().await.ask(ask.key(&[1; 32])).await;
            let got = delivered(encoding, &answer);
            assert!(matches!(&got.end, End::Failed { code, .. } if code == "decryption_failed"));
            assert!(!contains(&answer.body, BEFORE.as_bytes()));
        }
    }
}
