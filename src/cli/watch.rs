//! Noticing that the configuration file or a file it names has changed.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::config::Config;

/// How often the files are looked at: a few system calls each time. Asking the kernel to be told instead
/// would miss the symbolic links that Kubernetes swaps, and network file systems.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Which file a path led to, and its state. Paths are followed, so that a swapped link is another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// When its content, owner or mode last changed, which nothing can set back.
    changed: (i64, i64),
}

/// `None` for a file that cannot be looked at.
type Looks = BTreeMap<PathBuf, Option<Identity>>;

/// The configuration file and the files that a reload reads.
pub(super) struct Watch {
    config: PathBuf,
    /// The files as they were when they were last read.
    read: Looks,
    /// The files as they were at the last look, if that is another state.
    moving: Option<Looks>,
    tick: Interval,
}

impl Watch {
    /// Watches the configuration file and the files that `config` names, from how they are now.
    pub(super) async fn new(path: &Path, config: &Config) -> Self {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watch = Self {
            config: path.to_owned(),
            read: Looks::from([(path.to_owned(), None)]),
            moving: None,
            tick,
        };
        watch.follow(config);
        watch.look().await;
        watch
    }

    /// Waits until a file is not what it was, and all have been the same for two looks: what writes several
    /// of them is not done before. May be dropped and called again.
    pub(super) async fn changed(&mut self) {
        loop {
            self.tick.tick().await;
            if self.settled(looks(self.paths()).await) {
                return;
            }
        }
    }

    /// Whether this look shows a change that the one before it showed, too.
    fn settled(&mut self, now: Looks) -> bool {
        if now == self.read {
            self.moving = None;
            return false;
        }
        let settled = self.moving.as_ref() == Some(&now);
        self.moving = Some(now);
        settled
    }

    /// Takes the files for read as they are now: to be called before they are.
    pub(super) async fn look(&mut self) {
        self.read = looks(self.paths()).await;
        self.moving = None;
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.read.keys().cloned().collect()
    }

    /// Watches the files of this configuration from now on, and no others. Those that it did not watch are
    /// looked at: to be called before they are read. May block.
    pub(super) fn follow(&mut self, config: &Config) {
        let mut before = std::mem::take(&mut self.read);
        let named = files(config).into_iter().map(Path::to_owned);
        for path in named.chain([self.config.clone()]) {
            let look = before.remove(&path).unwrap_or_else(|| identity(&path));
            self.read.insert(path, look);
        }
    }
}

/// The files that a reload reads, besides the configuration itself.
fn files(config: &Config) -> Vec<&Path> {
    let (listen, upstream) = (&config.listen.tls, &config.upstream);
    let files = [
        &listen.cert_file,
        &listen.key_file,
        &listen.client_ca_file,
        &listen.client_crl_file,
        &upstream.access_token_file,
        &upstream.tls.ca_file,
        &upstream.tls.client_cert_file,
        &upstream.tls.client_key_file,
    ];
    let keys = config.streams.iter().map(|rule| &rule.key_file);
    let projects = config.projects.iter();
    let secrets = projects.flat_map(|rule| [&rule.pepper_file, &rule.access_token_file]);
    files
        .into_iter()
        .chain(keys)
        .chain(secrets)
        .filter_map(|file| file.path())
        .collect()
}

async fn looks(paths: Vec<PathBuf>) -> Looks {
    let look = move || {
        paths.into_iter().map(|path| {
            let identity = identity(&path);
            (path, identity)
        })
    };
    // Only a runtime that is going down does not run it.
    let looked = tokio::task::spawn_blocking(move || look().collect()).await;
    looked.unwrap_or_default()
}

fn identity(path: &Path) -> Option<Identity> {
    let found = fs::metadata(path).ok()?;
    Some(Identity {
        device: found.dev(),
        inode: found.ino(),
        length: found.len(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(key: &Path) -> Config {
        let mut config = Config::default();
        config.upstream.access_token_file = key.into();
        config
    }

    async fn is_quiet(watch: &mut Watch) -> bool {
        tokio::time::timeout(5 * LOOK_EVERY, watch.changed())
            .await
            .is_err()
    }

    async fn is_seen(watch: &mut Watch) {
        tokio::time::timeout(30 * LOOK_EVERY, watch.changed())
            .await
            .unwrap();
        watch.look().await;
        assert!(is_quiet(watch).await, "once is enough");
    }

    #[tokio::test(start_paused = true)]
    async fn every_kind_of_change_is_seen_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, content) in [("c.toml", "1"), ("one", "1"), ("two", "222")] {
            fs::write(at(name), content).unwrap();
        }
        std::os::unix::fs::symlink("one", at("link")).unwrap();
        let mut watch = Watch::new(&at("c.toml"), &config(&at("link"))).await;
        assert!(is_quiet(&mut watch).await);
        fs::write(at("c.toml"), "22").unwrap();
        is_seen(&mut watch).await;
        fs::write(at("one"), "333").unwrap();
        is_seen(&mut watch).await;
        // As Kubernetes does it: another file under the same name, of the same length.
        std::os::unix::fs::symlink("two", at("link.new")).unwrap();
        fs::rename(at("link.new"), at("link")).unwrap();
        is_seen(&mut watch).await;
        fs::remove_file(at("c.toml")).unwrap();
        is_seen(&mut watch).await;
        fs::write(at("c.toml"), "2").unwrap();
        is_seen(&mut watch).await;
    }

    #[tokio::test]
    async fn a_file_that_keeps_changing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, "").unwrap();
        let mut watch = Watch::new(&path, &Config::default()).await;
        for length in 1..8 {
            fs::write(&path, "x".repeat(length)).unwrap();
            let now = looks(watch.paths()).await;
            assert!(!watch.settled(now), "{length}");
        }
        let now = looks(watch.paths()).await;
        assert!(watch.settled(now));
    }

    #[test]
    fn revocation_list_is_watched() {
        let mut config = Config::default();
        config.listen.tls.client_crl_file = "crl.pem".into();
        assert_eq!(files(&config), [Path::new("crl.pem")]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_files_of_the_configuration_are_watched() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["c.toml", "old", "new"] {
            fs::write(at(name), "1").unwrap();
        }
        let mut watch = Watch::new(&at("c.toml"), &config(&at("old"))).await;
        watch.follow(&config(&at("new")));
        fs::write(at("old"), "22").unwrap();
        assert!(is_quiet(&mut watch).await);
        fs::write(at("new"), "22").unwrap();
        is_seen(&mut watch).await;
    }
}
