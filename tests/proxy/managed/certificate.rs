//! The certificate of a shredding says no less than what cannot be decrypted any more, whatever went wrong before.

use std::{fs, sync::Arc, time::Duration};

use serde_json::{Value, json};
use streamseal::registry::rules::RuleCipher;

use super::{
    setup::{Managed, appends, path, reads},
    shred::{files_with, shred, shredded, start, with_admin, wrapped},
};
use crate::harness::{Act, Encoding, Fake, Lite, Way, input, record, records};

/// Appends a record that the upstream stores, and whose ack is lost.
async fn put_unheard(managed: &Managed, fake: &Fake, stream: &str) {
    let target = records(stream);
    fake.script(move |call| match call.is("POST", &target) {
        true => Act::LoseAnswer,
        false => Act::Pass,
    });
    let batch = input([record(&[], "unheard of")]);
    let answer = managed.ask(appends(stream, Encoding::Json, &batch)).await;
    assert_ne!(answer.status, 200, "{}", answer.text());
    fake.heal();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_whose_acks_were_lost_are_covered() {
    let lite = Arc::new(Lite::start().await);
    let fake = Fake::start(lite.address).await;
    let managed = Managed::over(lite, RuleCipher::Aegis256, |config| {
        with_admin(config);
        fake.aim(config);
    })
    .await;
    // Of one stream a later ack is noted, of the other none.
    for stream in ["later", "never"] {
        put_unheard(&managed, &fake, stream).await;
    }
    managed.put("later", "heard of").await;
    for (stream, acked, until) in [("later", json!(1), 2), ("never", Value::Null, 1)] {
        assert_eq!(managed.stack.stored(stream).await.len(), until);
        let certificate = shredded(&managed, stream, None).await;
        assert_eq!(
            certificate["records"],
            json!({ "from_seq_num": 0, "until_seq_num": until, "includes_others": false }),
        );
        assert_eq!(certificate["epochs"][0]["first_acked_seq_num"], acked);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_range_is_given_while_appends_are_under_way() {
    let managed = start().await;
    managed.put("s", "first").await;
    managed.stack.tap.hold_after(Way::Down, 1);
    let client = managed.stack.h2().await;
    let batch = input([record(&[], "on its way")]);
    let ask = managed.token.on(appends("s", Encoding::Json, &batch));
    let appending = tokio::spawn(async move { client.ask(ask).await });
    managed.stack.tap.held(Way::Down).await;
    let pass = managed.stack.pass(&managed.token).await;
    let proxy = managed.stack.proxy();
    let patience = Duration::from_millis(100);
    let certificate = proxy.shred(&path("s"), None, &pass, patience).await;
    let certificate = serde_json::to_value(certificate.unwrap()).unwrap();
    assert_eq!(certificate["whole_stream"], true);
    assert_eq!(certificate["appends_under_way"], true);
    assert_eq!(certificate["records"], Value::Null);
    managed.stack.tap.release();
    assert_eq!(appending.await.unwrap().status, 200);
    let again = shredded(&managed, "s", None).await;
    assert_eq!(again["appends_under_way"], false);
    assert_eq!(again["records"]["until_seq_num"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_still_decrypt_are_said_to_be_in_the_range() {
    let managed = start().await;
    managed.put("s", "first").await;
    managed.rotate("s").await;
    managed.put("s", "second").await;
    managed.put("s", "third").await;
    let certificate = shredded(&managed, "s", Some(2)).await;
    assert_eq!(
        certificate["records"],
        json!({ "from_seq_num": 0, "until_seq_num": 3, "includes_others": true }),
    );
    let statement = certificate["statement"].as_str().unwrap();
    assert!(statement.contains("at most these"), "{statement}");
    let rest = managed.ask(reads("s", "seq_num=1", Encoding::Proto)).await;
    assert_eq!(rest.status, 200, "{}", rest.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_range_is_given_when_the_upstream_does_not_answer() {
    let managed = start().await;
    managed.put("s", "first").await;
    managed.stack.tap.hold(true);
    let certificate = shredded(&managed, "s", None).await;
    assert_eq!(certificate["whole_stream"], true);
    assert_eq!(certificate["appends_under_way"], false);
    assert_eq!(certificate["records"], Value::Null);
    managed.stack.tap.release();
    let again = shredded(&managed, "s", None).await;
    assert_eq!(again["records"]["until_seq_num"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_erased_is_not_certified() {
    let managed = start().await;
    managed.put("s", "first").await;
    let store = managed.stack.config.store.path.clone();
    let keys = wrapped(&managed, "s").await;
    let obstacle = store.with_file_name("store.redb.rewrite");
    fs::create_dir(&obstacle).unwrap();
    let refused = shred(&managed, "s", None).await;
    assert_eq!((refused.status, &*refused.code()), (500, "not_erased"));
    assert!(refused.text().contains("store.redb"), "{}", refused.text());
    // Nobody reads it any more, and it is still in the file.
    let read = managed.ask(reads("s", "seq_num=0", Encoding::Json)).await;
    assert_eq!(read.code(), "decryption_failed");
    assert!(files_with(&store, &keys[0]) > 0);
    fs::remove_dir(&obstacle).unwrap();
    let certificate = shredded(&managed, "s", None).await;
    assert_eq!(certificate["whole_stream"], true);
    assert_eq!(files_with(&store, &keys[0]), 0);
}
