//! Rights follow the configuration while sessions run.

use serde_json::{Value, json};

use super::{Gateway, append, basins, clients, root, rule};
use crate::{
    gate_sessions::{Bare, Open, SOON, STREAMS, append_one, appending, keyed, reading, tail},
    harness::{Ask, BASIN, Encoding, KEY, Stack, channel, read, records, until},
};

const ALL: [&str; 2] = ["append", "read"];

impl Gateway {
    /// Puts these rules in force.
    fn allow(&mut self, rules: Value) {
        let reload = self.stack.reload(|config| config.clients = clients(rules));
        assert_eq!(reload, Ok(Vec::new()));
    }
}

async fn open(gateway: &Gateway, name: &str) -> Open {
    let identity = gateway.people.issue(name);
    let mut three = Vec::new();
    for _ in 0..3 {
        three.push(gateway.client(&identity).await);
    }
    Open::over(three, &Bare).await
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_that_takes_a_right_ends_sessions_and_no_others() {
    let app = |globs: &[&str], scopes: &[&str]| json!([root(), rule("app", globs, scopes)]);
    let all = || app(&["test-*/**"], &ALL);
    for fewer in [
        app(&["test-*/**"], &["manage"]),
        app(&["other-*/**"], &ALL),
        json!([root()]),
    ] {
        let mut gateway = Gateway::new(all()).await;
        gateway.make(&STREAMS).await;
        let root = gateway.named("root").await;
        let mut kept = appending(&root, &Bare, "sealed").await;
        let sessions = open(&gateway, "app").await;
        let client = gateway.named("app").await;
        assert_eq!(client.ask(append("sealed")).await.status, 200);
        gateway.allow(fewer);
        // At once for what is new.
        assert_eq!(client.ask(append("sealed")).await.status, 403);
        sessions.end(403, "permission_denied").await;
        append_one(&mut kept).await;
        // The same connection gets its rights again.
        gateway.allow(all());
        assert_eq!(client.ask(append("sealed")).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_another_scope_go_on() {
    let both = json!([root(), rule("app", &["test-*/**"], &ALL)]);
    let mut gateway = Gateway::new(both).await;
    gateway.make(&["sealed"]).await;
    let client = gateway.named("app").await;
    let mut live = reading(&client, &Bare, "sealed", Encoding::Frames).await;
    let mut session = appending(&client, &Bare, "sealed").await;
    let only = json!([root(), rule("app", &["test-*/**"], &["read"])]);
    gateway.allow(only);
    let end = session.live.frame().await.unwrap().unwrap().failure();
    assert_eq!(end, (403, "permission_denied".to_owned()));
    let root = gateway.named("root").await;
    assert_eq!(root.ask(append("sealed")).await.status, 200);
    while live
        .frame()
        .await
        .unwrap()
        .unwrap()
        .batch()
        .records
        .is_empty()
    {}
    let read = Ask::get(records("sealed") + "?seq_num=0").key(&KEY);
    assert_eq!(client.ask(read).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn file_without_its_rules_is_refused() {
    let mut gateway = Gateway::with(json!([root()]), |config, _, _| {
        // Without it, a configuration without rules is sound.
        config.upstream.access_token_file = Default::default();
    })
    .await;
    let other = gateway.named("other").await;
    let refused = gateway
        .stack
        .reload(|config| config.clients = clients(json!([])));
    let refused = refused.unwrap_err();
    assert!(refused.contains("clients = \"any\""), "{refused}");
    assert_eq!(other.ask(basins()).await.status, 403);
    let any = clients(json!("any"));
    assert_eq!(
        gateway.stack.reload(|config| config.clients = any),
        Ok(Vec::new())
    );
    assert_eq!(other.ask(basins()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn append_whose_right_ends_before_its_body_is_not_stored() {
    let rules = json!([root(), rule("app", &["test-*/**"], &["append"])]);
    let mut gateway = Gateway::new(rules).await;
    gateway.make(&["sealed"]).await;
    let client = gateway.named("app").await;
    gateway.stack.lite.quiet().await;
    let asked = gateway.stack.lite.seen().len();
    let (sender, feed) = channel();
    let ask = Ask::post(records("sealed")).key(&KEY);
    let ask = ask.header("content-type", "application/json");
    let sending = client.send(ask, feed);
    let feeding = async {
        let body = json!({ "records": [{ "body": "late" }] }).to_string();
        sender.send(Ok(body[..9].to_owned().into())).await.unwrap();
        let active = || gateway.stack.counts().only(&["requests_active"]).sum();
        until("it is let in", async || active() == 1.0).await;
        gateway.allow(json!([root()]));
        sender.send(Ok(body[9..].to_owned().into())).await.unwrap();
        drop(sender);
    };
    let (answer, ()) = tokio::join!(sending, feeding);
    assert_eq!(answer.unwrap().status(), 403);
    assert_eq!(gateway.stack.lite.seen().len(), asked);
    assert_eq!(tail(&gateway.stack, "sealed").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn read_that_waits_ends_with_its_right() {
    let rules = json!([root(), rule("app", &["test-*/**"], &["read"])]);
    let mut gateway = Gateway::new(rules).await;
    gateway.make(&STREAMS).await;
    let mut waiting = Vec::new();
    for stream in STREAMS {
        let client = gateway.named("app").await;
        let ask = keyed(stream, read(stream, "seq_num=1&wait=60", Encoding::Json)).basin(BASIN);
        waiting.push(tokio::spawn(async move { client.ask(ask).await }));
    }
    let asks = |stack: &Stack| {
        let seen = stack.lite.seen();
        seen.iter()
            .filter(|seen| seen.line.contains("wait=60"))
            .count()
    };
    until("the upstream has them", async || asks(&gateway.stack) == 2).await;
    gateway.allow(json!([root()]));
    for read in waiting {
        let answer = tokio::time::timeout(SOON, read).await.unwrap().unwrap();
        assert_eq!(
            (answer.status, answer.code()),
            (403, "permission_denied".to_owned())
        );
    }
}
