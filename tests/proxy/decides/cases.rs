//! The upstream's false word about lists and creations, and what declared basins take: the cases that were
//! seen, as they were seen.

use serde_json::{Value, json};

use super::{
    OTHER, Served, append, basin_rule, bodies, body_of, cipher_of, create, ensure, is, keyed,
    keyed_by, lies,
    lies::{Asked, LONG_AGO, NOT_YET, Question},
    never_plain, read, set_cipher,
};
use crate::harness::{Ask, BASIN, KEY, Stack};

/// The stream that the upstream expects.
const WANTED: &str = "wanted";

/// Lies about a basin that was just made and about a stream that it does not have: it was there long ago, and
/// its creation says the same.
fn expect_wanted(stack: &Stack) {
    stack.lite.lie(|seen| match Asked::of(seen)?.question {
        Question::BasinProbe => Some(lies::says(200, &json!({}))),
        Question::List => Some(lies::lists(&[lies::stream(WANTED, LONG_AGO)])),
        Question::Create | Question::Ensure => {
            let made = lies::stream(WANTED, LONG_AGO);
            Some(lies::provisions(201, &made, "created"))
        }
        _ => None,
    });
}

/// What the client does next, and how it ends.
async fn create_and_append(stack: &Stack, by: fn(&str) -> Ask, why: &str) {
    let client = stack.h2().await;
    let made = client.ask(by(WANTED)).await;
    assert_eq!(made.status, 201, "{why}: {}", made.text());
    is(&client, keyed(WANTED), 200, "").await;
    never_plain(&stack.tap, why);
    assert_eq!(made.json()["cipher"], "aegis-256", "{why}");
    stack.lite.be_honest();
    is(&client, keyed(WANTED), 200, "").await;
    let opened = client.ask(read(WANTED).key(&KEY)).await;
    let sent = body_of(WANTED, &KEY);
    assert_eq!(bodies(&opened), [&*sent, &*sent], "{why}");
    is(&client, append(WANTED, "x"), 422, "invalid").await;
    never_plain(&stack.tap, why);
}

