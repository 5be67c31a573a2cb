//! Into a stream with managed keys: an API key takes the place of the key file, and goes to the proxy alone.

use prost::Message as _;
use s2_api::v1::stream::proto::AppendInput;
use serde_json::json;
use streamseal::{
    project::{Scope, Scopes},
    registry::rules::{KeySource, RuleCipher, StreamRule},
    stream::StreamPath,
};

use super::{
    End, World, file, ran, record,
    verify::{ranges, report},
    with,
};
use crate::harness::{Ask, BASIN, Client, Stack, Token, project, records};

/// A store with stream `from`, under a proxy where stream `to` has managed keys.
async fn world() -> (World, Token) {
    let stack = Stack::with(|config| {
        project(config, "payments", &["*/**"]);
        config.streams = vec![StreamRule {
            r#match: format!("{BASIN}/to"),
            cipher: RuleCipher::Aegis256,
            key: KeySource::Managed,
            key_file: Default::default(),
            header_overrides: false,
        }];
    })
    .await;
    let token = stack.create_project("payments").await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), &stack.certificate).unwrap();
    let world = World { stack, dir };
    let basin = Ask::post("/v1/basins").json(&json!({ "basin": BASIN }));
    let made = world.stack.h2().await.ask(token.on(basin)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    (world, token)
}

/// Whether the text of an API key came to the upstream, by whatever way.
fn came_upstream(world: &World, token: &Token) -> bool {
    let text = &token.text;
    let seen = world.stack.lite.seen();
    let mut headers = seen.iter().flat_map(|seen| &seen.headers);
    headers.any(|header| header.contains(text)) || world.stack.tap.saw(text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_stream_gets_managed_keys_and_both_epochs_are_verified() {
    let (world, token) = world().await;
    let (from, to) = (world.store().await, world.proxy(None).await);
    from.fill((0..700).map(record)).await;
    let key = file(world.dir.path(), "api-key", &token.text);
    let migrate = with(
        world.migrate(&from, &to),
        ["--to-token-file", &key, "--verify"],
    );
    let said = ran(migrate).ok();
    assert!(!said.contains(&token.text[6..]), "{said}");

    let path: StreamPath = format!("{BASIN}/to").parse().unwrap();
    let pass = world.stack.pass(&token).await;
    let rotated = world.stack.proxy().rotate_key(&path, &pass).await;
    assert_eq!(rotated.map_err(|error| error.told()).unwrap().to, 2);
    let more = AppendInput {
        records: (700..900).map(record).collect(),
        ..AppendInput::default()
    };
    let ask = Ask::post(records("to")).body("application/protobuf", more.encode_to_vec());
    let answer = to.client.ask(token.on(ask)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());

    let options = ["--token-file", &key, "--store-endpoint", &from.url];
    let (code, found) = report(with(world.verify(&to, "to"), options));
    assert_eq!((code, &found["ok"]), (0, &json!(true)), "{found}");
    assert_eq!(found["cipher"], "aegis-256");
    assert_eq!(
        (&found["records"], &found["tail"]),
        (&json!(900), &json!(900))
    );
    assert_eq!(ranges(&found, "unreadable"), []);
    assert_eq!(ranges(&found, "in_clear"), []);
    assert_eq!(ranges(&found, "encrypted"), [(0, 699), (700, 899)]);
    for (range, epoch) in [(0, 1), (1, 2)] {
        let range = &found["encrypted"]["ranges"][range];
        assert_eq!(range["key_epoch"], epoch, "{found}");
        assert_eq!(range["cipher"], "aegis-256");
    }
    assert!(!came_upstream(&world, &token));
    // It would be seen there.
    let direct: Client = world.stack.direct().await;
    direct.ask(token.on(Ask::get("/v1/streams"))).await;
    assert!(came_upstream(&world, &token));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_only_read_migrates_nothing() {
    let (world, token) = world().await;
    let (from, to): (End, End) = (world.store().await, world.proxy(None).await);
    from.fill((0..20).map(record)).await;
    let scopes: Scopes = [Scope::Read].into_iter().collect();
    let reader = world.stack.issue(&token, "reader", scopes).await;
    let key = file(world.dir.path(), "reader", &reader.text);
    for what in ["create", "configure"] {
        if what == "configure" {
            from.create("to").await;
        }
        let migrate = with(world.migrate(&from, &to), ["--to-token-file", &key]);
        let said = ran(migrate).failed();
        assert!(said.contains(&format!("cannot {what}")), "{said}");
        assert!(
            said.contains("this API key does not allow `manage`"),
            "{said}"
        );
        assert!(!said.contains(&reader.text[6..]), "{said}");
        assert_eq!(from.tail("to").await, 0);
    }
    assert!(!came_upstream(&world, &reader));
}
