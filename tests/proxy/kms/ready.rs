//! `/ready` says which streams cannot be decrypted, and whether the service answers, and keeps serving the others.

use serde_json::Value;
use streamseal::registry::rules::RuleCipher;

use super::setup::{Gateway, SECRET, appends, one, reads, with_admin};
use crate::{
    admin::get,
    harness::{Encoding, Transit, ask_until},
};

/// What `/ready` says, which is 200.
async fn ready(gateway: &Gateway) -> Value {
    let answer = get(&gateway.stack, "/ready").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.text().contains("whoever"), "{}", answer.text());
    answer.json()["checks"]["kms"].clone()
}

async fn metric(gateway: &Gateway) -> bool {
    let metrics = get(&gateway.stack, "/metrics").await.text();
    let is = |value| metrics.contains(&format!("streamseal_ready_check{{check=\"kms\"}} {value}"));
    assert!(is(0) != is(1), "{metrics}");
    is(1)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_opened_is_named_while_it_is_so() {
    let mut gateway = Gateway::with(RuleCipher::Aegis256, with_admin).await;
    for stream in ["good", "bad"] {
        gateway.put(stream, SECRET).await;
    }
    gateway.restart().await;
    assert_eq!(gateway.bodies("good").await, [SECRET]);
    let said = ready(&gateway).await;
    assert_eq!(said["ok"], true, "{said}");
    assert!(said["streams"].is_null(), "{said}");
    let reason = "encryption key not found by whoever";
    gateway.vault.act(Transit::Refuse("decrypt", 400, reason));
    let client = gateway.stack.h2().await;
    let denied = client.ask(reads("bad", "seq_num=0", Encoding::Json)).await;
    assert_eq!(denied.status, 403);
    let said = ready(&gateway).await;
    assert_eq!(said["ok"], true, "{said}");
    assert!(metric(&gateway).await);
    let streams = said["streams"].as_array().unwrap();
    assert_eq!(streams.len(), 1, "{said}");
    assert_eq!(streams[0]["stream"], "test-basin/bad");
    assert_eq!(streams[0]["key_epoch"], 1);
    let reason = streams[0]["reason"].as_str().unwrap();
    assert!(reason.contains("does not allow the use"), "{said}");
    let since = streams[0]["since"].as_str().unwrap();
    assert!(since.starts_with("20") && since.ends_with('Z'), "{said}");
    let status = get(&gateway.stack, "/api/status").await.json();
    assert_eq!(status["ready"]["checks"]["kms"], said);
    gateway.vault.act(Transit::Serve);
    let again = reads("bad", "seq_num=0", Encoding::Json);
    ask_until(&client, again, |answer| answer.status == 200).await;
    assert!(ready(&gateway).await["streams"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_away_is_said_and_takes_no_proxy_away() {
    let gateway = Gateway::with(RuleCipher::Aegis256, with_admin).await;
    gateway.put("good", SECRET).await;
    assert!(metric(&gateway).await);
    gateway.vault.act(Transit::Away);
    let new = gateway.ask(appends("new", Encoding::Json, &one("x"))).await;
    assert_eq!(new.status, 502);
    let said = ready(&gateway).await;
    assert_eq!(said["ok"], false, "{said}");
    let reason = said["reason"].as_str().unwrap();
    assert!(reason.contains("does not answer now, since 20"), "{said}");
    assert!(!metric(&gateway).await);
    assert_eq!(gateway.bodies("good").await, [SECRET]);
    gateway.vault.act(Transit::Serve);
    let client = gateway.stack.h2().await;
    let again = appends("new", Encoding::Json, &one("x"));
    ask_until(&client, again, |answer| answer.status == 200).await;
    assert_eq!(ready(&gateway).await["ok"], true);
    assert!(metric(&gateway).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_token_is_named_and_counted() {
    let mut gateway = Gateway::with(RuleCipher::Aegis256, with_admin).await;
    gateway.put("s", SECRET).await;
    gateway.restart().await;
    let refuse = Transit::Refuse("/", 403, "permission denied by whoever");
    gateway.vault.act(refuse);
    let read = gateway.ask(reads("s", "seq_num=0", Encoding::Json)).await;
    assert_eq!((read.status, &*read.code()), (502, "hot_server"));
    let said = ready(&gateway).await;
    assert_eq!(said["ok"], false, "{said}");
    let reason = said["reason"].as_str().unwrap();
    assert!(reason.contains("does not let the proxy in"), "{said}");
    let metrics = get(&gateway.stack, "/metrics").await.text();
    let counted = "kms_requests_total{operation=\"unwrap\",outcome=\"unauthorized\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    gateway.vault.act(Transit::Serve);
    let client = gateway.stack.h2().await;
    let again = reads("s", "seq_num=0", Encoding::Json);
    ask_until(&client, again, |answer| answer.status == 200).await;
    assert_eq!(ready(&gateway).await["ok"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_is_cut() {
    let mut gateway = Gateway::with(RuleCipher::Aegis256, with_admin).await;
    let client = gateway.stack.h2().await;
    for at in 0..25 {
        gateway.put(&format!("s{at}"), SECRET).await;
    }
    drop(client);
    gateway.restart().await;
    gateway.vault.act(Transit::Away);
    let client = gateway.stack.h2().await;
    for at in 0..25 {
        let read = reads(&format!("s{at}"), "seq_num=0", Encoding::Json);
        assert_eq!(client.ask(read).await.status, 502);
    }
    let said = ready(&gateway).await;
    assert_eq!(said["streams"].as_array().unwrap().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_service_nothing_is_said_of_one() {
    let stack = crate::admin::stack().await;
    let said = get(&stack, "/ready").await.json();
    assert!(said["checks"]["kms"].is_null(), "{said}");
    let metrics = get(&stack, "/metrics").await.text();
    assert!(!metrics.contains("check=\"kms\""));
}
