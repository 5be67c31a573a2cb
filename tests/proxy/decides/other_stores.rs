//! A store that does not know what the upstream holds: another proxy's, or yesterday's copy.

use std::{fs, path::Path, sync::Arc};

use serde_json::json;

use super::{bodies, body_of, is, keyed, never_plain, read, sealed_stream, session_by, set_cipher};
use crate::harness::{KEY, Stack};

/// Requests with a key to the stream that another proxy sealed.
async fn all_are(stack: &Stack, status: u16, code: &str, words: &str) {
    let client = stack.h2().await;
    for ask in [keyed("s"), session_by("s", &KEY), read("s").key(&KEY)] {
        let refused = is(&client, ask, status, code).await;
        assert!(refused.text().contains(words), "{}", refused.text());
    }
    never_plain(&stack.tap, words);
}

#[tokio::test(flavor = "multi_thread")]
async fn second_proxy_with_its_own_store_writes_nothing_plain() {
    let first = sealed_stream().await;
    let second = Stack::over(Arc::clone(&first.lite), |_| {}).await;
    all_are(&second, 422, "invalid", "not encrypted").await;
    set_cipher(&second.h2().await, json!("aegis-256")).await;
    all_are(&second, 403, "permission_denied", "streamseal store admit").await;
    // A restart learns nothing either.
    let mut second = second;
    second.restart(|_| {}).await;
    all_are(&second, 403, "permission_denied", "streamseal store admit").await;
    // What one proxy makes is sealed, and the other refuses it.
    is(&second.h2().await, keyed("theirs"), 200, "").await;
    let client = first.h2().await;
    is(&client, keyed("theirs"), 403, "permission_denied").await;
    is(&client, keyed("s"), 200, "").await;
    let opened = client.ask(read("s").key(&KEY)).await;
    let sent = body_of("s", &KEY);
    assert_eq!(bodies(&opened), [&*sent, &*sent]);
    never_plain(&first.tap, "the first proxy");
    never_plain(&second.tap, "the second proxy");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_store_writes_nothing_plain() {
    let mut stack = Stack::start().await;
    stack.create_basin(None).await;
    stack.stop().await;
    let store = stack.config.store.path.parent().unwrap().to_owned();
    let yesterday = tempfile::tempdir().unwrap();
    copy(&store, yesterday.path());
    stack.go().await.unwrap();
    let client = stack.h2().await;
    set_cipher(&client, json!("aegis-256")).await;
    is(&client, keyed("s"), 200, "").await;
    drop(client);
    // The store and its witness, both of yesterday.
    stack.stop().await;
    copy(yesterday.path(), &store);
    stack.go().await.unwrap();
    all_are(&stack, 422, "invalid", "not encrypted").await;
    set_cipher(&stack.h2().await, json!("aegis-256")).await;
    all_are(&stack, 403, "permission_denied", "streamseal store admit").await;
    assert_eq!(stack.stored("s").await.len(), 1);
}
