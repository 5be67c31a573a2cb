//! With `store.key_file` nobody who lacks the key changes what the store says.

use super::*;
use crate::crypto::{Purpose, StoreKey};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn the_key_belongs_to_the_store_for_life() {
    let dir = tempfile::tempdir().unwrap();
    let config = keyed(&dir, 1);
    filled(&config, &["a"]).await;
    let store = Embedded::open(&config).unwrap();
    let found = store.stream(&path("a")).await.unwrap();
    assert_eq!(found.entry.as_deref(), Some(&sealed()));
    drop(store);

    let other = Embedded::open(&keyed(&dir, 2)).err().unwrap();
    assert!(matches!(other, Error::Altered(_)), "{other}");
    let none = Embedded::open(&super::config(&dir)).err().unwrap();
    assert!(matches!(none, Error::NeedsKey(_)), "{none}");

    let dir = tempfile::tempdir().unwrap();
    filled(&super::config(&dir), &["a"]).await;
    let late = Embedded::open(&keyed(&dir, 1)).err().unwrap();
    assert!(matches!(late, Error::NotKeyed(_)), "{late}");
}

#[tokio::test]
async fn what_was_edited_by_hand_is_refused() {
    type Edit = fn(&redb::WriteTransaction, &[u8]);
    let edits: [(&str, Edit); 8] = [
        ("cipher taken off", |txn, row| {
            let plain = text(row).replace("\"aegis-256\"", "null");
            assert_ne!(plain.as_bytes(), row);
            put_row(txn, "streams", "test-basin/a", plain.as_bytes());
        }),
        ("cipher flipped", |txn, row| {
            let other = text(row).replace("aegis-256", "aes-256-gcm");
            put_row(txn, "streams", "test-basin/a", other.as_bytes());
        }),
        ("entry moved", |txn, row| {
            remove_row(txn, "streams", "test-basin/a");
            put_row(txn, "streams", "test-basin/c", row);
        }),
        ("entry copied over another", |txn, row| {
            put_row(txn, "streams", "test-basin/b", row);
        }),
        ("entry removed", |txn, _| {
            remove_row(txn, "streams", "test-basin/a");
        }),
        ("basin removed", |txn, _| {
            remove_row(txn, "basins", "test-basin");
        }),
        ("everything removed", |txn, _| {
            remove_row(txn, "basins", "test-basin");
            for name in ["a", "b"] {
                remove_row(txn, "streams", &format!("test-basin/{name}"));
            }
        }),
        ("ledger removed", |txn, _| remove_row(txn, "meta", "ledger")),
    ];
    for (what, edit) in edits {
        let dir = tempfile::tempdir().unwrap();
        let config = keyed(&dir, 1);
        filled(&config, &["a", "b"]).await;
        let row = row(&config.path, "streams", "test-basin/a");
        make(&config.path, |txn| edit(txn, &row));
        let error = Embedded::open(&config).err();
        let error = error.unwrap_or_else(|| panic!("{what}: opened"));
        assert!(
            matches!(error, Error::Damaged(_) | Error::Altered(_)),
            "{what}: {error}"
        );
    }
}

#[tokio::test]
async fn an_entry_put_back_as_it_once_was_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = keyed(&dir, 1);
    filled(&config, &["a"]).await;
    let older = row(&config.path, "streams", "test-basin/a");
    let older_ledger = row(&config.path, "meta", "ledger");
    {
        let store = Embedded::open(&config).unwrap();
        let expected = store.stream(&path("a")).await.unwrap().revision;
        store.commit(vec![put("a", expected)]).await.unwrap();
    }
    let newer = row(&config.path, "streams", "test-basin/a");
    make(&config.path, |txn| {
        put_row(txn, "streams", "test-basin/a", &older);
    });
    let error = Embedded::open(&config).err().unwrap();
    assert!(matches!(error, Error::Altered(_)), "{error}");
    // With the ledger of that time it is whole, but old.
    make(&config.path, |txn| {
        put_row(txn, "meta", "ledger", &older_ledger);
    });
    let error = Embedded::open(&config).err().unwrap();
    assert!(
        matches!(
            error,
            Error::RolledBack {
                found: 2,
                newest: 3,
                ..
            }
        ),
        "{error}"
    );
    make(&config.path, |txn| {
        put_row(txn, "streams", "test-basin/a", &newer);
    });
    assert!(matches!(
        Embedded::open(&config).err(),
        Some(Error::Altered(_))
    ));
}

#[tokio::test]
async fn a_witness_that_was_edited_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = keyed(&dir, 1);
    filled(&config, &["a"]).await;
    let witness = config.path.with_file_name("store.redb.witness");
    let written = std::fs::read_to_string(&witness).unwrap();
    let lower = written.replace("\"generation\":2", "\"generation\":1");
    assert_ne!(lower, written);
    std::fs::write(&witness, lower).unwrap();
    let error = Embedded::open(&config).err().unwrap();
    assert!(matches!(error, Error::Witness { .. }), "{error}");
}

/// Tags without a key are there for accidents; whoever forges them needs no secret. Here nobody who
/// knows how they are made gets in.
#[tokio::test]
async fn tags_that_anybody_can_make_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = keyed(&dir, 1);
    filled(&config, &["a"]).await;
    let entry = text(&row(&config.path, "streams", "test-basin/a"));
    let (start, tag) = entry.rsplit_once(",\"tag\":\"").unwrap();
    let plain = start.replace("\"aegis-256\"", "null");
    let json = plain.split_once("\"entry\":").unwrap().1;
    let parts = [
        b"streams".as_slice(),
        b"test-basin/a",
        &1u64.to_le_bytes(),
        json.as_bytes(),
    ];
    let forged = StoreKey::public().digest(Purpose::Entry, &parts);
    assert_ne!(tag.trim_end_matches("\"}"), forged.to_string());
    let forged = format!("{plain},\"tag\":\"{forged}\"}}");
    make(&config.path, |txn| {
        put_row(txn, "streams", "test-basin/a", forged.as_bytes());
    });
    let error = Embedded::open(&config).err().unwrap();
    assert!(matches!(error, Error::Damaged(_)), "{error}");
}

#[test]
fn a_key_file_that_is_none_is_named_and_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.key");
    std::fs::write(&file, "c2VjcmV0LXRleHQ=").unwrap();
    for name in [file.clone(), dir.path().join("missing.key")] {
        let config = Config {
            key_file: name.clone().into(),
            ..super::config(&dir)
        };
        let error = Embedded::open(&config).err().unwrap().to_string();
        assert!(error.contains("store.key_file"), "{error}");
        assert!(error.contains(name.to_str().unwrap()), "{error}");
        assert!(
            !error.contains("c2Vj") && !error.contains("secret-"),
            "{error}"
        );
        assert_eq!(config.problems(), [error]);
    }
}
