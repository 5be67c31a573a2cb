//! Two projects whose globs and names overlap cannot reach each other's streams, nor tell whether there are
//! any.

use serde_json::{Value, json};
use streamseal::{
    project::{Scope, Scopes},
    proxy::gate::{By, Denied},
};

use crate::harness::{
    Answer, Ask, Client, Encoding, KEY, Packed, Stack, Token, append, input, project, read, record,
    records,
};

/// The first project's alone.
const PAY: &str = "pay-basin-1";
/// The second's, but for what the first has in it.
const SHARED: &str = "shared-basin";
/// The second's alone.
const SELL: &str = "sell-basin-1";

/// What the first project's streams are called.
const OURS: [&str; 3] = ["pay/a", "pay/b/c", "pay/ü %2F"];
/// What the second's are called, in the same basin.
const THEIRS: [&str; 6] = ["pay", "payx", "pay%2Fa", "PAY/a", "sell/a", "x/pay/a"];

/// Both projects, with all their streams in [`SHARED`], sealed.
async fn stack() -> (Stack, Token, Token) {
    let stack = Stack::with(|config| {
        project(config, "payments", &["pay-*/**", "shared-*/pay/**"]);
        project(config, "payments-2", &["{pay,sell,shared}-*/**"]);
        config.listen.basin_domain = "basins.example".to_owned();
    })
    .await;
    let ours = stack.create_project("payments").await;
    let theirs = stack.create_project("payments-2").await;
    let client = stack.h2().await;
    for (basin, owner) in [(PAY, &ours), (SELL, &theirs)] {
        assert_eq!(
            client.ask(owner.on(make_basin(basin))).await.status,
            201,
            "{basin}"
        );
    }
    // Nobody owns the whole of it.
    let direct = stack.direct().await;
    let plain = json!({ "basin": SHARED, "config": { "create_stream_on_append": false } });
    let made = direct.ask(Ask::post("/v1/basins").json(&plain)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    for (owner, streams) in [(&ours, &OURS[..]), (&theirs, &THEIRS[..])] {
        for stream in streams {
            let make = Ask::post("/v1/streams").json(&json!({ "stream": stream }));
            let made = client.ask(owner.on(make.basin(SHARED))).await;
            assert_eq!(made.status, 201, "{stream}: {}", made.text());
        }
    }
    (stack, ours, theirs)
}

fn make_basin(basin: &str) -> Ask {
    let config = json!({ "stream_cipher": "aegis-256", "create_stream_on_append": true });
    Ask::post("/v1/basins")
        .json(&json!({ "basin": basin, "config": config }))
        .basin(basin)
}

fn path(stream: &str) -> String {
    records(stream).strip_suffix("/records").unwrap().to_owned()
}

/// Every call about one stream.
fn about(stream: &str, basin: &str) -> Vec<Ask> {
    let batch = input([record(&[], "x")]);
    let mut asks = Vec::new();
    for encoding in Encoding::APPENDS {
        asks.push(append(stream, encoding, Packed::Not, &batch));
    }
    for encoding in Encoding::READS {
        asks.push(read(stream, "seq_num=0", encoding));
    }
    asks.extend([
        Ask::new("HEAD", records(stream)),
        Ask::get(records(stream) + "/tail"),
        Ask::get(path(stream)),
        Ask::new("PUT", path(stream)),
        Ask::new("PUT", path(stream)).json(&json!({ "config": { "storage_class": "standard" } })),
        Ask::new("PATCH", path(stream)).json(&json!({})),
        Ask::new("DELETE", path(stream)),
        Ask::post("/v1/streams").json(&json!({ "stream": stream })),
        Ask::get(path(stream).replace("/v1/streams", &format!("/v1/metrics/{basin}"))),
    ]);
    asks.into_iter().map(|ask| ask.basin(basin)).collect()
}

/// Status, code and text without the stream's name.
fn told(answer: &Answer, stream: &str) -> (u16, String, String) {
    (
        answer.status,
        answer.code(),
        answer.text().replace(stream, "STREAM"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_about_anothers_stream_is_one_refusal_whether_or_not_it_is_there() {
    let (stack, ours, theirs) = stack().await;
    stack.lite.quiet().await;
    let before = stack.lite.seen().len();
    for client in [stack.h1().await, stack.h2().await] {
        for (token, streams, missing) in [
            (&ours, &THEIRS[..], "sell/missing"),
            (&theirs, &OURS[..], "pay/missing"),
        ] {
            for stream in streams {
                let there = about(stream, SHARED);
                for (there, not) in there.into_iter().zip(about(missing, SHARED)) {
                    let shown = format!("{there:?}");
                    let there = told(&client.ask(token.on(there)).await, stream);
                    let not = told(&client.ask(token.on(not)).await, missing);
                    assert_eq!(there.0, 403, "{shown}");
                    if !shown.contains("HEAD") {
                        assert_eq!(there.1, "permission_denied", "{shown}");
                    }
                    assert_eq!(there, not, "{shown}");
                }
            }
        }
    }
    assert_eq!(stack.lite.seen().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_basin_or_stream_opens_anothers() {
    let (stack, ours, theirs) = stack().await;
    stack.lite.quiet().await;
    let before = stack.lite.seen().len();
    let batch = json!({ "records": [{ "body": "x" }] });
    let at = |uri: &str| Ask::post(uri).json(&batch).key(&KEY);
    for (client, is_http1) in [(stack.h1().await, true), (stack.h2().await, false)] {
        let spelled = [
            "/v1/streams/sell%2Fa/records",
            "/v1/streams/sell%2fa/records",
            "/v1/streams/%73ell%2Fa/records",
            "/v1/streams/pay%2F..%2Fsell%2Fa/records/../records",
            "/v1/streams/sell/a/records",
            "/v1/streams/pay%2Fa/../sell%2Fa/records",
            "/v1/streams/pay%2Fa%2F..%2F..%2Fsell/../records",
            "/v1//streams/sell%2Fa/records",
            "/v1/streams//sell%2Fa/records",
            "/v1/streams/sell%252Fa/records",
            "/v1/streams/pay%252Fa/records",
            "/v1/streams/%50AY%2Fa/records",
            "//v1/streams/sell%2Fa/records",
            "/V1/streams/sell%2Fa/records",
        ];
        for uri in spelled {
            let answer = client.ask(ours.on(at(uri).basin(SHARED))).await;
            assert!(
                [403, 404].contains(&answer.status),
                "{uri}: {}",
                answer.status
            );
        }
        // The header against the host name, twice, in other case, with spaces.
        let sealed = || at("/v1/streams/s/records");
        let in_host = |basin: &str| sealed().header("host", format!("{basin}.basins.example"));
        let by_host = [
            in_host(PAY).basin(SELL),
            in_host(SELL).basin(PAY),
            in_host(PAY).without("s2-basin"),
            in_host("PAY-basin-1").without("s2-basin"),
        ];
        // HTTP/2 names the host another way.
        let by_host = by_host.into_iter().filter(|_| is_http1);
        let by_header = [
            sealed().basin(PAY),
            sealed().basin(PAY).header("s2-basin", SELL),
            sealed().basin("PAY-BASIN-1"),
            sealed().basin("pay-basin-1,sell-basin-1"),
            sealed().basin(" pay-basin-1 "),
            sealed().without("s2-basin"),
        ];
        for ask in by_host.chain(by_header) {
            let answer = client.ask(theirs.on(ask.clone())).await;
            assert!(
                [400, 403].contains(&answer.status),
                "{ask:?}: {}",
                answer.text()
            );
        }
        // The first header counts, and it alone goes upstream.
        let twice = Ask::get("/v1/streams").basin(SELL).header("s2-basin", PAY);
        assert_eq!(client.ask(theirs.on(twice)).await.status, 200);
    }
    let seen = stack.lite.seen();
    assert_eq!(seen.len(), before + 2);
    for seen in &seen[before..] {
        let basins = seen
            .headers
            .iter()
            .filter(|header| header.starts_with("s2-basin"));
        assert_eq!(basins.collect::<Vec<_>>(), [&format!("s2-basin: {SELL}")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_names_one_stream_or_is_refused() {
    let (stack, ours, _) = stack().await;
    stack.lite.quiet().await;
    let before = stack.lite.seen().len();
    let client = stack.h2().await;
    for (body, code) in [
        (r#"{"stream":"sell/a"}"#, "permission_denied"),
        (r#"{"stream":"\u0073ell/a"}"#, "permission_denied"),
        (r#"{"stream":"pay/new","stream":"sell/new"}"#, "bad_json"),
        (
            r#"{"stream":"pay/new","\u0073tream":"sell/new"}"#,
            "bad_json",
        ),
        (r#"{"stream":"pay/new","Stream":"sell/new"}"#, "bad_json"),
        (r#"{"STREAM":"sell/new","stream":"pay/new"}"#, "bad_json"),
        (r#"{"ſtream":"sell/new","stream":"pay/new"}"#, "bad_json"),
        (r#"{"Stream":"sell/new"}"#, "bad_json"),
        (r#"{"stream":["pay/new"]}"#, "bad_json"),
        (r#"{"stream":null}"#, "bad_json"),
        (r#"{}"#, "bad_json"),
        (r#"[{"stream":"sell/new"}]"#, "bad_json"),
        (r#"{"stream":"pay/new"}{"stream":"sell/new"}"#, "bad_json"),
        (r#"{"stream":""}"#, "invalid"),
        ("", "bad_json"),
    ] {
        let ask = Ask::post("/v1/streams")
            .body("application/json", body)
            .basin(SHARED);
        let answer = client.ask(ours.on(ask)).await;
        assert_eq!(answer.code(), code, "{body}: {}", answer.text());
        let ask = Ask::post("/v1/basins").body("application/json", body.replace("stream", "basin"));
        let answer = client.ask(ours.on(ask)).await;
        assert!(
            [400, 403, 422].contains(&answer.status),
            "{body}: {}",
            answer.text()
        );
    }
    for basin in [SELL, SHARED, "sell-basin-9", "other-basin"] {
        let made = client.ask(ours.on(make_basin(basin))).await;
        assert_eq!(made.code(), "permission_denied", "{basin}");
    }
    assert_eq!(stack.lite.seen().len(), before);
}

/// Names on a page, and whether another follows.
async fn page(client: &Client, ask: Ask) -> (Vec<String>, bool) {
    let answer = client.ask(ask).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    let entries = json.get("streams").or(json.get("basins")).unwrap();
    let name = |entry: &Value| entry["name"].as_str().unwrap().to_owned();
    let names = entries.as_array().unwrap().iter().map(name).collect();
    (names, json["has_more"].as_bool().unwrap())
}

fn sorted(names: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_ones_own_as_if_there_were_nothing_else() {
    let (stack, ours, theirs) = stack().await;
    for client in [stack.h1().await, stack.h2().await] {
        for (token, own) in [(&ours, &OURS[..]), (&theirs, &THEIRS[..])] {
            let own = sorted(own);
            let list =
                |query: &str| token.on(Ask::get(format!("/v1/streams?{query}")).basin(SHARED));
            assert_eq!(page(&client, list("")).await, (own.clone(), false));
            for size in 1..=own.len() + 1 {
                let (mut got, mut after) = (Vec::new(), String::new());
                loop {
                    let after_it = percent_encoding::utf8_percent_encode(
                        &after,
                        percent_encoding::NON_ALPHANUMERIC,
                    );
                    let query = format!("limit={size}&start_after={after_it}");
                    let (names, has_more) = page(&client, list(&query)).await;
                    got.extend(names.clone());
                    assert_eq!(has_more, got.len() < own.len(), "{size} {got:?}");
                    if !has_more {
                        break;
                    }
                    assert_eq!(names.len(), size);
                    after = names.last().unwrap().clone();
                }
                assert_eq!(got, own, "{size}");
            }
        }
        // Nothing tells whether there are others' streams of a prefix, nor by how many there is more.
        for prefix in ["sell", "sell%2Fa", "PAY", "x", "nothing"] {
            let ask = Ask::get(format!("/v1/streams?prefix={prefix}&limit=1")).basin(SHARED);
            assert_eq!(
                page(&client, ours.on(ask)).await,
                (vec![], false),
                "{prefix}"
            );
        }
        let ask = Ask::get("/v1/streams?prefix=pay/&limit=3").basin(SHARED);
        assert_eq!(page(&client, ours.on(ask)).await, (sorted(&OURS), false));
        let basins = |token: &Token, query: &str| token.on(Ask::get(format!("/v1/basins?{query}")));
        let all_ours = sorted(&[PAY, SHARED]);
        let all_theirs = sorted(&[SELL, SHARED]);
        assert_eq!(
            page(&client, basins(&ours, "")).await,
            (all_ours.clone(), false)
        );
        assert_eq!(
            page(&client, basins(&theirs, "")).await,
            (all_theirs, false)
        );
        let first = page(&client, basins(&ours, "limit=1")).await;
        assert_eq!(first, (all_ours[..1].to_vec(), true));
        let head = client.ask(ours.on(Ask::new("HEAD", "/v1/basins"))).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        for bad in ["limit=x", "limit=1&limit=2"] {
            let answer = client.ask(basins(&ours, bad)).await;
            assert_eq!(
                (answer.status, &*answer.code()),
                (400, "bad_query"),
                "{bad}"
            );
        }
        for basin in [SELL, "other-basin"] {
            let answer = client
                .ask(ours.on(Ask::get("/v1/streams").basin(basin)))
                .await;
            assert_eq!(answer.code(), "permission_denied");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_filled_however_many_others_there_are() {
    let (stack, ours, theirs) = stack().await;
    let direct = stack.direct().await;
    let many = (0..2100).map(|n| format!("others/{n:04}"));
    let make = |stream: String| {
        let ask = Ask::post("/v1/streams")
            .json(&json!({ "stream": stream }))
            .basin(SHARED);
        direct.ask(ask)
    };
    for chunk in many.collect::<Vec<_>>().chunks(100) {
        let made = futures_util::future::join_all(chunk.iter().cloned().map(make)).await;
        assert!(made.iter().all(|made| made.status == 201));
    }
    let client = stack.h2().await;
    let list = |token: &Token, query: &str| {
        token.on(Ask::get(format!("/v1/streams?{query}")).basin(SHARED))
    };
    // `PAY/a` comes before all of them, everything else after.
    let one = page(&client, list(&ours, "limit=1")).await;
    assert_eq!(one, (vec!["pay/a".to_owned()], true));
    assert_eq!(page(&client, list(&ours, "")).await, (sorted(&OURS), false));
    let (names, has_more) = page(&client, list(&theirs, "")).await;
    assert_eq!((names.len(), has_more), (1000, true));
    let none = page(&client, list(&ours, "prefix=others")).await;
    assert_eq!(none, (vec![], false));
}

#[tokio::test(flavor = "multi_thread")]
async fn basins_belong_to_who_owns_the_whole_of_them() {
    let (stack, ours, theirs) = stack().await;
    let client = stack.h2().await;
    let about = |basin: &str| {
        let uri = format!("/v1/basins/{basin}");
        [
            Ask::get(&uri),
            Ask::new("PUT", &uri),
            Ask::new("PATCH", &uri).json(&json!({})),
            Ask::get(format!("/v1/metrics/{basin}")),
            Ask::new("DELETE", &uri),
        ]
    };
    for (token, basins) in [
        (&ours, [SELL, SHARED, "sell-missing", "nobodys-basin"]),
        (&theirs, [PAY, SHARED, "pay-missing", "nobodys-basin"]),
    ] {
        for basin in basins {
            for ask in about(basin) {
                let answer = client.ask(token.on(ask.clone())).await;
                let denied = Denied::Basin(basin.parse().unwrap()).to_string();
                assert_eq!(answer.status, 403, "{ask:?}");
                assert_eq!(answer.json()["message"], denied, "{ask:?}");
            }
        }
    }
    for (token, basin) in [(&ours, PAY), (&theirs, SELL)] {
        for ask in about(basin) {
            let answer = client.ask(token.on(ask.clone())).await;
            // Metrics are none of the test's upstream's, and some ask for more.
            let wanted = [200, 201, 202, 204, 400, 501];
            assert!(
                wanted.contains(&answer.status),
                "{ask:?}: {}",
                answer.text()
            );
        }
    }
    let everything = [
        ("GET", "/v1/access-tokens"),
        ("POST", "/v1/access-tokens"),
        ("DELETE", "/v1/access-tokens/x"),
        ("GET", "/v1/metrics"),
        ("GET", "/v1/locations"),
        ("PUT", "/v1/locations/default"),
        ("GET", "/health"),
    ];
    stack.lite.quiet().await;
    let before = stack.lite.seen().len();
    for (method, path) in everything {
        let answer = client.ask(ours.on(Ask::new(method, path))).await;
        assert_eq!(
            (answer.status, &*answer.code()),
            (403, "permission_denied"),
            "{path}"
        );
    }
    assert_eq!(stack.lite.seen().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_scope_allows_its_own_and_nothing_else() {
    let (stack, ours, _) = stack().await;
    let client = stack.h2().await;
    let batch = json!({ "records": [{ "body": "x" }] });
    let calls = [
        (Scope::Append, Ask::post(records("pay/a")).json(&batch)),
        (
            Scope::Read,
            read("pay/a", "seq_num=0&count=1&clamp=true", Encoding::Json)
                .without("s2-encryption-key"),
        ),
        (Scope::Read, Ask::get(records("pay/a") + "/tail")),
        (Scope::Read, Ask::get(path("pay/a"))),
        (Scope::Read, Ask::get("/v1/streams")),
        (Scope::Read, Ask::get("/v1/basins")),
        (Scope::Read, Ask::get(format!("/v1/basins/{PAY}"))),
        (
            Scope::Manage,
            Ask::post("/v1/streams").json(&json!({ "stream": "pay/new" })),
        ),
        (Scope::Manage, Ask::new("PUT", path("pay/new"))),
        (
            Scope::Manage,
            Ask::new("PATCH", path("pay/new")).json(&json!({})),
        ),
        (Scope::Manage, Ask::new("DELETE", path("pay/new"))),
        (
            Scope::Manage,
            Ask::new("PATCH", format!("/v1/basins/{PAY}")).json(&json!({})),
        ),
    ];
    for scope in Scope::ALL {
        let scopes: Scopes = [scope].into_iter().collect();
        let token = stack.issue(&ours, scope.as_str(), scopes).await;
        for (wanted, ask) in &calls {
            let answer = client.ask(token.on(ask.clone().basin(SHARED))).await;
            let is_allowed = answer.status < 300 || answer.status == 416;
            assert_eq!(
                is_allowed,
                *wanted == scope,
                "{scope} {ask:?}: {}",
                answer.text()
            );
            if !is_allowed {
                let denied = Denied::Scope(By::ApiKey, *wanted).to_string();
                assert_eq!(answer.json()["message"], denied);
            }
        }
    }
}
