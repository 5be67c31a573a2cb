//! No key and nothing else is asked of clients than on any stream, in every encoding.

use serde_json::json;
use streamseal::{
    crypto::{Cipher, layout_of},
    project::Scope,
    registry::rules::RuleCipher,
    store::{Holder, WrappedKey},
};

use super::setup::{Gateway, SECRET, appends, one, reads, rule};
use crate::harness::{Ask, Encoding, KEY, Stack, delivered, input, project, record, until};

const CIPHERS: [(RuleCipher, Cipher); 2] = [
    (RuleCipher::Aegis256, Cipher::Aegis256),
    (RuleCipher::Aes256Gcm, Cipher::Aes256Gcm),
];

#[tokio::test(flavor = "multi_thread")]
async fn append_and_read_need_no_key() {
    for (rule, cipher) in CIPHERS {
        let mut gateway = Gateway::with(rule, |_| {}).await;
        let batch = input([record(&[(b"name", b"value")], SECRET)]);
        for encoding in Encoding::APPENDS {
            gateway.append("s", encoding, &batch).await;
        }
        for is_restarted in [false, true] {
            for encoding in Encoding::READS {
                let answer = gateway.ask(reads("s", "seq_num=0&count=4", encoding)).await;
                let records = delivered(encoding, &answer).records();
                assert_eq!(records.len(), Encoding::APPENDS.len(), "{}", answer.text());
                for record in records {
                    assert_eq!(record.body, SECRET, "{encoding:?}");
                    assert_eq!(record.headers, batch.records[0].headers, "{encoding:?}");
                }
            }
            if !is_restarted {
                gateway.restart().await;
            }
        }
        for stored in gateway.stack.stored("s").await {
            let layout = layout_of(&stored.body).expect("a record in clear");
            assert_eq!((layout.cipher, layout.epoch), (cipher, Some(1)));
        }
        assert!(!gateway.stack.tap.saw(SECRET.as_bytes()));
        let keys = gateway.data_keys("s").await.unwrap();
        assert_eq!((keys.holder, keys.keys.len()), (Holder::Kms, 1));
        let Some(WrappedKey::Kms { key, .. }) = &keys.keys[0].wrapped else {
            panic!("{:?}", keys.keys);
        };
        assert_eq!(key, "streams");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_own_key_is_refused_and_not_ignored() {
    let gateway = Gateway::start().await;
    gateway.put("s", SECRET).await;
    for ask in [
        appends("s", Encoding::Json, &one("more")),
        appends("s", Encoding::Frames, &one("more")),
        reads("s", "seq_num=0", Encoding::Json),
    ] {
        let answer = gateway.ask(ask.key(&KEY)).await;
        assert_eq!((answer.status, &*answer.code()), (422, "invalid"));
    }
    assert_eq!(gateway.stored("s").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_key_comes_with_the_stream_and_nobody_waits_for_it() {
    let gateway = Gateway::start().await;
    let (go, wait) = tokio::sync::watch::channel(false);
    gateway.vault.act(crate::harness::Transit::ServeOnce(wait));
    for stream in ["one", "two"] {
        let body = json!({ "stream": stream });
        let made = gateway.ask(Ask::post("/v1/streams").json(&body)).await;
        assert_eq!(made.status, 201, "{}", made.text());
        assert_eq!(made.json()["cipher"], "aegis-256");
    }
    until("both keys were asked for", async || {
        gateway.vault.count("encrypt") == 2
    })
    .await;
    go.send(true).unwrap();
    until("there are both", async || {
        gateway.data_keys("one").await.is_some() && gateway.data_keys("two").await.is_some()
    })
    .await;
    gateway.put("one", SECRET).await;
    assert_eq!(gateway.bodies("one").await, [SECRET]);
    assert_eq!(gateway.data_keys("one").await.unwrap().keys.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_once_agree_on_the_first_key() {
    let gateway = Gateway::start().await;
    let appends = (0..8).map(|_| gateway.put("s", SECRET));
    futures_util::future::join_all(appends).await;
    assert_eq!(gateway.data_keys("s").await.unwrap().keys.len(), 1);
    assert_eq!(gateway.bodies("s").await, [SECRET; 8]);
    assert_eq!(gateway.vault.count("encrypt"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_api_keys_any_of_the_streams_project_will_do() {
    let gateway = Gateway::with(RuleCipher::Aegis256, |config| {
        project(config, "payments", &["*/**"]);
    })
    .await;
    let nobody = gateway.ask(appends("s", Encoding::Json, &one("x"))).await;
    assert_eq!((nobody.status, &*nobody.code()), (401, "authn"));
    assert!(gateway.entry("s").await.is_none());
    let stack = &gateway.stack;
    let owner = stack.create_project("payments").await;
    let scopes = [Scope::Append, Scope::Read].into_iter().collect();
    let other = stack.issue(&owner, "other", scopes).await;
    for token in [&owner, &other] {
        let ask = token.on(appends("s", Encoding::Json, &one(SECRET)));
        assert_eq!(gateway.ask(ask).await.status, 200);
        let ask = token.on(reads("s", "seq_num=0&count=1", Encoding::Json));
        let answer = gateway.ask(ask).await;
        assert!(answer.text().contains(SECRET), "{}", answer.text());
    }
    let keys = gateway.data_keys("s").await.unwrap();
    assert_eq!(keys.holder, Holder::Kms);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_rule_needs_a_restart_where_no_service_is_configured() {
    let mut stack = Stack::start().await;
    let vault = crate::harness::Vault::start().await;
    let with_rule = |config: &mut streamseal::config::Config| {
        config.streams = vec![rule("*/**", RuleCipher::Aegis256)];
    };
    let refused = stack.reload(with_rule).unwrap_err();
    assert!(
        refused.contains("streams[0].key: \"kms\" needs kms.provider"),
        "{refused}"
    );
    let refused = stack.reload(|config| {
        with_rule(config);
        vault.aim(config);
    });
    let refused = refused.unwrap_err();
    for words in ["it needs a restart", "kms.provider", "streams[0].key"] {
        assert!(refused.contains(words), "{words} not in {refused}");
    }
    assert_eq!(stack.reload(|config| vault.aim(config)).unwrap().len(), 4);
    stack.restart(|config| vault.aim(config)).await;
    assert_eq!(stack.reload(with_rule), Ok(Vec::new()));
}
