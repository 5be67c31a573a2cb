//! The embedded store on real files: durable, compare-and-set, and clear about what it cannot read.

use super::*;
use crate::crypto::Cipher;

fn config(dir: &tempfile::TempDir) -> Config {
    Config {
        path: dir.path().join("store.redb"),
        create: true,
        ..Config::default()
    }
}

fn path(stream: &str) -> StreamPath {
    StreamPath {
        basin: "test-basin".parse().unwrap(),
        stream: stream.parse().unwrap(),
    }
}

fn sealed() -> StreamEntry {
    StreamEntry {
        state: StreamState::Live(Incarnation {
            cipher: Some(Cipher::Aegis256),
            created_at: Some("2026-01-01T00:00:00Z".into()),
        }),
        origin: Origin::Created,
        key_check: None,
    }
}

fn put(stream: &str, expected: Revision) -> Change {
    Change::Stream {
        path: path(stream),
        expected,
        entry: Some(sealed()),
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = Embedded::open(&config(&dir)).unwrap();
        store
            .commit(vec![put("a", Revision::NONE), put("a/b", Revision::NONE)])
            .await
            .unwrap();
    }
    let store = Embedded::open(&config(&dir)).unwrap();
    let found = store.stream(&path("a")).await.unwrap();
    assert_eq!(found.entry.as_deref(), Some(&sealed()));
    let listed = store
        .streams_of(&"test-basin".parse().unwrap())
        .await
        .unwrap();
    let names: Vec<_> = listed
        .iter()
        .map(|(path, _)| path.stream.as_str())
        .collect();
    assert_eq!(names, ["a", "a/b"]);
    let other = store
        .streams_of(&"test-basi0".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(other, []);
}

#[tokio::test]
async fn a_change_decided_on_an_old_revision_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(&config(&dir)).unwrap();
    store.commit(vec![put("a", Revision::NONE)]).await.unwrap();
    let error = store
        .commit(vec![put("b", Revision::NONE), put("a", Revision::NONE)])
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Conflict(name) if name == "test-basin/a"));
    assert_eq!(store.stream(&path("b")).await.unwrap(), Versioned::none());
    let revision = store.stream(&path("a")).await.unwrap().revision;
    store.commit(vec![put("a", revision)]).await.unwrap();
}

#[tokio::test]
async fn removal_is_durable_and_seen_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(&config(&dir)).unwrap();
    store.commit(vec![put("a", Revision::NONE)]).await.unwrap();
    let expected = store.stream(&path("a")).await.unwrap().revision;
    let remove = Change::Stream {
        path: path("a"),
        expected,
        entry: None,
    };
    store.commit(vec![remove]).await.unwrap();
    assert_eq!(store.stream(&path("a")).await.unwrap(), Versioned::none());
}

#[test]
fn a_missing_store_is_not_made_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        create: false,
        ..config(&dir)
    };
    let error = Embedded::open(&config).err().unwrap();
    assert!(matches!(error, Error::Missing(_)));
    assert!(error.to_string().contains("streamseal init"));
    assert!(!config.path.exists());
}

#[test]
fn init_does_not_touch_an_existing_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = config(&dir).path;
    std::fs::write(&path, b"something").unwrap();
    assert!(matches!(
        Embedded::init(&path).err(),
        Some(Error::Exists(_))
    ));
    assert_eq!(std::fs::read(&path).unwrap(), b"something");
}

#[test]
fn a_second_process_is_told_that_the_store_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Embedded::open(&config(&dir)).unwrap();
    let second = Embedded::open(&config(&dir)).err().unwrap();
    assert!(matches!(second, Error::Locked(_)), "{second}");
}

#[test]
fn foreign_newer_and_damaged_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    std::fs::write(&config.path, vec![7; 8192]).unwrap();
    let error = Embedded::open(&config).err().unwrap();
    assert!(error.to_string().contains("backup"), "{error}");

    std::fs::remove_file(&config.path).unwrap();
    drop(redb::Database::create(&config.path).unwrap());
    let error = Embedded::open(&config).err().unwrap();
    assert!(matches!(error, Error::Foreign(_)), "{error}");

    std::fs::remove_file(&config.path).unwrap();
    drop(Embedded::open(&config).unwrap());
    let db = redb::Database::open(&config.path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(redb::TableDefinition::<&str, &[u8]>::new("meta"))
        .unwrap()
        .insert("format", 2u32.to_le_bytes().as_slice())
        .unwrap();
    txn.commit().unwrap();
    drop(db);
    let error = Embedded::open(&config).err().unwrap();
    assert!(matches!(error, Error::Newer { found: 2, .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_entry_is_an_error_not_an_absence() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    drop(Embedded::open(&config).unwrap());
    let db = redb::Database::open(&config.path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(redb::TableDefinition::<&str, &[u8]>::new("streams"))
        .unwrap()
        .insert("test-basin/a", b"{}".as_slice())
        .unwrap();
    txn.commit().unwrap();
    drop(db);
    let store = Embedded::open(&config).unwrap();
    let error = store.stream(&path("a")).await.unwrap_err();
    assert!(matches!(error, Error::Damaged(_)));
}