#[tokio::test(flavor = "multi_thread")]
async fn lying_list_makes_no_stream_plain_in_a_new_basin() {
    for by in [create, ensure] {
        let stack = Stack::start().await;
        expect_wanted(&stack);
        stack.create_basin(Some("aegis-256")).await;
        create_and_append(&stack, by, "a basin with a cipher").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lying_list_makes_no_stream_plain_in_a_declared_basin() {
    for by in [create, ensure] {
        let rules = vec![basin_rule("test-*")];
        let stack = Stack::with(|config| config.basins = rules).await;
        let direct = stack.direct().await;
        let config = json!({ "create_stream_on_append": true });
        let basin = json!({ "basin": BASIN, "config": config });
        is(&direct, Ask::post("/v1/basins").json(&basin), 201, "").await;
        expect_wanted(&stack);
        create_and_append(&stack, by, "a declared basin").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lying_list_makes_no_stream_plain_on_first_use() {
    let rules = vec![basin_rule("test-*")];
    for rules in [Vec::new(), rules] {
        let stack = Stack::with(|config| config.basins = rules).await;
        expect_wanted(&stack);
        stack.create_basin(Some("aegis-256")).await;
        let client = stack.h2().await;
        let first = client.ask(keyed(WANTED)).await;
        assert!(
            first.status == 200 || first.status >= 400,
            "{}",
            first.status
        );
        never_plain(&stack.tap, "first use");
        stack.lite.be_honest();
        is(&client, keyed(WANTED), 200, "").await;
        never_plain(&stack.tap, "after the lies");
    }
}

/// Answers an ensure of stream `s` once more with 201 `created`, which it was not.
async fn says_created(served: &Served, created_at: &str) {
    let made = lies::stream("s", created_at);
    served.lite.lie(move |seen| {
        let is_ensure = Asked::of(seen)?.question == Question::Ensure;
        is_ensure.then(|| lies::provisions(201, &made, "created"))
    });
    let client = served.client().await;
    let ensured = client.ask(ensure("s")).await;
    assert!(ensured.status == 201 || ensured.status >= 400);
    served.lite.be_honest();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_created_too_many_changes_nothing() {
    let served = Served::start(json!({})).await;
    served.create_basin(Some("aegis-256")).await;
    let client = served.client().await;
    is(&client, keyed("s"), 200, "").await;
    let list = client.ask(Ask::get("/v1/streams")).await.json();
    let made = list["streams"][0]["created_at"]
        .as_str()
        .unwrap()
        .to_owned();
    // A new stream would get another cipher now.
    set_cipher(&client, json!("aes-256-gcm")).await;
    for created_at in [LONG_AGO, NOT_YET, &made] {
        says_created(&served, created_at).await;
        for _ in 0..2 {
            assert_eq!(cipher_of(&client, "s").await, "aegis-256", "{created_at}");
            let opened = client.ask(read("s").key(&KEY)).await;
            assert_eq!(bodies(&opened)[0], body_of("s", &KEY), "{created_at}");
            for wrong in [keyed_by("s", &OTHER), read("s").key(&OTHER)] {
                is(&client, wrong, 400, "decryption_failed").await;
            }
            is(&client, keyed("s"), 200, "").await;
        }
    }
    never_plain(&served.tap, "one created too many");
    let warnings = served.logged(&["WARN"], &[BASIN, "\"s\""]);
    let named = served.logged(&["WARN"], &[&format!("{BASIN}/s")]);
    assert!(warnings + named >= 1, "{}", served.program.log());
}

fn basin_path() -> String {
    format!("/v1/basins/{BASIN}")
}

/// Bodies of a create that leave the cipher to the declaration.
fn undeclared() -> [Value; 3] {
    let basin = |config| json!({ "basin": BASIN, "config": config });
    [
        basin(json!({ "stream_cipher": null, "create_stream_on_append": true })),
        basin(json!({ "create_stream_on_append": true })),
        json!({ "basin": BASIN }),
    ]
}

async fn takes_the_declared_cipher(stack: &Stack, body: &Value) {
    let client = stack.h2().await;
    let config = client.ask(Ask::get(basin_path())).await.json();
    assert_eq!(config["stream_cipher"], "aegis-256", "{body}");
    is(&client, create("s"), 201, "").await;
    is(&client, keyed("s"), 200, "").await;
    never_plain(&stack.tap, "a declared basin");
}

#[tokio::test(flavor = "multi_thread")]
async fn null_cipher_takes_the_declared_one() {
    for body in undeclared() {
        let rules = vec![basin_rule("test-*")];
        let stack = Stack::with(|config| config.basins = rules).await;
        let client = stack.h2().await;
        is(&client, Ask::post("/v1/basins").json(&body), 201, "").await;
        takes_the_declared_cipher(&stack, &body).await;
        // Once more, as a client that retries does.
        let again = client.ask(Ask::post("/v1/basins").json(&body)).await;
        assert_ne!(again.status, 403, "{}", again.text());
        let ensured = json!({ "config": body["config"] });
        let ask = Ask::new("PUT", basin_path()).json(&ensured);
        is(&client, ask, 200, "").await;
        let config = client.ask(Ask::get(basin_path())).await.json();
        assert_eq!(config["stream_cipher"], "aegis-256", "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn null_cipher_in_an_ensure_takes_the_declared_one() {
    for body in undeclared() {
        let rules = vec![basin_rule("test-*")];
        let stack = Stack::with(|config| config.basins = rules).await;
        let ensured = json!({ "config": body["config"] });
        let ask = Ask::new("PUT", basin_path()).json(&ensured);
        is(&stack.h2().await, ask, 201, "").await;
        takes_the_declared_cipher(&stack, &body).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cipher_than_the_declared_one_is_refused() {
    let rules = vec![basin_rule("test-*")];
    let stack = Stack::with(|config| config.basins = rules).await;
    let client = stack.h2().await;
    let config = json!({ "stream_cipher": "aes-256-gcm" });
    let basin = json!({ "basin": BASIN, "config": config });
    for ask in [
        Ask::post("/v1/basins").json(&basin),
        Ask::new("PUT", basin_path()).json(&json!({ "config": config })),
        Ask::new("PATCH", basin_path()).json(&config),
    ] {
        let refused = is(&client, ask, 403, "permission_denied").await;
        assert!(
            refused.text().contains("configuration"),
            "{}",
            refused.text()
        );
    }
    assert!(stack.lite.seen().is_empty());
}
