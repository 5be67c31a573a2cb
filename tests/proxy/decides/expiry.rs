//! Streams that S2 removes by itself, and that come back: another incarnation, with another key if the client
//! likes, but sealed; and nothing of the former is lost if it was not true.

use serde_json::{Value, json};

use super::{
    CLEAR, OTHER, Served, append, bodies, body_of, cipher_of, create, ensure, is, keyed, keyed_by,
    lies,
    lies::{Asked, NOT_YET, Question},
    never_plain, outcome, read, sealed_stream, set_cipher,
};
use crate::harness::{Answer, Ask, Client, KEY, Stack, ask_until, delete, purged};

/// Removes stream `s` past the proxy, as S2 removes what is empty or too old.
async fn remove(stack: &Stack) {
    let direct = stack.direct().await;
    delete(&direct, "/v1/streams/s").await;
    purged(&direct, "/v1/streams/s").await;
}

/// Makes stream `s` again through the proxy.
async fn make_again(client: &Client, again: Ask) {
    ask_until(client, again, |answer| answer.status == 201).await;
}

/// The only record of stream `s` opens with the second key, and the first is refused.
async fn has_second_key(stack: &Stack) {
    let client = stack.h2().await;
    let opened = client.ask(read("s").key(&OTHER)).await;
    assert_eq!(bodies(&opened), [body_of("s", &OTHER)]);
    is(&client, keyed("s"), 400, "decryption_failed").await;
    is(&client, append("s", CLEAR), 422, "invalid").await;
    never_plain(&stack.tap, "another incarnation");
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_that_comes_back_takes_another_key() {
    for again in [create("s"), ensure("s")] {
        let mut stack = sealed_stream().await;
        remove(&stack).await;
        let client = stack.h2().await;
        make_again(&client, again).await;
        is(&client, keyed_by("s", &OTHER), 200, "").await;
        drop(client);
        for _ in 0..2 {
            has_second_key(&stack).await;
            stack.restart(|_| {}).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_that_comes_back_on_first_use_takes_another_key() {
    let stack = sealed_stream().await;
    remove(&stack).await;
    let client = stack.h2().await;
    let made = |answer: &Answer| answer.status == 200;
    ask_until(&client, keyed_by("s", &OTHER), made).await;
    has_second_key(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_that_comes_back_has_its_basins_present_cipher() {
    for (cipher, expected) in [
        (json!("aes-256-gcm"), "aes-256-gcm"),
        (Value::Null, "aegis-256"),
    ] {
        let stack = sealed_stream().await;
        let client = stack.h2().await;
        set_cipher(&client, cipher).await;
        remove(&stack).await;
        make_again(&client, ensure("s")).await;
        assert_eq!(cipher_of(&client, "s").await, expected);
        is(&client, keyed_by("s", &OTHER), 200, "").await;
        has_second_key(&stack).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_that_comes_back_is_logged() {
    let served = Served::start(json!({})).await;
    served.create_basin(Some("aegis-256")).await;
    let client = served.client().await;
    is(&client, keyed("s"), 200, "").await;
    let direct = Client::plain(served.lite.address).await;
    delete(&direct, "/v1/streams/s").await;
    purged(&direct, "/v1/streams/s").await;
    make_again(&client, create("s")).await;
    let logged = served.logged(&["INFO", "WARN"], &["incarnation"]);
    assert!(logged >= 1, "{}", served.program.log());
    is(&client, keyed_by("s", &OTHER), 200, "").await;
}

/// Lies that stream `s` is another one now, and empty: to every question that can tell.
fn claim_another(stack: &Stack, status: u16, result: &'static str) {
    stack.lite.lie(move |seen| {
        let asked = Asked::of(seen)?;
        let another = lies::stream("s", NOT_YET);
        match asked.question {
            Question::Create | Question::Ensure => Some(lies::provisions(status, &another, result)),
            Question::List => Some(lies::lists(&[another])),
            Question::Tail => Some(lies::tail(0)),
            Question::Append => Some(lies::acks(&asked, 0)),
            _ => None,
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn incarnation_that_is_only_claimed_loses_nothing() {
    for (status, result) in [(201, "created"), (200, "noop")] {
        for uses_other_key in [false, true] {
            let mut stack = sealed_stream().await;
            let client = stack.h2().await;
            // A new stream would get another cipher now.
            set_cipher(&client, json!("aes-256-gcm")).await;
            claim_another(&stack, status, result);
            is(&client, ensure("s"), status, "").await;
            if uses_other_key {
                let answer = client.ask(keyed_by("s", &OTHER)).await;
                assert!(answer.status == 200 || answer.status >= 400);
            }
            is(&client, append("s", CLEAR), 422, "invalid").await;
            stack.lite.be_honest();
            drop(client);
            for _ in 0..2 {
                let client = stack.h2().await;
                let opened = client.ask(read("s").key(&KEY)).await;
                let why = format!("{result}, {uses_other_key}: {}", opened.text());
                assert_eq!(opened.status, 200, "{why}");
                assert_eq!(bodies(&opened), [body_of("s", &KEY)], "{why}");
                never_plain(&stack.tap, &why);
                drop(client);
                stack.restart(|_| {}).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_creation_time_with_records_changes_nothing() {
    let stack = sealed_stream().await;
    let client = stack.h2().await;
    set_cipher(&client, json!("aes-256-gcm")).await;
    for (status, result) in [(201, "created"), (200, "noop"), (200, "updated")] {
        for by in [create("s"), ensure("s")] {
            stack.lite.lie(move |seen| {
                let another = lies::stream("s", NOT_YET);
                match Asked::of(seen)?.question {
                    Question::Create | Question::Ensure => {
                        Some(lies::provisions(status, &another, result))
                    }
                    Question::List => Some(lies::lists(&[another])),
                    _ => None,
                }
            });
            client.ask(by).await;
            for is_honest in [false, true] {
                let other = client.ask(keyed_by("s", &OTHER)).await;
                let refused = (400, "decryption_failed".to_owned());
                assert_eq!(outcome(&other), refused, "{result}, {is_honest}");
                is(&client, keyed("s"), 200, "").await;
                stack.lite.be_honest();
            }
            assert_eq!(cipher_of(&client, "s").await, "aegis-256", "{result}");
        }
    }
    let opened = bodies(&client.ask(read("s").key(&KEY)).await);
    assert_eq!(opened, vec![body_of("s", &KEY); 13]);
    never_plain(&stack.tap, "another creation time");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_trust_only_a_deletion_lets_another_key_in() {
    for again in [create("s"), ensure("s")] {
        let mut stack = sealed_stream().await;
        stack
            .restart(|config| config.store.trust_expiry = false)
            .await;
        remove(&stack).await;
        let client = stack.h2().await;
        make_again(&client, again.clone()).await;
        is(&client, keyed_by("s", &OTHER), 400, "decryption_failed").await;
        is(&client, keyed("s"), 200, "").await;
        delete(&client, "/v1/streams/s").await;
        purged(&stack.direct().await, "/v1/streams/s").await;
        make_again(&client, again).await;
        is(&client, keyed_by("s", &OTHER), 200, "").await;
        has_second_key(&stack).await;
    }
}
