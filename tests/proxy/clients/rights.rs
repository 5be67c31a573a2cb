//! What a certificate allows, call by call.

use serde_json::{Value, json};
use streamseal::keys::ClientRules;

use super::{Gateway, append, basins, root, rule};
use crate::harness::{Answer, Ask, BASIN, KEY, Stack, records};

/// The message of a refusal.
fn refused(answer: &Answer) -> String {
    let text = answer.text();
    let seen = (answer.status, answer.code());
    assert_eq!(seen, (403, "permission_denied".to_owned()), "{text}");
    answer.json()["message"].as_str().unwrap().to_owned()
}

fn names(answer: &Answer, list: &str) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let list = answer.json()[list].as_array().unwrap().clone();
    let name = |entry: &Value| entry["name"].as_str().unwrap().to_owned();
    list.iter().map(name).collect()
}

/// Calls that the scope `append` does not cover, each with the scope that it takes.
fn beyond_append() -> Vec<(&'static str, Ask)> {
    let on = |method: &str, uri: &str| Ask::new(method, uri).basin(BASIN);
    let json = |method, uri| on(method, uri).json(&json!({}));
    let make = |uri: &str, body: Value| Ask::post(uri).basin(BASIN).json(&body);
    let token = json!({ "id": "t", "scope": { "op_groups": { "account": { "read": true } } } });
    vec![
        ("`read`", Ask::get(records("s") + "?seq_num=0").key(&KEY)),
        ("`read`", Ask::get(records("s") + "/tail")),
        ("`read`", Ask::get("/v1/streams").basin(BASIN)),
        ("`read`", Ask::get("/v1/streams/s").basin(BASIN)),
        ("`read`", basins()),
        ("`read`", Ask::get(format!("/v1/basins/{BASIN}"))),
        ("`read`", Ask::get(format!("/v1/metrics/{BASIN}"))),
        ("`read`", Ask::get(format!("/v1/metrics/{BASIN}/s"))),
        ("`manage`", make("/v1/streams", json!({ "stream": "new" }))),
        ("`manage`", json("PUT", "/v1/streams/new")),
        ("`manage`", json("PATCH", "/v1/streams/s")),
        ("`manage`", on("DELETE", "/v1/streams/s")),
        (
            "`manage`",
            make("/v1/basins", json!({ "basin": "other-basin" })),
        ),
        ("`manage`", json("PUT", "/v1/basins/other-basin")),
        ("`manage`", json("PATCH", "/v1/basins/test-basin")),
        ("`manage`", on("DELETE", "/v1/basins/test-basin")),
        ("path", Ask::get("/v1/access-tokens")),
        ("path", Ask::post("/v1/access-tokens").json(&token)),
        ("path", on("DELETE", "/v1/access-tokens/t")),
        ("path", Ask::get("/v1/metrics")),
        ("path", Ask::get("/v1/locations")),
    ]
}

