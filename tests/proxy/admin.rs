//! The admin listener says how the proxy is to whoever may know, and no path leads from it to a record.

use std::time::Duration;

use serde_json::json;

use crate::harness::{
    Answer, Ask, BASIN, Client, Encoding, KEY, Packed, Stack, append, ask_until, input, record,
    records, until,
};

/// A deployment with an admin listener.
pub async fn stack() -> Stack {
    with(|_| {}).await
}

/// The same with changes to its configuration.
pub async fn with(change: impl FnOnce(&mut streamseal::config::Config)) -> Stack {
    Stack::with(|config| {
        config.admin.address = "127.0.0.1:0"
            .parse::<std::net::SocketAddr>()
            .unwrap()
            .into();
        change(config);
    })
    .await
}

/// A request to the admin listener, as a program on this host sends it.
pub fn local(method: &str, path: impl Into<String>) -> Ask {
    Ask::new(method, path)
        .without("s2-basin")
        .header("host", "localhost")
}

pub async fn get(stack: &Stack, path: &str) -> Answer {
    stack.admin().await.ask(local("GET", path)).await
}

/// Appends one record to a stream of an encrypted basin.
async fn with_record(stack: &Stack) {
    stack.create_basin(Some("aegis-256")).await;
    let batch = input([record(&[], "the plaintext of a record")]);
    let appended = stack
        .h2()
        .await
        .ask(append("a-stream", Encoding::Json, Packed::Not, &batch))
        .await;
    assert_eq!(appended.status, 200, "{}", appended.text());
}

