//! The operator can back up, move, rebuild and correct the config store, and no way leads from an
//! encrypted stream to a plain one.

use serde_json::{Value, json};
use streamseal::wire::record::RecordCompression;

use crate::harness::{Answer, Ask, BASIN, KEY, Stack, ask_until, records};

const OTHER: [u8; 32] = [7; 32];

async fn create_basin(stack: &Stack, basin: &str, cipher: Value) {
    let config = json!({
        "stream_cipher": cipher,
        "create_stream_on_append": true,
        "create_stream_on_read": true,
    });
    let body = json!({ "basin": basin, "config": config });
    let answer = stack
        .h2()
        .await
        .ask(Ask::post("/v1/basins").json(&body))
        .await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}

async fn append(stack: &Stack, basin: &str, stream: &str, key: &[u8; 32], body: &str) -> Answer {
    let ask = Ask::post(records(stream)).basin(basin).key(key);
    let batch = json!({ "records": [{ "body": body }] });
    stack.h2().await.ask(ask.json(&batch)).await
}

async fn append_plain(stack: &Stack, basin: &str, stream: &str, body: &str) -> Answer {
    let ask = Ask::post(records(stream)).basin(basin);
    let batch = json!({ "records": [{ "body": body }] });
    stack.h2().await.ask(ask.json(&batch)).await
}

async fn read(stack: &Stack, basin: &str, stream: &str) -> Answer {
    let ask = Ask::get(records(stream) + "?seq_num=0")
        .basin(basin)
        .key(&KEY);
    stack.h2().await.ask(ask).await
}

async fn ciphers(stack: &Stack, basin: &str) -> Vec<(String, Value)> {
    let listed = stack
        .h2()
        .await
        .ask(Ask::get("/v1/streams").basin(basin))
        .await;
    let streams = listed.json()["streams"].as_array().unwrap().clone();
    let one = |stream: Value| {
        (
            stream["name"].as_str().unwrap().to_owned(),
            stream["cipher"].clone(),
        )
    };
    streams.into_iter().map(one).collect()
}

fn lose_store(stack: &Stack) {
    std::fs::remove_file(&stack.config.store.path).unwrap();
}

