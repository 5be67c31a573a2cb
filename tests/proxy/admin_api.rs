//! The admin API tells what the config store records and what went wrong, and backs it up without a stop.

use serde_json::{Value, json};

use crate::{
    admin::{get, local, stack, with},
    harness::{Ask, BASIN, KEY, Ran, Stack, base64, contains, records},
};

const OTHER: [u8; 32] = [9; 32];

async fn put(stack: &Stack, stream: &str, key: &[u8]) -> crate::harness::Answer {
    let batch = json!({ "records": [{ "body": "the plaintext" }] });
    let ask = Ask::post(records(stream)).key(key).json(&batch);
    stack.h2().await.ask(ask).await
}

async fn with_streams(stack: &Stack, streams: &[&str]) {
    stack.create_basin(Some("aes-256-gcm")).await;
    for stream in streams {
        let answer = put(stack, stream, &KEY).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn names(listed: &Value) -> Vec<&str> {
    let rows = listed["rows"].as_array().unwrap();
    rows.iter()
        .map(|row| row["stream"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_listeners_upstream_certificates_and_store() {
    let stack = stack().await;
    with_streams(&stack, &["s"]).await;
    let answer = get(&stack, "/api/status").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let status = answer.json();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["ready"]["ready"], true);
    assert_eq!(status["key_check"], "enforce");
    let [data, admin] = [&status["listeners"][0], &status["listeners"][1]];
    assert_eq!(data["address"], stack.address.to_string());
    assert_eq!(
        (&data["tls"], &data["authenticate"]),
        (&json!(true), &json!("upstream"))
    );
    assert_eq!(admin["address"], stack.admin.unwrap().to_string());
    assert_eq!(admin["authenticate"], "loopback");
    for endpoint in status["upstream"].as_array().unwrap() {
        assert_eq!(endpoint["url"], stack.config.upstream.account_endpoint);
        assert_eq!(endpoint["reachable"], true);
    }
    let certificate = &status["certificates"][0];
    assert_eq!(certificate["role"], "listener");
    assert!(
        certificate["days_left"].as_i64().unwrap() > 0,
        "{certificate}"
    );
    let reloads = json!({ "applied": 0, "refused": 0, "last": Value::Null });
    assert_eq!(status["reloads"], reloads);
    let store = &status["store"];
    assert_eq!(
        (&store["basins"], &store["streams"], &store["projects"]),
        (&json!(1), &json!(1), &json!(0))
    );
    assert_eq!(
        (&store["keyed"], &store["format"]),
        (&json!(false), &json!(4))
    );
    assert_eq!(store["path"], stack.config.store.path.to_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_listed_with_cipher_key_source_and_check() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, base64(&KEY)).unwrap();
    let stack = with(|config| {
        config.streams = vec![streamseal::registry::rules::StreamRule {
            r#match: format!("{BASIN}/ruled/*"),
            cipher: streamseal::registry::rules::RuleCipher::Aegis256,
            key: streamseal::registry::rules::KeySource::File,
            key_file: file.into(),
            header_overrides: false,
        }];
    })
    .await;
    with_streams(&stack, &["own", "ruled/one"]).await;
    let create = json!({ "stream": "empty" });
    let made = stack
        .h2()
        .await
        .ask(Ask::post("/v1/streams").json(&create))
        .await;
    assert_eq!(made.status, 201, "{}", made.text());
    let listed = get(&stack, "/api/streams").await.json();
    assert_eq!(names(&listed), ["empty", "own", "ruled/one"]);
    assert_eq!(listed["next"], Value::Null);
    for (at, cipher, source, check, origin) in [
        (0, "aes-256-gcm", "header", "not-pinned", "created"),
        (1, "aes-256-gcm", "header", "pinned", "auto-created"),
        (2, "aegis-256", "file", "pinned", "declared"),
    ] {
        let row = &listed["rows"][at];
        assert_eq!(row["basin"], BASIN);
        assert_eq!(row["cipher"], cipher, "{row}");
        assert_eq!(row["key_source"], source, "{row}");
        assert_eq!(row["key_check"], check, "{row}");
        assert_eq!(row["origin"], origin, "{row}");
        assert_eq!(
            (&row["state"], &row["conflict"]),
            (&json!("live"), &json!(false))
        );
    }
    let basins = get(&stack, "/api/basins").await.json();
    assert_eq!(basins["rows"][0]["stream_cipher"], "aes-256-gcm");
    assert_eq!(basins["rows"][0]["declared"], false);
    assert!(!contains(
        listed.to_string().as_bytes(),
        base64(&KEY).as_bytes()
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_and_take_a_filter() {
    let stack = stack().await;
    with_streams(
        &stack,
        &["a", "b/Orders", "b/payments", "c", "<img src=x onerror=1>"],
    )
    .await;
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let after_now =
            percent_encoding::utf8_percent_encode(&after, percent_encoding::NON_ALPHANUMERIC);
        let page = get(&stack, &format!("/api/streams?limit=2&after={after_now}"))
            .await
            .json();
        assert!(names(&page).len() <= 2);
        all.extend(names(&page).iter().map(|name| (*name).to_owned()));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(
        all,
        ["<img src=x onerror=1>", "a", "b/Orders", "b/payments", "c"]
    );
    let filtered = get(&stack, "/api/streams?filter=B%2FoRD").await.json();
    assert_eq!(names(&filtered), ["b/Orders"]);
    let elsewhere = get(&stack, "/api/streams?basin=other-basin").await.json();
    assert_eq!(names(&elsewhere), [""; 0]);
    for query in ["limit=0", "limit=1001", "fliter=x", "basin=X"] {
        let refused = get(&stack, &format!("/api/streams?{query}")).await;
        assert_eq!(
            (refused.status, &*refused.code()),
            (400, "invalid"),
            "{query}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_told_without_keys_or_records() {
    let stack = stack().await;
    with_streams(&stack, &["s"]).await;
    assert_eq!(put(&stack, "s", &OTHER).await.code(), "decryption_failed");
    // The upstream's own refusals are everyday business.
    let tail = Ask::get("/v1/streams/nothing-here");
    assert_eq!(stack.h2().await.ask(tail).await.status, 404);
    let short = Ask::post(records("s")).header("s2-encryption-key", "c2hvcnQ=");
    let short = short.json(&json!({ "records": [{ "body": "the plaintext" }] }));
    assert_eq!(stack.h2().await.ask(short).await.status, 422);
    let answer = get(&stack, "/api/errors").await;
    let errors = answer.json();
    let rows = errors["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{errors}");
    for (row, code) in rows.iter().zip(["invalid", "decryption_failed"]) {
        assert_eq!(
            (&row["code"], &row["fault"]),
            (&json!(code), &json!("client"))
        );
        assert_eq!(
            (&row["operation"], &row["stream"]),
            (&json!("append"), &json!("test-basin/s"))
        );
        assert!(!row["message"].as_str().unwrap().is_empty());
        assert!(row["time"].as_str().unwrap().ends_with('Z'));
    }
    for secret in [&*base64(&KEY), &base64(&OTHER), "c2hvcnQ", "the plaintext"] {
        assert!(!answer.text().contains(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_unpinned_while_the_proxy_runs() {
    let stack = stack().await;
    with_streams(&stack, &["s"]).await;
    assert_eq!(put(&stack, "s", &OTHER).await.code(), "decryption_failed");
    let unpin = local("POST", "/api/streams/unpin").json(&json!({ "basin": BASIN, "stream": "s" }));
    let client = stack.admin().await;
    let answer = client.ask(unpin.clone()).await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({ "was_pinned": true }))
    );
    assert_eq!(
        client.ask(unpin).await.json(),
        json!({ "was_pinned": false })
    );
    let listed = get(&stack, "/api/streams").await.json();
    assert_eq!(listed["rows"][0]["key_check"], "not-pinned");
    assert_eq!(put(&stack, "s", &OTHER).await.status, 200);
    assert_eq!(put(&stack, "s", &KEY).await.code(), "decryption_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_proxy_exports_what_a_stopped_one_has() {
    let mut stack = stack().await;
    with_streams(&stack, &["a", "b", "c"]).await;
    let exported = get(&stack, "/api/store/export").await;
    assert_eq!(exported.status, 200);
    assert_eq!(exported.header("content-type"), Some("application/jsonl"));
    stack.stop().await;
    let stopped = stack.command(&["store", "export"]).ok();
    assert_eq!(exported.text(), stopped);
    assert!(stopped.lines().count() == 6, "{stopped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_reach_a_running_proxy_through_its_admin_listener() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "a-token-of-24-characters\n").unwrap();
    let stack = with(|config| config.admin.token_file = token.clone().into()).await;
    with_streams(&stack, &["s"]).await;
    let stream = format!("s2://{BASIN}/s");
    for command in [&["export"][..], &["unpin", &stream]] {
        let locked = stack.command(&[&["store"], command].concat()).failed();
        assert!(locked.contains("in use by another process"), "{locked}");
        assert!(
            locked.contains("--admin http://127.0.0.1:0 --admin-token-file FILE"),
            "{locked}"
        );
    }
    let url = format!("http://{}", stack.admin.unwrap());
    let token = token.to_str().unwrap();
    let ask = |arguments: &[&str]| {
        let admin = ["--admin", &url, "--admin-token-file", token];
        Ran::of(["store"].iter().chain(arguments).chain(&admin).copied())
    };
    let exported = ask(&["export"]).ok();
    assert!(exported.lines().count() == 4, "{exported}");
    assert!(
        ask(&["unpin", &stream])
            .ok()
            .contains("forgot the key of stream test-basin/s")
    );
    assert!(ask(&["unpin", &stream]).ok().contains("has no pinned key"));
    let unknown = ask(&["unpin", &format!("{BASIN}/t")]).failed();
    assert!(unknown.contains("nothing is recorded"), "{unknown}");
    let denied = Ran::of(["store", "export", "--admin", &url]).failed();
    assert!(denied.contains("needs the token"), "{denied}");
    let nobody = Ran::of(["store", "export", "--admin", "http://127.0.0.1:1"]).failed();
    assert!(nobody.contains("admin listener 127.0.0.1:1"), "{nobody}");
    for wrong in [
        "127.0.0.1:9090",
        "https://127.0.0.1:9090",
        "http://127.0.0.1:9090/api",
    ] {
        assert_eq!(
            Ran::of(["store", "export", "--admin", wrong]).code,
            64,
            "{wrong}"
        );
    }
    assert_eq!(put(&stack, "s", &OTHER).await.status, 200);
}
