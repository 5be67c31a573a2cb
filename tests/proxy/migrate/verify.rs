//! `stream verify` finds whatever is not as it should be, and where.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use s2_api::v1::stream::proto::{AppendRecord, ReadBatch};
use serde_json::{Value, json};
use streamseal::{
    crypto::{Cipher, Key, StreamCipher, Text},
    stream::StreamPath,
};

use super::{OTHER_KEY, World, command, key, mixed, ran, record, with};
use crate::harness::{AnyBody, BASIN, KEY, Ran, frame, nudge, seal, until};

const CIPHER: &str = "aegis-256";

fn sealed(key: [u8; 32], number: u64) -> AppendRecord {
    seal(CIPHER, key, "s", &record(number))
}

pub(super) fn report(command: Command) -> (i32, Value) {
    let Ran { code, out, err } = ran(with(command, ["--json"]));
    let report = serde_json::from_str(&out);
    (code, report.unwrap_or_else(|_| panic!("{out} {err}")))
}

/// First and last of each range.
pub(super) fn ranges(report: &Value, name: &str) -> Vec<(u64, u64)> {
    let ranges = report[name]["ranges"].as_array().unwrap().iter();
    ranges
        .map(|range| {
            let number = |name| Value::as_u64(&range[name]).unwrap();
            (number("first"), number("last"))
        })
        .collect()
}

/// An answer in frames.
fn answer(frames: Vec<u8>) -> http::Response<AnyBody> {
    let body = Full::new(Bytes::from(frames));
    let body = body.map_err(|never| match never {}).boxed_unsync();
    let answer = http::Response::builder().header("content-type", "s2s/proto");
    answer.body(body).unwrap()
}

