//! What is erased is nowhere in the store's files, whatever was there before and whenever it is killed.

use std::{
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::*;

/// How often a secret is in any file of a directory: its bytes, or its text.
pub(in crate::store) fn count(dir: &Path, secret: &Wrapped) -> usize {
    let text = secret.to_string();
    fs::read_dir(dir)
        .unwrap()
        .filter_map(|file| fs::read(file.unwrap().path()).ok())
        .map(|bytes| occurrences(&bytes, text.as_bytes()) + occurrences(&bytes, secret.as_bytes()))
        .sum()
}

fn occurrences(bytes: &[u8], wanted: &[u8]) -> usize {
    memchr::memmem::find_iter(bytes, wanted).count()
}

/// What is beside the store, but its witness and keys.
pub(in crate::store) fn beside(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let names = names.map(|file| file.unwrap().file_name().into_string().unwrap());
    let is_odd = |name: &String| !["store.redb", "store.redb.witness"].contains(&&**name);
    names
        .filter(|name| is_odd(name) && !name.ends_with(".key"))
        .collect()
}

/// A store with many streams, and one with keys that were recorded often. Returns what was recorded of it.
pub(in crate::store) async fn with_keys(
    config: &Config,
    keys: &[Wrapped],
) -> (Embedded, Versioned<Arc<StreamEntry>>) {
    filled(config, &[]).await;
    let store = Embedded::open(config).unwrap();
    let names = (0..40).map(|at| format!("other/{at}"));
    let many = names.map(|name| put(&name, Revision::NONE)).collect();
    store.commit(many).await.unwrap();
    let keys: Vec<_> = keys.iter().copied().map(Some).collect();
    let mut entry = managed(&keys);
    for records in 0..30 {
        let revision = store.stream(&path("shred")).await.unwrap().revision;
        entry.data_keys.as_mut().unwrap().keys[0].sealed.records = records;
        let mut changes = vec![put_entry("shred", Some(entry.clone()), revision)];
        // Others grow and go, so that pages split, merge and are freed.
        changes.push(put(&format!("grows/{records}"), Revision::NONE));
        store.commit(changes).await.unwrap();
    }
    for at in 0..20 {
        let name = format!("grows/{at}");
        let revision = store.stream(&path(&name)).await.unwrap().revision;
        let gone = put_entry(&name, None, revision);
        store.commit(vec![gone]).await.unwrap();
    }
    let found = store.stream(&path("shred")).await.unwrap();
    (store, found)
}

/// Everything that is recorded, but of the stream that is shredded.
pub(in crate::store) async fn others(store: &Embedded) -> (Vec<RecordedBasin>, Vec<Recorded>) {
    let mut streams = store.streams().await.unwrap();
    streams.retain(|(stream, _)| *stream != path("shred"));
    (store.basins().await.unwrap(), streams)
}

#[tokio::test]
async fn what_is_erased_is_in_no_file() {
    for is_keyed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let config = match is_keyed {
            true => keyed(&dir, 1),
            false => config(&dir),
        };
        let (first, second) = (wrapped(), wrapped());
        let (store, found) = with_keys(&config, &[first, second]).await;
        let before = others(&store).await;
        // It is there, and old versions of it are, too.
        assert!(count(dir.path(), &first) > 1);
        let mut old = fs::File::open(&config.path).unwrap();
        let shredded = managed(&[None, Some(second)]);
        let change = put_entry("shred", Some(shredded.clone()), found.revision);
        store.erase(vec![change]).await.unwrap();
        assert_eq!(count(dir.path(), &first), 0);
        assert_eq!(count(dir.path(), &second), 1);
        // Nor in the old file, which has no name any more.
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut old, &mut bytes).unwrap();
        assert!(!bytes.is_empty() && bytes.iter().all(|byte| *byte == 0));
        assert!(beside(dir.path()).is_empty(), "{:?}", beside(dir.path()));
        assert_eq!(others(&store).await, before);
        // The store goes on, in the new file.
        let found = store.stream(&path("shred")).await.unwrap();
        assert_eq!(found.entry.as_deref(), Some(&shredded));
        let gone = put_entry("shred", None, found.revision);
        store.commit(vec![gone]).await.unwrap();
        assert!(count(dir.path(), &second) > 0);
        // What an earlier change removed goes with what a later one does.
        store
            .erase(vec![put("more", Revision::NONE)])
            .await
            .unwrap();
        assert_eq!(count(dir.path(), &second), 0);
        drop(store);
        let store = Embedded::open(&config).unwrap();
        assert_eq!(count(dir.path(), &first), 0);
        assert!(store.stream(&path("more")).await.unwrap().entry.is_some());
    }
}

