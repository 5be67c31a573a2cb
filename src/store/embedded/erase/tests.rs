//! Wherever erasing stops, it is brought to its end before the store says anything.

use std::{path::Path, process::Command, time::Duration};

use super::{super::Embedded, super::file::Then, super::open::Trust, *};
use crate::{
    crypto::Wrapped,
    store::{
        Change, Config, Recorded, RecordedBasin, Revision, Store as _,
        tests::{
            config,
            erase::{beside, count, others, with_keys},
            keyed, managed, path, put, put_entry, wrapped,
        },
    },
};

/// A store in which a key is about to be erased.
struct Case {
    dir: tempfile::TempDir,
    config: Config,
    key: Wrapped,
    change: Change,
    others: (Vec<RecordedBasin>, Vec<Recorded>),
}

impl Case {
    async fn new(is_keyed: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = match is_keyed {
            true => keyed(&dir, 1),
            false => config(&dir),
        };
        let key = wrapped();
        let (store, found) = with_keys(&config, &[key]).await;
        Self {
            change: put_entry("shred", Some(managed(&[None])), found.revision),
            others: others(&store).await,
            dir,
            config,
            key,
        }
    }

    fn open(&self) -> Embedded {
        Embedded::open(&self.config).unwrap()
    }

    fn there(&self) -> usize {
        count(self.dir.path(), &self.key)
    }

    /// Asserts that the store opens, and that all is as it should be.
    async fn is_erased(&self, what: &str) {
        let store = self.open();
        assert_eq!(self.there(), 0, "{what}");
        assert!(beside(self.dir.path()).is_empty(), "{what}");
        assert_eq!(others(&store).await, self.others, "{what}");
        let found = store.stream(&path("shred")).await.unwrap();
        assert_eq!(found.entry, Some(managed(&[None]).into()), "{what}");
        store
            .commit(vec![put("goes/on", Revision::NONE)])
            .await
            .unwrap();
    }
}

/// Where a crash may stop it, in order.
const STEPS: [&str; 8] = [
    "marked",
    "half of the new file written",
    "new file written",
    "old file has two names",
    "new file in place",
    "old file closed",
    "half of the old file zeroed",
    "old file zeroed",
];

/// Goes so far, then stops as a crash does.
fn go(file: &mut File, change: Change, step: &str) {
    file.change(&[change], Then::Erase).unwrap();
    if step == "marked" {
        return;
    }
    let beside = Beside::of(&file.path).unwrap();
    let new = file.rewrite(&beside).unwrap();
    match step {
        "half of the new file written" => {
            drop(new);
            let half = fs::metadata(&beside.rewrite).unwrap().len() / 2;
            let file = fs::OpenOptions::new().write(true).open(&beside.rewrite);
            return file.unwrap().set_len(half).unwrap();
        }
        "new file written" => return,
        "old file has two names" => {
            return fs::hard_link(&beside.store, &beside.erasing).unwrap();
        }
        _ => name(&beside).unwrap(),
    }
    if step == "new file in place" {
        return;
    }
    file.replace(new);
    let options = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&beside.erasing);
    let old = options.unwrap();
    let length = old.metadata().unwrap().len();
    match step {
        "half of the old file zeroed" => zero(&old, 0, length / 2).unwrap(),
        "old file zeroed" => zero(&old, 0, length).unwrap(),
        _ => {}
    }
}

#[tokio::test]
async fn a_crash_at_any_step_is_finished_at_the_next_open() {
    for step in STEPS {
        for is_keyed in [false, true] {
            let case = Case::new(is_keyed).await;
            let store = case.open();
            let change = case.change.clone();
            let went = store.0.with_file(|file| {
                go(file, change, step);
                Ok(())
            });
            went.unwrap();
            if !["half of the old file zeroed", "old file zeroed"].contains(&step) {
                assert!(case.there() > 0, "{step}");
            }
            // As it is on the disk at that moment, whatever closing the file does to it.
            let dir = tempfile::tempdir().unwrap();
            for file in fs::read_dir(case.dir.path()).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
            }
            drop(store);
            if step == "old file has two names" {
                // They are not, in the copy.
                fs::remove_file(dir.path().join("store.redb.erasing")).unwrap();
                let store = dir.path().join("store.redb");
                fs::hard_link(store, dir.path().join("store.redb.erasing")).unwrap();
            }
            let config = Config {
                path: dir.path().join("store.redb"),
                ..case.config.clone()
            };
            let crashed = Case {
                dir,
                config,
                ..case
            };
            crashed.is_erased(step).await;
        }
    }
}

