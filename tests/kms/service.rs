//! A program that is a key management service, and how it is run.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

/// What the slowest takes to start on a busy machine. It takes a few seconds otherwise.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process, which is killed when it is dropped.
pub struct Service {
    child: Child,
    log: PathBuf,
}

/// Where `tests/kms/install` put a program.
fn installed(program: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let path = target.join("kms/bin").join(program);
    assert!(path.exists(), "no {path:?}: run tests/kms/install first");
    path
}

impl Service {
    /// Starts it with its log and whatever else it writes in `dir`.
    pub fn start(program: &str, dir: &Path, arguments: &[&str]) -> Self {
        let log = dir.join("log");
        let file = File::create(&log).unwrap();
        let child = Command::new(installed(program))
            .args(arguments)
            .current_dir(dir)
            .env("HOME", dir)
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn();
        Self {
            child: child.unwrap(),
            log,
        }
    }

    /// Waits for a line of its log that holds this, and gives what comes after it.
    pub async fn says(&mut self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = std::fs::read_to_string(&self.log).unwrap();
            let ended = self.child.try_wait().unwrap();
            // A line that is not ended may not be whole.
            let found = log
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            if let Some((_, rest)) = found.filter_map(|line| line.split_once(words)).next() {
                return rest.trim().to_owned();
            }
            assert!(ended.is_none(), "it ended with {ended:?} and said:\n{log}");
            assert!(Instant::now() < deadline, "no {words:?} in:\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}
