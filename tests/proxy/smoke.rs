//! A client writes and reads through the proxy; the upstream holds ciphertext.

use serde_json::json;

use crate::harness::{Ask, KEY, Stack, records};

#[tokio::test(flavor = "multi_thread")]
async fn append_and_read_back() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    for client in [stack.h1().await, stack.h2().await] {
        let append = Ask::post(records("a")).key(&KEY);
        let append = append.json(&json!({"records": [{"body": "a secret body"}]}));
        let answer = client.ask(append).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let read = stack
        .h2()
        .await
        .ask(Ask::get(records("a") + "?seq_num=0").key(&KEY))
        .await;
    assert_eq!(read.json()["records"][1]["body"], "a secret body");
    assert!(!stack.tap.saw(b"a secret body"));
    let raw = stack
        .direct()
        .await
        .ask(Ask::get(records("a") + "?seq_num=0"))
        .await;
    assert_eq!(raw.json()["records"].as_array().unwrap().len(), 2);
    let sdk = stack.sdk();
    let basins = sdk.list_basins(Default::default()).await.unwrap();
    assert_eq!(basins.values.len(), 1);
}
