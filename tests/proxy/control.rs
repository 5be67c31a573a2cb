//! Basin and stream calls that set or show ciphers answer as S2 with its own encryption does, and the
//! upstream hears nothing of them.

use serde_json::{Value, json};

use crate::harness::{Ask, BASIN, Seen, Twin, purged, until};

pub const AEGIS: &str = "aegis-256";
pub const GCM: &str = "aes-256-gcm";

fn basin_path() -> String {
    format!("/v1/basins/{BASIN}")
}

pub fn create(config: &Value) -> Ask {
    Ask::post("/v1/basins").json(&json!({ "basin": BASIN, "config": config }))
}

fn ensure(config: &Value) -> Ask {
    Ask::new("PUT", basin_path()).json(&json!({ "config": config }))
}

pub fn patch(config: &Value) -> Ask {
    Ask::new("PATCH", basin_path()).json(config)
}

/// The body of the basin's configuration, equal on both sides.
pub async fn config(twin: &Twin) -> Value {
    twin.same(Ask::get(basin_path())).await.json()
}

/// Deletes the basin on both sides and waits until it is gone. Each deletion makes `s2-lite` work on
/// those it has not finished.
pub async fn delete_basin(twin: &Twin) {
    twin.delete(&basin_path()).await;
    for client in [twin.stack.direct().await, twin.native_client().await] {
        until("the basin is gone", async || {
            purged(&client, "/v1/streams/in-it").await;
            client.ask(Ask::new("DELETE", basin_path())).await;
            client.ask(Ask::get("/v1/streams")).await.status == 404
        })
        .await;
    }
}

