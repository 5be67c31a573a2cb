//! The operator rotates a stream's key in place; records of before keep opening.

use streamseal::{
    project::Scope,
    proxy::Authority,
    registry::rules::{KeySource, RuleCipher, StreamRule},
};

use super::setup::{Gateway, path, reads, rule};
use crate::harness::{Ask, Encoding, Transit, delivered, project};

#[tokio::test(flavor = "multi_thread")]
async fn readers_cross_epochs_in_every_encoding() {
    let mut gateway = Gateway::start().await;
    for epoch in 1..=3 {
        gateway.put("s", &format!("epoch {epoch}")).await;
        assert_eq!(gateway.rotate("s").await, Ok(epoch + 1));
    }
    gateway.put("s", "epoch 4").await;
    gateway.restart().await;
    for encoding in Encoding::READS {
        let answer = gateway.ask(reads("s", "seq_num=0&count=4", encoding)).await;
        let records = delivered(encoding, &answer).records();
        assert_eq!(records.len(), 4, "{encoding:?}: {}", answer.text());
        for (record, epoch) in records.iter().zip(1..) {
            assert_eq!(record.body, format!("epoch {epoch}"));
        }
    }
    assert_eq!(gateway.vault.count("encrypt"), 4);
    // One look at each new key, and one at each after the restart.
    assert_eq!(gateway.vault.count("decrypt"), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_missing_gets_no_key() {
    let gateway = Gateway::start().await;
    // Where a look does not create it.
    let body = serde_json::json!({ "basin": "strict-basin" });
    let made = gateway.ask(Ask::post("/v1/basins").json(&body)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let missing = "strict-basin/missing".parse().unwrap();
    let rotated = gateway.stack.proxy();
    let rotated = rotated.rotate_key(&missing, Authority::Operator).await;
    let refused = rotated.unwrap_err().told();
    assert!(refused.contains("does not exist"), "{refused}");
    assert_eq!(gateway.vault.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_service_is_away_nothing_changes() {
    let gateway = Gateway::start().await;
    gateway.put("s", "before").await;
    let before = gateway.entry("s").await;
    gateway.vault.act(Transit::Away);
    let refused = gateway.rotate("s").await.unwrap_err();
    assert!(refused.contains("does not answer now"), "{refused}");
    assert_eq!(gateway.entry("s").await, before);
    gateway.put("s", "meanwhile").await;
    gateway.vault.act(Transit::Serve);
    assert_eq!(gateway.rotate("s").await, Ok(2));
    gateway.put("s", "after").await;
    assert_eq!(gateway.bodies("s").await, ["before", "meanwhile", "after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_key_has_its_own_authority() {
    let gateway = Gateway::with(RuleCipher::Aegis256, |config| {
        project(config, "payments", &["*/**"]);
        let managed = StreamRule {
            key: KeySource::Managed,
            ..rule("test-basin/managed", RuleCipher::Aegis256)
        };
        config.streams.insert(0, managed);
    })
    .await;
    let stack = &gateway.stack;
    let token = stack.create_project("payments").await;
    for stream in ["managed", "held"] {
        let ask = super::setup::appends(stream, Encoding::Json, &super::setup::one("x"));
        assert_eq!(gateway.ask(token.on(ask)).await.status, 200);
    }
    let pass = stack.pass(&token).await;
    assert!(pass.scopes.allow(Scope::Manage));
    let by_key = stack.proxy().rotate_key(&path("held"), &pass).await;
    assert_eq!(by_key.unwrap_err().code().as_str(), "permission_denied");
    let by_operator = gateway.rotate("managed").await.unwrap_err();
    assert!(by_operator.contains("needs an API key"), "{by_operator}");
    for stream in ["managed", "held"] {
        assert_eq!(gateway.data_keys(stream).await.unwrap().keys.len(), 1);
    }
    assert_eq!(gateway.rotate("held").await, Ok(2));
    let by_key = stack.proxy().rotate_key(&path("managed"), &pass).await;
    assert_eq!(by_key.unwrap().to, 2);
}
