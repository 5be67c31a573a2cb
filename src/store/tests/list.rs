//! Lists come a page at a time, whole and in order; an export is one moment of the store.

use std::{
    io,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use super::*;

const NAMES: [&str; 5] = ["a", "app/Orders", "app/payments", "b", "ünïcode"];

async fn store(dir: &tempfile::TempDir) -> Embedded {
    let config = config(dir);
    filled(&config, &NAMES).await;
    Embedded::open(&config).unwrap()
}

fn page(after: &str, filter: &str, limit: usize) -> Page {
    Page {
        after: after.to_owned(),
        filter: filter.to_owned(),
        limit,
    }
}

/// The names of all pages of this list.
async fn all(store: &Embedded, basin: Option<&str>, filter: &str, limit: usize) -> Vec<String> {
    let mut names = Vec::new();
    let mut after = String::new();
    loop {
        let basin = basin.map(|basin| basin.parse().unwrap());
        let listed = store.streams_page(basin, page(&after, filter, limit)).await;
        let listed = listed.unwrap();
        assert!(listed.found.len() <= limit);
        names.extend(listed.found.iter().map(|(path, _)| path.stream.to_string()));
        match listed.next {
            Some(next) => after = next,
            None => return names,
        }
    }
}

#[tokio::test]
async fn pages_add_up_to_the_list() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    for limit in [1, 2, 5, 1000] {
        assert_eq!(all(&store, None, "", limit).await, NAMES);
        assert_eq!(all(&store, Some("test-basin"), "", limit).await, NAMES);
        assert_eq!(all(&store, Some("test-basio"), "", limit).await.len(), 0);
        // Byte for byte a neighbour of the basin's own names.
        assert_eq!(all(&store, Some("test-basin-2"), "", limit).await.len(), 0);
    }
}

#[tokio::test]
async fn a_filter_finds_names_in_upper_and_lower_case() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    for (filter, found) in [
        ("orders", &["app/Orders"][..]),
        ("APP/", &["app/Orders", "app/payments"]),
        ("ÜNÏ", &["ünïcode"]),
        ("test-basin/b", &["b"]),
        ("nothing of the kind", &[]),
    ] {
        assert_eq!(all(&store, None, filter, 1).await, found, "{filter}");
    }
}

#[tokio::test]
async fn no_page_is_longer_than_the_limit_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(&config(&dir)).unwrap();
    let names: Vec<String> = (0..1500).map(|at| format!("{at:04}")).collect();
    let changes = names.iter().map(|name| put(name, Revision::NONE));
    store.commit(changes.collect()).await.unwrap();
    let first = store.streams_page(None, page("", "", usize::MAX)).await;
    let first = first.unwrap();
    assert_eq!(first.found.len(), 1000);
    assert_eq!(first.next.as_deref(), Some("test-basin/0999"));
    let listed = store.streams_page(None, page("test-basin/0999", "", 1000));
    let rest = listed.await.unwrap();
    assert_eq!((rest.found.len(), rest.next), (500, None));
}

#[tokio::test]
async fn basins_are_listed_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let listed = store.basins_page(page("", "EST-B", 10)).await.unwrap();
    let names: Vec<&str> = listed.found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((names, listed.next), (vec!["test-basin"], None));
}

#[tokio::test]
async fn a_store_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    for config in [config(&dir), keyed(&dir, 1)] {
        let _ = std::fs::remove_file(&config.path);
        let _ = std::fs::remove_file(dir.path().join("store.redb.witness"));
        filled(&config, &NAMES).await;
        let store = Embedded::open(&config).unwrap();
        let summary = store.summary().await.unwrap();
        assert_eq!((summary.basins, summary.streams), (1, 5));
        assert_eq!(summary.projects, 0);
        assert_eq!((summary.format, summary.generation), (4, 6));
        assert_eq!(summary.is_keyed, config.key_file.is_set());
        assert_eq!(summary.size, std::fs::metadata(&config.path).unwrap().len());
        // A file that is gone is not answered for from memory.
        let elsewhere = dir.path().join("elsewhere");
        std::fs::rename(&config.path, &elsewhere).unwrap();
        let gone = store.summary().await.unwrap_err();
        assert!(matches!(gone, Error::Gone(_)), "{gone}");
    }
}

/// Where an export goes that waits before its first byte until it is told to go on.
struct Waiting(
    Option<(SyncSender<()>, Receiver<()>)>,
    Vec<u8>,
    SyncSender<Vec<u8>>,
);

impl io::Write for Waiting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some((begun, go_on)) = self.0.take() {
            begun.send(()).unwrap();
            go_on.recv().unwrap();
        }
        self.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.2.send(std::mem::take(&mut self.1)).unwrap();
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_one_moment_and_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let mut before = Vec::new();
    store.export(&mut before).unwrap();
    let (begun, has_begun) = sync_channel(1);
    let (go, go_on) = sync_channel(1);
    let (done, written) = sync_channel(1);
    let out = Box::new(Waiting(Some((begun, go_on)), Vec::new(), done));
    let exporting = {
        let store = store.clone();
        tokio::spawn(async move { Store::export(&store, out).await })
    };
    tokio::task::spawn_blocking(move || has_begun.recv().unwrap())
        .await
        .unwrap();
    store
        .commit(vec![put("later", Revision::NONE)])
        .await
        .unwrap();
    go.send(()).unwrap();
    exporting.await.unwrap().unwrap();
    assert_eq!(written.recv().unwrap(), before);
    assert_eq!(all(&store, None, "later", 1).await.len(), 1);
}
