//! The embedded store on real files: durable, compare-and-set, and clear about what it cannot read.

use redb::ReadableDatabase as _;

use super::*;
use crate::{
    crypto::{Cipher, Digest, Wrapped},
    project::Scopes,
};

mod copies;
mod damage;
pub(super) mod erase;
mod format;
mod in_force;
mod key;
mod list;
mod measured;
mod transfer;

pub(super) fn config(dir: &tempfile::TempDir) -> Config {
    Config {
        path: dir.path().join("store.redb"),
        create: true,
        ..Config::default()
    }
}

/// The same with this key in `store.key_file`.
pub(super) fn keyed(dir: &tempfile::TempDir, key: u8) -> Config {
    let file = dir.path().join(format!("{key}.key"));
    let text = Key::from_bytes([key; 32]).to_base64();
    std::fs::write(&file, text.as_bytes()).unwrap();
    Config {
        key_file: file.into(),
        ..config(dir)
    }
}

type Rows = redb::TableDefinition<'static, &'static str, &'static [u8]>;

/// Writes to the file as somebody does who is not streamseal.
fn make(path: &std::path::Path, edit: impl FnOnce(&redb::WriteTransaction)) {
    let db = redb::Database::create(path).unwrap();
    let txn = db.begin_write().unwrap();
    for table in ["meta", "basins", "streams"] {
        txn.open_table(Rows::new(table)).unwrap();
    }
    edit(&txn);
    txn.commit().unwrap();
}

fn put_row(txn: &redb::WriteTransaction, table: &'static str, name: &str, row: &[u8]) {
    let mut rows = txn.open_table(Rows::new(table)).unwrap();
    rows.insert(name, row).unwrap();
}

fn remove_row(txn: &redb::WriteTransaction, table: &'static str, name: &str) {
    let mut rows = txn.open_table(Rows::new(table)).unwrap();
    rows.remove(name).unwrap();
}

fn row(path: &std::path::Path, table: &'static str, name: &str) -> Vec<u8> {
    let db = redb::Database::open(path).unwrap();
    let rows = db
        .begin_read()
        .unwrap()
        .open_table(Rows::new(table))
        .unwrap();
    rows.get(name).unwrap().unwrap().value().to_vec()
}

/// A store with these streams in it, all encrypted, in a basin with a cipher.
pub(super) async fn filled(config: &Config, streams: &[&str]) {
    let store = Embedded::open(config).unwrap();
    let basin = Change::Basin {
        name: "test-basin".parse().unwrap(),
        expected: Revision::NONE,
        entry: Some(BasinEntry {
            stream_cipher: Some(Cipher::Aegis256),
            ..BasinEntry::default()
        }),
    };
    store.commit(vec![basin]).await.unwrap();
    drop(store);
    for stream in streams {
        add(config, stream).await;
    }
}

/// One more change of a store: a stream that was not there.
async fn add(config: &Config, stream: &str) {
    let store = Embedded::open(config).unwrap();
    let change = put(stream, Revision::NONE);
    store.commit(vec![change]).await.unwrap();
}

pub(super) fn path(stream: &str) -> StreamPath {
    StreamPath {
        basin: "test-basin".parse().unwrap(),
        stream: stream.parse().unwrap(),
    }
}

pub(super) fn sealed() -> StreamEntry {
    StreamEntry {
        state: StreamState::Live(Incarnation {
            cipher: Some(Cipher::Aegis256),
            created_at: Some("2026-01-01T00:00:00Z".into()),
        }),
        origin: Origin::Created,
        key_check: None,
        key_unconfirmed: false,
        former: Vec::new(),
        data_keys: None,
    }
}

/// The same with these managed keys, one for each epoch, wrapped in a project's master key.
pub(super) fn managed(keys: &[Option<Wrapped>]) -> StreamEntry {
    let key = |(wrapped, epoch): (&Option<Wrapped>, u32)| DataKey {
        epoch,
        commit: Digest::from_bytes([7; 32]),
        wrapped: wrapped.map(|wrapped| WrappedKey::Master {
            mk_epoch: 1,
            wrapped,
        }),
        created_at: 1_767_225_600_000,
        shredded_at: wrapped.is_none().then_some(1_767_225_700_000),
        sealed: Sealing::default(),
        first_seq_num: None,
    };
    StreamEntry {
        data_keys: Some(DataKeys {
            holder: Holder::Project("payments".parse().unwrap()),
            keys: keys.iter().zip(1..).map(key).collect(),
        }),
        ..sealed()
    }
}

/// A wrapped key that is nowhere else.
pub(super) fn wrapped() -> Wrapped {
    let mut bytes = [0; Wrapped::BYTES];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut bytes);
    Wrapped::from_bytes(bytes)
}

/// A project with one API key.
fn project() -> ProjectEntry {
    ProjectEntry {
        mk_epoch: 1,
        mk_commit: Digest::from_bytes([1; 32]),
        rotation: None,
        api_keys: vec![ApiKeyEntry {
            id: "first".into(),
            label: String::new(),
            lookup: Digest::from_bytes([2; 32]),
            verify: Digest::from_bytes([3; 32]),
            mk_epoch: 1,
            scopes: Scopes::all(),
            created_at: 1_767_225_600_000,
            expires_at: None,
            state: ApiKeyState::Active,
        }],
        replacing: false,
        seen_at: 1_767_225_600_000,
    }
}

