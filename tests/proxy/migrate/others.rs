//! Others at work on the same streams: a second copy, another producer, a source that grows.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use serde_json::json;

use super::{World, assert_same, key, ran, record, start, with};
use crate::harness::{BASIN, Ran, until};

fn ended(child: std::process::Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_copies_at_once_at_least_one_makes_it() {
    let world = World::start(Some("aegis-256")).await;
    let (from, to) = (world.store().await, world.proxy(key()).await);
    from.fill((0..8000).map(record)).await;
    let both = [(); 2].map(|()| start(world.migrate(&from, &to)));
    let both = both.map(ended);
    let losers: Vec<_> = both.into_iter().filter(|ran| ran.code != 0).collect();
    assert!(losers.len() < 2, "{losers:?}");
    for loser in losers {
        let said = loser.failed();
        assert!(said.contains("somebody else appends to it"), "{said}");
    }
    assert_same(&to.all("to").await, &from.all("from").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_in_the_copy_ends_it() {
    let world = World::start(Some("aegis-256")).await;
    let (from, to) = (world.store().await, world.proxy(key()).await);
    from.fill((0..16_000).map(record)).await;
    let child = start(world.migrate(&from, &to));
    until("it copies", async || to.tail("to").await > 0).await;
    let mut stranger = record(0);
    stranger.timestamp = Some(u64::MAX / 4);
    stranger.body = "not of the source".into();
    to.append("to", vec![stranger]).await;
    let said = ended(child).failed();
    assert!(
        said.contains("not those of") || said.contains("somebody else"),
        "{said}"
    );
    let again = ran(world.migrate(&from, &to)).failed();
    assert!(again.contains("not those of"), "{again}");
    let copy = to.all("to").await;
    let strange = copy
        .iter()
        .filter(|record| record.body == "not of the source");
    assert_eq!(strange.count(), 1);
    // All before the stranger is in place, and nothing followed it.
    let original = from.all("from").await;
    let (stranger, copied) = copy.split_last().unwrap();
    assert_eq!(stranger.body, "not of the source");
    assert_same(copied, &original[..copied.len()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_source_gets_meanwhile_is_copied_too() {
    let world = World::start(Some("aegis-256")).await;
    let (from, to) = (world.store().await, world.proxy(key()).await);
    from.fill((0..12_000).map(record)).await;
    let child = start(world.migrate(&from, &to));
    until("it copies", async || to.tail("to").await > 0).await;
    from.append("from", (12_000..12_300).map(record).collect())
        .await;
    let out = ended(child).ok();
    assert!(out.contains("copied 12300 records"), "{out}");
    from.append("from", (12_300..12_400).map(record).collect())
        .await;
    let out = ran(with(world.migrate(&from, &to), ["--verify"])).ok();
    assert!(out.contains("copied 100 records"), "{out}");
    assert_same(&to.all("to").await, &from.all("from").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_wrong_in_its_middle_is_found_by_verifying() {
    let world = World::start(Some("aegis-256")).await;
    let (from, to) = (world.store().await, world.proxy(key()).await);
    from.fill((0..500).map(record)).await;
    to.create("to").await;
    let mut wrong: Vec<_> = (0..400).map(record).collect();
    wrong[200].body = "wrong".into();
    to.append("to", wrong).await;
    let said = ran(with(world.migrate(&from, &to), ["--verify"])).failed();
    assert!(said.contains("seq_num 200 is not what"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_puts_its_own_time_on_records_is_caught_at_once() {
    let world = World::start(None).await;
    let (from, to) = (world.store().await, world.proxy(None).await);
    from.fill((0..3000).map(record)).await;
    to.create_as("to", &json!({ "timestamping": { "mode": "arrival" } }))
        .await;
    // It says that it took the configuration, and did not.
    let config = to.config("to").await.to_string();
    world.stack.lite.lie(move |seen| {
        let body = Full::new(Bytes::from(config.clone()));
        let body = body.map_err(|never| match never {}).boxed_unsync();
        let answer = http::Response::builder().header("content-type", "application/json");
        let is_change = seen.line.starts_with("PATCH") && seen.line.contains("/streams/to");
        is_change.then(|| answer.body(body).unwrap())
    });
    let said = ran(world.migrate(&from, &to)).failed();
    assert!(said.contains("did not keep the timestamps"), "{said}");
    world.stack.lite.be_honest();
    let said = ran(world.migrate(&from, &to)).failed();
    assert!(said.contains("not those of"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_come_from_the_environment_as_s2s_own_tools_have_it() {
    let world = World::start(Some("aegis-256")).await;
    let to = world.proxy(key()).await;
    to.fill((0..10).map(record)).await;
    let verify = || {
        let mut command = world.command();
        command.args(["verify", &format!("s2://{BASIN}/from"), "--key-file"]);
        command.arg(to.key_file.as_ref().unwrap());
        command.env("S2_ACCOUNT_ENDPOINT", &to.url);
        command
    };
    let mut both = verify();
    both.env("S2_BASIN_ENDPOINT", &to.url);
    let out = ran(both).ok();
    assert!(out.contains("10, seq_num 0-9"), "{out}");
    // Half of it is a mistake.
    let one = ran(verify());
    assert_eq!(one.code, 64, "{one:?}");
}