/// What went upstream and spells a cipher, be it in a header or a body.
pub fn heard_of_ciphers(twin: &Twin) -> Vec<Seen> {
    let tells =
        |text: &str| text.contains("cipher") || text.contains("aegis") || text.contains("gcm");
    let mut seen = twin.stack.lite.seen();
    seen.retain(|seen| {
        tells(&seen.line)
            || seen.headers.iter().any(|header| tells(header))
            || tells(&String::from_utf8_lossy(&seen.body))
    });
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn basins_are_created_with_any_cipher_none_or_a_bad_one() {
    let twin = Twin::start().await;
    for cipher in [json!(AEGIS), json!(GCM), json!(null)] {
        let created = twin.same(create(&json!({ "stream_cipher": cipher }))).await;
        assert_eq!(created.status, 201);
        assert_eq!(config(&twin).await["stream_cipher"], cipher);
        let again = twin.same(create(&json!({ "stream_cipher": cipher }))).await;
        assert_eq!(again.code(), "resource_already_exists");
        delete_basin(&twin).await;
    }
    for bad in [
        json!("bogus"),
        json!("AEGIS-256"),
        json!(7),
        json!({}),
        json!(""),
    ] {
        let refused = twin
            .same_code(create(&json!({ "stream_cipher": bad })))
            .await;
        assert_eq!(refused.code(), "bad_json", "{bad}");
        let refused = twin
            .same_code(ensure(&json!({ "stream_cipher": bad })))
            .await;
        assert_eq!(refused.code(), "bad_json", "{bad}");
        let refused = twin
            .same_code(patch(&json!({ "stream_cipher": bad })))
            .await;
        assert_eq!(refused.code(), "bad_json", "{bad}");
    }
    assert_eq!(twin.same(Ask::get(basin_path())).await.status, 404);
    assert!(heard_of_ciphers(&twin).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_basin_created_again_without_a_cipher_has_none() {
    let twin = Twin::start().await;
    twin.same(create(&json!({ "stream_cipher": AEGIS }))).await;
    delete_basin(&twin).await;
    let created = twin
        .same(Ask::post("/v1/basins").json(&json!({ "basin": BASIN })))
        .await;
    assert_eq!(created.status, 201);
    assert_eq!(config(&twin).await["stream_cipher"], Value::Null);
    let stream = twin.same(Ask::new("PUT", "/v1/streams/plain")).await;
    assert_eq!(stream.json()["cipher"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn ensure_replaces_the_whole_configuration() {
    let twin = Twin::start().await;
    let rest = json!({ "create_stream_on_append": true });
    let with = |cipher: Value| {
        let mut config = rest.clone();
        config["stream_cipher"] = cipher;
        ensure(&config)
    };
    let steps = [
        (with(json!(AEGIS)), "created", json!(AEGIS)),
        (with(json!(AEGIS)), "noop", json!(AEGIS)),
        (with(json!(GCM)), "updated", json!(GCM)),
        (ensure(&rest), "updated", Value::Null),
        (with(json!(null)), "noop", Value::Null),
        (with(json!(AEGIS)), "updated", json!(AEGIS)),
        (Ask::new("PUT", basin_path()), "updated", Value::Null),
        (Ask::new("PUT", basin_path()), "noop", Value::Null),
        (
            ensure(&json!({ "stream_cipher": GCM })),
            "updated",
            json!(GCM),
        ),
        (
            Ask::new("PUT", basin_path()).json(&json!({})),
            "updated",
            Value::Null,
        ),
        (
            ensure(&json!({ "stream_cipher": GCM })),
            "updated",
            json!(GCM),
        ),
        (ensure(&Value::Null), "updated", Value::Null),
    ];
    for (at, (ask, result, cipher)) in steps.into_iter().enumerate() {
        let answer = twin.same(ask).await;
        let status = if result == "created" { 201 } else { 200 };
        assert_eq!(answer.status, status, "step {at}");
        assert_eq!(
            answer.header("s2-provision-result"),
            Some(result),
            "step {at}"
        );
        assert_eq!(config(&twin).await["stream_cipher"], cipher, "step {at}");
    }
    assert!(heard_of_ciphers(&twin).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn reconfigure_leaves_sets_and_clears() {
    let twin = Twin::start().await;
    let missing = twin.same(patch(&json!({ "stream_cipher": AEGIS }))).await;
    assert_eq!(missing.code(), "basin_not_found");
    assert_eq!(twin.same(create(&json!({}))).await.status, 201);
    assert_eq!(config(&twin).await["stream_cipher"], Value::Null);
    for (change, cipher) in [
        (json!({}), Value::Null),
        (json!({ "stream_cipher": AEGIS }), json!(AEGIS)),
        (json!({}), json!(AEGIS)),
        (json!({ "create_stream_on_read": true }), json!(AEGIS)),
        (
            json!({ "stream_cipher": GCM, "create_stream_on_read": false }),
            json!(GCM),
        ),
        (json!({ "stream_cipher": null }), Value::Null),
        (json!({ "stream_cipher": null }), Value::Null),
    ] {
        let answer = twin.same(patch(&change)).await;
        assert_eq!(answer.status, 200, "{change}");
        assert_eq!(answer.json()["stream_cipher"], cipher, "{change}");
        assert_eq!(config(&twin).await["stream_cipher"], cipher, "{change}");
    }
    assert!(heard_of_ciphers(&twin).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_token_tells_ciphers_apart() {
    let twin = Twin::start().await;
    let token = "0b8c1c9e-94d5-4b22-8a4f-1f7c4b1d3a52";
    let with = |config: &Value| create(config).header("s2-request-token", token);
    let sealed = json!({ "stream_cipher": AEGIS });
    assert_eq!(twin.same(with(&sealed)).await.status, 201);
    let again = twin.same(with(&sealed)).await;
    assert_eq!(again.header("s2-provision-result"), Some("noop"));
    for other in [
        json!({ "stream_cipher": GCM }),
        json!({}),
        json!({ "stream_cipher": null }),
    ] {
        let refused = twin.same(with(&other)).await;
        assert_eq!(refused.code(), "resource_already_exists", "{other}");
    }
    assert_eq!(config(&twin).await["stream_cipher"], AEGIS);
    // The basin's cipher of now is not what the token was sent with.
    twin.same(patch(&json!({ "stream_cipher": GCM }))).await;
    let again = twin.same(with(&sealed)).await;
    assert_eq!(again.header("s2-provision-result"), Some("noop"));
    assert_eq!(config(&twin).await["stream_cipher"], GCM);
    let long = create(&sealed).header("s2-request-token", "x".repeat(37));
    assert_eq!(twin.same(long).await.code(), "bad_header");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_token_is_looked_at_before_the_body() {
    let twin = Twin::start().await;
    let long = "x".repeat(37);
    for token in [long.as_bytes(), b"caf\xe9"] {
        for ask in [
            create(&json!({ "stream_cipher": "AEGIS-256" })),
            Ask::post("/v1/basins").body("application/json", "{"),
            Ask::post("/v1/streams").body("text/plain", "{"),
        ] {
            let refused = twin.same(ask.header("s2-request-token", token)).await;
            assert_eq!(refused.code(), "bad_header");
        }
        // Elsewhere it means nothing.
        let ensured = Ask::new("PUT", "/v1/streams/s").header("s2-request-token", token);
        assert_eq!(twin.same(ensured).await.code(), "basin_not_found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_a_cipher_is_replayed_after_the_basin_got_one() {
    let twin = Twin::start().await;
    let plain = || create(&json!({})).header("s2-request-token", "the-same-token");
    assert_eq!(twin.same(plain()).await.status, 201);
    twin.same(patch(&json!({ "stream_cipher": AEGIS }))).await;
    let again = twin.same(plain()).await;
    assert_eq!(again.header("s2-provision-result"), Some("noop"));
    assert_eq!(config(&twin).await["stream_cipher"], AEGIS);
}
