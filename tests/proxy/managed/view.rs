//! The operator sees the key epochs of a stream, and no key.

use serde_json::{Value, json};

use super::setup::{Managed, rule};
use crate::{
    admin::get,
    harness::{Stack, project},
};

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_listed_with_their_key_epochs() {
    let managed = Managed::with(
        streamseal::registry::rules::RuleCipher::Aegis256,
        |config| {
            config.admin.address = any_port();
        },
    )
    .await;
    managed.put("s", "x").await;
    managed.rotate("s").await;
    let listed = get(&managed.stack, "/api/streams").await;
    let row = listed.json()["rows"][0].clone();
    assert_eq!(
        (&row["stream"], &row["key_source"]),
        (&json!("s"), &json!("managed"))
    );
    assert_eq!(row["key_check"], "managed");
    let epochs = &row["key_epochs"];
    assert_eq!(epochs["project"], "payments");
    assert_eq!(
        (&epochs["count"], &epochs["current"], &epochs["shredded"]),
        (&json!(2), &json!(2), &json!(0))
    );
    let newest = managed.data_keys("s").await.unwrap().keys[1].clone();
    assert_eq!(epochs["created_at"], newest.created_at);
    // Neither a key, wrapped or not, nor a commitment.
    let text = listed.text();
    assert!(
        !text.contains("wrapped") && !text.contains(&newest.commit.to_string()),
        "{text}"
    );
    managed
        .change("s", |entry| {
            let keys = &mut entry.data_keys.as_mut().unwrap().keys;
            keys.iter_mut().for_each(|key| key.wrapped = None);
        })
        .await;
    let row = get(&managed.stack, "/api/streams").await.json()["rows"][0].clone();
    let epochs = &row["key_epochs"];
    assert_eq!(
        (&epochs["current"], &epochs["shredded"]),
        (&Value::Null, &json!(2))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn other_streams_have_none() {
    let stack = Stack::with(|config| {
        project(config, "payments", &["*/**"]);
        config.streams = vec![rule("test-basin/managed", super::setup::CIPHERS[0].0)];
        config.admin.address = any_port();
    })
    .await;
    let token = stack.create_project("payments").await;
    let basin = json!({ "basin": "test-basin", "config": { "stream_cipher": "aegis-256" } });
    let ask = token.on(crate::harness::Ask::post("/v1/basins").json(&basin));
    assert_eq!(stack.h2().await.ask(ask).await.status, 201);
    let ask = token.on(crate::harness::Ask::new("PUT", "/v1/streams/own"));
    assert_eq!(stack.h2().await.ask(ask).await.status, 201);
    let row = get(&stack, "/api/streams").await.json()["rows"][0].clone();
    assert_eq!(row["key_epochs"], Value::Null);
    assert_eq!(row["key_check"], "not-pinned");
}

fn any_port() -> streamseal::server::admin::OptionalAddress {
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    any.into()
}
