//! A wrapped key that was put elsewhere in a store without a key of its own opens nothing there.

use streamseal::store::{DataKeys, WrappedKey};

use super::setup::{Gateway, SECRET, appends, one, reads};
use crate::harness::{Encoding, KEY};

/// Neither appends nor reads, with this code, and nothing is stored.
async fn is_closed(gateway: &Gateway, stream: &str, case: &str) {
    let before = gateway.stored(stream).await;
    for ask in [
        appends(stream, Encoding::Json, &one("more")),
        reads(stream, "seq_num=0", Encoding::Json),
    ] {
        let answer = gateway.ask(ask).await;
        let told = (answer.status, &*answer.code());
        assert_eq!(told, (400, "decryption_failed"), "{case}");
        assert!(!answer.text().contains(SECRET), "{case}");
    }
    assert_eq!(gateway.stored(stream).await, before, "{case}");
}

/// Two streams with keys of two epochs each.
async fn two() -> (Gateway, [DataKeys; 2]) {
    let gateway = Gateway::start().await;
    for stream in ["a", "b"] {
        gateway.put(stream, SECRET).await;
        assert_eq!(gateway.rotate(stream).await, Ok(2));
        gateway.put(stream, SECRET).await;
    }
    let keys = [
        gateway.data_keys("a").await.unwrap(),
        gateway.data_keys("b").await.unwrap(),
    ];
    (gateway, keys)
}

#[tokio::test(flavor = "multi_thread")]
async fn in_another_row_it_does_not_open() {
    let (gateway, [_, of_b]) = two().await;
    gateway
        .tamper("a", |keys| {
            keys.keys[1].wrapped = of_b.keys[1].wrapped.clone()
        })
        .await;
    is_closed(&gateway, "a", "the wrapped key alone").await;
    // With all that is said of it, which is what the service itself has to notice.
    gateway.tamper("a", |keys| *keys = of_b.clone()).await;
    is_closed(&gateway, "a", "the whole row").await;
    assert_eq!(gateway.bodies("b").await, [SECRET; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_another_epoch_it_does_not_open() {
    let (gateway, [of_a, _]) = two().await;
    gateway
        .tamper("a", |keys| {
            keys.keys[0].wrapped = of_a.keys[1].wrapped.clone();
            keys.keys[1].wrapped = of_a.keys[0].wrapped.clone();
        })
        .await;
    is_closed(&gateway, "a", "swapped").await;
    gateway.tamper("a", |keys| *keys = of_a.clone()).await;
    assert_eq!(gateway.bodies("a").await, [SECRET; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_unwraps_must_be_what_was_committed_to() {
    let (gateway, [of_a, _]) = two().await;
    gateway
        .tamper("a", |keys| keys.keys[1].commit = of_a.keys[0].commit)
        .await;
    is_closed(&gateway, "a", "another commitment").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_wrapped_key_at_all_does_no_harm() {
    let (gateway, _) = two().await;
    for (key, blob) in [
        ("streams", "no base64!"),
        ("streams", "AAAA"),
        ("../../sys/seal", "dmF1bHQ6djE6eA=="),
        ("", ""),
    ] {
        let wrapped = WrappedKey::Kms {
            key: key.to_owned(),
            blob: blob.to_owned(),
        };
        let before = gateway.vault.calls();
        gateway
            .tamper("a", |keys| keys.keys[1].wrapped = Some(wrapped))
            .await;
        is_closed(&gateway, "a", blob).await;
        assert_eq!(gateway.vault.calls(), before, "it was asked for {key:?}");
    }
    let _no_header_helps = gateway
        .ask(reads("a", "seq_num=0", Encoding::Json).key(&KEY))
        .await;
    assert_eq!(gateway.bodies("b").await, [SECRET; 2]);
}
