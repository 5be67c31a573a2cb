//! An export holds everything, and only a whole and unaltered one comes in again.

use super::*;

/// The export of the store that `config` names.
fn export(config: &Config) -> Vec<u8> {
    let mut lines = Vec::new();
    let store = Embedded::open_existing(config).unwrap();
    store.export(&mut lines).unwrap();
    lines
}

fn older() -> ImportOptions {
    ImportOptions {
        allow_older: true,
        ..ImportOptions::default()
    }
}

fn moved(config: &Config, name: &str) -> Config {
    let path = config.path.with_file_name(name);
    Config {
        path,
        ..config.clone()
    }
}

#[tokio::test]
async fn what_was_exported_comes_in_again() {
    let dir = tempfile::tempdir().unwrap();
    for config in [config(&dir), moved(&keyed(&dir, 1), "keyed.redb")] {
        filled(&config, &["a", "b/c", "ünïcode \"quoted\""]).await;
        let lines = export(&config);
        let text = String::from_utf8(lines.clone()).unwrap();
        assert_eq!(text.lines().count(), 6, "{text}");
        let copy = moved(&config, &format!("copy-{}.redb", config.key_file.is_set()));
        let imported = Embedded::import(&copy, &*lines, &ImportOptions::default()).unwrap();
        assert_eq!((imported.basins, imported.streams), (1, 3));
        assert_eq!(export(&copy), lines);
        let store = Embedded::open(&copy).unwrap();
        let found = store.stream(&path("b/c")).await.unwrap();
        let change = put("b/c", found.revision);
        store.commit(vec![change]).await.unwrap();
    }
}

#[tokio::test]
async fn an_export_that_is_not_whole_makes_no_store() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    filled(&config, &["a", "b"]).await;
    let lines = String::from_utf8(export(&config)).unwrap();
    let all: Vec<&str> = lines.split_inclusive('\n').collect();
    let joined = |picked: &[usize]| picked.iter().map(|at| all[*at]).collect::<String>();
    let mut bad = vec![
        String::new(),
        joined(&[0, 1, 2, 4]),
        joined(&[0, 1, 3, 2, 4]),
        joined(&[0, 1, 2, 2, 3, 4]),
        joined(&[0, 1, 2, 3, 4, 4]),
        joined(&[1, 2, 3, 4]),
        lines.replace("\"aegis-256\"", "null"),
        lines.replace("\"export\":3", "\"export\":4"),
        lines.replace("\"export\":3", "\"export\":0"),
        lines.replace("test-basin/a", "test-basin/../a"),
        lines.replace("test-basin/a", "a"),
        lines.replace("\"origin\"", "\"orogin\""),
        lines.trim_end().to_owned(),
        "x".repeat(1 << 20),
    ];
    bad.extend(
        (0..lines.len())
            .step_by(97)
            .map(|at| lines[..at].to_owned()),
    );
    for text in bad {
        let copy = moved(&config, "copy.redb");
        let error = Embedded::import(&copy, text.as_bytes(), &older()).err();
        assert!(error.is_some(), "{text}");
        assert!(!copy.path.exists());
    }
}

#[tokio::test]
async fn with_a_key_only_its_own_exports_prove_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let with_key = keyed(&dir, 1);
    filled(&with_key, &["a"]).await;
    let lines = export(&with_key);
    for reader in [keyed(&dir, 2), config(&dir)] {
        let copy = moved(&reader, "copy.redb");
        let error = Embedded::import(&copy, &*lines, &older()).err().unwrap();
        assert!(matches!(error, ImportError::Altered), "{error}");
    }
    // This is how a store gets a key: the operator says that nothing vouches for the export.
    let without = moved(&config(&dir), "without.redb");
    filled(&without, &["a"]).await;
    let lines = export(&without);
    let copy = moved(&with_key, "copy.redb");
    let error = Embedded::import(&copy, &*lines, &older()).err().unwrap();
    assert!(matches!(error, ImportError::Unauthenticated), "{error}");
    let unauthenticated = ImportOptions {
        unauthenticated: true,
        ..ImportOptions::default()
    };
    Embedded::import(&copy, &*lines, &unauthenticated).unwrap();
    drop(Embedded::open(&copy).unwrap());
}

#[tokio::test]
async fn a_store_takes_another_key_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    for (old, new) in [
        (keyed(&dir, 1), keyed(&dir, 2)),
        (keyed(&dir, 1), config(&dir)),
    ] {
        let _none = std::fs::remove_file(&old.path);
        let _none = std::fs::remove_file(old.path.with_file_name("store.redb.witness"));
        filled(&old, &["a"]).await;
        let lines = export(&old);
        std::fs::remove_file(&old.path).unwrap();
        let options = ImportOptions {
            export_key: old.key().unwrap(),
            ..ImportOptions::default()
        };
        Embedded::import(&new, &*lines, &options).unwrap();
        let store = Embedded::open(&new).unwrap();
        assert!(store.stream(&path("a")).await.unwrap().entry.is_some());
        drop(store);
        assert!(Embedded::open(&old).is_err());
    }
}

