//! A kill while the config store is being made leaves a store or none, never half of one.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::harness::{Ask, Lite, Program, until};
use serde_json::json;
use tokio::task::block_in_place;

/// Kills of `init`, spread over the time that it takes.
const KILLS: u32 = 40;

/// Takes a store away as an operator does who wants to begin anew.
fn remove(store: &Path) {
    std::fs::remove_file(store).ok();
    std::fs::remove_file(store.with_added_extension("witness")).ok();
}

/// What an `init` that is not disturbed takes.
fn undisturbed(program: &Program) -> Duration {
    let begun = Instant::now();
    let status = program.command("init").wait().unwrap();
    assert!(status.success(), "{}", program.log());
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_init_leaves_a_store_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let (store, unfinished) = (
        dir.path().join("store.redb"),
        dir.path().join("store.redb.new"),
    );
    let lite = Lite::start().await;
    let mut program = Program::start(dir.path(), lite.address, &json!([]), "warn");
    program.kill();
    remove(&store);
    let whole = block_in_place(|| undisturbed(&program));
    let (mut made, mut halves) = (0, 0);
    for kill in 0..KILLS {
        remove(&store);
        let mut init = program.command("init");
        tokio::time::sleep(whole * kill / KILLS).await;
        init.kill().unwrap();
        init.wait().unwrap();
        halves += usize::from(unfinished.exists());
        if store.exists() {
            made += 1;
            block_in_place(|| program.start_again());
            program.kill();
        } else {
            block_in_place(|| undisturbed(&program));
            assert!(!unfinished.exists());
        }
    }
    println!("{made} stores, {halves} halves of one in {whole:?}");
    assert!(made < KILLS as usize, "every kill came too late");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_store_is_not_taken_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let lite = Lite::start().await;
    let mut program = Program::start(dir.path(), lite.address, &json!([]), "warn");
    program.kill();
    let (store, unfinished) = (
        dir.path().join("store.redb"),
        dir.path().join("store.redb.new"),
    );
    // Whole as it is, it has not got its name yet.
    std::fs::rename(&store, &unfinished).unwrap();
    remove(&store);
    let config = dir.path().join("streamseal.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("create = true", "create = false")).unwrap();
    let mut serve = program.command("serve");
    until("it gives up", async || serve.try_wait().unwrap().is_some()).await;
    assert!(!serve.wait().unwrap().success());
    assert!(
        program.log().contains("does not exist"),
        "{}",
        program.log()
    );
    for half in [&b""[..], b"half a store"] {
        std::fs::write(&unfinished, half).unwrap();
        remove(&store);
        block_in_place(|| undisturbed(&program));
        block_in_place(|| program.start_again());
        let client = program.client("h2").await;
        assert_eq!(client.ask(Ask::get("/v1/basins")).await.status, 200);
        program.kill();
    }
}
