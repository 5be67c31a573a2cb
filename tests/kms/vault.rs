//! The transit engine of OpenBao.

use serde_json::json;

use super::{openbao::OpenBao, *};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_key_is_bound_to_stream_and_epoch() {
    let bao = OpenBao::start().await;
    for kind in ["aes256-gcm96", "chacha20-poly1305"] {
        bao.key(kind, kind).await;
        let token = bao.token(kind).await;
        is_bound(&bao.config(kind, &token)).await;
    }
    bao.ask("sys/namespaces/teams", &json!({})).await;
    let transit = json!({ "type": "transit" });
    bao.ask_in("teams", "sys/mounts/deep/transit", &transit)
        .await;
    bao.ask_in("teams", "deep/transit/keys/k", &json!({})).await;
    let mut config = bao.config_of_root("k");
    config.vault.namespace = "teams".to_owned();
    config.vault.mount = "deep/transit".to_owned();
    is_bound(&config).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_certified_gets_no_key() {
    let bao = OpenBao::start().await;
    bao.key("k", "aes256-gcm96").await;
    let mut config = bao.config_of_root("k");
    config.vault.ca_file = Default::default();
    let proxy = Proxy::start(&config).await;
    let dek = Key::generate().unwrap();
    let refused = proxy.kms.wrap(&dek, &stream("a"), 1).await.unwrap_err();
    assert!(refused.reason().contains("certificate"), "{refused:?}");
    is_unreachable::<()>(Err(refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn token_without_rights_is_the_proxys_own_trouble() {
    let bao = OpenBao::start().await;
    bao.key("k", "aes256-gcm96").await;
    bao.key("other", "aes256-gcm96").await;
    let token = bao.token("k").await;
    let (stream, dek) = (stream("a"), Key::generate().unwrap());
    // A policy with `create` would make the key that is missing.
    for key in ["other", "missing"] {
        let proxy = Proxy::start(&bao.config(key, &token)).await;
        is_unauthorized(proxy.kms.wrap(&dek, &stream, 1).await);
    }
    let config = bao.config("k", "nonsense");
    let proxy = Proxy::start(&config).await;
    is_unauthorized(proxy.kms.wrap(&dek, &stream, 1).await);
    std::fs::write(config.vault.token_file.path().unwrap(), &token).unwrap();
    let (dek, wrapped) = proxy.wrapped(&stream).await;
    assert_eq!(proxy.unwrap(&stream, &wrapped).await.unwrap(), dek);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_token_is_the_proxys_own_trouble() {
    let bao = OpenBao::start().await;
    bao.key("k", "aes256-gcm96").await;
    let token = bao.token("k").await;
    let config = bao.config("k", &token);
    let (proxy, stream) = (Proxy::start(&config).await, stream("a"));
    let (dek, wrapped) = proxy.wrapped(&stream).await;
    let revoked = json!({ "token": token });
    bao.ask("auth/token/revoke", &revoked).await;
    is_unauthorized(proxy.unwrap(&stream, &wrapped).await);
    assert!(proxy.kms.away().is_some());
    let renewed = bao.token("k").await;
    std::fs::write(config.vault.token_file.path().unwrap(), renewed).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    assert_eq!(proxy.unwrap(&stream, &wrapped).await.unwrap(), dek);
    assert!(proxy.kms.away().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_mounts_that_do_not_fit_are_named_as_such() {
    let bao = OpenBao::start().await;
    bao.key("rsa", "rsa-2048").await;
    let derived = json!({ "type": "aes256-gcm96", "derived": true });
    bao.ask("transit/keys/derived", &derived).await;
    let (stream, dek) = (stream("a"), Key::generate().unwrap());
    for key in ["rsa", "derived"] {
        let proxy = Proxy::start(&bao.config_of_root(key)).await;
        is_misconfigured(proxy.kms.wrap(&dek, &stream, 1).await);
    }
    bao.key("k", "aes256-gcm96").await;
    let mut config = bao.config_of_root("k");
    config.vault.mount = "nowhere".to_owned();
    let proxy = Proxy::start(&config).await;
    is_misconfigured(proxy.kms.wrap(&dek, &stream, 1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_ends_of_a_key() {
    let bao = OpenBao::start().await;
    bao.key("k", "aes256-gcm96").await;
    let token = bao.token("k").await;
    let config = bao.config("k", &token);
    let stream = stream("a");
    let proxy = Proxy::start(&config).await;
    let (dek, wrapped) = proxy.wrapped(&stream).await;
    assert!(wrapped.blob.starts_with(b"vault:v1:"));
    bao.ask("transit/keys/k/rotate", &json!({})).await;
    assert_eq!(proxy.unwrap(&stream, &wrapped).await.unwrap(), dek);
    let (newer_dek, newer) = proxy.wrapped(&stream).await;
    assert!(newer.blob.starts_with(b"vault:v2:"));
    let least = json!({ "min_decryption_version": 2, "deletion_allowed": true });
    bao.ask("transit/keys/k/config", &least).await;
    // What is held stays usable for its time; a fresh process is refused.
    assert_eq!(proxy.unwrap(&stream, &wrapped).await.unwrap(), dek);
    let fresh = Proxy::start(&config).await;
    is_denied(fresh.unwrap(&stream, &wrapped).await);
    assert_eq!(fresh.unwrap(&stream, &newer).await.unwrap(), newer_dek);
    bao.delete("transit/keys/k").await;
    is_denied(Proxy::start(&config).await.unwrap(&stream, &newer).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_server_leaves_warm_streams_working() {
    let bao = OpenBao::start().await;
    bao.key("k", "aes256-gcm96").await;
    let proxy = Proxy::start(&bao.config_of_root("k")).await;
    let (warm, cold) = (stream("warm"), stream("cold"));
    let (dek, wrapped) = proxy.wrapped(&warm).await;
    let (_, cold_wrapped) = proxy.wrapped(&cold).await;
    proxy.unwrap(&warm, &wrapped).await.unwrap();
    bao.ask("sys/seal", &json!({})).await;
    assert_eq!(proxy.unwrap(&warm, &wrapped).await.unwrap(), dek);
    is_unreachable(proxy.unwrap(&cold, &cold_wrapped).await);
    assert_eq!(proxy.kms.troubles().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_gateway_lives_on_it() {
    let bao = OpenBao::start().await;
    bao.key("k", "aes256-gcm96").await;
    let token = bao.token("k").await;
    let gateway = gateway::serves(&bao.config("k", &token)).await;
    bao.ask("sys/seal", &json!({})).await;
    gateway::survives(&gateway).await;
}
