//! Over the admin listener, the operator rotates and shreds the keys that a service holds, and those alone.

use serde_json::{Value, json};
use streamseal::registry::rules::RuleCipher;

use super::setup::{Gateway, reads};
use crate::harness::{Answer, Ask, BASIN, Encoding};

async fn gateway() -> Gateway {
    Gateway::with(RuleCipher::Aegis256, |config| {
        config.admin.address = serde_json::from_value(json!("127.0.0.1:0")).unwrap();
    })
    .await
}

async fn order(gateway: &Gateway, path: &str, body: &Value) -> Answer {
    let ask = Ask::post(path).json(body);
    gateway.stack.admin().await.ask(ask).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_rotates_and_shreds_what_the_service_holds() {
    let gateway = gateway().await;
    gateway.put("s", "epoch 1").await;
    let body = json!({ "basin": BASIN, "stream": "s" });
    let rotated = order(&gateway, "/api/streams/rotate-key", &body).await;
    assert_eq!(rotated.json(), json!({ "from": 1, "to": 2 }));
    gateway.put("s", "epoch 2").await;
    assert_eq!(gateway.bodies("s").await, ["epoch 1", "epoch 2"]);

    let calls = gateway.vault.count("decrypt");
    let old = json!({ "basin": BASIN, "stream": "s", "before": 2 });
    let certificate = order(&gateway, "/api/streams/shred", &old).await;
    assert_eq!(certificate.status, 200, "{}", certificate.text());
    let certificate = certificate.json();
    assert_eq!(certificate["project"], Value::Null);
    assert_eq!(certificate["whole_stream"], false);
    assert_eq!(certificate["epochs"][0]["epoch"], 1);
    // What was held unwrapped is gone, too: nothing of epoch 1 opens, and epoch 2 is asked for anew.
    let gone = gateway
        .ask(reads("s", "seq_num=0&count=1", Encoding::Json))
        .await;
    assert_eq!((gone.status, &*gone.code()), (400, "decryption_failed"));
    let kept = gateway.ask(reads("s", "seq_num=1", Encoding::Json)).await;
    assert_eq!(kept.status, 200, "{}", kept.text());
    assert_eq!(gateway.vault.count("decrypt"), calls + 1);

    let all = order(&gateway, "/api/streams/shred", &body).await;
    assert_eq!(all.json()["whole_stream"], true, "{}", all.text());
    let gone = gateway.ask(reads("s", "seq_num=1", Encoding::Json)).await;
    assert_eq!((gone.status, &*gone.code()), (400, "decryption_failed"));
    let again = order(&gateway, "/api/streams/rotate-key", &body).await;
    assert!(again.status >= 400, "{}", again.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_knows_is_not_shredded() {
    let gateway = gateway().await;
    let body = json!({ "basin": BASIN, "stream": "unknown" });
    let refused = order(&gateway, "/api/streams/shred", &body).await;
    assert_eq!((refused.status, &*refused.code()), (404, "stream_unknown"));
}
