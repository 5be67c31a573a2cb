//! A stream shows the cipher that its basin had when it was created, and keeps it until it is deleted.

use serde_json::{Value, json};

use crate::{
    control::{AEGIS, GCM, config, create, delete_basin, heard_of_ciphers, patch},
    harness::{Ask, Twin, purged},
};

#[tokio::test(flavor = "multi_thread")]
async fn streams_show_the_cipher_they_were_created_with() {
    let twin = Twin::start().await;
    twin.same(create(&json!({ "stream_cipher": AEGIS }))).await;
    let created = twin.same(create_stream("first")).await;
    assert_eq!(created.json()["cipher"], AEGIS);
    twin.same(patch(&json!({ "stream_cipher": GCM }))).await;
    let ensured = twin.same(Ask::new("PUT", "/v1/streams/first")).await;
    assert_eq!(ensured.json()["cipher"], AEGIS);
    assert_eq!(ensured.header("s2-provision-result"), Some("noop"));
    let ensured = twin.same(Ask::new("PUT", "/v1/streams/second")).await;
    assert_eq!(
        (ensured.status, &ensured.json()["cipher"]),
        (201, &json!(GCM))
    );
    twin.same(patch(&json!({ "stream_cipher": null }))).await;
    let config = json!({ "retention_policy": { "age": 3600 } });
    let third = Ask::new("PUT", "/v1/streams/third").json(&config);
    assert_eq!(twin.same(third).await.json()["cipher"], Value::Null);
    let updated = twin
        .same(Ask::new("PUT", "/v1/streams/second").json(&config))
        .await;
    assert_eq!(updated.header("s2-provision-result"), Some("updated"));
    assert_eq!(updated.json()["cipher"], GCM);
    for query in [
        "",
        "?limit=2",
        "?prefix=s",
        "?start_after=second",
        "?prefix=zz",
    ] {
        twin.same(Ask::get(format!("/v1/streams{query}"))).await;
    }
    for name in ["first", "second", "third"] {
        let path = format!("/v1/streams/{name}");
        let config = twin.same(Ask::get(&path)).await;
        assert!(config.json().get("cipher").is_none());
        let change = Ask::new("PATCH", &path).json(&json!({ "retention_policy": { "age": 60 } }));
        assert_eq!(twin.same(change).await.status, 200);
    }
    assert!(heard_of_ciphers(&twin).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_created_again_takes_the_cipher_of_that_moment() {
    let twin = Twin::start().await;
    twin.same(create(&json!({ "stream_cipher": AEGIS }))).await;
    for (now, next) in [
        (json!(AEGIS), json!(GCM)),
        (json!(GCM), json!(null)),
        (json!(null), json!(AEGIS)),
    ] {
        assert_eq!(
            twin.same(create_stream("again")).await.json()["cipher"],
            now
        );
        twin.same(patch(&json!({ "stream_cipher": next }))).await;
        assert_eq!(twin.same(list()).await.json()["streams"][0]["cipher"], now);
        delete_stream(&twin, "again").await;
    }
    let ensured = twin.same(Ask::new("PUT", "/v1/streams/again")).await;
    assert_eq!(ensured.json()["cipher"], AEGIS);
    delete_stream(&twin, "again").await;
    assert_eq!(
        twin.same(Ask::new("DELETE", "/v1/streams/again"))
            .await
            .code(),
        "stream_not_found"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_deleted_basin_do_not_come_back() {
    let twin = Twin::start().await;
    twin.same(create(&json!({ "stream_cipher": AEGIS }))).await;
    twin.same(create_stream("in-it")).await;
    delete_basin(&twin).await;
    assert_eq!(twin.same(list()).await.code(), "basin_not_found");
    twin.same(create(&json!({ "stream_cipher": GCM }))).await;
    assert_eq!(twin.same(list()).await.json()["streams"], json!([]));
    assert_eq!(
        twin.same(create_stream("in-it")).await.json()["cipher"],
        GCM
    );
    twin.same(Ask::new("DELETE", "/v1/basins/not-there-at-all"))
        .await;
    assert_eq!(config(&twin).await["stream_cipher"], GCM);
}

/// Deletes a stream on both sides and waits until its name is free.
async fn delete_stream(twin: &Twin, name: &str) {
    let path = format!("/v1/streams/{name}");
    twin.delete(&path).await;
    for client in [twin.stack.direct().await, twin.native_client().await] {
        purged(&client, &path).await;
    }
}

fn create_stream(name: &str) -> Ask {
    Ask::post("/v1/streams").json(&json!({ "stream": name }))
}

fn list() -> Ask {
    Ask::get("/v1/streams")
}
