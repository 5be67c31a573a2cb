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

/// Two projects, and two streams with managed keys of two epochs each.
async fn managed_store(config: &Config) {
    filled(config, &[]).await;
    let entry = || managed(&[Some(wrapped()), Some(wrapped())]);
    let other = ProjectEntry {
        mk_commit: Digest::from_bytes([8; 32]),
        ..project()
    };
    let changes = vec![
        put_project("payments", Some(project()), Revision::NONE),
        put_project("other", Some(other), Revision::NONE),
        put_entry("a", Some(entry()), Revision::NONE),
        put_entry("b", Some(entry()), Revision::NONE),
    ];
    let store = Embedded::open(config).unwrap();
    store.commit(changes).await.unwrap();
}

/// The wrapped keys in a row, in order.
fn wrapped_in(row: &[u8]) -> Vec<String> {
    let parts = text(row);
    let parts = parts.split("\"wrapped\":\"").skip(1);
    parts
        .map(|part| part.split('"').next().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn rows_of_projects_and_keys_that_were_moved_are_refused() {
    type Edit = fn(&redb::WriteTransaction, &dyn Fn(&'static str, &str) -> Vec<u8>);
    let edits: [(&str, Edit); 11] = [
        ("projects swapped", |txn, row| {
            put_row(txn, "projects", "payments", &row("projects", "other"));
            put_row(txn, "projects", "other", &row("projects", "payments"));
        }),
        ("one project in another's place", |txn, row| {
            put_row(txn, "projects", "payments", &row("projects", "other"));
        }),
        ("a project under another name", |txn, row| {
            put_row(txn, "projects", "third", &row("projects", "payments"));
            remove_row(txn, "projects", "payments");
        }),
        ("a project removed", |txn, _| {
            remove_row(txn, "projects", "payments");
        }),
        ("streams swapped", |txn, row| {
            put_row(
                txn,
                "streams",
                "test-basin/a",
                &row("streams", "test-basin/b"),
            );
            put_row(
                txn,
                "streams",
                "test-basin/b",
                &row("streams", "test-basin/a"),
            );
        }),
        ("a project's row among the streams", |txn, row| {
            put_row(txn, "streams", "test-basin/a", &row("projects", "payments"));
        }),
        ("a wrapped key moved to another stream", |txn, row| {
            let (a, b) = (
                row("streams", "test-basin/a"),
                row("streams", "test-basin/b"),
            );
            let moved = text(&b).replace(&wrapped_in(&b)[0], &wrapped_in(&a)[0]);
            put_row(txn, "streams", "test-basin/b", moved.as_bytes());
        }),
        ("a wrapped key moved to another epoch", |txn, row| {
            let a = row("streams", "test-basin/a");
            let keys = wrapped_in(&a);
            let moved = text(&a).replace(&keys[0], &keys[1]);
            put_row(txn, "streams", "test-basin/a", moved.as_bytes());
        }),
        ("epochs swapped", |txn, row| {
            let a = row("streams", "test-basin/a");
            let swapped = text(&a).replace("\"epoch\":1", "\"epoch\":9");
            let swapped = swapped.replace("\"epoch\":2", "\"epoch\":1");
            let swapped = swapped.replace("\"epoch\":9", "\"epoch\":2");
            put_row(txn, "streams", "test-basin/a", swapped.as_bytes());
        }),
        ("a revoked API key made good", |txn, row| {
            let other = text(&row("projects", "other"));
            let edited = other.replace("\"active\"", "{\"revoked\":{\"at\":1}}");
            assert_ne!(edited, other);
            put_row(txn, "projects", "other", edited.as_bytes());
        }),
        ("a row cut short", |txn, row| {
            let other = row("projects", "other");
            put_row(txn, "projects", "other", &other[..other.len() / 2]);
        }),
    ];
    for (what, edit) in edits {
        for is_keyed in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let config = match is_keyed {
                true => keyed(&dir, 1),
                false => super::config(&dir),
            };
            managed_store(&config).await;
            let rows: Vec<_> = [
                ("projects", "payments"),
                ("projects", "other"),
                ("streams", "test-basin/a"),
                ("streams", "test-basin/b"),
            ]
            .map(|(table, name)| ((table, name), row(&config.path, table, name)))
            .into();
            let of = |table: &'static str, name: &str| {
                let found = rows.iter().find(|(place, _)| *place == (table, name));
                found.unwrap().1.clone()
            };
            make(&config.path, |txn| edit(txn, &of));
            let error = Embedded::open(&config).err();
            let error = error.unwrap_or_else(|| panic!("{what}: opened"));
            assert!(
                matches!(error, Error::Damaged(_) | Error::Altered(_)),
                "{what}: {error}"
            );
        }
    }
}

/// Tags without a key are there for accidents: whoever forges them moves a wrapped key unnoticed by the store.
/// Such a key does not unwrap in its new place, as it is bound to stream and epoch by derivation. With a key
/// the store itself refuses it.
#[tokio::test]
async fn a_key_moved_with_forged_tags_is_refused_by_a_store_with_a_key() {
    for is_keyed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let config = match is_keyed {
            true => keyed(&dir, 1),
            false => super::config(&dir),
        };
        managed_store(&config).await;
        let (a, b) = (
            row(&config.path, "streams", "test-basin/a"),
            row(&config.path, "streams", "test-basin/b"),
        );
        let ledger = row(&config.path, "meta", "ledger");
        let moved = text(&b).replace(&wrapped_in(&b)[0], &wrapped_in(&a)[0]);
        let (forged, ledger) = forged(&b, &moved, &ledger, &store_id(&config));
        make(&config.path, |txn| {
            put_row(txn, "streams", "test-basin/b", &forged);
            put_row(txn, "meta", "ledger", &ledger);
        });
        match Embedded::open(&config) {
            Ok(store) => {
                assert!(!is_keyed);
                let found = store.stream(&path("b")).await.unwrap().entry.unwrap();
                let text = serde_json::to_string(&*found).unwrap();
                assert!(text.contains(&wrapped_in(&a)[0]));
            }
            Err(error) => {
                let is_told = matches!(error, Error::Damaged(_) | Error::Altered(_));
                assert!(is_keyed && is_told, "{error}");
            }
        }
    }
}

fn store_id(config: &Config) -> Vec<u8> {
    row(&config.path, "meta", "store_id")
}

/// The row `moved` in place of `before`, and the ledger with it, as somebody makes them who knows everything but
/// the store's key.
fn forged(before: &[u8], moved: &str, ledger: &[u8], store_id: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let key = StoreKey::public();
    let (start, _) = moved.rsplit_once(",\"tag\":\"").unwrap();
    let json = start.split_once("\"entry\":").unwrap().1;
    let place = [b"streams".as_slice(), b"test-basin/b"];
    let tag = key.digest(
        Purpose::Entry,
        &[place[0], place[1], &1u64.to_le_bytes(), json.as_bytes()],
    );
    let row = format!("{start},\"tag\":\"{tag}\"}}").into_bytes();
    let share = |row: &[u8]| key.digest(Purpose::Share, &[place[0], place[1], row]);
    let ledger: serde_json::Value = serde_json::from_slice(ledger).unwrap();
    let digest = |name: &str| ledger[name].as_str().unwrap().parse::<Digest>().unwrap();
    let covered = digest("covered").xor(share(before)).xor(share(&row));
    let (generation, entries) = (&ledger["generation"], &ledger["entries"]);
    let parts = [
        store_id,
        &generation.as_u64().unwrap().to_le_bytes(),
        &entries.as_u64().unwrap().to_le_bytes(),
        digest("nonce").as_bytes(),
        covered.as_bytes(),
    ]
    .map(<[u8]>::to_vec);
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let tag = key.digest(Purpose::Ledger, &parts);
    let nonce = digest("nonce");
    let ledger = format!(
        "{{\"generation\":{generation},\"entries\":{entries},\"nonce\":\"{nonce}\",\"covered\":\"{covered}\",\"tag\":\"{tag}\"}}"
    );
    (row, ledger.into_bytes())
}
