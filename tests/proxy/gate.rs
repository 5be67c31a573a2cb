//! Who comes in with an API key, and who does not: every failure is one and the same answer, and no key goes
//! any further than the proxy.

use std::fs;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderMap;
use serde_json::{Value, json};
use streamseal::{
    project::{Scope, Scopes},
    proxy::gate::Refusal,
    server::Authenticate,
    store::ApiKeyState,
};

use crate::harness::{
    Answer, Ask, BASIN, Client, DEADLINE, Encoding, KEY, Lite, Packed, Program, Stack, Tap, Token,
    append, base64, input, leaks, pepper, project, read, record, records,
};

const PAYLOAD: &[u8] = b"a payload that nobody but its reader may see";

/// A proxy with one project that owns every basin of these tests, and its first API key.
async fn stack() -> (Stack, Token) {
    let stack = Stack::with(|config| project(config, "tests", &["test-*/**"])).await;
    let token = stack.create_project("tests").await;
    make_basin(&stack.h2().await, &token, Some("aegis-256")).await;
    (stack, token)
}

async fn make_basin(client: &Client, token: &Token, cipher: Option<&str>) {
    let config = json!({ "stream_cipher": cipher, "create_stream_on_append": true });
    let make = Ask::post("/v1/basins").json(&json!({ "basin": BASIN, "config": config }));
    let made = client.ask(token.on(make)).await;
    assert_eq!(made.status, 201, "{}", made.text());
}

/// What a client can tell answers apart by: not the time, and not the request's id.
fn seen(answer: &Answer) -> (u16, HeaderMap, String) {
    let mut headers = answer.headers.clone();
    headers.remove("date");
    headers.remove("s2-request-id");
    (answer.status, headers, answer.text())
}

fn bearer(text: impl AsRef<[u8]>) -> Ask {
    let value = [b"Bearer ", text.as_ref()].concat();
    Ask::get("/v1/streams").header("authorization", value)
}