fn refusals(stack: &Stack, reason: &str) -> f64 {
    let series = format!(r#"api_key_refusals_total{{reason="{reason}"}}"#);
    stack.counts().of(&series)
}

#[tokio::test(flavor = "multi_thread")]
async fn append_only_client_may_append_and_nothing_else() {
    let rules = json!([root(), rule("writer", &["test-basin/**"], &["append"])]);
    let gateway = Gateway::new(rules).await;
    gateway.make(&["s"]).await;
    let writer = gateway.named("writer").await;
    assert_eq!(writer.ask(append("s")).await.status, 200);
    gateway.stack.lite.quiet().await;
    let asked = gateway.stack.lite.seen().len();
    let before = refusals(&gateway.stack, "scope");
    let calls = beyond_append();
    let of_scope = calls.iter().filter(|(what, _)| *what != "path").count();
    for (what, ask) in calls {
        let answer = writer.ask(ask.clone()).await;
        let message = refused(&answer);
        assert!(message.contains(what), "{message}: {ask:?}");
    }
    let elsewhere = writer.ask(append("s").basin("other-basin")).await;
    let wanted = "this client certificate does not allow `append` on stream `other-basin/s`";
    assert_eq!(refused(&elsewhere), wanted);
    gateway.stack.lite.quiet().await;
    assert_eq!(gateway.stack.lite.seen().len(), asked, "something went up");
    let counted = refusals(&gateway.stack, "scope") - before;
    assert_eq!(counted as usize, of_scope);
    assert_eq!(refusals(&gateway.stack, "owner") as usize, 5 + 1);
    let log = std::fs::read_to_string(gateway.dir.path().join("audit.log")).unwrap();
    let of_writer = log.lines().map(|line| serde_json::from_str(line).unwrap());
    let mut of_writer = of_writer.filter(|line: &Value| line.to_string().contains("CN=writer"));
    assert!(
        of_writer.any(|line| line.to_string().contains("permission_denied")),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_without_a_rule_has_no_right() {
    let gateway = Gateway::new(json!([root()])).await;
    gateway.make(&["s"]).await;
    for name in ["other", "root, CN=x", "Root", "rootx"] {
        let client = gateway.named(name).await;
        for ask in [append("s"), Ask::get(records("s")).key(&KEY), basins()] {
            refused(&client.ask(ask).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_what_the_client_may_read_and_no_more() {
    let gateway = Gateway::new(json!([
        root(),
        rule("reader", &["test-basin/mine/*"], &["read"]),
        rule("reader", &["test-basin/other"], &["append"]),
    ]))
    .await;
    gateway
        .make(&["mine/a", "mine/b", "mine/c", "other", "their"])
        .await;
    let root = gateway.named("root").await;
    let second = Ask::post("/v1/basins").json(&json!({ "basin": "second-basin" }));
    assert_eq!(root.ask(second).await.status, 201);
    let streams = || Ask::get("/v1/streams?limit=2").basin(BASIN);
    assert_eq!(
        names(&root.ask(basins()).await, "basins"),
        ["second-basin", BASIN]
    );
    let reader = gateway.named("reader").await;
    let page = reader.ask(streams()).await;
    assert_eq!(names(&page, "streams"), ["mine/a", "mine/b"]);
    assert_eq!(page.json()["has_more"], true);
    let rest = Ask::get("/v1/streams?start_after=mine%2Fb").basin(BASIN);
    let page = reader.ask(rest).await;
    assert_eq!(names(&page, "streams"), ["mine/c"]);
    assert_eq!(page.json()["has_more"], false);
    assert_eq!(names(&reader.ask(basins()).await, "basins"), [BASIN]);
    let theirs = Ask::get("/v1/streams").basin("second-basin");
    refused(&reader.ask(theirs).await);
    refused(&reader.ask(Ask::get(records("other")).key(&KEY)).await);
    refused(&reader.ask(Ask::get(records("their")).key(&KEY)).await);
    let read = reader
        .ask(Ask::get(records("mine/a") + "?seq_num=0").key(&KEY))
        .await;
    assert_eq!(read.status, 200, "{}", read.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn basin_takes_a_glob_that_covers_all_of_it() {
    let gateway = Gateway::new(json!([
        rule("part", &["test-basin/a/**"], &["manage"]),
        rule("whole", &["test-*/**"], &["manage"]),
    ]))
    .await;
    let make = |basin: &str| Ask::post("/v1/basins").json(&json!({ "basin": basin }));
    let part = gateway.named("part").await;
    refused(&part.ask(make(BASIN)).await);
    let whole = gateway.named("whole").await;
    refused(&whole.ask(make("other-basin")).await);
    assert_eq!(whole.ask(make(BASIN)).await.status, 201);
    let stream = |name: &str| {
        Ask::post("/v1/streams")
            .basin(BASIN)
            .json(&json!({ "stream": name }))
    };
    assert_eq!(part.ask(stream("a/s")).await.status, 201);
    refused(&part.ask(stream("b/s")).await);
    let delete = || Ask::new("DELETE", format!("/v1/basins/{BASIN}"));
    refused(&part.ask(delete()).await);
    assert_eq!(whole.ask(delete()).await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn spiffe_id_and_rules_that_add_up_hold_end_to_end() {
    let billing = "spiffe://example.org/ns/*/sa/billing";
    let gateway = Gateway::new(json!([
        root(),
        { "san": billing, "match": ["test-basin/one"], "scopes": ["append"] },
        { "san": "spiffe://example.org/**", "match": ["test-basin/two"], "scopes": ["append", "read"] },
    ]))
    .await;
    gateway.make(&["one", "two"]).await;
    let read = |stream: &str| Ask::get(records(stream) + "?seq_num=0").key(&KEY);
    for (id, [append_one, append_two, read_one, read_two]) in [
        (
            "spiffe://example.org/ns/prod/sa/billing",
            [200, 200, 403, 200],
        ),
        (
            "spiffe://example.org/ns/a/b/sa/billing",
            [403, 200, 403, 200],
        ),
        (
            "spiffe://example.com/ns/prod/sa/billing",
            [403, 403, 403, 403],
        ),
    ] {
        let client = gateway.client(&gateway.issue_uri(id)).await;
        for (ask, status) in [
            (append("one"), append_one),
            (append("two"), append_two),
            (read("one"), read_one),
            (read("two"), read_two),
        ] {
            assert_eq!(client.ask(ask).await.status, status, "{id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_lets_every_admitted_certificate_use_everything() {
    let any = |config: &mut streamseal::config::Config, _: &_, _: &_| {
        config.clients = ClientRules::Any;
        let rule = json!([{ "match": BASIN, "stream_cipher": "aegis-256" }]);
        config.basins = serde_json::from_value(rule).unwrap();
    };
    let gateway = Gateway::with(json!([]), any).await;
    // With the proxy's token nobody makes basins through it whose rights it does not know.
    let made = json!({ "basin": BASIN, "config": { "create_stream_on_append": true } });
    let direct = gateway.stack.direct().await;
    direct.ask(Ask::post("/v1/basins").json(&made)).await;
    let client = gateway.named("anyone").await;
    assert_eq!(client.ask(append("s")).await.status, 200);
    let read = Ask::get(records("s") + "?seq_num=0").key(&KEY);
    assert_eq!(client.ask(read).await.status, 200);
    let streams = Ask::get("/v1/streams").basin(BASIN);
    assert_eq!(names(&client.ask(streams).await, "streams"), ["s"]);
    refused(&client.ask(basins()).await);
}
