//! `store.plain_streams`: a typo in a selector is a refusal, not plaintext, and what passes in clear is counted.

use serde_json::json;
use streamseal::{
    config::Config,
    registry::rules::{KeySource, RuleCipher},
    store::PlainStreams,
};

use super::{CLEAR, Served, append, bodies, is, read, session, stream_rule};
use crate::harness::{Ask, BASIN, Stack, base64};

/// The basin whose name was meant to be `gate-basin-01`.
const TYPO: &str = "gaet-basin-01";
const MEANT: &str = "gate-basin-01";

/// Makes both basins past the proxy.
async fn make_basins(stack: &Stack) {
    let direct = stack.direct().await;
    for name in [TYPO, MEANT] {
        let config = json!({ "create_stream_on_append": true });
        let basin = json!({ "basin": name, "config": config });
        is(&direct, Ask::post("/v1/basins").json(&basin), 201, "").await;
    }
}

/// A gateway: one rule with the operator's key, and one stream that is plain by rule.
async fn gateway(change: impl FnOnce(&mut Config)) -> Stack {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, base64(&[3; 32])).unwrap();
    let mut sealed = stream_rule("gate-*/**", RuleCipher::Aegis256);
    sealed.key = KeySource::File;
    sealed.key_file = file.into();
    let plain = stream_rule("gaet-*/plain", RuleCipher::None);
    let stack = Stack::with(|config| {
        config.streams = vec![sealed, plain];
        change(config);
    })
    .await;
    make_basins(&stack).await;
    stack
}

/// Whether an append without a key that no rule covers is refused before anything goes up.
async fn refuses_what_no_rule_covers(stack: &Stack) {
    let client = stack.h2().await;
    let before = stack.lite.seen().len();
    for ask in [append("s", CLEAR), session("s", CLEAR)] {
        let ask = ask.basin(TYPO);
        let refused = is(&client, ask, 403, "permission_denied").await;
        assert!(
            refused.text().contains("plain_streams"),
            "{}",
            refused.text()
        );
    }
    assert_eq!(stack.lite.seen().len(), before, "something went up");
    assert!(!stack.tap.saw(CLEAR.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn typo_in_a_selector_is_a_refusal() {
    let stack = gateway(|_| {}).await;
    refuses_what_no_rule_covers(&stack).await;
    let client = stack.h2().await;
    is(&client, append("s", CLEAR).basin(MEANT), 200, "").await;
    assert!(!stack.tap.saw(CLEAR.as_bytes()));
    // What a rule calls plain is the operator's word.
    is(&client, append("plain", CLEAR).basin(TYPO), 200, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_streams_can_be_refused_without_any_rule() {
    let stack = Stack::with(|config| config.store.plain_streams = Some(PlainStreams::Refuse)).await;
    make_basins(&stack).await;
    refuses_what_no_rule_covers(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_from_before_the_cipher_is_refused_too() {
    let mut stack = Stack::start().await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    is(&client, append("seen", CLEAR), 200, "").await;
    super::set_cipher(&client, json!("aegis-256")).await;
    is(&client, append("seen", CLEAR), 200, "").await;
    drop(client);
    stack
        .restart(|config| config.store.plain_streams = Some(PlainStreams::Refuse))
        .await;
    let client = stack.h2().await;
    is(&client, append("seen", CLEAR), 403, "permission_denied").await;
    assert_eq!(stack.stored("seen").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn allowed_plain_streams_pass_beside_operators_keys() {
    let stack = gateway(|config| config.store.plain_streams = Some(PlainStreams::Allow)).await;
    let client = stack.h2().await;
    is(&client, append("s", CLEAR).basin(TYPO), 200, "").await;
    assert!(stack.counts().only(&["plain_appends_total"]).sum() >= 1.0);
    let stored = client.ask(read("s").basin(TYPO)).await;
    assert_eq!(bodies(&stored), [CLEAR]);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_appends_are_counted_and_the_first_is_logged() {
    let served = Served::start(json!({})).await;
    served.create_basin(None).await;
    let client = served.client().await;
    for at in 0..4 {
        is(&client, append(&format!("s-{}", at % 2), CLEAR), 200, "").await;
    }
    assert_eq!(served.count("plain_appends_total").await, 4.0);
    let logged = served.logged(&["INFO", "WARN"], &[BASIN, "plain"]);
    assert_eq!(logged, 1, "{}", served.program.log());
}
