//! The host gets no core dump of the program, nobody but root looks into it, and its memory stays out of
//! swap if it is told so.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::geteuid;

/// The user `nobody`.
const NOBODY: u32 = 65534;

/// The program with a certificate and a store of its own, run by another user than root.
struct Host {
    dir: tempfile::TempDir,
}

/// Killed when it is dropped.
struct Running(Child);

impl Host {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        // Another user may not get to where it was built.
        let built = Path::new(env!("CARGO_BIN_EXE_streamseal"));
        let program = dir.path().join("streamseal");
        fs::hard_link(built, &program)
            .or_else(|_| fs::copy(built, &program).map(|_| ()))
            .unwrap();
        let text = format!(
            "[listen]\naddress = \"127.0.0.1:0\"\n[listen.tls]\nself_signed = true\n\
             [store]\npath = {:?}\ncreate = true\n{config}",
            dir.path().join("store.redb"),
        );
        fs::write(dir.path().join("streamseal.toml"), text).unwrap();
        Self { dir }
    }

    fn command(&self, before: &[&str]) -> Command {
        let program: PathBuf = self.dir.path().join("streamseal");
        let config = self.dir.path().join("streamseal.toml");
        let serve = [
            program.to_str().unwrap(),
            "serve",
            "--config",
            config.to_str().unwrap(),
        ];
        let words: Vec<&str> = before.iter().copied().chain(serve).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(self.dir.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Starts it and waits for its first line.
fn start(mut command: Command) -> Running {
    let mut running = Running(command.spawn().unwrap());
    let mut line = String::new();
    let out = running.0.stdout.take().unwrap();
    BufReader::new(out).read_line(&mut line).unwrap();
    if line.is_empty() {
        let mut log = String::new();
        running
            .0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        panic!("does not start: {log}");
    }
    running
}

impl Running {
    fn file(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.0.id()).into()
    }

    /// Who owns what tells of its memory: its own user, or root if it is not dumpable.
    fn owner(&self) -> u32 {
        fs::metadata(self.file("environ")).unwrap().uid()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// As somebody else than root.
fn as_nobody(command: &mut Command) {
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
}

#[test]
fn no_core_dump_and_no_debugger() {
    // With all limits lifted, to see the program set them.
    let host = Host::new("");
    let mut command = host.command(&[]);
    as_nobody(&mut command);
    let running = start(command);
    let limits = fs::read_to_string(running.file("limits")).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "soft and hard");

    let mut other = Command::new("sleep");
    other.arg("60");
    as_nobody(&mut other);
    let other = Running(other.spawn().unwrap());
    assert_ne!(other.owner(), 0, "anybody else's memory is their own");
    assert_eq!(running.owner(), 0, "the program is dumpable");
}

#[test]
fn memory_is_locked_on_demand() {
    let locked = |running: &Running| {
        let status = fs::read_to_string(running.file("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap()
    };
    let host = Host::new("[process]\nlock_memory = true\n");
    assert!(locked(&start(host.command(&[]))) > 0);
    assert_eq!(locked(&start(Host::new("").command(&[]))), 0);
}

#[test]
fn memory_that_cannot_be_locked_stops_the_start() {
    let host = Host::new("[process]\nlock_memory = true\n");
    let mut command = host.command(&["prlimit", "--memlock=65536:65536"]);
    as_nobody(&mut command);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let reason = text.lines().last().unwrap();
    for word in [
        "process.lock_memory",
        "RLIMIT_MEMLOCK is 65536",
        "CAP_IPC_LOCK",
    ] {
        assert!(reason.contains(word), "no {word} in {reason}");
    }
}
