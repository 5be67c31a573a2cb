//! A store that is not the newest one of its place is refused, with what to do.

use super::*;

fn witness(config: &Config) -> PathBuf {
    let mut name = config.path.clone().into_os_string();
    name.push(".witness");
    name.into()
}

#[tokio::test]
async fn an_older_copy_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    filled(&config, &["a"]).await;
    let copy = std::fs::read(&config.path).unwrap();
    add(&config, "b").await;
    let newest = std::fs::read(&config.path).unwrap();
    std::fs::write(&config.path, copy).unwrap();
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
    assert!(error.to_string().contains("streamseal store rebuild"));
    std::fs::write(&config.path, newest).unwrap();
    let store = Embedded::open(&config).unwrap();
    assert!(store.stream(&path("b")).await.unwrap().entry.is_some());
}

#[tokio::test]
async fn an_older_copy_that_is_rebuilt_counts_as_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    filled(&config, &["a"]).await;
    let copy = std::fs::read(&config.path).unwrap();
    add(&config, "b").await;
    let newest = std::fs::read(&config.path).unwrap();
    std::fs::write(&config.path, copy).unwrap();
    let store = Embedded::open_to_rebuild(&config).unwrap();
    let change = put("c", Revision::NONE);
    store.commit(vec![change]).await.unwrap();
    drop(store);
    drop(Embedded::open(&config).unwrap());
    // And what was the newest before is now the old one.
    std::fs::write(&config.path, newest).unwrap();
    let error = Embedded::open(&config).err().unwrap();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
}

#[tokio::test]
async fn a_fresh_store_does_not_take_the_place_of_a_lost_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    filled(&config, &["a"]).await;
    std::fs::remove_file(&config.path).unwrap();
    let opened = Embedded::open(&config).err().unwrap();
    assert!(matches!(opened, Error::Lost { .. }), "{opened}");
    let made = Embedded::init(&config).err().unwrap();
    assert!(matches!(made, Error::Lost { .. }), "{made}");
    assert!(made.to_string().contains("rebuild"), "{made}");
    assert!(!config.path.exists());

    // Somebody else's store, made elsewhere.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = super::config(&elsewhere);
    filled(&other, &[]).await;
    std::fs::copy(&other.path, &config.path).unwrap();
    let error = Embedded::open(&config).err().unwrap();
    assert!(matches!(error, Error::Replaced { .. }), "{error}");
    assert!(error.to_string().contains(".witness"), "{error}");
    // The operator means it.
    std::fs::remove_file(witness(&config)).unwrap();
    drop(Embedded::open(&config).unwrap());
}

#[tokio::test]
async fn a_crash_before_the_witness_heard_of_a_change_is_no_rollback() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    filled(&config, &["a"]).await;
    let before = std::fs::read(witness(&config)).unwrap();
    add(&config, "b").await;
    let after = std::fs::read(witness(&config)).unwrap();
    assert_ne!(before, after);
    std::fs::write(witness(&config), before).unwrap();
    drop(Embedded::open(&config).unwrap());
    assert_eq!(std::fs::read(witness(&config)).unwrap(), after);
}

#[tokio::test]
async fn a_witness_that_cannot_be_read_or_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    filled(&config, &["a"]).await;
    for content in [b"".as_slice(), b"{", b"{\"generation\":1}"] {
        std::fs::write(witness(&config), content).unwrap();
        let error = Embedded::open(&config).err().unwrap();
        assert!(matches!(error, Error::Witness { .. }), "{error}");
        assert!(error.to_string().contains("remove it"), "{error}");
    }
    std::fs::remove_file(witness(&config)).unwrap();
    let store = Embedded::open(&config).unwrap();
    // Something is in the way of its next version.
    let mut unfinished = witness(&config).into_os_string();
    unfinished.push(".new");
    std::fs::create_dir(&unfinished).unwrap();
    let change = put("b", Revision::NONE);
    let error = store.commit(vec![change]).await.unwrap_err();
    assert!(matches!(error, Error::Witness { .. }), "{error}");
    // The change itself was made, and nothing pretends otherwise.
    assert!(store.stream(&path("b")).await.unwrap().entry.is_some());
    std::fs::remove_dir(&unfinished).unwrap();
    let change = put("c", Revision::NONE);
    store.commit(vec![change]).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_gone_takes_no_more_changes() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    filled(&config, &["a"]).await;
    let store = Embedded::open(&config).unwrap();
    let away = dir.path().join("away");
    std::fs::rename(&config.path, &away).unwrap();
    let error = store.commit(vec![put("b", Revision::NONE)]).await;
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Gone(_)), "{error}");
    // A copy in its place is not the file that is open.
    std::fs::copy(&away, &config.path).unwrap();
    let error = store.commit(vec![put("b", Revision::NONE)]).await;
    assert!(matches!(error, Err(Error::Gone(_))));
    std::fs::rename(&away, &config.path).unwrap();
    let change = put("b", Revision::NONE);
    store.commit(vec![change]).await.unwrap();
}

#[tokio::test]
async fn only_the_owner_reads_store_and_witness() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    filled(&config, &["a"]).await;
    for path in [config.path.clone(), witness(&config)] {
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn what_a_crash_left_half_made_is_not_taken_for_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    std::fs::write(dir.path().join("store.redb.new"), vec![7; 10_000]).unwrap();
    filled(&config, &["a"]).await;
    let store = Embedded::open(&config).unwrap();
    assert!(store.stream(&path("a")).await.unwrap().entry.is_some());
    assert!(!dir.path().join("store.redb.new").exists());
}