fn refusals(stack: &Stack, reason: &str) -> f64 {
    let series = format!(r#"api_key_refusals_total{{reason="{reason}"}}"#);
    stack.counts().of(&series)
}

/// Another key in place of this one, of the same form, that nobody issued.
fn made_up() -> String {
    let [one, other]: [[u8; 28]; 2] = rand::random();
    let bytes = [&[1], &one[..], &other[..]].concat();
    format!("sk-ss-{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn of_version_2(text: &str) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(&text[6..]).unwrap();
    bytes[0] = 2;
    format!("sk-ss-{}", URL_SAFE_NO_PAD.encode(bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_is_one_and_the_same_answer() {
    let (mut stack, token) = stack().await;
    let revoked = stack.issue(&token, "revoked", Scopes::all()).await;
    stack.revoke(&revoked).await;
    let expired = stack.issue(&token, "expired", Scopes::all()).await;
    stack
        .change_key(&expired, |row| row.expires_at = Some(row.created_at))
        .await;
    let replaced = stack.issue(&token, "replaced", Scopes::all()).await;
    let retired = |row: &mut streamseal::store::ApiKeyEntry| {
        let (until, successor) = (row.created_at, "next".to_owned());
        row.state = ApiKeyState::Retiring { until, successor };
    };
    stack.change_key(&replaced, retired).await;
    let unverified = stack.issue(&token, "unverified", Scopes::all()).await;
    let other = streamseal::crypto::Digest::from_bytes([7; 32]);
    stack
        .change_key(&unverified, |row| row.verify = other)
        .await;
    let text = &token.text;
    let stranger = made_up();
    let cut = &text[..text.len() - 1];
    let whole = format!("Bearer {text}");
    let asks = [
        ("missing", Ask::get("/v1/streams")),
        ("several", bearer(text).header("authorization", &whole)),
        ("several", bearer(text).header("authorization", "Bearer x")),
        ("form", bearer("")),
        ("form", bearer("some-other-token")),
        ("form", bearer(cut)),
        ("form", bearer(format!("{text}A"))),
        ("form", bearer(format!("{text}="))),
        ("form", bearer(format!("{text}==="))),
        ("form", bearer(format!(" {text}"))),
        ("form", bearer(format!("{text},Bearer {text}"))),
        ("form", bearer(format!("\"{text}\""))),
        ("form", bearer(text.replacen("sk-ss-", "SK-SS-", 1))),
        ("form", bearer(text.replacen("sk-ss-", "sk-ac-", 1))),
        ("form", bearer(text.replacen("sk-ss-A", "sk-ss-+", 1))),
        ("form", bearer(text.replacen("sk-ss-A", "sk-ss-/", 1))),
        ("form", bearer(text.replacen("sk-ss-A", "sk-ss-%41", 1))),
        ("form", bearer(of_version_2(text))),
        ("form", bearer([text.as_bytes(), &[0xff]].concat())),
        (
            "form",
            Ask::get("/v1/streams").header("authorization", text),
        ),
        (
            "form",
            Ask::get("/v1/streams").header("authorization", format!("Basic {text}")),
        ),
        (
            "form",
            Ask::get("/v1/streams").header("authorization", format!("Token {text}")),
        ),
        (
            "form",
            Ask::get("/v1/streams").header("authorization", format!("Bearer\t{text}")),
        ),
        ("unknown", bearer(&stranger)),
        ("verifier", bearer(&unverified.text)),
        ("over", bearer(&revoked.text)),
        ("over", bearer(&expired.text)),
        ("over", bearer(&replaced.text)),
        // An API key somewhere else is none.
        (
            "missing",
            Ask::get("/v1/streams").header("s2-encryption-key", text),
        ),
        ("missing", Ask::get("/v1/streams").header("x-api-key", text)),
        (
            "missing",
            Ask::get("/v1/streams").header("proxy-authorization", &whole),
        ),
        (
            "missing",
            Ask::get(format!("/v1/streams?access_token={text}")),
        ),
        (
            "missing",
            Ask::get(format!("/v1/streams?s2-encryption-key={text}")),
        ),
        ("missing", Ask::get(format!("/v1/streams/{text}"))),
    ];
    stack.lite.quiet().await;
    let upstream = stack.lite.seen().len();
    for client in [stack.h1().await, stack.h2().await] {
        let known = seen(&client.ask(bearer(&stranger)).await);
        assert_eq!(known.0, 401);
        assert_eq!(
            known.2,
            r#"{"code":"authn","message":"access token is not valid"}"#
        );
        assert_eq!(known.1["www-authenticate"], "Bearer");
        for (reason, ask) in &asks {
            let before = refusals(&stack, reason);
            let answer = client.ask(ask.clone()).await;
            assert_eq!(seen(&answer), known, "{reason}: {ask:?}");
            assert_eq!(refusals(&stack, reason), before + 1.0, "{reason}: {ask:?}");
        }
        // Whatever is asked for, and whether or not there is such a thing.
        for (method, path) in [
            ("POST", records("s")),
            ("GET", records("s")),
            ("GET", records("s") + "/tail"),
            ("GET", "/v1/basins".to_owned()),
            ("DELETE", format!("/v1/basins/{BASIN}")),
            ("POST", "/v1/access-tokens".to_owned()),
            ("GET", "/nothing".to_owned()),
            ("BREW", "/v1/streams".to_owned()),
        ] {
            let answer = client.ask(Ask::new(method, &path)).await;
            assert_eq!(seen(&answer), known, "{method} {path}");
        }
        let head = client.ask(Ask::new("HEAD", records("s"))).await;
        assert_eq!((head.status, &*head.text()), (401, ""));
        // Case is of no matter in what is no key.
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let ask = Ask::get("/v1/streams").header("authorization", format!("{scheme} {text}"));
            assert_eq!(client.ask(ask).await.status, 200, "{scheme}");
        }
    }
    let lists = |line: &str| line.contains("/v1/streams?limit=");
    let seen_upstream = stack.lite.seen();
    let others = seen_upstream[upstream..]
        .iter()
        .filter(|seen| !lists(&seen.line));
    assert_eq!(others.count(), 0, "{seen_upstream:#?}");
    // Another pepper, and a project that is gone, are that answer, too.
    let known = seen(&stack.h2().await.ask(bearer(&stranger)).await);
    let other_pepper = stack.config.store.path.with_file_name("other");
    fs::write(&other_pepper, base64(&pepper("other"))).unwrap();
    stack
        .reload(|config| config.projects[0].pepper_file = other_pepper.into())
        .unwrap();
    assert_eq!(seen(&stack.h2().await.ask(bearer(text)).await), known);
    stack
        .reload(|config| config.projects[0].name = "renamed".parse().unwrap())
        .unwrap();
    assert_eq!(seen(&stack.h2().await.ask(bearer(text)).await), known);
}

/// HTTP/1.1 takes the space around a value for none of it (RFC 9112, section 5.1); HTTP/2 does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_space_behind_the_key_is_part_of_it_where_http_says_so() {
    let (stack, token) = stack().await;
    for space in [" ", "  ", "\t"] {
        let ask = || bearer(format!("{}{space}", token.text));
        let client = stack.h2().await;
        let known = seen(&client.ask(bearer(made_up())).await);
        let before = refusals(&stack, "form");
        assert_eq!(seen(&client.ask(ask()).await), known, "{space:?}");
        assert_eq!(refusals(&stack, "form"), before + 1.0, "{space:?}");
        let answer = stack.h1().await.ask(ask()).await;
        assert_eq!(answer.status, 200, "{space:?}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_bit_is_refused() {
    let (stack, token) = stack().await;
    let client = stack.h2().await;
    let bytes = URL_SAFE_NO_PAD.decode(&token.text[6..]).unwrap();
    assert_eq!(bytes.len(), 57);
    let known = seen(&client.ask(bearer(made_up())).await);
    let mut admitted = Vec::new();
    for bit in 0..456 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let text = format!("sk-ss-{}", URL_SAFE_NO_PAD.encode(&flipped));
        let answer = client.ask(bearer(&text)).await;
        if answer.status == 401 {
            assert_eq!(seen(&answer), known, "bit {bit}");
        } else {
            admitted.push(bit);
        }
        // Another key of before is no help.
        assert_eq!(
            client.ask(bearer(&token.text)).await.status,
            200,
            "bit {bit}"
        );
    }
    assert_eq!(admitted, Vec::<usize>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_where_it_does_not_belong_is_refused_with_a_good_one_too() {
    let (stack, token) = stack().await;
    let text = &token.text;
    let encoded = text.replace('-', "%2D").replacen('s', "%73", 1);
    let upper = text.replacen("sk-ss-", "SK-SS-", 1);
    stack.lite.quiet().await;
    let before = stack.lite.seen().len();
    for client in [stack.h1().await, stack.h2().await] {
        for (code, ask) in [
            (
                "bad_header",
                Ask::get(records("s")).header("s2-encryption-key", text),
            ),
            (
                "bad_header",
                Ask::get("/v1/streams").header("x-api-key", text),
            ),
            (
                "bad_header",
                Ask::get("/v1/streams").header("cookie", format!("a={text}; b")),
            ),
            (
                "bad_header",
                Ask::get("/v1/streams").header("x-cut", &text[..30]),
            ),
            (
                "bad_header",
                Ask::get("/v1/streams").header("x-upper", &upper),
            ),
            ("bad_query", Ask::get(format!("/v1/streams?prefix={text}"))),
            (
                "bad_query",
                Ask::get(format!("/v1/streams?access_token={encoded}")),
            ),
            ("bad_path", Ask::get(format!("/v1/streams/{text}"))),
            (
                "bad_path",
                Ask::post(records(text)).json(&json!({ "records": [] })),
            ),
            ("bad_path", Ask::get(format!("/v1/streams/{encoded}"))),
        ] {
            let answer = client.ask(token.on(ask)).await;
            assert_eq!(
                (answer.status, &*answer.code()),
                (400, code),
                "{}",
                answer.text()
            );
            assert!(!leaks(&answer.body, text.as_bytes()));
        }
    }
    assert_eq!(stack.lite.seen().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_is_refused_where_none_are_taken() {
    for authenticate in [Authenticate::Upstream, Authenticate::None] {
        let stack = Stack::with(|config| config.listen.authenticate = authenticate).await;
        stack.create_basin(None).await;
        stack.lite.quiet().await;
        let before = stack.lite.seen().len();
        let client = stack.h2().await;
        for value in [
            format!("Bearer {}", made_up()),
            format!("bearer  {}", made_up()),
            made_up(),
            "Bearer sk-ss-short".to_owned(),
        ] {
            let ask = |path: &str| Ask::get(path).header("authorization", &value);
            for path in [
                "/v1/basins",
                "/v1/streams",
                "/v1/streams/s/records",
                "/health",
            ] {
                let answer = client.ask(ask(path)).await;
                assert_eq!((answer.status, &*answer.code()), (401, "authn"), "{path}");
            }
        }
        assert_eq!(stack.lite.seen().len(), before);
        assert_eq!(refusals(&stack, "not_taken"), 16.0);
        let other = Ask::get("/v1/basins").header("authorization", "Bearer something-else");
        assert_eq!(client.ask(other).await.status, 200);
        let told = stack.lite.seen().pop().unwrap();
        assert!(
            told.headers
                .contains(&"authorization: Bearer something-else".to_owned())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_projects_own_token_goes_upstream_and_no_other() {
    for (own, configured) in [(true, true), (true, false), (false, true), (false, false)] {
        let stack = Stack::with(|config| {
            project(config, "tests", &["test-*/**"]);
            let file = |name: &str, text: &str| {
                let file = config.store.path.with_file_name(name);
                fs::write(&file, text).unwrap();
                file
            };
            if own {
                config.projects[0].access_token_file = file("own", "token-of-the-project").into();
            }
            if configured {
                config.upstream.access_token_file = file("all", "token-of-the-proxy").into();
            }
        })
        .await;
        let token = stack.create_project("tests").await;
        let client = stack.h2().await;
        make_basin(&client, &token, Some("aes-256-gcm")).await;
        every_call(&client, &token).await;
        let wanted = match (own, configured) {
            (true, _) => Some("authorization: Bearer token-of-the-project"),
            (false, true) => Some("authorization: Bearer token-of-the-proxy"),
            (false, false) => None,
        };
        let seen = stack.lite.seen();
        assert!(seen.len() > 20, "{}", seen.len());
        for seen in seen {
            let mut found = seen.headers.iter();
            let found = found.find(|header| header.starts_with("authorization"));
            assert_eq!(found.map(String::as_str), wanted, "{}", seen.line);
        }
    }
}

/// What every kind of call comes to with this API key: calls that the proxy makes of its own among them.
async fn every_call(client: &Client, token: &Token) {
    let batch = input([record(&[(b"a", b"b")], "text")]);
    for encoding in Encoding::APPENDS {
        let answer = client
            .ask(token.on(append("s", encoding, Packed::Not, &batch)))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for encoding in Encoding::READS {
        let answer = client
            .ask(token.on(read("s", "seq_num=0&count=4", encoding)))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let own = format!("/v1/basins/{BASIN}");
    for ask in [
        Ask::get(records("s") + "/tail"),
        Ask::get("/v1/streams"),
        Ask::get("/v1/basins"),
        Ask::get("/v1/streams/s"),
        Ask::get(&own),
        Ask::post("/v1/streams").json(&json!({ "stream": "made" })),
        Ask::new("PUT", "/v1/streams/made"),
        Ask::new("PATCH", "/v1/streams/made").json(&json!({})),
        Ask::new("PATCH", &own).json(&json!({})),
        Ask::new("DELETE", "/v1/streams/made"),
        Ask::get(format!("/v1/metrics/{BASIN}")),
        Ask::get("/v1/access-tokens"),
        Ask::post("/v1/access-tokens").json(&json!({ "id": "x" })),
        Ask::get("/health"),
        Ask::new("OPTIONS", records("s")).header("origin", "https://page.example"),
    ] {
        client.ask(token.on(ask)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_is_answered_without_anybody_being_asked() {
    let (stack, _) = stack().await;
    stack.lite.quiet().await;
    let before = stack.lite.seen().len();
    let ask = Ask::new("OPTIONS", records("s"))
        .header("origin", "https://page.example")
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,content-type",
        );
    let answer = stack.h2().await.ask(ask).await;
    assert_eq!((answer.status, &*answer.text()), (200, ""));
    for (name, value) in [
        ("access-control-allow-origin", "https://page.example"),
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "authorization,content-type"),
        ("access-control-allow-credentials", "true"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    assert_eq!(stack.lite.seen().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_encrypted_with_a_header_key_needs_both() {
    let (stack, token) = stack().await;
    let client = stack.h2().await;
    let batch = input([record(&[], PAYLOAD)]);
    let good = append("s", Encoding::Json, Packed::Gzip, &batch);
    assert_eq!(client.ask(good.clone()).await.status, 401);
    let no_key = token.on(good.clone().without("s2-encryption-key"));
    assert_eq!(client.ask(no_key).await.code(), "invalid");
    assert_eq!(client.ask(token.on(good)).await.status, 200);
    assert!(!leaks(&stack.tap.bytes(), PAYLOAD));
    assert!(!leaks(&stack.tap.bytes(), &KEY));
}

/// Everything secret about an API key, by what it is called.
fn secrets(token: &Token) -> Vec<(&'static str, Vec<u8>)> {
    let body = &token.text[6..];
    let bytes = URL_SAFE_NO_PAD.decode(body).unwrap();
    vec![
        ("the token", token.text.clone().into_bytes()),
        ("its body", body.as_bytes().to_vec()),
        ("its beginning", body.as_bytes()[..24].to_vec()),
        ("its end", body.as_bytes()[40..].to_vec()),
        ("the auth secret", bytes[1..17].to_vec()),
        ("the wrapped master key", bytes[17..].to_vec()),
        ("the pepper", pepper(&token.project).to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_part_of_an_api_key_is_told_to_anybody() {
    let lite = Lite::start().await;
    let tap = Tap::start(lite.address).await;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let token = {
        let store = at("store.redb");
        let mut stack = Stack::with(move |config| {
            config.store.path = store;
            project(config, "tests", &["test-*/**"]);
        })
        .await;
        let token = stack.create_project("tests").await;
        let gone = stack.issue(&token, "gone", Scopes::all()).await;
        stack.revoke(&gone).await;
        stack.stop().await;
        [token, gone]
    };
    let [token, gone] = token;
    let projects = json!([{
        "name": "tests", "match": ["test-*/**"], "pepper_file": at("tests.pepper"),
    }]);
    let sections = json!({
        "listen": { "authenticate": "api-key" },
        "projects": projects,
        "audit": { "file": at("audit.log") },
    });
    let mut program = Program::with(dir.path(), tap.address, &sections, "trace");
    let mut told = Vec::new();
    for alpn in ["http/1.1", "h2"] {
        let client = program.client(alpn).await;
        let config = json!({ "stream_cipher": "aegis-256", "create_stream_on_append": true });
        let make = Ask::post("/v1/basins").json(&json!({ "basin": BASIN, "config": config }));
        client.ask(token.on(make)).await;
        every_call(&client, &token).await;
        let text = &token.text;
        for ask in [
            gone.on(Ask::get("/v1/streams")),
            bearer(made_up()),
            bearer(text).header("authorization", format!("Bearer {text}")),
            bearer(&text[..text.len() - 1]),
            token.on(Ask::get(format!("/v1/streams/{text}"))),
            token.on(Ask::get(format!("/v1/streams?x={text}"))),
            token.on(Ask::get("/v1/streams").header("s2-request-id", text)),
            token.on(Ask::get("/v1/streams").header("x-other", text)),
            token.on(Ask::get(records("s")).header("s2-encryption-key", text)),
            token.on(Ask::get("/v1/basins/other-basin")),
            Ask::get(format!("/v1/streams/{text}")),
        ] {
            let answer = client.ask(ask).await;
            told.extend(format!("{:?}", answer.headers).into_bytes());
            told.extend(answer.body);
        }
    }
    program.signal(rustix::process::Signal::TERM);
    assert_eq!(program.ended().await, Some(0));
    let audit = fs::read(at("audit.log")).unwrap();
    let config = fs::read(at("store.redb")).unwrap();
    let log = program.log();
    assert!(
        log.contains("TRACE") || log.contains("\"level\":\"DEBUG\""),
        "{log}"
    );
    let (project, id) = ("tests".parse().unwrap(), gone.id.clone());
    for refusal in [
        Refusal::Missing,
        Refusal::Several,
        Refusal::Form,
        Refusal::Unknown,
        Refusal::Over { project, id },
    ] {
        let told = json!(refusal.to_string()).to_string();
        let said = log.contains(told.trim_matches('"'));
        assert!(said, "{told} is not in the log");
    }
    let heads: String = lite
        .seen()
        .iter()
        .map(|seen| format!("{}\n{}\n", seen.line, seen.headers.join("\n")))
        .collect();
    assert!(heads.len() > 1000);
    let places = [
        ("the wire to the upstream", tap.bytes()),
        ("requests to the upstream", heads.into_bytes()),
        ("the log", log.into_bytes()),
        ("the audit log", audit),
        ("answers", told),
        ("the config store", config),
    ];
    for token in [&token, &gone] {
        for (what, secret) in secrets(token) {
            for (place, bytes) in &places {
                assert!(!leaks(bytes, &secret), "{what} in {place}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_says_which_api_key_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("audit.log");
    let audit = file.clone();
    let mut stack = Stack::with(|config| {
        project(config, "tests", &["test-*/**"]);
        config.audit.file = audit;
    })
    .await;
    let token = stack.create_project("tests").await;
    let client = stack.h2().await;
    make_basin(&client, &token, Some("aegis-256")).await;
    let reader = stack
        .issue(&token, "reader", [Scope::Read].into_iter().collect())
        .await;
    let gone = stack.issue(&token, "gone", Scopes::all()).await;
    stack.revoke(&gone).await;
    let list = |id: &str| Ask::get("/v1/streams").header("s2-request-id", id);
    let append = Ask::post(records("s")).json(&json!({ "records": [] }));
    for ask in [
        token.on(list("good")),
        gone.on(list("over")),
        reader.on(append.header("s2-request-id", "scope")),
        reader.on(Ask::get("/v1/basins/other-basin").header("s2-request-id", "owner")),
        list("missing"),
        bearer(made_up()).header("s2-request-id", "unknown"),
    ] {
        client.ask(ask).await;
    }
    for (reason, count) in [
        ("over", 1.0),
        ("scope", 1.0),
        ("owner", 1.0),
        ("missing", 1.0),
    ] {
        assert_eq!(refusals(&stack, reason), count, "{reason}");
    }
    let metrics = stack.metrics().render();
    for (what, secret) in secrets(&token) {
        assert!(!leaks(metrics.as_bytes(), &secret), "{what} in the metrics");
    }
    stack.stop().await;
    let text = fs::read_to_string(file).unwrap();
    let line = |id: &str| -> Value {
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut lines = lines.filter(|line| line["request_id"] == id);
        lines.next().unwrap()
    };
    for (id, code, project, api_key) in [
        ("good", "ok", json!("tests"), json!(token.id)),
        ("over", "authn", json!("tests"), json!("gone")),
        (
            "scope",
            "permission_denied",
            json!("tests"),
            json!("reader"),
        ),
        (
            "owner",
            "permission_denied",
            json!("tests"),
            json!("reader"),
        ),
        ("missing", "authn", Value::Null, Value::Null),
        ("unknown", "authn", Value::Null, Value::Null),
    ] {
        let line = line(id);
        assert_eq!(line["code"], code, "{line}");
        assert_eq!(line["who"]["project"], project, "{line}");
        assert_eq!(line["who"]["api_key"], api_key, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_made_up_keys_holds_up_nobody_who_is_known() {
    let stack = Stack::with(|config| {
        for n in 0..200 {
            project(
                config,
                &format!("project-{n}"),
                &[&format!("other-{n}-basin/**")],
            );
        }
        project(config, "tests", &["test-*/**"]);
    })
    .await;
    let token = stack.create_project("tests").await;
    let client = stack.h2().await;
    make_basin(&client, &token, None).await;
    let flood = async {
        for _ in 0..300 {
            let client = stack.h2().await;
            let asks = (0..8).map(|_| client.ask(bearer(made_up())));
            for answer in futures_util::future::join_all(asks).await {
                assert!([401, 429].contains(&answer.status), "{}", answer.status);
            }
        }
    };
    let good = async {
        for _ in 0..50 {
            assert_eq!(client.ask(bearer(&token.text)).await.status, 200);
        }
    };
    let good = tokio::time::timeout(DEADLINE, good);
    tokio::select! {
        () = flood => panic!("it should have taken longer"),
        good = good => good.unwrap(),
    }
}