fn put_project(name: &str, entry: Option<ProjectEntry>, expected: Revision) -> Change {
    Change::Project {
        name: name.parse().unwrap(),
        expected,
        entry,
    }
}

fn put_rules(entry: Option<RulesEntry>, expected: Revision) -> Change {
    Change::Rules { expected, entry }
}

/// Rules that were in force.
fn rules() -> RulesEntry {
    let rule = |kind, glob: &str| SealingRule {
        kind,
        r#match: glob.to_owned(),
        cipher: Cipher::Aegis256,
    };
    RulesEntry {
        sealing: vec![
            rule(RuleKind::Stream, "audit-*/**"),
            rule(RuleKind::Basin, "audit-*"),
        ],
        refuses_plain: true,
    }
}

pub(super) fn put_entry(stream: &str, entry: Option<StreamEntry>, expected: Revision) -> Change {
    Change::Stream {
        path: path(stream),
        expected,
        entry,
    }
}

pub(super) fn put(stream: &str, expected: Revision) -> Change {
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
    let config = config(&dir);
    std::fs::write(&config.path, b"something").unwrap();
    assert!(matches!(
        Embedded::init(&config).err(),
        Some(Error::Exists(_))
    ));
    assert_eq!(std::fs::read(&config.path).unwrap(), b"something");
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

    for (version, is_newer) in [(0, false), (5, true), (u32::MAX, true)] {
        std::fs::remove_file(&config.path).unwrap();
        make(&config.path, |txn| {
            put_row(txn, "meta", "format", &version.to_le_bytes());
            put_row(txn, "meta", "store_id", &[7; 16]);
        });
        let error = Embedded::open(&config).err().unwrap();
        match error {
            Error::Newer { found, .. } => assert!(is_newer && found == version),
            Error::Foreign(_) => assert!(!is_newer),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_store_of_the_first_format_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    make(&config.path, |txn| {
        put_row(txn, "meta", "format", &1u32.to_le_bytes());
        put_row(txn, "meta", "store_id", &[7; 16]);
        let basin = r#"{"revision":4,"entry":{"stream_cipher":"aegis-256","declared":false}}"#;
        put_row(txn, "basins", "test-basin", basin.as_bytes());
        let stream = r#"{"revision":2,"entry":{"state":{"live":{"cipher":"aegis-256","created_at":"2026-01-01T00:00:00Z"}},"origin":"created","key_check":null}}"#;
        put_row(txn, "streams", "test-basin/a", stream.as_bytes());
    });
    for _ in 0..2 {
        let store = Embedded::open(&config).unwrap();
        let found = store.stream(&path("a")).await.unwrap();
        assert_eq!(found.entry.as_deref(), Some(&sealed()));
        assert_eq!(found.revision, Revision(2));
        let basin = store.basin(&"test-basin".parse().unwrap()).await.unwrap();
        let cipher = basin.entry.unwrap().stream_cipher;
        assert_eq!(cipher, Some(Cipher::Aegis256));
    }
    // Rows without tags prove nothing to somebody who has a key.
    std::fs::remove_file(&config.path).unwrap();
    make(&config.path, |txn| {
        put_row(txn, "meta", "format", &1u32.to_le_bytes());
        put_row(txn, "meta", "store_id", &[7; 16]);
    });
    let error = Embedded::open(&keyed(&dir, 1)).err().unwrap();
    assert!(matches!(error, Error::NotKeyed(_)), "{error}");
}

#[tokio::test]
async fn a_change_that_goes_with_a_project_is_made_only_while_that_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(&config(&dir)).unwrap();
    let name: crate::project::ProjectName = "payments".parse().unwrap();
    let same = |expected| Change::SameProject {
        name: name.clone(),
        expected,
    };
    let project = |expected| Change::Project {
        name: name.clone(),
        expected,
        entry: Some(ProjectEntry {
            mk_epoch: 1,
            mk_commit: crate::crypto::Digest::from_bytes([1; 32]),
            rotation: None,
            api_keys: Vec::new(),
            replacing: false,
            seen_at: 0,
        }),
    };
    store.commit(vec![project(Revision::NONE)]).await.unwrap();
    let first = store.project(&name).await.unwrap().revision;
    let changes = vec![same(first), put("a", Revision::NONE)];
    store.commit(changes).await.unwrap();
    // Nothing of the project changed by that.
    assert_eq!(store.project(&name).await.unwrap().revision, first);
    store.commit(vec![project(first)]).await.unwrap();
    for changes in [
        vec![same(first), put("b", Revision::NONE)],
        vec![put("b", Revision::NONE), same(first)],
        vec![put("b", Revision::NONE), same(Revision::NONE)],
    ] {
        let error = store.commit(changes).await.unwrap_err();
        assert!(matches!(error, Error::Conflict(_)), "{error}");
        assert_eq!(store.stream(&path("b")).await.unwrap().entry, None);
    }
}
