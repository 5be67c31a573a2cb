//! The program itself, as an operator starts it, with its log in a file.

use std::{
    fs,
    io::{self, BufRead as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Client, until};

/// A running `streamseal serve`, which is killed when it is dropped.
pub struct Program {
    dir: PathBuf,
    filter: String,
    environment: Vec<(String, String)>,
    certificate: String,
    running: Option<(Child, SocketAddr)>,
    admin: Option<SocketAddr>,
}

impl Program {
    /// Starts it with everything in `dir`, and the log of this filter in `dir/log`.
    pub fn start(dir: &Path, upstream: SocketAddr, streams: &Value, filter: &str) -> Self {
        Self::with(dir, upstream, &json!({ "streams": streams }), filter)
    }

    /// The same, with these sections of the configuration besides, or instead.
    pub fn with(dir: &Path, upstream: SocketAddr, sections: &Value, filter: &str) -> Self {
        Self::start_in(dir, upstream, sections, filter, &[])
    }

    /// The same with these environment variables.
    pub fn start_in(
        dir: &Path,
        upstream: SocketAddr,
        sections: &Value,
        filter: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.pem();
        fs::write(dir.join("cert.pem"), &certificate).unwrap();
        fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let endpoint = format!("http://{upstream}");
        let tls = json!({ "cert_file": dir.join("cert.pem"), "key_file": dir.join("key.pem") });
        let mut config = json!({
            "listen": { "address": "127.0.0.1:0", "tls": tls },
            "admin": { "address": "" },
            "upstream": { "account_endpoint": endpoint, "basin_endpoint": endpoint },
            "store": { "path": dir.join("store.redb"), "create": true },
        });
        merge(&mut config, sections);
        let text = toml::to_string(&config).unwrap();
        fs::write(dir.join("streamseal.toml"), text).unwrap();
        let mut program = Self {
            dir: dir.to_owned(),
            filter: filter.to_owned(),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            certificate,
            running: None,
            admin: None,
        };
        program.start_again();
        program
    }

    /// Starts it on what an earlier run left.
    pub fn start_again(&mut self) {
        self.kill();
        let mut child = self.command("serve");
        let mut lines = io::BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next = || {
            let line = lines.next().and_then(Result::ok).unwrap_or_default();
            match line.trim().rsplit('/').next().unwrap().parse() {
                Ok(address) => address,
                Err(_) => panic!("does not start: {line:?} {}", self.log()),
            }
        };
        let address = next();
        self.admin = self.has_admin().then(next);
        self.running = Some((child, address));
    }

    fn has_admin(&self) -> bool {
        let file = fs::read_to_string(self.dir.join("streamseal.toml")).unwrap();
        let config: Value = toml::from_str(&file).unwrap();
        config["admin"]["address"] != ""
    }

    /// Where its admin listener is, if the test turned it on.
    pub fn admin(&self) -> SocketAddr {
        self.admin.expect("the test turned it on")
    }

    /// Runs one of its commands with the same configuration.
    pub fn command(&self, command: &str) -> Child {
        let mut log = fs::File::options();
        let log = log.create(true).append(true).open(self.dir.join("log"));
        // A write beyond the process's limit is to fail, as on a full disk, and not to kill it.
        Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(program())
            .args([command, "--config"])
            .arg(self.dir.join("streamseal.toml"))
            .env("STREAMSEAL_LOG", &self.filter)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(log.unwrap())
            .spawn()
            .unwrap()
    }

    /// Kills it as `kill -9` does: nothing of it runs any more when this returns.
    pub fn kill(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.id()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// Waits until it has ended by itself, and returns its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let (mut child, _) = self.running.take().expect("it is killed");
        let mut code = None;
        until("the program ends", async || {
            code = child.try_wait().unwrap();
            code.is_some()
        })
        .await;
        code.unwrap().code()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.running.as_ref().expect("it is killed").1
    }

    /// Adds to its configuration, for the next start.
    pub fn configure(&self, more: &str) {
        let file = self.dir.join("streamseal.toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{text}\n{more}")).unwrap();
    }

    /// Asks it to stop and waits until it did.
    pub fn stop(&mut self) {
        let (mut child, _) = self.running.take().expect("it is killed");
        terminate(&child);
        assert!(child.wait().unwrap().success());
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.running.as_ref().expect("it is killed").0.id()
    }

    /// How many connections clients have to it.
    pub fn connections(&self) -> usize {
        let (child, address) = self.running.as_ref().expect("it is killed");
        super::connections(child.id(), address.port())
    }

    /// What it logged, in all its runs.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("log")).unwrap()).into_owned()
    }

    /// A client of it, with this ALPN protocol.
    pub async fn client(&self, alpn: &str) -> Client {
        let (_, address) = self.running.as_ref().expect("it is killed");
        Client::tls(*address, &self.certificate, alpn).await
    }

    /// The most memory that it ever took, in bytes.
    pub fn peak_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: usize = line
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap();
        kib * 1024
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// The program that is tested: `STREAMSEAL_PROGRAM`, a release build say, or else the one built with the tests.
fn program() -> std::ffi::OsString {
    let ours = || env!("CARGO_BIN_EXE_streamseal").into();
    std::env::var_os("STREAMSEAL_PROGRAM").unwrap_or_else(ours)
}

/// Asks a process to stop.
pub fn terminate(child: &Child) {
    let mut kill = Command::new("kill");
    let killed = kill.args(["-TERM", &child.id().to_string()]).status();
    assert!(killed.unwrap().success());
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}
