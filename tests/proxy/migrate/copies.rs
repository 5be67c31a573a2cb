//! A copy has every record of its source, in place and unchanged, wherever the two are.

use serde_json::json;

use super::{World, assert_same, key, mixed, ran, with};
use crate::harness::{Ask, BASIN, CIPHERS, Lite, leaks};

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_stream_becomes_encrypted() {
    for cipher in CIPHERS {
        let world = World::start(None).await;
        let (from, to) = (world.proxy(None).await, world.proxy(key()).await);
        from.fill(mixed(1300)).await;
        world.cipher(Some(cipher)).await;
        let before = world.stack.tap.bytes().len();

        let out = ran(with(
            world.migrate(&from, &to),
            ["--cipher", cipher, "--verify"],
        ))
        .ok();
        assert!(out.contains("copied 1300 records"), "{out}");
        assert!(out.contains("verified: both are the same"), "{out}");
        let original = from.all("from").await;
        assert_eq!(original.len(), 1300);
        assert_same(&to.all("to").await, &original);
        assert_eq!(to.config("to").await, from.config("from").await);
        // The token of the last fence is in force, as it is in the source.
        let fenced =
            json!({ "records": [{ "timestamp": 1, "body": "x" }], "fencing_token": "other" });
        let ask = Ask::post(crate::harness::records("to")).json(&fenced);
        let answer = to.client.ask(to.keyed(ask)).await;
        assert!(
            answer.text().contains("the last token"),
            "{}",
            answer.text()
        );

        // Of what went to the store, the reads of the source are in clear, and nothing else.
        let stored = world.store().await.all("to").await;
        assert!(
            stored
                .iter()
                .all(|record| !leaks(&record.body, super::SECRET.as_bytes()))
        );
        assert!(world.stack.tap.bytes().len() > before);

        let again = ran(world.migrate(&from, &to)).ok();
        assert!(again.contains("copied 0 records"), "{again}");
        assert_same(&to.all("to").await, &original);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_stream_becomes_plain_only_if_that_is_said() {
    let world = World::start(Some("aegis-256")).await;
    let (from, to) = (world.proxy(key()).await, world.proxy(None).await);
    from.fill(mixed(300)).await;
    world.cipher(None).await;

    let refused = ran(world.migrate(&from, &to)).failed();
    assert!(refused.contains("--cipher none"), "{refused}");
    assert_eq!(to.tail("to").await, 0);

    ran(with(
        world.migrate(&from, &to),
        ["--cipher", "none", "--verify"],
    ))
    .ok();
    assert_same(&to.all("to").await, &from.all("from").await);
    let stored = world.store().await.all("to").await;
    assert!(
        stored
            .iter()
            .any(|record| leaks(&record.body, super::SECRET.as_bytes()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_s2s_own_encryption_moves_in_and_out() {
    let world = World::start(Some("aes-256-gcm")).await;
    let native = Lite::start().await;
    let s2 = world.lite(&native, Some(super::OTHER_KEY)).await;
    let config = json!({ "stream_cipher": "aegis-256" });
    let body = json!({ "basin": BASIN, "config": config });
    let made = s2.client.ask(Ask::post("/v1/basins").json(&body)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    s2.fill(mixed(700)).await;
    let original = s2.all("from").await;

    let proxy = world.proxy(key()).await;
    ran(with(world.migrate(&s2, &proxy), ["--verify"])).ok();
    assert_same(&proxy.all("to").await, &original);

    proxy.fill(mixed(400)).await;
    ran(with(
        world.migrate(&proxy, &s2),
        ["--cipher", "aegis-256", "--verify"],
    ))
    .ok();
    assert_same(&s2.all("to").await, &proxy.all("from").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn timestamps_survive_a_stream_that_would_not_take_them() {
    let world = World::start(None).await;
    let (from, to) = (world.store().await, world.proxy(None).await);
    from.fill(mixed(100)).await;
    // The last ones are far in the future, and this stream would not even take the others.
    to.create_as("to", &json!({ "timestamping": { "mode": "arrival" } }))
        .await;
    ran(world.migrate(&from, &to)).ok();
    assert_same(&to.all("to").await, &from.all("from").await);
    assert_eq!(to.config("to").await, from.config("from").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_batches_and_the_largest_records_fit() {
    let world = World::start(Some("aegis-256")).await;
    let (from, to) = (world.store().await, world.proxy(key()).await);
    let record = |number: u64| {
        let mut record = super::record(number);
        // Up to what is left of 1 MiB once it is sealed.
        let length = if number.is_multiple_of(4) {
            (1 << 20) - 8 - 50
        } else {
            99_000
        };
        record.headers.clear();
        record.body = vec![number as u8; length].into();
        record
    };
    from.create("from").await;
    for number in 0..12 {
        from.append("from", vec![record(number)]).await;
    }
    ran(world.migrate(&from, &to)).ok();
    assert_same(&to.all("to").await, &from.all("from").await);
    assert_eq!(to.tail("to").await, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_stream_is_copied_with_its_configuration() {
    let world = World::start(Some("aegis-256")).await;
    let (from, to) = (world.store().await, world.proxy(key()).await);
    from.create("from").await;
    let out = ran(with(world.migrate(&from, &to), ["--verify"])).ok();
    assert!(out.contains("copied 0 records"), "{out}");
    assert_eq!(to.config("to").await, from.config("from").await);
}