#[tokio::test]
async fn a_stop_at_any_step_is_finished_by_the_next_call() {
    for step in STEPS {
        // The new file is in place, but the process does not know: no failure leads there.
        if step == "new file in place" {
            continue;
        }
        let case = Case::new(false).await;
        let store = case.open();
        let change = case.change.clone();
        let went = store.0.with_file(|file| {
            go(file, change, step);
            Ok(())
        });
        went.unwrap();
        store.erase(Vec::new()).await.unwrap();
        assert_eq!(case.there(), 0, "{step}");
        drop(store);
        case.is_erased(step).await;
    }
}

#[tokio::test]
async fn what_is_in_the_way_is_named_and_the_store_goes_on() {
    for name in ["store.redb.rewrite", "store.redb.erasing"] {
        let case = Case::new(false).await;
        let store = case.open();
        let obstacle = case.dir.path().join(name);
        fs::create_dir(&obstacle).unwrap();
        let error = store.erase(vec![case.change.clone()]).await.unwrap_err();
        assert!(matches!(error, Error::Unerased { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
        assert!(case.there() > 0);
        // The change was made, and the store takes others.
        let found = store.stream(&path("shred")).await.unwrap();
        assert_eq!(found.entry, Some(managed(&[None]).into()));
        store
            .commit(vec![put("later", Revision::NONE)])
            .await
            .unwrap();
        let error = store.erase(Vec::new()).await.unwrap_err();
        assert!(matches!(error, Error::Unerased { .. }), "{error}");
        drop(store);
        // It does not open as it is.
        let error = Embedded::open(&case.config).err().unwrap();
        assert!(matches!(error, Error::Unerased { .. }), "{error}");
        fs::remove_dir(&obstacle).unwrap();
        drop(case.open());
        assert_eq!(case.there(), 0);
    }
}

#[tokio::test]
async fn nothing_else_is_destroyed() {
    let case = Case::new(false).await;
    let (other, copy) = (
        case.dir.path().join("precious"),
        case.dir.path().join("store.redb.new"),
    );
    fs::write(&other, "precious").unwrap();
    fs::write(&copy, "a copy of somebody's").unwrap();
    let link = case.dir.path().join("store.redb.erasing");
    std::os::unix::fs::symlink(&other, &link).unwrap();
    let error = Embedded::open(&case.config).err().unwrap();
    assert!(matches!(error, Error::Unerased { .. }), "{error}");
    fs::remove_file(link).unwrap();
    let store = case.open();
    store.erase(vec![case.change.clone()]).await.unwrap();
    assert_eq!(fs::read(other).unwrap(), b"precious");
    assert_eq!(fs::read(copy).unwrap(), b"a copy of somebody's");
}

/// Says where another process of this test works, which is this test again.
const DIR: &str = "STREAMSEAL_TEST_ERASE_DIR";

/// Another process, in which a full disk is an error as in the program itself.
fn other_process(test: &str, dir: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("store::embedded::erase::tests::{test}")])
        .env(DIR, dir)
        .stdout(std::process::Stdio::null());
    command
}

/// Limits how far into a file this process may write, as a full disk does.
fn limit_files(bytes: &str) {
    let pid = std::process::id().to_string();
    let limit = format!("--fsize={bytes}:unlimited");
    let status = Command::new("prlimit")
        .args(["--pid", &pid, &limit])
        .status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn a_full_disk_is_told_and_tried_again() {
    if std::env::var_os(DIR).is_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut other = other_process("a_full_disk_is_told_and_tried_again", dir.path());
        assert!(other.status().unwrap().success());
        return;
    }
    const LIMITS: [&str; 4] = ["1", "8192", "65536", "400000"];
    let case = Case::new(false).await;
    let store = case.open();
    let change = case.change.clone();
    let marked = store
        .0
        .with_file(|file| file.change(&[change], Then::Erase));
    marked.unwrap();
    for limit in LIMITS {
        limit_files(limit);
        let error = store.erase(Vec::new()).await.unwrap_err();
        assert!(matches!(error, Error::Unerased { .. }), "{limit}: {error}");
        limit_files("unlimited");
        // What room it took is free again, and the store as it was.
        assert!(beside(case.dir.path()).is_empty(), "{limit}");
        assert_eq!(others(&store).await, case.others, "{limit}");
        assert!(case.there() > 0, "{limit}");
    }
    drop(store);
    for limit in LIMITS {
        limit_files(limit);
        let refused = Embedded::open(&case.config).err().unwrap();
        limit_files("unlimited");
        assert!(
            matches!(refused, Error::Unerased { .. } | Error::Storage { .. }),
            "{limit}: {refused}"
        );
    }
    case.is_erased("with room").await;
}

#[tokio::test]
async fn kills_at_any_moment_are_finished_at_the_next_open() {
    /// Kills, spread over the time that it takes.
    const KILLS: u32 = 40;
    const TEST: &str = "kills_at_any_moment_are_finished_at_the_next_open";
    if let Some(dir) = std::env::var_os(DIR) {
        let config = Config {
            path: Path::new(&dir).join("store.redb"),
            ..Config::default()
        };
        let store = Embedded::open(&config).unwrap();
        let found = store.stream(&path("shred")).await.unwrap();
        fs::write(Path::new(&dir).join("begun.key"), "").unwrap();
        let change = put_entry("shred", Some(managed(&[None])), found.revision);
        store.erase(vec![change]).await.unwrap();
        fs::write(Path::new(&dir).join("done.key"), "").unwrap();
        return;
    }
    let case = Case::new(false).await;
    let copy = || {
        let dir = tempfile::tempdir().unwrap();
        for file in ["store.redb", "store.redb.witness"] {
            fs::copy(case.dir.path().join(file), dir.path().join(file)).unwrap();
        }
        dir
    };
    let run = |dir: &Path, wait: Option<Duration>| {
        let begun = dir.join("begun.key");
        let mut other = other_process(TEST, dir).spawn().unwrap();
        while !begun.exists() {
            assert!(
                other.try_wait().unwrap().is_none(),
                "it did not come so far"
            );
            std::thread::yield_now();
        }
        let start = std::time::Instant::now();
        match wait {
            None => assert!(other.wait().unwrap().success()),
            Some(wait) => {
                while start.elapsed() < wait {
                    std::hint::spin_loop();
                }
                other.kill().unwrap();
                other.wait().unwrap();
            }
        }
        start.elapsed()
    };
    let whole = run(copy().path(), None);
    let (mut untouched, mut halves) = (0, 0);
    for kill in 0..KILLS {
        let dir = copy();
        run(dir.path(), Some(whole * kill / KILLS));
        halves += usize::from(!beside(dir.path()).is_empty());
        let config = Config {
            path: dir.path().join("store.redb"),
            ..Config::default()
        };
        let store = Embedded::open(&config).unwrap();
        let found = store.stream(&path("shred")).await.unwrap();
        let is_shredded = found.entry == Some(managed(&[None]).into());
        drop(store);
        match is_shredded {
            true => assert_eq!(count(dir.path(), &case.key), 0, "kill {kill}"),
            // Killed before the change was made.
            false => {
                assert!(count(dir.path(), &case.key) > 0);
                untouched += 1;
            }
        }
        assert!(beside(dir.path()).iter().all(|name| name.ends_with(".key")));
        let store = Embedded::open(&config).unwrap();
        assert_eq!(others(&store).await, case.others, "kill {kill}");
    }
    println!("{untouched} before the change, {halves} in the middle, in {whole:?}");
    assert!(untouched < KILLS && halves > 0);
}

/// Who finds the file just before it gives its name to the new one finds it free a moment later, and whole.
#[tokio::test]
async fn the_old_file_is_no_store_any_more() {
    let case = Case::new(false).await;
    let store = case.open();
    let mut options = fs::OpenOptions::new();
    let options = options.read(true).write(true);
    let old = options.open(&case.config.path).unwrap();
    let change = case.change.clone();
    let went = store.0.with_file(|file| {
        go(file, change, "old file closed");
        Ok(())
    });
    went.unwrap();
    let error = File::found(old, &case.config.path, None, Trust::Newest).err();
    assert!(matches!(error, Some(Error::Locked(_))), "{error:?}");
    store.erase(Vec::new()).await.unwrap();
    drop(store);
    case.is_erased("after somebody else came").await;
}

#[test]
fn a_file_that_somebody_has_open_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb.new");
    let db = redb::Database::create(&path).unwrap();
    let before = fs::read(&path).unwrap();
    discard(&path, None).unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), before);
    drop(db);
    discard(&path, None).unwrap();
    assert!(!path.exists());
}
