//! What the service refuses is told as S2 tells it, in the client's own format, and nothing is stored.

use streamseal::registry::rules::RuleCipher;

use super::setup::{Gateway, SECRET, appends, one, reads, with_admin};
use crate::{
    admin::get,
    harness::{Encoding, End, Transit, ack, ask_until, delivered},
};

/// What the service does, and what the client hears.
const CASES: [(Transit, u16, &str, &str); 6] = [
    (Transit::Away, 502, "hot_server", "does not answer now"),
    (
        Transit::Refuse("/", 503, "Vault is sealed by whoever"),
        502,
        "hot_server",
        "does not answer now",
    ),
    (
        Transit::Refuse("/", 403, "1 error occurred: permission denied by whoever"),
        502,
        "hot_server",
        "does not let the proxy in",
    ),
    (
        Transit::Refuse("decrypt", 400, "encryption key not found by whoever"),
        403,
        "permission_denied",
        "does not allow the use",
    ),
    (
        Transit::Refuse("/", 404, "no handler for route of whoever"),
        502,
        "hot_server",
        "is misconfigured",
    ),
    (
        Transit::Refuse("decrypt", 400, "cipher: message authentication of whoever"),
        400,
        "decryption_failed",
        "does not open",
    ),
];

/// A gateway with a stream whose key is not held, and another that has none.
async fn cold() -> Gateway {
    let mut gateway = Gateway::with(RuleCipher::Aegis256, with_admin).await;
    gateway.put("s", SECRET).await;
    gateway.restart().await;
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_are_refused_and_nothing_is_stored() {
    for (act, status, code, text) in CASES {
        let gateway = cold().await;
        gateway.vault.act(act.clone());
        for stream in ["s", "new"] {
            for encoding in Encoding::APPENDS {
                let answer = gateway.ask(appends(stream, encoding, &one("more"))).await;
                let told = (answer.status, &*answer.code());
                assert_eq!(told, (status, code), "{act:?} {encoding:?}");
                assert!(answer.text().contains(text), "{}", answer.text());
                assert!(!answer.text().contains("whoever"), "{}", answer.text());
            }
        }
        assert_eq!(gateway.stored("s").await, 1);
        assert_eq!(gateway.stored("new").await, 0);
        assert!(gateway.data_keys("new").await.is_none());
        // What the service said is for operators.
        let errors = get(&gateway.stack, "/api/errors").await.text();
        let reason = match act {
            Transit::Refuse(_, _, said) => said,
            _ => "connection closed",
        };
        assert!(errors.contains(reason), "{reason} not in {errors}");
        gateway.vault.act(Transit::Serve);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_end_with_the_error_and_nothing_is_delivered() {
    for (act, status, code, text) in CASES {
        let gateway = cold().await;
        gateway.vault.act(act.clone());
        for encoding in Encoding::READS {
            let answer = gateway.ask(reads("s", "seq_num=0", encoding)).await;
            let read = delivered(encoding, &answer);
            assert_eq!(read.batches, [], "{act:?} {encoding:?}");
            let status = match encoding {
                Encoding::Events | Encoding::EventsBase64 => 0,
                _ => status,
            };
            let code = code.to_owned();
            assert_eq!(read.end, End::Failed { status, code }, "{encoding:?}");
            assert!(answer.text().contains(text), "{}", answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_nobody_may_decrypt_never_gets_records() {
    let gateway = Gateway::start().await;
    let denied = Transit::Refuse("decrypt", 403, "permission denied");
    gateway.vault.act(denied.clone());
    let answer = gateway.ask(appends("s", Encoding::Json, &one("x"))).await;
    let told = (answer.status, &*answer.code());
    assert_eq!(told, (502, "hot_server"));
    assert!(gateway.entry("s").await.is_none());
    gateway.vault.act(Transit::Serve);
    ask_until(
        &gateway.stack.h2().await,
        appends("s", Encoding::Json, &one("x")),
        |answer| answer.status == 200,
    )
    .await;
    // Nor does the next one.
    gateway.vault.act(denied);
    let refused = gateway.rotate("s").await.unwrap_err();
    assert!(refused.contains("does not let the proxy in"), "{refused}");
    assert_eq!(gateway.data_keys("s").await.unwrap().keys.len(), 1);
    let answer = gateway.ask(appends("s", Encoding::Json, &one("y"))).await;
    ack(Encoding::Json, &answer);
    assert_eq!(gateway.bodies("s").await, ["x", "y"]);
}
