//! A request gets at a sealed stream with that stream's key and no other, wherever the key comes from,
//! and no answer repeats what was sent as one.

use serde_json::json;
use streamseal::keys::Check;

use crate::harness::{
    self, Answer, Ask, Encoding, KEY, Packed, Stack, base64, input, record, records,
};

pub const SECRET: &str = "a body that nobody may see";
pub const OTHER: [u8; 32] = [7; 32];

pub fn append(stream: &str) -> Ask {
    let batch = json!({ "records": [{ "body": SECRET }] });
    Ask::post(records(stream)).json(&batch)
}

pub fn read(stream: &str) -> Ask {
    Ask::get(records(stream) + "?seq_num=0")
}

/// Appends and reads in every form that a key matters to.
pub fn every_form(stream: &str) -> Vec<Ask> {
    vec![
        append(stream),
        Ask::post(records(stream)).body("s2s/proto", ""),
        read(stream),
        read(stream).header("accept", "text/event-stream"),
        read(stream).header("content-type", "s2s/proto"),
        Ask::new("HEAD", records(stream) + "?seq_num=0"),
    ]
}

/// Appends and reads that reached the upstream so far. The proxy's own questions for the tail are none.
pub fn moved(stack: &Stack) -> usize {
    let seen = stack.lite.seen();
    seen.iter()
        .filter(|seen| seen.line.contains("/records") && !seen.line.contains("/records/tail"))
        .count()
}

pub async fn sealed_stack(cipher: &str) -> Stack {
    let stack = Stack::start().await;
    stack.create_basin(Some(cipher)).await;
    let first = stack.h2().await.ask(append("s").key(&KEY)).await;
    assert_eq!(first.status, 200, "{}", first.text());
    stack
}

pub fn is(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    // The answer to HEAD has no body to tell a code in.
    assert!(
        answer.code() == code || answer.body.is_empty(),
        "{}",
        answer.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_keys_are_refused_by_name_and_never_repeated() {
    for cipher in ["aegis-256", "aes-256-gcm"] {
        let stack = sealed_stack(cipher).await;
        let (h1, h2) = (stack.h1().await, stack.h2().await);
        let before = moved(&stack);
        let whole = base64(&KEY);
        let unusable = [
            "",
            " ",
            "AAAA",
            "!!!! not base64 !!!!",
            &whole[..43],
            &whole[..40],
            &format!("{whole}A"),
            &whole.replace('=', ""),
            &"-".repeat(44),
            &base64(&[9; 31]),
            &base64(&[9; 33]),
        ];
        for (ask, key) in every_form("s")
            .iter()
            .flat_map(|ask| unusable.map(|key| (ask, key)))
        {
            for client in [&h1, &h2] {
                let answer = client
                    .ask(ask.clone().header("s2-encryption-key", key))
                    .await;
                is(&answer, 422, "invalid");
                let text = answer.text();
                assert!(
                    text.is_empty() || text.contains("s2-encryption-key"),
                    "{text}"
                );
                assert!(
                    key.trim().is_empty() || !text.contains(key.trim()),
                    "{text}"
                );
            }
        }
        for ask in every_form("s") {
            let answer = h2.ask(ask).await;
            is(&answer, 422, "invalid");
            let text = answer.text();
            assert!(text.is_empty() || text.contains(cipher) && text.contains("s2-encryption-key"));
        }
        assert_eq!(moved(&stack), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_the_streams_is_refused_before_anything_is_sent() {
    for cipher in ["aegis-256", "aes-256-gcm"] {
        let mut stack = sealed_stack(cipher).await;
        for _ in 0..2 {
            let before = moved(&stack);
            let client = stack.h2().await;
            for ask in every_form("s") {
                is(&client.ask(ask.key(&OTHER)).await, 400, "decryption_failed");
            }
            assert_eq!(moved(&stack), before);
            assert_eq!(client.ask(append("s").key(&KEY)).await.status, 200);
            stack.restart(|_| {}).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_opens_a_record_fixes_the_key_too() {
    let mut stack = sealed_stack("aegis-256").await;
    // Written under another key, before anybody checked.
    stack.restart(|config| config.keys.check = Check::Off).await;
    let client = stack.h2().await;
    assert_eq!(client.ask(append("t").key(&OTHER)).await.status, 200);
    stack
        .restart(|config| config.keys.check = Check::Enforce)
        .await;
    let client = stack.h2().await;
    is(
        &client.ask(read("t").key(&KEY)).await,
        400,
        "decryption_failed",
    );
    let opened = client.ask(read("t").key(&OTHER)).await;
    assert_eq!(opened.json()["records"][0]["body"], SECRET);
    let before = moved(&stack);
    is(
        &client.ask(append("t").key(&KEY)).await,
        400,
        "decryption_failed",
    );
    assert_eq!(moved(&stack), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_check_a_stream_takes_any_key_as_in_s2() {
    let mut stack = sealed_stack("aes-256-gcm").await;
    stack.restart(|config| config.keys.check = Check::Off).await;
    let client = stack.h2().await;
    assert_eq!(client.ask(append("s").key(&OTHER)).await.status, 200);
    for key in [KEY, OTHER] {
        is(
            &client.ask(read("s").key(&key)).await,
            400,
            "decryption_failed",
        );
    }
    let first = client
        .ask(Ask::get(records("s") + "?seq_num=0&count=1").key(&KEY))
        .await;
    assert_eq!(first.json()["records"][0]["body"], SECRET);
    let second = client
        .ask(Ask::get(records("s") + "?seq_num=1").key(&OTHER))
        .await;
    assert_eq!(second.json()["records"][0]["body"], SECRET);
    assert!(!stack.tap.saw(SECRET.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_key_headers_are_one_too_many() {
    let stack = sealed_stack("aegis-256").await;
    let first = stack.h2().await.ask(append("s").key(&KEY)).await;
    assert_eq!(first.status, 200, "{}", first.text());
    for client in [stack.h1().await, stack.h2().await] {
        for ask in [append("s"), read("s")] {
            for keys in [[KEY, KEY], [KEY, OTHER], [OTHER, KEY]] {
                let both = ask.clone().key(&keys[0]).key(&keys[1]);
                is(&client.ask(both).await, 422, "invalid");
            }
            let answer = client
                .ask(ask.header("s2-encryption-key", "").key(&KEY))
                .await;
            is(&answer, 422, "invalid");
        }
        let spaced = format!(" \t{}\t ", base64(&KEY));
        let answer = client
            .ask(read("s").header("S2-Encryption-Key", spaced))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let keys = [KEY, OTHER].map(|key| base64(&key));
    for seen in stack.lite.seen() {
        let all = format!("{seen:?}");
        assert!(!all.contains("encryption-key"), "{all}");
        assert!(!keys.iter().any(|key| all.contains(key)), "{all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_alone_say_nothing_of_the_key() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    let fence = input([record(&[(b"", b"fence")], "")]);
    for encoding in [Encoding::Proto, Encoding::Frames] {
        let stream = format!("{encoding:?}");
        let fenced = client
            .ask(harness::append(&stream, encoding, Packed::Not, &fence))
            .await;
        harness::ack(encoding, &fenced);
        is(&client.ask(append(&stream).key(&OTHER)).await, 200, "");
        let refused = client.ask(append(&stream).key(&KEY)).await;
        is(&refused, 400, "decryption_failed");
    }
}
