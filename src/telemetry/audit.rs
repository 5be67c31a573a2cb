//! The audit log: who used which stream, with which key, and how it ended; a JSON object per line.

mod line;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{metrics::Metrics, rarely::Rarely, report::Report};

/// Lines that wait for a slow disk. They take about 4 MiB, and at most 64 MiB when every name is of the
/// longest kind.
const QUEUE: usize = 8192;
/// Stands for standard output.
const STDOUT: &str = "-";
/// What a new file may be used for: by its owner, to read and write.
const MODE: u32 = 0o600;

/// The `[audit]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where a line for each request goes: a file to append to, `-` for standard output, empty for nowhere.
    pub file: PathBuf,
}

impl Config {
    /// What is wrong with the section, each with its key. Opens and makes nothing.
    pub fn problems(&self) -> Vec<String> {
        let Some(path) = self.path() else {
            return Vec::new();
        };
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            Some(_) | None => Path::new("."),
        };
        let wrong = match path.metadata() {
            Ok(found) if is_writable_kind(&found) => None,
            Ok(_) => Some("is no file".to_owned()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Some(error.to_string()),
            Err(_) if directory.is_dir() => None,
            Err(_) => Some("its directory does not exist".to_owned()),
        };
        let problem = wrong.map(|wrong| format!("audit.file: {}: {wrong}", path.display()));
        problem.into_iter().collect()
    }

    /// Whether it takes standard output for itself.
    pub fn is_stdout(&self) -> bool {
        self.file == Path::new(STDOUT)
    }

    fn path(&self) -> Option<&Path> {
        let is_file = !self.file.as_os_str().is_empty() && !self.is_stdout();
        is_file.then_some(self.file.as_path())
    }
}

fn is_writable_kind(found: &std::fs::Metadata) -> bool {
    let kind = found.file_type();
    // Opening a pipe would wait for its reader.
    kind.is_file() || kind.is_char_device()
}

/// The audit log. A thread of its own writes it, so that a slow disk holds up no request.
///
/// A line that cannot be written, because the disk is full or too slow for 8192 lines to wait, is lost;
/// each is counted in `streamseal_audit_failures_total`, and the log tells of it. Requests go on.
pub struct Audit {
    queue: SyncSender<Job>,
    reopen: Arc<AtomicBool>,
    lost: Lost,
}

enum Job {
    Line(Vec<u8>),
    /// Something else than a line is to be done.
    Look,
    /// Tell when all lines before are written.
    Flush(oneshot::Sender<()>),
}

impl Audit {
    /// Opens what the configuration names and starts to write; `None` when it names nothing.
    ///
    /// # Errors
    /// When it cannot be opened: the key, the path and the system's reason.
    pub fn start(config: &Config, metrics: &Arc<Metrics>) -> Result<Option<Self>, String> {
        let out = match config.path() {
            Some(path) => Out::open(path),
            None if config.is_stdout() => Out::stdout(),
            None => return Ok(None),
        };
        let path = config.file.display();
        let out = out.map_err(|error| format!("audit.file: cannot open {path}: {error}"))?;
        let started = Self::write_to(out, metrics);
        started
            .map(Some)
            .map_err(|error| format!("audit.file: cannot write {path}: {error}"))
    }

    fn write_to(out: Out, metrics: &Arc<Metrics>) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let reopen = Arc::new(AtomicBool::new(false));
        let lost = || Lost {
            metrics: Arc::clone(metrics),
            told: Rarely::default(),
        };
        let writer = Writer {
            out,
            torn: false,
            reopen: Arc::clone(&reopen),
            lost: lost(),
        };
        let thread = thread::Builder::new().name("audit".to_owned());
        thread.spawn(move || writer.run(&jobs))?;
        Ok(Self {
            queue,
            reopen,
            lost: lost(),
        })
    }

    /// Writes a line. Returns at once.
    pub fn write(&self, report: &Report<'_>) {
        let queued = match line::of(report) {
            Ok(line) => self.queue.try_send(Job::Line(line)),
            Err(error) => return self.lost.tell(&error),
        };
        if queued.is_err() {
            self.lost
                .tell(&"more lines wait than it can hold: it is written too slowly");
        }
    }

    /// Opens the file anew under its name, for when it was moved away: from the next line on, it is that
    /// one. When that fails, the old one goes on.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        // A full queue has lines in it, and with the next of them the writer looks.
        let _awake = self.queue.try_send(Job::Look);
    }

    /// Waits until every line so far is on the disk, but no longer than `limit`.
    pub async fn flush(&self, limit: Duration) {
        let (done, flushed) = oneshot::channel();
        let queue = self.queue.clone();
        // The queue may be full.
        let asked = tokio::task::spawn_blocking(move || queue.send(Job::Flush(done)));
        let flushed = async {
            let asked = asked.await.is_ok_and(|sent| sent.is_ok());
            asked && flushed.await.is_ok()
        };
        if !tokio::time::timeout(limit, flushed).await.unwrap_or(false) {
            tracing::error!("the audit log could not be written to its end within {limit:?}");
        }
    }
}

/// Lines that are lost.
struct Lost {
    metrics: Arc<Metrics>,
    told: Rarely,
}

impl Lost {
    fn tell(&self, error: &dyn std::fmt::Display) {
        self.metrics.process.audit_failures.inc();
        if let Some(lines) = self.told.again() {
            tracing::error!(lines, %error, "lines of the audit log are lost");
        }
    }
}

/// Where it is written.
struct Out {
    file: File,
    /// Unless it is standard output.
    path: Option<PathBuf>,
}

impl Out {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        Ok(Self {
            file: options.append(true).create(true).mode(MODE).open(path)?,
            path: Some(path.to_owned()),
        })
    }

    fn stdout() -> io::Result<Self> {
        // Without the buffer of `io::stdout`, so that a line is one write.
        Ok(Self {
            file: File::from(io::stdout().as_fd().try_clone_to_owned()?),
            path: None,
        })
    }
}

struct Writer {
    out: Out,
    /// The last line was not written to its end.
    torn: bool,
    reopen: Arc<AtomicBool>,
    lost: Lost,
}

impl Writer {
    /// Works until nobody is left to send.
    fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            if self.reopen.swap(false, Ordering::AcqRel) {
                self.open_anew();
            }
            match job {
                Job::Line(line) => match self.write(line) {
                    Ok(()) => self.lost.metrics.process.audit_lines.inc(),
                    Err(error) => self.lost.tell(&error),
                },
                Job::Look => {}
                Job::Flush(done) => {
                    if self.out.path.is_some()
                        && let Err(error) = self.out.file.sync_data()
                    {
                        tracing::warn!(%error, "the audit log is not synced");
                    }
                    let _nobody_waits = done.send(());
                }
            }
        }
    }

    /// Writes a line, which ends with a line feed, in one piece. The rest of a line that a full disk cut
    /// short stands on a line of its own.
    fn write(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        if self.torn {
            line.insert(0, b'\n');
        }
        let mut rest = &line[..];
        while !rest.is_empty() {
            match self.out.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn open_anew(&mut self) {
        let Some(path) = &self.out.path else {
            return;
        };
        match Out::open(path) {
            Ok(out) => {
                self.out = out;
                self.torn = false;
            }
            Err(error) => {
                tracing::error!(%error, "cannot reopen the audit log {}; the old file goes on", path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests;
