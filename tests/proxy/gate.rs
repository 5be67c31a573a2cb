//! Who comes in with an API key, and who does not: every failure is one and the same answer.

use crate::harness::{Ask, BASIN, Stack, project};

#[tokio::test(flavor = "multi_thread")]
async fn a_good_api_key_opens_the_door() {
    let stack = Stack::with(|config| project(config, "tests", &["test-*/**"])).await;
    let token = stack.create_project("tests").await;
    let client = stack.h2().await;
    let make = Ask::post("/v1/basins").json(&serde_json::json!({ "basin": BASIN }));
    assert_eq!(client.ask(make.clone()).await.status, 401);
    let made = client.ask(token.on(make)).await;
    assert_eq!(made.status, 201, "{}", made.text());
}
