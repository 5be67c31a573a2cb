//! The program itself, as an operator starts it, with its log in a file.

use std::{
    fs,
    io::{self, BufRead as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use super::Client;

/// A running `streamseal serve`, which is killed when it is dropped.
pub struct Program {
    dir: PathBuf,
    filter: String,
    certificate: String,
    running: Option<(Child, SocketAddr)>,
}

impl Program {
    /// Starts it with everything in `dir`, and the log of this filter in `dir/log`.
    pub fn start(dir: &Path, upstream: SocketAddr, streams: &Value, filter: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.pem();
        fs::write(dir.join("cert.pem"), &certificate).unwrap();
        fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let endpoint = format!("http://{upstream}");
        let tls = json!({ "cert_file": dir.join("cert.pem"), "key_file": dir.join("key.pem") });
        let config = json!({
            "listen": { "address": "127.0.0.1:0", "tls": tls },
            "upstream": { "account_endpoint": endpoint, "basin_endpoint": endpoint },
            "store": { "path": dir.join("store.redb"), "create": true },
            "streams": streams,
        });
        let text = toml::to_string(&config).unwrap();
        fs::write(dir.join("streamseal.toml"), text).unwrap();
        let mut program = Self {
            dir: dir.to_owned(),
            filter: filter.to_owned(),
            certificate,
            running: None,
        };
        program.start_again();
        program
    }

    /// Starts it on what an earlier run left.
    pub fn start_again(&mut self) {
        self.kill();
        let mut child = self.command("serve");
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        io::BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim().rsplit('/').next().unwrap().parse();
        let Ok(address) = address else {
            panic!("does not start: {line:?} {}", self.log());
        };
        self.running = Some((child, address));
    }

    /// Runs one of its commands with the same configuration.
    pub fn command(&self, command: &str) -> Child {
        let mut log = fs::File::options();
        let log = log.create(true).append(true).open(self.dir.join("log"));
        // A write beyond the process's limit is to fail, as on a full disk, and not to kill it.
        Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(env!("CARGO_BIN_EXE_streamseal"))
            .args([command, "--config"])
            .arg(self.dir.join("streamseal.toml"))
            .env("STREAMSEAL_LOG", &self.filter)
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

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}