#[tokio::test]
async fn a_change_alone_leaves_what_was_before() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let key = wrapped();
    let (store, found) = with_keys(&config, &[key]).await;
    let change = put_entry("shred", Some(managed(&[None])), found.revision);
    store.commit(vec![change]).await.unwrap();
    assert!(count(dir.path(), &key) > 0);
    // Nothing is pending: there is nothing to do, and nothing is done.
    store.erase(Vec::new()).await.unwrap();
    assert!(count(dir.path(), &key) > 0);
}

#[tokio::test]
async fn a_conflict_erases_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let key = wrapped();
    let (store, found) = with_keys(&config, &[key]).await;
    let changes = vec![
        put_entry("shred", None, found.revision),
        put("other/1", Revision::NONE),
    ];
    let error = store.erase(changes).await.unwrap_err();
    assert!(matches!(error, Error::Conflict(_)), "{error}");
    let again = store.stream(&path("shred")).await.unwrap();
    assert_eq!(again, found);
    assert!(count(dir.path(), &key) > 0);
    drop(store);
    let store = Embedded::open(&config).unwrap();
    assert_eq!(store.stream(&path("shred")).await.unwrap(), found);
}

#[tokio::test]
async fn a_store_behind_a_link_keeps_its_place_and_who_may_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, links) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let real = config(&dir);
    let key = wrapped();
    drop(with_keys(&real, &[key]).await);
    fs::set_permissions(&real.path, fs::Permissions::from_mode(0o640)).unwrap();
    let linked = config(&links);
    std::os::unix::fs::symlink(&real.path, &linked.path).unwrap();
    let store = Embedded::open(&linked).unwrap();
    let found = store.stream(&path("shred")).await.unwrap();
    let change = put_entry("shred", None, found.revision);
    store.erase(vec![change]).await.unwrap();
    assert!(fs::symlink_metadata(&linked.path).unwrap().is_symlink());
    let mode = fs::metadata(&real.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(count(dir.path(), &key), 0);
    let change = put("after", Revision::NONE);
    store.commit(vec![change]).await.unwrap();
    drop(store);
    let store = Embedded::open(&real).unwrap();
    assert!(store.stream(&path("after")).await.unwrap().entry.is_some());
}

#[tokio::test]
async fn nobody_else_opens_a_store_while_it_is_erased() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let (store, _) = with_keys(&config, &[wrapped()]).await;
    let is_done = Arc::new(AtomicBool::new(false));
    let other = {
        let (config, is_done) = (config.clone(), Arc::clone(&is_done));
        std::thread::spawn(move || {
            let mut refused = 0;
            while !is_done.load(Ordering::Relaxed) {
                match Embedded::open(&config).err() {
                    // The file that it found had another's place meanwhile, and no bytes any more.
                    Some(Error::Locked(_) | Error::Storage { .. }) => refused += 1,
                    other => panic!("{other:?}"),
                }
            }
            refused
        })
    };
    for at in 0..20 {
        let change = put(&format!("one/{at}"), Revision::NONE);
        store.erase(vec![change]).await.unwrap();
    }
    is_done.store(true, Ordering::Relaxed);
    assert!(other.join().unwrap() > 0);
    assert!(store.stream(&path("one/19")).await.unwrap().entry.is_some());
}

#[tokio::test]
async fn an_export_under_way_ends_without_its_last_line() {
    /// Erases in the middle of the export.
    struct Out {
        store: Embedded,
        written: Arc<Mutex<Vec<u8>>>,
        change: Option<Change>,
    }

    impl Write for Out {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            if let Some(change) = self.change.take() {
                let erased = futures_util::future::FutureExt::boxed({
                    let store = self.store.clone();
                    async move { store.erase(vec![change]).await }
                });
                tokio::runtime::Handle::current().block_on(erased).unwrap();
            }
            self.written.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let key = wrapped();
    let (store, found) = with_keys(&config, &[key]).await;
    let written = Arc::new(Mutex::new(Vec::new()));
    let out = Out {
        store: store.clone(),
        written: Arc::clone(&written),
        change: Some(put_entry("shred", None, found.revision)),
    };
    let error = Store::export(&store, Box::new(out)).await.unwrap_err();
    assert!(
        matches!(error, ExportError::Store(Error::Rewritten(_))),
        "{error}"
    );
    let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("\"end\""), "{text}");
    assert_eq!(count(dir.path(), &key), 0);
    let mut whole = Vec::new();
    store.export(&mut whole).unwrap();
    let whole = String::from_utf8(whole).unwrap();
    assert!(whole.contains("\"end\"") && !whole.contains(&key.to_string()));
}