/// 40 good records, a command, then what is not good, then good ones.
async fn damaged(world: &World) {
    let proxy = world.proxy(key()).await;
    proxy.create("s").await;
    proxy.append("s", (0..40).map(record).collect()).await;
    proxy.append("s", vec![command(40, "fence", b"")]).await;
    // 41-199: another key's.
    let foreign = (41..200).map(|number| sealed(OTHER_KEY, number));
    world.stack.store("s", foreign).await;
    proxy.append("s", (200..300).map(record).collect()).await;
    // 300: in clear. 301: one bit wrong. 302: good.
    let mut flipped = sealed(KEY, 301);
    let mut bytes = flipped.body.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    flipped.body = bytes.into();
    let good = sealed(KEY, 302);
    world.stack.store("s", [record(300), flipped, good]).await;
    proxy.append("s", (303..900).map(record).collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_well_in_a_good_stream_and_its_copy_has_the_same_hash() {
    let world = World::start(None).await;
    let (from, to) = (world.proxy(None).await, world.proxy(key()).await);
    from.fill(mixed(1200)).await;
    world.cipher(Some(CIPHER)).await;
    let migrated = ran(with(world.migrate(&from, &to), ["--verify"])).ok();

    let (code, source) = report(world.verify(&from, "from"));
    assert_eq!((code, &source["ok"]), (0, &json!(true)), "{source}");
    assert_eq!(source["cipher"], Value::Null);
    let (code, copy) = report(world.verify(&to, "to"));
    assert_eq!(code, 0, "{copy}");
    assert_eq!(copy["cipher"], CIPHER);
    assert_eq!(copy["records"], 1200);
    assert_eq!(copy["commands"], 4);
    assert_eq!(copy["first_seq_num"], 0);
    assert_eq!(copy["last_seq_num"], 1199);
    let hash = copy["hash"].as_str().unwrap();
    assert_eq!(source["hash"], hash);
    assert_eq!(migrated.matches(hash).count(), 2, "{migrated}");

    // The store beneath, with the key: the same.
    let store = world.lite(&world.stack.lite, key()).await;
    let (code, raw) = report(world.verify(&store, "to"));
    assert_eq!(code, 0, "{raw}");
    assert_eq!(raw["hash"], hash);
    assert_eq!(raw["decrypted_here"], true);

    let text = ran(world.verify(&to, "to")).ok();
    assert!(text.contains("all well    yes"), "{text}");
    assert!(text.contains(hash), "{text}");
    // Without the key, the store looks like what it is.
    let text = ran(world.verify(&world.store().await, "to")).ok();
    assert!(text.contains("records look encrypted"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_decrypt_is_found_through_the_proxy() {
    let world = World::start(Some(CIPHER)).await;
    damaged(&world).await;
    let proxy = world.proxy(key()).await;
    let (code, found) = report(world.verify(&proxy, "s"));
    assert_eq!(code, 1, "{found}");
    assert_eq!(found["ok"], false);
    assert_eq!(ranges(&found, "unreadable"), [(41, 199), (300, 301)]);
    assert_eq!(found["unreadable"]["count"], 161);
    assert_eq!(found["records"], 900);
    assert_eq!(found["commands"], 1);
    assert_eq!(ranges(&found, "missing"), []);

    // With the store beside it, the plain record is told from the others.
    let store = world.store().await;
    let (code, found) = report(with(
        world.verify(&proxy, "s"),
        ["--store-endpoint", &store.url],
    ));
    assert_eq!(code, 1, "{found}");
    assert_eq!(ranges(&found, "unreadable"), [(41, 199), (300, 301)]);
    assert_eq!(ranges(&found, "in_clear"), [(300, 300)]);
    let layouts = ranges(&found, "encrypted");
    assert_eq!(layouts, [(0, 39), (41, 299), (301, 899)]);
    assert_eq!(found["encrypted"]["ranges"][0]["cipher"], CIPHER);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_decrypt_is_found_in_the_store() {
    let world = World::start(Some(CIPHER)).await;
    damaged(&world).await;
    let store = world.lite(&world.stack.lite, key()).await;
    let (code, found) = report(world.verify(&store, "s"));
    assert_eq!(code, 1, "{found}");
    assert_eq!(ranges(&found, "unreadable"), [(41, 199), (301, 301)]);
    assert_eq!(ranges(&found, "in_clear"), [(300, 300)]);
    let reason = &found["unreadable"]["ranges"][0]["reason"];
    assert_eq!(reason, "another key, or damaged");

    let text = ran(world.verify(&store, "s"));
    assert_eq!(text.code, 1);
    assert!(text.out.contains("160: seq_num 41-199"), "{text:?}");
    assert!(!text.out.contains(super::SECRET), "{text:?}");
    assert!(text.failed().contains("records stored in clear: 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn key_epochs_are_seen_in_the_store() {
    let world = World::start(None).await;
    let store = world.lite(&world.stack.lite, key()).await;
    store.create("s").await;
    let path: StreamPath = format!("{BASIN}/s").parse().unwrap();
    let managed = |number: u64, epoch| {
        let key = Key::from_bytes(OTHER_KEY);
        let cipher = StreamCipher::of_epoch(Cipher::Aes256Gcm, &key, path.id(), epoch);
        let mut arena = bytes::BytesMut::new();
        let sealed = cipher.seal(Text::Encoded, &mut arena, |out| out.extend([0, 1, 2]));
        AppendRecord {
            headers: vec![],
            body: sealed.unwrap().as_bytes().clone(),
            ..record(number)
        }
    };
    store
        .append("s", (0..10).map(|at| managed(at, 1)).collect())
        .await;
    store
        .append("s", (10..30).map(|at| managed(at, 2)).collect())
        .await;
    store
        .append("s", (30..35).map(|at| sealed(KEY, at)).collect())
        .await;
    let (code, found) = report(world.verify(&store, "s"));
    assert_eq!(code, 1, "{found}");
    assert_eq!(ranges(&found, "unreadable"), [(0, 29)]);
    assert_eq!(ranges(&found, "encrypted"), [(0, 9), (10, 29), (30, 34)]);
    let layouts = &found["encrypted"]["ranges"];
    assert_eq!(layouts[1]["key_epoch"], 2);
    assert_eq!(layouts[2].get("key_epoch"), None);
    let text = ran(world.verify(&store, "s")).out;
    assert!(text.contains("10-29 (aes-256-gcm, key epoch 2)"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_key_opens_nothing_at_all() {
    let world = World::start(Some(CIPHER)).await;
    let proxy = world.proxy(key()).await;
    proxy.create("s").await;
    proxy.append("s", (0..700).map(record).collect()).await;
    let wrong = world.proxy(Some(OTHER_KEY)).await;
    let (code, found) = report(world.verify(&wrong, "s"));
    assert_eq!(code, 1);
    assert_eq!(ranges(&found, "unreadable"), [(0, 699)]);
    let store = world.lite(&world.stack.lite, Some(OTHER_KEY)).await;
    let (code, found) = report(world.verify(&store, "s"));
    assert_eq!(code, 1);
    assert_eq!(ranges(&found, "unreadable"), [(0, 699)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_key_of_a_long_stream_is_told_early() {
    let world = World::start(Some(CIPHER)).await;
    let proxy = world.proxy(key()).await;
    proxy.fill((0..9000).map(record)).await;
    let wrong = world.proxy(Some(OTHER_KEY)).await;
    let said = ran(world.verify(&wrong, "from")).failed();
    assert!(said.contains("is it the stream's key"), "{said}");
    let reads = world.stack.lite.seen().into_iter();
    let reads = reads.filter(|seen| seen.line.starts_with("GET") && seen.line.contains("count=1"));
    assert!(reads.count() < 4500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trimmed_head_is_not_missing() {
    let world = World::start(Some(CIPHER)).await;
    let (proxy, store) = (world.proxy(key()).await, world.store().await);
    proxy.create("s").await;
    proxy.append("s", (0..40).map(record).collect()).await;
    proxy
        .append("s", vec![command(40, "trim", &35_u64.to_be_bytes())])
        .await;
    until("it is trimmed", async || {
        nudge(&store.client).await;
        let all = proxy.all("s").await;
        all.first().is_some_and(|first| first.seq_num == 35)
    })
    .await;
    let (code, found) = report(world.verify(&proxy, "s"));
    assert_eq!(code, 0, "{found}");
    assert_eq!(found["first_seq_num"], 35);
    assert_eq!(found["records"], 6);
}

/// S2 has no gaps of its own making; a store that lost records has.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_found_and_is_not_copied() {
    let world = World::start(None).await;
    let (store, to) = (world.store().await, world.proxy(None).await);
    store.fill((0..40).map(record)).await;
    let all = store.all("from").await;
    let lossy = [0..20, 30..35].map(|range| {
        frame(&ReadBatch {
            records: all[range].to_vec(),
            tail: None,
        })
    });
    let path = crate::harness::records("from");

    let player = world.stack.lite.play(&path);
    for batch in lossy.clone() {
        player.play(batch).await;
    }
    drop(player);
    let (code, found) = report(world.verify(&store, "from"));
    assert_eq!(code, 1, "{found}");
    assert_eq!(ranges(&found, "missing"), [(20, 29), (35, 39)]);
    assert_eq!(found["records"], 25);

    let stack = &world.stack;
    let copying = AtomicBool::new(false);
    let lie = lossy.concat();
    stack.lite.lie(move |seen| {
        let is_session = seen
            .headers
            .iter()
            .any(|header| header == "content-type: s2s/proto");
        let is_read = seen.line.starts_with("GET") && seen.line.contains("/streams/from/records");
        (is_read && is_session && !copying.swap(true, Relaxed)).then(|| answer(lie.clone()))
    });
    let said = ran(world.migrate(&store, &to)).failed();
    assert!(
        said.contains("from seq_num 20 to 29 are not there"),
        "{said}"
    );
    assert!(to.tail("to").await <= 20);
    stack.lite.be_honest();
    ran(with(world.migrate(&store, &to), ["--verify"])).ok();
    super::assert_same(&to.all("to").await, &all);
}
