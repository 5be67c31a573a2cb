//! What is refused, before a record is copied, in one clear line and without a secret in it.

use serde_json::json;

use super::{OTHER_KEY, World, file, key, mixed, ran, record, with};
use crate::harness::{BASIN, KEY, base64};

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_key_copies_nothing() {
    let world = World::start(Some("aegis-256")).await;
    let from = world.proxy(key()).await;
    from.fill(mixed(100)).await;
    let wrong = world.proxy(Some(OTHER_KEY)).await;
    let said = ran(world.migrate(&wrong, &wrong)).failed();
    assert!(said.contains("do not decrypt"), "{said}");
    // Not even the stream was made.
    assert_eq!(from.config("to").await["code"], "stream_not_found");

    ran(world.migrate(&from, &from)).ok();
    from.append("from", vec![record(100)]).await;
    let said = ran(world.migrate(&from, &wrong)).failed();
    assert!(said.contains("is --key-file the stream's key"), "{said}");
    assert_eq!(from.tail("to").await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_with_other_records_is_left_alone() {
    let world = World::start(Some("aegis-256")).await;
    let (from, to) = (world.store().await, world.proxy(key()).await);
    from.fill(mixed(50)).await;
    let strange = |count: u64, at: u64| {
        let mut records = mixed(count);
        if let Some(record) = records.get_mut(at as usize) {
            record.body = "strange".into();
        }
        records
    };
    for (count, at) in [(1, 0), (20, 0), (20, 10), (20, 19), (50, 49), (51, 60)] {
        to.create("to").await;
        to.append("to", strange(count, at)).await;
        let said = ran(world.migrate(&from, &to)).failed();
        assert!(said.contains("not those of"), "{count} {at}: {said}");
        assert_eq!(to.tail("to").await, count);
        crate::harness::delete(&to.client, "/v1/streams/to").await;
        crate::harness::purged(&from.client, "/v1/streams/to").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_cipher_copies_nothing() {
    let world = World::start(Some("aegis-256")).await;
    let (from, to) = (world.store().await, world.proxy(key()).await);
    from.fill(mixed(10)).await;
    let said = ran(with(world.migrate(&from, &to), ["--cipher", "aes-256-gcm"])).failed();
    assert!(said.contains("encrypted with aegis-256"), "{said}");
    assert_eq!(to.tail("to").await, 0);

    // A key for a stream that would be in clear is a mistake, and not an instruction.
    let said = ran(world.migrate(&to, &{
        let mut store = world.store().await;
        store.key_file.clone_from(&to.key_file);
        store
    }));
    let said = said.failed();
    assert!(said.contains("is not encrypted"), "{said}");
    let plain = World::start(None).await;
    let (from, to) = (plain.store().await, plain.proxy(key()).await);
    from.fill(mixed(10)).await;
    let said = ran(plain.migrate(&from, &to)).failed();
    assert!(said.contains("--key-file is given"), "{said}");
    assert_eq!(to.tail("to").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_arguments_are_told_from_failures() {
    let world = World::start(Some("aegis-256")).await;
    let (from, to) = (world.store().await, world.proxy(key()).await);
    let dir = world.dir.path();
    let short = file(dir, "short.key", &base64(&KEY[..16]));
    let tokens = file(dir, "tokens", "secret-token-one\nsecret-token-two\n");
    let address = format!("s2://{BASIN}/from");
    for arguments in [
        ["--from-key-file", &short],
        ["--from-key-file", "/nowhere"],
        ["--from-token-file", &tokens],
        ["--to-token-file", "/nowhere"],
        ["--cipher", "rot13"],
    ] {
        let ran = ran(with(world.migrate(&from, &to), arguments));
        assert_eq!(ran.code, 64, "{arguments:?} {ran:?}");
        assert!(!ran.err.contains("secret-token"), "{ran:?}");
        assert!(!ran.err.contains(&base64(&KEY[..16])), "{ran:?}");
    }
    let itself = with(world.command(), ["migrate", &address, &address]);
    assert_eq!(ran(itself).code, 64);
    let nameless = with(world.command(), ["verify", "s2://x"]);
    assert_eq!(ran(nameless).code, 64);

    let said = ran(world.migrate(&from, &to)).failed();
    assert!(said.contains("there is no such stream"), "{said}");
    // Looking for it did not make it, though the basin makes streams that are read.
    assert_eq!(from.config("from").await["code"], "stream_not_found");
    from.create_as("from", &json!({})).await;
    let mut nobody = world.store().await;
    nobody.url = "http://127.0.0.1:1".to_owned();
    let said = ran(world.migrate(&from, &nobody)).failed();
    assert!(said.contains("cannot ask for"), "{said}");
}
