//! The rules that were in force last stay with the store, whatever is done to it.

use super::*;

async fn with_rules(config: &Config) -> Embedded {
    filled(config, &["a"]).await;
    let store = Embedded::open(config).unwrap();
    let change = put_rules(Some(rules()), Revision::NONE);
    store.commit(vec![change]).await.unwrap();
    store
}

#[tokio::test]
async fn rules_are_kept_by_every_way_a_store_goes() {
    let dir = tempfile::tempdir().unwrap();
    let config = keyed(&dir, 1);
    let store = with_rules(&config).await;
    let kept = store.rules().await.unwrap();
    assert_eq!(kept.entry, Some(rules()));
    // Written anew.
    let change = put_entry("a", None, Revision(1));
    store.erase(vec![change]).await.unwrap();
    assert_eq!(store.rules().await.unwrap(), kept);
    let mut lines = Vec::new();
    store.export(&mut lines).unwrap();
    drop(store);
    // Opened again, and to be filled.
    let store = Embedded::open_existing(&config).unwrap();
    assert_eq!(store.rules().await.unwrap(), kept);
    drop(store);
    let store = Embedded::open_to_rebuild(&config).unwrap();
    assert_eq!(store.rules().await.unwrap(), kept);
    drop(store);
    let copy = Config {
        path: dir.path().join("copy.redb"),
        ..config
    };
    Embedded::import(&copy, lines.as_slice(), &ImportOptions::default()).unwrap();
    let store = Embedded::open(&copy).unwrap();
    assert_eq!(store.rules().await.unwrap(), kept);
}

#[tokio::test]
async fn rules_change_only_from_what_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let store = with_rules(&config).await;
    for expected in [Revision::NONE, Revision(2)] {
        let refused = store.commit(vec![put_rules(None, expected)]).await;
        assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    }
    let other = RulesEntry::default();
    let change = put_rules(Some(other.clone()), Revision(1));
    store.commit(vec![change]).await.unwrap();
    let found = store.rules().await.unwrap();
    assert_eq!((found.revision, found.entry), (Revision(2), Some(other)));
    store
        .commit(vec![put_rules(None, Revision(2))])
        .await
        .unwrap();
    assert_eq!(store.rules().await.unwrap(), Versioned::none());
}

#[tokio::test]
async fn rules_edited_by_hand_are_refused() {
    type Edit = fn(&redb::WriteTransaction, &[u8]);
    let edits: [(&str, Edit); 3] = [
        ("removed", |txn, _| remove_row(txn, "rules", "in force")),
        ("one less", |txn, row| {
            let row = String::from_utf8(row.to_vec()).unwrap();
            let less = row.replace("audit-*/**", "x");
            put_row(txn, "rules", "in force", less.as_bytes());
        }),
        ("moved", |txn, row| {
            remove_row(txn, "rules", "in force");
            put_row(txn, "rules", "out of force", row);
        }),
    ];
    for (what, edit) in edits {
        let dir = tempfile::tempdir().unwrap();
        let config = keyed(&dir, 1);
        drop(with_rules(&config).await);
        let row = row(&config.path, "rules", "in force");
        make(&config.path, |txn| edit(txn, &row));
        let error = Embedded::open(&config).err();
        let error = error.unwrap_or_else(|| panic!("{what}: opened"));
        assert!(
            matches!(error, Error::Damaged(_) | Error::Altered(_)),
            "{what}: {error}"
        );
    }
}