#[tokio::test]
async fn an_older_export_comes_in_only_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    filled(&config, &["a"]).await;
    let lines = export(&config);
    let error = Embedded::import(&config, &*lines, &older()).err().unwrap();
    assert!(
        matches!(error, ImportError::Store(Error::Exists(_))),
        "{error}"
    );
    add(&config, "b").await;
    std::fs::remove_file(&config.path).unwrap();
    let error = Embedded::import(&config, &*lines, &ImportOptions::default())
        .err()
        .unwrap();
    assert!(matches!(error, ImportError::Older), "{error}");
    assert!(error.to_string().contains("--allow-older"), "{error}");
    assert!(!config.path.exists());
    Embedded::import(&config, &*lines, &older()).unwrap();
    // Its gaps are still open.
    let error = Embedded::open(&config).err().unwrap();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    let store = Embedded::open_to_rebuild(&config).unwrap();
    store.commit(Vec::new()).await.unwrap();
    drop(store);
    let store = Embedded::open(&config).unwrap();
    assert!(store.stream(&path("a")).await.unwrap().entry.is_some());
    assert!(store.stream(&path("b")).await.unwrap().entry.is_none());
}

/// What a store with projects and managed keys holds.
type Content = (Vec<RecordedBasin>, Vec<RecordedProject>, Vec<Recorded>);

async fn content(config: &Config) -> Content {
    let store = Embedded::open(config).unwrap();
    (
        store.basins().await.unwrap(),
        store.projects().await.unwrap(),
        store.streams().await.unwrap(),
    )
}

#[tokio::test]
async fn projects_and_managed_keys_come_in_again() {
    let dir = tempfile::tempdir().unwrap();
    for config in [config(&dir), moved(&keyed(&dir, 1), "keyed.redb")] {
        filled(&config, &["a"]).await;
        let many: Vec<_> = (0..500).map(|_| Some(wrapped())).collect();
        let store = Embedded::open(&config).unwrap();
        let changes = vec![
            put_project("payments", Some(project()), Revision::NONE),
            put_project("other", Some(project()), Revision::NONE),
            put_entry("shredded", Some(managed(&[None])), Revision::NONE),
            // A line longer than most.
            put_entry("many", Some(managed(&many)), Revision::NONE),
        ];
        store.commit(changes).await.unwrap();
        drop(store);
        let lines = export(&config);
        let copy = moved(&config, &format!("copy-{}.redb", config.key_file.is_set()));
        let imported = Embedded::import(&copy, &*lines, &ImportOptions::default()).unwrap();
        let counts = (imported.basins, imported.projects, imported.streams);
        assert_eq!(counts, (1, 2, 3));
        assert_eq!(content(&copy).await, content(&config).await);
        assert_eq!(export(&copy), lines);
        let text = String::from_utf8(lines).unwrap();
        let all: Vec<&str> = text.split_inclusive('\n').collect();
        assert!(all[2].starts_with("{\"project\":\"other\""), "{text}");
        for bad in [
            [&all[..2], &all[3..]].concat().concat(),
            text.replace("\"project\":\"other\"", "\"project\":\"..\""),
            text.replace("\"project\":\"other\"", "\"project\":\"payment\""),
            text.replace("\"projects\":2", "\"projects\":1"),
            text.replace(",\"projects\":2", ""),
        ] {
            assert_ne!(bad, text);
            let copy = moved(&config, "bad.redb");
            let error = Embedded::import(&copy, bad.as_bytes(), &older()).err();
            assert!(error.is_some() && !copy.path.exists(), "{bad}");
        }
    }
}

#[tokio::test]
async fn exports_of_earlier_releases_come_in() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    filled(&config, &["a"]).await;
    let text = String::from_utf8(export(&config)).unwrap();
    let (lines, _) = text.rsplit_once("{\"end\"").unwrap();
    for (version, end) in [(1, ""), (2, "\"projects\":0,")] {
        let lines = lines.replace("\"export\":3", &format!("\"export\":{version}"));
        let tag = crate::crypto::StoreKey::public()
            .digest(crate::crypto::Purpose::Export, &[lines.as_bytes()]);
        let before =
            format!("{lines}{{\"end\":{{\"basins\":1,{end}\"streams\":1,\"tag\":\"{tag}\"}}}}\n");
        let copy = moved(&config, &format!("copy{version}.redb"));
        Embedded::import(&copy, before.as_bytes(), &ImportOptions::default()).unwrap();
        assert_eq!(content(&copy).await, content(&config).await);
    }
}

#[tokio::test]
async fn an_export_of_before_a_shredding_does_not_come_in_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let key = wrapped();
    filled(&config, &[]).await;
    let store = Embedded::open(&config).unwrap();
    let change = put_entry("s", Some(managed(&[Some(key)])), Revision::NONE);
    store.commit(vec![change]).await.unwrap();
    let mut before = Vec::new();
    store.export(&mut before).unwrap();
    let revision = store.stream(&path("s")).await.unwrap().revision;
    let change = put_entry("s", Some(managed(&[None])), revision);
    store.erase(vec![change]).await.unwrap();
    drop(store);
    // Not into the store that knows of it, nor in its place.
    for options in [ImportOptions::default(), older()] {
        let error = Embedded::import(&config, &*before, &options).err().unwrap();
        let exists = matches!(error, ImportError::Store(Error::Exists(_)));
        assert!(exists, "{error}");
    }
    std::fs::remove_file(&config.path).unwrap();
    let error = Embedded::import(&config, &*before, &ImportOptions::default());
    let error = error.err().unwrap();
    assert!(matches!(error, ImportError::Older), "{error}");
    assert_eq!(erase::count(dir.path(), &key), 0);
}
