//! The service manager is told the truth: ready once connections are accepted, alive while the runtime
//! is, reloading until it is over, stopping with the time that it may take.

use std::{
    env,
    io::Write as _,
    net::TcpStream,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::json;
use streamseal::cli::notify;

use crate::harness::{Ask, DEADLINE, Program};

/// Says that this process is the service of a test.
const SERVICE: &str = "STREAMSEAL_TEST_SERVICE";
/// How often a service has to say that it is alive.
const PULSE: Duration = Duration::from_millis(200);

/// What systemd listens on.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn listen(dir: &Path) -> Self {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, path }
    }

    /// The next message, as its lines.
    fn next(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).expect("a message in time");
        let text = std::str::from_utf8(&message[..length]).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// The next message that is not about being alive.
    fn next_state(&self) -> Vec<String> {
        loop {
            let message = self.next();
            if message != ["WATCHDOG=1"] {
                return message;
            }
        }
    }

    fn has_message(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        self.socket.recv(&mut [0; 4096]).is_ok()
    }

    /// Starts the program with everything in `dir` as its service, and these variables besides.
    fn start(&self, dir: &Path, more: &[(&str, &str)]) -> Program {
        let socket = [("NOTIFY_SOCKET", self.path.to_str().unwrap())];
        let environment = [&socket, more].concat();
        // Nobody asks the upstream anything.
        let upstream = ([127, 0, 0, 1], 9).into();
        Program::start_in(dir, upstream, &json!({}), "info", &environment)
    }
}

fn terminate(program: &Program) {
    program.signal(rustix::process::Signal::TERM);
}

/// The microseconds that a line of this name carries.
fn micros(message: &[String], name: &str) -> u64 {
    let line = message.iter().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {message:?}"))
        .parse()
        .unwrap()
}

#[test]
fn ready_is_said_once_connections_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::listen(dir.path());
    let program = manager.start(dir.path(), &[]);
    let status = format!("STATUS=listening on https://{}", program.address());
    assert_eq!(manager.next(), ["READY=1", &status]);
    TcpStream::connect(program.address()).unwrap();
    // It was not asked to say that it is alive, so the next that it says is that it stops.
    terminate(&program);
    assert_eq!(manager.next()[0], "STOPPING=1");
}

#[test]
fn ready_is_never_said_by_a_start_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::listen(dir.path());
    let mut program = manager.start(dir.path(), &[]);
    assert_eq!(manager.next()[0], "READY=1");
    program.kill();
    // What it needs last: everything before this has been done when it fails.
    std::fs::write(dir.path().join("store.redb"), b"no config store").unwrap();
    let failed = program.command("serve").wait().unwrap();
    assert_eq!(failed.code(), Some(1), "{}", program.log());
    assert!(!manager.has_message());
}

#[test]
fn alive_is_said_twice_as_often_as_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::listen(dir.path());
    let asked = Duration::from_millis(400);
    let micros = asked.as_micros().to_string();
    let program = manager.start(dir.path(), &[("WATCHDOG_USEC", &micros)]);
    assert_eq!(manager.next()[0], "READY=1");
    assert_eq!(manager.next(), ["WATCHDOG=1"]);
    let start = std::time::Instant::now();
    let (pulses, slack) = (5, Duration::from_millis(100));
    for _ in 0..pulses {
        assert_eq!(manager.next(), ["WATCHDOG=1"]);
    }
    // Never faster than that; how slow a busy machine makes it, is not the program's to say.
    assert!(start.elapsed() + slack > pulses * asked / 2);
    drop(program);
}

#[tokio::test(flavor = "multi_thread")]
async fn alive_is_not_said_on_behalf_of_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::listen(dir.path());
    let other = [("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")];
    let program = manager.start(dir.path(), &other);
    assert_eq!(manager.next()[0], "READY=1");
    // This takes longer than the millisecond after which it would have to say so.
    let client = program.client("http/1.1").await;
    assert_eq!(client.ask(Ask::get("/v1/basins")).await.status, 502);
    terminate(&program);
    assert_eq!(manager.next()[0], "STOPPING=1");
}

#[test]
fn stopping_says_how_long_the_drain_may_take() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::listen(dir.path());
    // More than the manager's own 32 bits of microseconds hold.
    let drain = [
        ("STREAMSEAL_LIMITS__DRAIN_TIMEOUT", "2h"),
        ("WATCHDOG_USEC", "100000"),
    ];
    let program = manager.start(dir.path(), &drain);
    assert_eq!(manager.next_state()[0], "READY=1");
    terminate(&program);
    let stopping = manager.next_state();
    assert_eq!(stopping[0], "STOPPING=1");
    let time = micros(&stopping, "EXTEND_TIMEOUT_USEC=");
    assert!(Duration::from_micros(time) > Duration::from_secs(2 * 60 * 60));
}

/// Whether this process is one that a test started by [`itself_as_service`].
fn is_service() -> bool {
    env::var_os(SERVICE).is_some()
}

/// Runs the test of this name again, in a process of its own that is the manager's service.
fn itself_as_service(test: &str, manager: &Manager) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("systemd::{test}")])
        .env(SERVICE, "1")
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", PULSE.as_micros().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn alive_is_not_said_while_the_runtime_is_stuck() {
    if is_service() {
        return be_stuck_until_told();
    }
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::listen(dir.path());
    let mut service = itself_as_service("alive_is_not_said_while_the_runtime_is_stuck", &manager);
    assert_eq!(manager.next(), ["WATCHDOG=1"]);
    assert_eq!(manager.next_state(), ["READY=1", "STATUS=stuck"]);
    manager.socket.set_read_timeout(Some(PULSE * 5)).unwrap();
    // One may have been under way.
    let late = std::iter::from_fn(|| manager.socket.recv(&mut [0; 4096]).ok());
    assert!(late.take(10).count() <= 1);
    manager.socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut input = service.stdin.take().unwrap();
    input.write_all(b"\n").unwrap();
    assert_eq!(manager.next(), ["WATCHDOG=1"]);
    drop(input);
    assert!(service.wait().unwrap().success());
}

/// A runtime whose only thread is kept, from a while after its start on, until a line comes in. It ends
/// when there are no more.
fn be_stuck_until_told() {
    let read_line = || std::io::stdin().read_line(&mut String::new()).unwrap();
    let one = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    one.unwrap().block_on(async {
        notify::watchdog();
        let stuck = tokio::spawn(async move {
            let start = tokio::time::Instant::now() + PULSE;
            tokio::time::interval_at(start, PULSE).tick().await;
            notify::ready("stuck");
            read_line();
        });
        stuck.await.unwrap();
        tokio::task::spawn_blocking(read_line).await.unwrap();
    });
}

#[test]
fn reload_is_told_with_its_time_and_then_ready() {
    if is_service() {
        return drop(notify::reloading());
    }
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::listen(dir.path());
    let mut service = itself_as_service("reload_is_told_with_its_time_and_then_ready", &manager);
    assert!(service.wait().unwrap().success());
    let reloading = manager.next();
    assert_eq!(reloading[0], "RELOADING=1");
    assert!(micros(&reloading, "MONOTONIC_USEC=") > 0);
    assert_eq!(manager.next(), ["READY=1"]);
}
