//! Whatever happens to the config store's file, nothing goes up in clear, nothing acknowledged is lost,
//! and the operator is told what to do.

use std::{path::Path, process::Command};

use serde_json::json;

use crate::harness::{
    Answer, Ask, BASIN, Client, KEY, Lite, Program, Ran, Stack, ask_until, records,
};

fn append(stream: &str, body: &str) -> Ask {
    let batch = json!({ "records": [{ "body": body }] });
    Ask::post(records(stream)).key(&KEY).json(&batch)
}

async fn create_basin(client: &Client) -> Answer {
    let config = json!({ "stream_cipher": "aegis-256", "create_stream_on_append": true });
    let body = json!({ "basin": BASIN, "config": config });
    client.ask(Ask::post("/v1/basins").json(&body)).await
}

/// Limits how far into a file the process may write, as a full disk does.
fn limit_files(pid: u32, bytes: &str) {
    let limit = format!("--fsize={bytes}:unlimited");
    let status = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &limit])
        .status();
    assert!(status.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_what_must_be_remembered_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let lite = Lite::start().await;
    let program = Program::start(dir.path(), lite.address, &json!([]), "info");
    let client = program.client("h2").await;
    assert_eq!(create_basin(&client).await.status, 201);
    assert_eq!(client.ask(append("known", "first")).await.status, 200);

    limit_files(program.id(), "4096");
    let before = lite.seen().len();
    let answer = client.ask(append("unknown", "secret-text")).await;
    assert_eq!((answer.status, &*answer.code()), (502, "hot_server"));
    let none = json!({ "stream_cipher": null });
    let patch = Ask::new("PATCH", format!("/v1/basins/{BASIN}")).json(&none);
    let answer = client.ask(patch).await;
    assert_eq!((answer.status, &*answer.code()), (502, "hot_server"));
    let changes = |line: &str| !line.starts_with("GET ");
    let sent: Vec<_> = lite.seen().split_off(before);
    let sent: Vec<_> = sent
        .iter()
        .map(|seen| &*seen.line)
        .filter(|line| changes(line))
        .collect();
    assert!(sent.is_empty(), "{sent:?}");

    // No log line can be written either: that is no reason to break off.
    limit_files(program.id(), "1");
    for stream in ["unknown", "another"] {
        let answer = client.ask(append(stream, "secret-text")).await;
        assert_eq!((answer.status, &*answer.code()), (502, "hot_server"));
    }

    limit_files(program.id(), "unlimited");
    let done = |answer: &Answer| answer.status == 200;
    for stream in ["known", "unknown"] {
        ask_until(&client, append(stream, "secret-text"), done).await;
    }
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains("the config store failed"), "{log}");
    assert!(log.contains("check the disk"), "{log}");
    for seen in lite.seen() {
        assert!(!String::from_utf8_lossy(&seen.body).contains("secret-text"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_removed_under_the_proxy_is_missed_before_anything_is_lost() {
    let mut stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    assert_eq!(client.ask(append("a", "secret-a")).await.status, 200);
    let path = stack.config.store.path.clone();
    let away = path.with_file_name("away");
    std::fs::rename(&path, &away).unwrap();
    // What would have to be remembered is refused; what is known goes on.
    let answer = client.ask(append("b", "secret-b")).await;
    assert_eq!((answer.status, &*answer.code()), (502, "hot_server"));
    assert_eq!(client.ask(append("a", "secret-a")).await.status, 200);
    stack.stop().await;
    let error = stack.go().await.unwrap_err();
    assert!(error.contains("was in use here and is gone"), "{error}");
    stack.config.store.create = false;
    let error = stack.go().await.unwrap_err();
    assert!(error.contains("restore it from a backup"), "{error}");
    std::fs::rename(&away, &path).unwrap();
    stack.go().await.unwrap();
    let client = stack.h2().await;
    assert_eq!(client.ask(append("b", "secret-b")).await.status, 200);
    let read = client
        .ask(Ask::get(records("a") + "?seq_num=0").key(&KEY))
        .await;
    assert_eq!(read.json()["records"].as_array().unwrap().len(), 2);
    assert!(!stack.tap.saw(b"secret-"));
}

/// The program started on a store that it should refuse: what it says, and that it ends.
fn refused(dir: &Path) -> String {
    let file = dir.join("streamseal.toml");
    Ran::of(["serve", "--config", file.to_str().unwrap()]).failed()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_does_not_start_on_a_store_that_is_not_right() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store.redb");
    let lite = Lite::start().await;
    {
        let program = Program::start(dir.path(), lite.address, &json!([]), "info");
        let client = program.client("h2").await;
        assert_eq!(create_basin(&client).await.status, 201);
        let said = refused(dir.path());
        assert!(
            said.contains("in use by another process; stop it first"),
            "{said}"
        );
    }
    let good = std::fs::read(&store).unwrap();
    let copy = good.clone();
    {
        let program = Program::start(dir.path(), lite.address, &json!([]), "info");
        let client = program.client("h2").await;
        assert_eq!(client.ask(append("a", "secret-a")).await.status, 200);
    }
    let newest = std::fs::read(&store).unwrap();
    let mut flipped = newest.clone();
    for byte in &mut flipped[..64] {
        *byte ^= 0x10;
    }
    for (content, told) in [
        (copy, "older copy"),
        (
            newest[..newest.len() / 3].to_vec(),
            "restore the file from a backup",
        ),
        (flipped, "restore the file from a backup"),
        (Vec::new(), "config store"),
    ] {
        std::fs::write(&store, content).unwrap();
        let said = refused(dir.path());
        assert!(said.contains(told), "{told}: {said}");
    }
    std::fs::remove_file(&store).unwrap();
    let said = refused(dir.path());
    assert!(said.contains("streamseal store rebuild"), "{said}");

    std::fs::write(&store, newest).unwrap();
    let program = Program::start(dir.path(), lite.address, &json!([]), "info");
    let client = program.client("h2").await;
    let read = client
        .ask(Ask::get(records("a") + "?seq_num=0").key(&KEY))
        .await;
    assert_eq!(read.json()["records"][0]["body"], "secret-a");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_an_edited_store_starts_no_proxy() {
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("store.key");
    std::fs::write(&key, crate::harness::base64(&[9; 32])).unwrap();
    let mut stack = Stack::with(|config| config.store.key_file = key.clone().into()).await;
    stack.create_basin(Some("aegis-256")).await;
    assert_eq!(
        stack.h2().await.ask(append("a", "secret-a")).await.status,
        200
    );
    stack.stop().await;
    let export = stack.command(&["store", "export"]).ok();
    // Whoever can write the file, but has no key, makes one that says what they like.
    let forged = export.replace("\"aegis-256\"", "null");
    let file = stack.config.store.path.with_file_name("forged");
    std::fs::write(&file, &forged).unwrap();
    std::fs::remove_file(&stack.config.store.path).unwrap();
    let refused = stack
        .command(&["store", "import", file.to_str().unwrap()])
        .failed();
    assert!(refused.contains("altered"), "{refused}");
    let without_key = stack.config.store.key_file.clone();
    stack.config.store.key_file = Default::default();
    let refused = stack
        .command(&["store", "import", file.to_str().unwrap()])
        .failed();
    assert!(refused.contains("altered"), "{refused}");
    stack.config.store.key_file = without_key;
    std::fs::write(&file, export).unwrap();
    stack
        .command(&["store", "import", file.to_str().unwrap()])
        .ok();
    stack.go().await.unwrap();
    assert_eq!(
        stack.h2().await.ask(append("a", "secret-a")).await.status,
        200
    );
    stack.stop().await;
    stack.config.store.key_file = Default::default();
    let error = stack.go().await.unwrap_err();
    assert!(error.contains("was made with `store.key_file`"), "{error}");
}