fn lose_witness(stack: &Stack) {
    let path = stack.config.store.path.with_file_name("store.redb.witness");
    std::fs::remove_file(path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_moves_a_store_to_another_machine() {
    let mut stack = Stack::start().await;
    stack.create_basin(Some("aes-256-gcm")).await;
    assert_eq!(append(&stack, BASIN, "s", &KEY, "kept").await.status, 200);
    let running = stack.command(&["store", "export"]).failed();
    assert!(
        running.contains("in use by another process; stop it"),
        "{running}"
    );
    stack.stop().await;
    let export = stack.command(&["store", "export"]).ok();
    assert!(!export.contains("kept"));
    let file = stack.config.store.path.with_file_name("export");
    std::fs::write(&file, export).unwrap();
    lose_store(&stack);
    lose_witness(&stack);
    let said = stack
        .command(&["store", "import", file.to_str().unwrap()])
        .ok();
    assert!(said.contains("1 basins and 1 streams"), "{said}");
    stack.go().await.unwrap();
    let there = read(&stack, BASIN, "s").await;
    assert_eq!(there.json()["records"][0]["body"], "kept");
    // The key check came along.
    let refused = append(&stack, BASIN, "s", &OTHER, "poison").await;
    assert_eq!(refused.code(), "decryption_failed");
    assert_eq!(
        ciphers(&stack, BASIN).await,
        [("s".into(), json!("aes-256-gcm"))]
    );
}

/// An upstream with everything in it that a rebuild can meet.
async fn populated() -> Stack {
    let stack = Stack::with(|config| config.limits.compression = RecordCompression::Always).await;
    create_basin(&stack, "basin-aegis", json!("aegis-256")).await;
    create_basin(&stack, "basin-later", Value::Null).await;
    create_basin(&stack, "basin-plain", Value::Null).await;
    assert_eq!(
        append(&stack, "basin-aegis", "s", &KEY, "secret-s")
            .await
            .status,
        200
    );
    let compressible = "secret-z".repeat(100);
    assert_eq!(
        append(&stack, "basin-aegis", "z", &KEY, &compressible)
            .await
            .status,
        200
    );
    let create = Ask::post("/v1/streams")
        .basin("basin-aegis")
        .json(&json!({ "stream": "empty" }));
    assert_eq!(stack.h2().await.ask(create).await.status, 201);
    // Plain streams: of before the cipher, and in a basin that has none. One looks binary.
    assert_eq!(
        append_plain(&stack, "basin-later", "old", "clear-old")
            .await
            .status,
        200
    );
    assert_eq!(
        append_plain(&stack, "basin-plain", "p", "clear-p")
            .await
            .status,
        200
    );
    let binary = format!("\u{1}{}", "x".repeat(20));
    assert_eq!(
        append_plain(&stack, "basin-plain", "short", &binary)
            .await
            .status,
        200
    );
    let cipher = json!({ "stream_cipher": "aes-256-gcm" });
    let patch = Ask::new("PATCH", "/v1/basins/basin-later").json(&cipher);
    assert_eq!(stack.h2().await.ask(patch).await.status, 200);
    assert_eq!(
        append(&stack, "basin-later", "new", &KEY, "secret-new")
            .await
            .status,
        200
    );
    stack
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_store_is_rebuilt_from_what_the_upstream_holds() {
    let mut stack = populated().await;
    stack.stop().await;
    lose_store(&stack);
    let refused = stack.go().await.unwrap_err();
    assert!(refused.contains("streamseal store rebuild"), "{refused}");

    let plan = stack.command(&["store", "rebuild", "--dry-run"]).ok();
    assert!(plan.contains("nothing was recorded"), "{plan}");
    assert!(!stack.config.store.path.exists());
    let said = stack.command(&["store", "rebuild"]).ok();
    for line in [
        "basin basin-aegis: encrypts new streams with aegis-256",
        "basin basin-later: encrypts new streams with aes-256-gcm",
        "basin basin-plain: no encrypted stream found",
        "stream basin-aegis/s: encrypted with aegis-256",
        "stream basin-aegis/z: encrypted with aegis-256",
        "stream basin-aegis/empty: encrypted with aegis-256; it is empty",
        "stream basin-later/new: encrypted with aes-256-gcm",
        "stream basin-later/old: its records are plain",
        "basin basin-plain: 2 streams are plain",
    ] {
        assert!(plan.contains(line) && said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains("basin-plain/"), "{said}");

    stack.go().await.unwrap();
    assert_eq!(
        read(&stack, "basin-aegis", "s").await.json()["records"][0]["body"],
        "secret-s"
    );
    assert_eq!(read(&stack, "basin-aegis", "z").await.status, 200);
    for (basin, stream) in [
        ("basin-aegis", "s"),
        ("basin-aegis", "empty"),
        ("basin-aegis", "made"),
        ("basin-later", "new"),
    ] {
        let answer = append(&stack, basin, stream, &KEY, "secret-after").await;
        assert_eq!(answer.status, 200, "{basin}/{stream}: {}", answer.text());
    }
    // Nobody proved that this one was plain.
    assert_eq!(
        append(&stack, "basin-later", "old", &KEY, "x").await.code(),
        "permission_denied"
    );
    assert_eq!(
        append_plain(&stack, "basin-plain", "p", "clear-after")
            .await
            .status,
        200
    );
    assert!(stack.tap.saw(b"clear-after"));
    assert!(!stack.tap.saw(b"secret-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_is_filled_and_nothing_in_it_becomes_plain() {
    let mut stack = Stack::start().await;
    create_basin(&stack, "basin-early", json!("aegis-256")).await;
    create_basin(&stack, "basin-later", Value::Null).await;
    assert_eq!(
        append(&stack, "basin-early", "s", &KEY, "secret-1")
            .await
            .status,
        200
    );
    stack.stop().await;
    let path = stack.config.store.path.clone();
    let copy = std::fs::read(&path).unwrap();
    stack.go().await.unwrap();
    let cipher = json!({ "stream_cipher": "aegis-256" });
    let patch = Ask::new("PATCH", "/v1/basins/basin-later").json(&cipher);
    assert_eq!(stack.h2().await.ask(patch).await.status, 200);
    assert_eq!(
        append(&stack, "basin-later", "t", &KEY, "secret-2")
            .await
            .status,
        200
    );
    stack.stop().await;
    std::fs::write(&path, copy).unwrap();
    let refused = stack.go().await.unwrap_err();
    assert!(refused.contains("older copy"), "{refused}");

    let said = stack.command(&["store", "rebuild"]).ok();
    assert!(said.contains("stream basin-later/t: encrypted"), "{said}");
    assert!(!said.contains("basin-early/s"), "{said}");
    stack.go().await.unwrap();
    for (basin, stream) in [
        ("basin-early", "s"),
        ("basin-later", "t"),
        ("basin-later", "u"),
    ] {
        assert_eq!(
            append(&stack, basin, stream, &KEY, "secret-3").await.status,
            200
        );
    }
    assert!(!stack.tap.saw(b"secret-"));
    // What the copy remembered of the first stream is still there: its key.
    let refused = append(&stack, "basin-early", "s", &OTHER, "x").await;
    assert_eq!(refused.code(), "decryption_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_cannot_see_everything_records_nothing() {
    let mut stack = populated().await;
    stack.stop().await;
    lose_store(&stack);
    let endpoint = std::mem::replace(
        &mut stack.config.upstream.basin_endpoint,
        "http://127.0.0.1:1".to_owned(),
    );
    let failed = stack.command(&["store", "rebuild"]).failed();
    assert!(failed.contains("127.0.0.1:1"), "{failed}");
    assert!(!stack.config.store.path.exists());
    stack.config.upstream.basin_endpoint = endpoint;
    stack.command(&["store", "rebuild"]).ok();
    stack.go().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_basin_does_not_take_what_it_finds_for_plain() {
    let mut stack = Stack::with(|config| {
        config.basins = vec![streamseal::registry::rules::BasinRule {
            r#match: "basin-*".to_owned(),
            stream_cipher: streamseal::registry::rules::RuleCipher::Aegis256,
        }];
    })
    .await;
    create_basin(&stack, "basin-declared", json!("aegis-256")).await;
    let create = Ask::post("/v1/streams")
        .basin("basin-declared")
        .json(&json!({ "stream": "empty" }));
    assert_eq!(stack.h2().await.ask(create).await.status, 201);
    stack.stop().await;
    lose_store(&stack);
    let said = stack.command(&["store", "rebuild"]).ok();
    assert!(
        said.contains("stream basin-declared/empty: encrypted"),
        "{said}"
    );
    stack.go().await.unwrap();
    assert_eq!(
        append(&stack, "basin-declared", "empty", &KEY, "secret-text")
            .await
            .status,
        200
    );
    assert!(!stack.tap.saw(b"secret-text"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_or_the_store_knows_to_be_plain_stays_so() {
    let mut stack = Stack::start().await;
    create_basin(&stack, "basin-mixed", Value::Null).await;
    // As a client may do who wants to be taken for encrypted.
    let lookalike = format!("\u{1}{}", "x".repeat(100));
    for stream in ["known", "ruled", "empty"] {
        let answer = append_plain(&stack, "basin-mixed", stream, &lookalike).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let cipher = json!({ "stream_cipher": "aegis-256" });
    let patch = Ask::new("PATCH", "/v1/basins/basin-mixed").json(&cipher);
    assert_eq!(stack.h2().await.ask(patch).await.status, 200);
    stack.stop().await;
    stack.config.streams = vec![streamseal::registry::rules::StreamRule {
        r#match: "basin-mixed/ruled".to_owned(),
        cipher: streamseal::registry::rules::RuleCipher::None,
        key: Default::default(),
        key_file: Default::default(),
        header_overrides: false,
    }];
    let said = stack.command(&["store", "rebuild"]).ok();
    assert!(
        said.contains("basin-mixed/known: recorded as plain, and left so"),
        "{said}"
    );
    assert!(
        said.contains("basin-mixed/ruled: declared in the configuration"),
        "{said}"
    );
    assert!(said.contains("0 entries recorded"), "{said}");
    lose_store(&stack);
    let said = stack.command(&["store", "rebuild"]).ok();
    assert!(
        said.contains("basin-mixed/ruled: declared in the configuration"),
        "{said}"
    );
    stack.go().await.unwrap();
    let answer = append_plain(&stack, "basin-mixed", "ruled", "clear text").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(stack.tap.saw(b"clear text"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpinned_stream_takes_another_key() {
    let mut stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    assert_eq!(append(&stack, BASIN, "s", &KEY, "one").await.status, 200);
    assert_eq!(
        append(&stack, BASIN, "s", &OTHER, "two").await.code(),
        "decryption_failed"
    );
    stack.stop().await;
    let said = stack
        .command(&["store", "unpin", &format!("s2://{BASIN}/s")])
        .ok();
    assert!(
        said.contains("forgot the key of stream test-basin/s"),
        "{said}"
    );
    let said = stack
        .command(&["store", "unpin", &format!("{BASIN}/s")])
        .ok();
    assert!(said.contains("has no pinned key"), "{said}");
    let unknown = stack
        .command(&["store", "unpin", &format!("{BASIN}/t")])
        .failed();
    assert!(unknown.contains("nothing is recorded"), "{unknown}");
    assert_eq!(stack.command(&["store", "unpin", "x"]).code, 64);
    stack.go().await.unwrap();
    assert_eq!(append(&stack, BASIN, "s", &OTHER, "two").await.status, 200);
    // Pinned anew, by the first append that was acknowledged.
    let refused = ask_until(
        &stack.h2().await,
        Ask::post(records("s"))
            .key(&KEY)
            .json(&json!({ "records": [{ "body": "x" }] })),
        |answer| answer.status == 400,
    )
    .await;
    assert_eq!(refused.code(), "decryption_failed");
}
