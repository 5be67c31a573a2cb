//! A stream's records are under one kind of key: a rule that says another is refused, and mixes nothing.

use streamseal::{
    config::Config,
    keys::Check,
    registry::rules::{KeySource, RuleCipher, StreamRule},
    store::Holder,
};

use super::setup::{Managed, SECRET, appends, reads, rule};
use crate::harness::{Answer, Ask, Encoding, KEY, base64, input, record};

fn header() -> StreamRule {
    StreamRule {
        key: KeySource::Header,
        ..rule("*/**", RuleCipher::Aegis256)
    }
}

/// A deployment whose streams have keys of their own.
async fn own(check: Check) -> Managed {
    Managed::with(RuleCipher::Aegis256, |config| {
        config.streams = vec![header()];
        config.keys.check = check;
    })
    .await
}

async fn ask(managed: &Managed, ask: Ask, key: Option<&[u8]>) -> Answer {
    let ask = match key {
        Some(key) => ask.key(key),
        None => ask,
    };
    managed.ask(ask).await
}

fn one() -> s2_api::v1::stream::proto::AppendInput {
    input([record(&[], SECRET)])
}

/// Neither appends nor reads go, and nothing is stored.
async fn is_refused(managed: &Managed, key: Option<&[u8]>, status: u16, code: &str) {
    let before = managed.stack.stored("s").await.len();
    for request in [
        appends("s", Encoding::Proto, &one()),
        appends("s", Encoding::Frames, &one()),
        reads("s", "seq_num=0", Encoding::Json),
        reads("s", "seq_num=0", Encoding::Frames),
    ] {
        let answer = ask(managed, request, key).await;
        assert_eq!(
            (answer.status, &*answer.code()),
            (status, code),
            "{}",
            answer.text()
        );
    }
    assert_eq!(managed.stack.stored("s").await.len(), before);
}

fn managed_rule(config: &mut Config) {
    config.streams = vec![rule("*/**", RuleCipher::Aegis256)];
}

#[tokio::test(flavor = "multi_thread")]
async fn records_under_a_clients_key_keep_a_stream_from_being_managed() {
    let mut managed = own(Check::Enforce).await;
    let put = ask(&managed, appends("s", Encoding::Proto, &one()), Some(&KEY)).await;
    assert_eq!(put.status, 200, "{}", put.text());
    managed.stack.reload(managed_rule).unwrap();
    is_refused(&managed, None, 422, "invalid").await;
    assert!(managed.data_keys("s").await.is_none());
    // Put back, everything is as it was.
    managed
        .stack
        .reload(|config| config.streams = vec![header()])
        .unwrap();
    let read = ask(
        &managed,
        reads("s", "seq_num=0", Encoding::Json),
        Some(&KEY),
    )
    .await;
    assert_eq!(read.json()["records"][0]["body"], SECRET);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_nobody_pinned_do_so_as_well() {
    let mut managed = own(Check::Off).await;
    let put = ask(&managed, appends("s", Encoding::Proto, &one()), Some(&KEY)).await;
    assert_eq!(put.status, 200, "{}", put.text());
    assert_eq!(managed.entry("s").await.unwrap().key_check, None);
    managed.stack.reload(managed_rule).unwrap();
    for encoding in [Encoding::Proto, Encoding::Frames] {
        let answer = managed.ask(appends("s", encoding, &one())).await;
        assert_eq!((answer.status, &*answer.code()), (422, "invalid"));
    }
    // What is stored names no epoch.
    let read = managed.ask(reads("s", "seq_num=0", Encoding::Json)).await;
    assert_eq!((read.status, &*read.code()), (400, "decryption_failed"));
    assert!(managed.data_keys("s").await.is_none());
    assert_eq!(managed.stack.stored("s").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_records_may_become_managed() {
    let mut managed = own(Check::Enforce).await;
    let made = managed.ask(Ask::new("PUT", "/v1/streams/s")).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert!(managed.data_keys("s").await.is_none());
    managed.stack.reload(managed_rule).unwrap();
    managed.put("s", SECRET).await;
    assert_eq!(managed.bodies("s").await, [SECRET]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_with_a_key_of_its_own_does_not_go_on_in_a_managed_stream() {
    let mut managed = own(Check::Enforce).await;
    let made = managed.ask(Ask::new("PUT", "/v1/streams/s")).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let open = managed
        .token
        .on(Ask::post(crate::harness::records("s")).key(&KEY));
    let mut session = crate::harness::Session::append(&managed.stack.h2().await, open).await;
    managed.stack.reload(managed_rule).unwrap();
    managed.put("s", SECRET).await;
    session.send(crate::harness::frame(&one())).await;
    let (status, code) = session.live.frame().await.unwrap().unwrap().failure();
    assert_eq!((status, &*code), (502, "hot_server"));
    assert_eq!(managed.bodies("s").await, [SECRET]);
    assert_eq!(managed.entry("s").await.unwrap().key_check, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_stream_takes_no_other_kind_of_key() {
    let mut managed = Managed::start().await;
    managed.put("s", SECRET).await;
    let keys = managed.data_keys("s").await;
    managed
        .stack
        .reload(|config| config.streams = vec![header()])
        .unwrap();
    is_refused(&managed, Some(&KEY), 422, "invalid").await;
    // Without a rule its basin would say header keys, too; the rule gone, the basin is plain: a conflict of ciphers
    // is none, the stream stays sealed.
    managed.stack.say_none();
    managed
        .stack
        .reload(|config| config.streams = Vec::new())
        .unwrap();
    is_refused(&managed, Some(&KEY), 422, "invalid").await;
    let file = managed.stack.config.store.path.with_file_name("file.key");
    std::fs::write(&file, base64(&KEY)).unwrap();
    managed
        .stack
        .reload(|config| {
            config.streams = vec![StreamRule {
                key: KeySource::File,
                key_file: file.into(),
                ..rule("*/**", RuleCipher::Aegis256)
            }];
        })
        .unwrap();
    is_refused(&managed, None, 422, "invalid").await;
    managed.stack.reload(managed_rule).unwrap();
    assert_eq!(managed.bodies("s").await, [SECRET]);
    assert_eq!(managed.data_keys("s").await, keys);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_stays_with_the_project_that_holds_its_keys() {
    let mut managed = Managed::start().await;
    managed.put("s", SECRET).await;
    let keys = managed.data_keys("s").await.unwrap();
    assert_eq!(keys.holder, Holder::Project("payments".parse().unwrap()));
    // Another project that has every stream, before the first.
    managed
        .stack
        .reload(|config| {
            crate::harness::project(config, "other", &["*/**"]);
            config.projects.reverse();
        })
        .unwrap();
    let payments = managed.token.clone();
    managed.token = managed.stack.create_project("other").await;
    is_refused(&managed, None, 422, "invalid").await;
    managed.token = payments;
    is_refused(&managed, None, 403, "permission_denied").await;
    assert_eq!(managed.data_keys("s").await.unwrap(), keys);
}