/// Asks for readiness until it is this status.
async fn ready(stack: &Stack, status: u16) -> serde_json::Value {
    let client = stack.admin().await;
    let asked = ask_until(&client, local("GET", "/ready"), |answer| {
        answer.status == status
    })
    .await;
    asked.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_and_metrics_answer_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "0123456789abcdef").unwrap();
    let stack = with(|config| config.admin.token_file = token.into()).await;
    with_record(&stack).await;
    // Neither a token nor a host that is its own.
    let anybody = |path: &str| Ask::get(path).header("host", "10.0.0.1:9090");
    let client = stack.admin().await;
    let health = client.ask(anybody("/health")).await;
    assert_eq!(
        (health.status, health.json()),
        (200, json!({ "healthy": true }))
    );
    let ready = client.ask(anybody("/ready")).await;
    assert_eq!(ready.status, 200, "{}", ready.text());
    let ready = ready.json();
    assert_eq!(ready["ready"], true);
    for check in ["store", "upstream", "certificates"] {
        assert_eq!(ready["checks"][check]["ok"], true, "{ready}");
        assert!(ready["checks"][check]["reason"].is_string(), "{ready}");
    }
    let metrics = client.ask(anybody("/metrics")).await;
    assert_eq!(metrics.status, 200);
    let kind = metrics.header("content-type");
    assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = metrics.text();
    for line in [
        "streamseal_ready 1",
        "streamseal_ready_check{check=\"upstream\"} 1",
        "streamseal_store_entries{kind=\"stream\"} 1",
        "code=\"ok\",encoding=\"json\",operation=\"append\"} 1",
    ] {
        assert!(text.contains(line), "{line} not in\n{text}");
    }
    for name in ["a-stream", BASIN] {
        assert!(!text.contains(name), "{name} in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_cannot_be_reached_makes_it_unready_but_not_unhealthy() {
    let mut stack =
        with(|config| config.upstream.account_endpoint = "http://127.0.0.1:1".to_owned()).await;
    let said = ready(&stack, 503).await;
    assert_eq!(said["ready"], false);
    assert_eq!(said["checks"]["upstream"]["ok"], false);
    let reason = said["checks"]["upstream"]["reason"].as_str().unwrap();
    assert!(
        reason.contains("account_endpoint nothing was sent to upstream 127.0.0.1:1"),
        "{reason}"
    );
    assert!(reason.contains("basin_endpoint answered "), "{reason}");
    assert_eq!(said["checks"]["store"]["ok"], true);
    assert_eq!(get(&stack, "/health").await.status, 200);
    let metrics = get(&stack, "/metrics").await.text();
    assert!(metrics.contains("streamseal_ready 0"));
    assert!(metrics.contains("streamseal_ready_check{check=\"upstream\"} 0"));
    let there = stack.config.upstream.basin_endpoint.clone();
    stack
        .restart(|config| config.upstream.account_endpoint = there)
        .await;
    ready(&stack, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_asked_seldom_however_often_it_is_asked() {
    let stack = stack().await;
    let began = std::time::Instant::now();
    let client = stack.admin().await;
    for _ in 0..200 {
        assert_eq!(client.ask(local("GET", "/ready")).await.status, 200);
    }
    let looks = began.elapsed().as_secs() / 2 + 1;
    let calls = stack.lite.seen().len() as u64;
    assert!(
        (1..=2 * looks).contains(&calls),
        "{calls} calls in {looks} looks"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_asked_without_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "token-for-the-upstream").unwrap();
    let stack = with(|config| {
        config.listen.authenticate = streamseal::server::Authenticate::None;
        config.upstream.access_token_file = token.into();
    })
    .await;
    ready(&stack, 200).await;
    let calls = stack.lite.seen();
    assert!(!calls.is_empty());
    for call in calls {
        let headers = call.headers.concat();
        assert!(!headers.contains("token-for-the-upstream"), "{headers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_gone_makes_it_unready() {
    let stack = stack().await;
    ready(&stack, 200).await;
    let path = &stack.config.store.path;
    let elsewhere = path.with_file_name("elsewhere");
    std::fs::rename(path, &elsewhere).unwrap();
    let said = ready(&stack, 503).await;
    assert_eq!(said["checks"]["store"]["ok"], false);
    let reason = said["checks"]["store"]["reason"].as_str().unwrap();
    assert!(reason.contains("moved or replaced"), "{reason}");
    std::fs::rename(&elsewhere, path).unwrap();
    ready(&stack, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_out_of_its_time_makes_it_unready() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let (cert_file, key_file) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert_file, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let stack = with(|config| {
        config.listen.tls = streamseal::server::TlsConfig {
            cert_file: cert_file.into(),
            key_file: key_file.into(),
            ..Default::default()
        };
    })
    .await;
    let said = ready(&stack, 503).await;
    let check = &said["checks"]["certificates"];
    assert_eq!(check["ok"], false);
    assert!(
        check["reason"]
            .as_str()
            .unwrap()
            .contains("listener certificate"),
        "{check}"
    );
    let status = get(&stack, "/api/status").await.json();
    let certificate = &status["certificates"][0];
    assert_eq!(certificate["not_after"], "2021-01-01T00:00:00Z");
    assert!(
        certificate["days_left"].as_i64().unwrap() < -1000,
        "{certificate}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_stops_is_not_ready_while_its_last_requests_run() {
    let mut stack = with(|config| config.limits.drain_timeout = Duration::from_secs(60)).await;
    with_record(&stack).await;
    let admin = stack.admin().await;
    assert_eq!(admin.ask(local("GET", "/ready")).await.status, 200);
    let reader = stack.h2().await;
    let session = Ask::get(format!("{}?seq_num=0&wait=60", records("a-stream")))
        .key(&KEY)
        .header("accept", "text/event-stream");
    let session = reader.open(session).await;
    assert_eq!(session.status(), 200);
    let stopping = stack.stop();
    let asking = async {
        until("it is not ready", || {
            let answer = admin.ask(local("GET", "/ready"));
            async move {
                let answer = answer.await;
                let is_draining = answer.json()["checks"]["draining"]["ok"] == false;
                answer.status == 503 && is_draining
            }
        })
        .await;
        reader.vanish();
    };
    tokio::join!(stopping, asking);
    drop(session);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_of_the_admin_listener_leads_to_records() {
    let stack = stack().await;
    with_record(&stack).await;
    let before = stack.lite.seen().len();
    let client = stack.admin().await;
    let streams = records("a-stream");
    for path in [
        "/v1/basins",
        "/v1/streams",
        "/v1/streams/a-stream",
        &streams,
        &format!("{streams}?seq_num=0"),
        &format!("{streams}/tail"),
        &format!("/api{streams}"),
        &format!("/api/..{streams}"),
        &format!("/health/..{streams}"),
        "/api",
        "/api/",
        "/api/records",
        "/api/status/",
        "//api/status",
        "/%61pi/status",
        "/index.html",
        "/favicon.ico",
    ] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let ask = Ask::new(method, path)
                .header("host", "localhost")
                .key(&KEY)
                .json(&json!({ "records": [{ "body": "x" }] }));
            let answer = client.ask(ask).await;
            assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
            assert!(!answer.text().contains("plaintext"));
        }
    }
    assert_eq!(stack.lite.seen().len(), before, "it asked the upstream");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_of_the_data_listener_leads_to_the_admin_api() {
    let stack = stack().await;
    with_record(&stack).await;
    for client in [stack.h1().await, stack.h2().await] {
        for path in [
            "/",
            "/ready",
            "/metrics",
            "/api/status",
            "/api/streams",
            "/api/store/export",
        ] {
            let before = stack.lite.seen().len();
            let answer = client.ask(Ask::get(path)).await;
            assert!(
                !answer.text().contains("streamseal"),
                "{path}: {}",
                answer.text()
            );
            assert_eq!(answer.status, 404, "{path}");
            assert_eq!(stack.lite.seen().len(), before, "{path} went on");
        }
        let unpin = json!({ "basin": BASIN, "stream": "a-stream" });
        client
            .ask(Ask::post("/api/streams/unpin").json(&unpin))
            .await;
    }
    let listed = get(&stack, "/api/streams").await.json();
    assert_eq!(listed["rows"][0]["key_check"], "pinned", "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_the_api_takes_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "a-token-of-24-characters\n").unwrap();
    let stack = with(|config| config.admin.token_file = token.into()).await;
    let client = stack.admin().await;
    for path in [
        "/api/status",
        "/api/streams",
        "/api/store/export",
        "/api/nothing",
    ] {
        for token in [
            None,
            Some("Bearer a-token-of-24-characterz"),
            Some("a-token-of-24-characters"),
        ] {
            let ask = local("GET", path);
            let ask = match token {
                Some(token) => ask.header("authorization", token),
                None => ask,
            };
            let answer = client.ask(ask).await;
            assert_eq!(
                (answer.status, &*answer.code()),
                (401, "permission_denied"),
                "{path}"
            );
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    // By any name, for it is the token that counts.
    let ask = Ask::get("/api/status")
        .header("host", "proxy.example")
        .header("authorization", "Bearer a-token-of-24-characters");
    let status = client.ask(ask).await;
    assert_eq!(status.status, 200, "{}", status.text());
    assert_eq!(status.json()["listeners"][1]["authenticate"], "token");
    assert!(!status.text().contains("a-token-of"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_other_hosts_and_sites_are_kept_out() {
    let stack = stack().await;
    let client = stack.admin().await;
    let ask = |host: &str| Ask::get("/api/status").header("host", host);
    assert_eq!(client.ask(ask("localhost")).await.status, 200);
    for ask in [
        ask("evil.example"),
        ask(""),
        ask("localhost").header("origin", "http://evil.example"),
        ask("localhost").header("sec-fetch-site", "cross-site"),
        ask("localhost").header("x-forwarded-for", "1.2.3.4"),
    ] {
        let answer = client.ask(ask).await;
        assert_eq!((answer.status, &*answer.code()), (403, "permission_denied"));
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let form = local("POST", "/api/streams/unpin").body("text/plain", "{}");
    assert_eq!(client.ask(form).await.status, 415);

    let anywhere = with(|config| {
        let any: std::net::SocketAddr = "0.0.0.0:0".parse().unwrap();
        config.admin.address = any.into();
    })
    .await;
    let port = anywhere.admin.unwrap().port();
    let client = Client::plain_http1(([127, 0, 0, 1], port).into()).await;
    let answer = client.ask(local("GET", "/api/status")).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(client.ask(local("GET", "/ready")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_kept_by_nobody_and_framed_by_nobody() {
    let stack = stack().await;
    for path in [
        "/",
        "/health",
        "/ready",
        "/metrics",
        "/api/status",
        "/nothing",
    ] {
        let answer = get(&stack, path).await;
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        let head = stack.admin().await.ask(local("HEAD", path)).await;
        assert_eq!((head.status, head.body.len()), (answer.status, 0), "{path}");
    }
    let (one, other) = (get(&stack, "/").await, get(&stack, "/").await);
    let policy = one.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'nonce-"),
        "{policy}"
    );
    assert_ne!(Some(policy), other.header("content-security-policy"));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_methods_and_bodies_are_refused() {
    let stack = stack().await;
    let client = stack.admin().await;
    for (method, path, allowed) in [
        ("POST", "/ready", "GET, HEAD"),
        ("POST", "/api/status", "GET, HEAD"),
        ("DELETE", "/api/streams", "GET, HEAD"),
        ("GET", "/api/streams/unpin", "POST"),
        ("POST", "/api/store/export", "GET"),
    ] {
        let answer = client.ask(local(method, path).json(&json!({}))).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some(allowed)),
            "{method} {path}"
        );
    }
    let unpin = || local("POST", "/api/streams/unpin");
    let long = format!("{{\"basin\":\"{}\"}}", "x".repeat(64 * 1024));
    for body in [
        "",
        "{",
        "[]",
        "{\"basin\":\"test-basin\"}",
        &long,
        "{\"basin\":\"test-basin\",\"stream\":\"s\",\"more\":1}",
        "{\"basin\":\"x\",\"stream\":\"s\"}",
    ] {
        let client = stack.admin().await;
        let answer = client
            .ask(unpin().body("application/json", body.to_owned()))
            .await;
        assert_eq!(
            (answer.status, &*answer.code()),
            (400, "invalid"),
            "{}",
            answer.text()
        );
    }
    let endless = "x".repeat(1 << 20);
    let client = stack.admin().await;
    let answer = client.try_ask(unpin().body("application/json", endless));
    // The answer comes before the body was taken, so that it may be lost with the connection.
    if let Ok(answer) = answer.await {
        assert!(answer.text().contains("too large"), "{}", answer.text());
    }
    let unknown = json!({ "basin": BASIN, "stream": "nothing" });
    let answer = stack.admin().await.ask(unpin().json(&unknown)).await;
    assert_eq!((answer.status, &*answer.code()), (404, "stream_unknown"));
}
