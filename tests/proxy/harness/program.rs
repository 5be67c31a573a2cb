//! The program itself, as an operator starts it, with its log in a file.

use std::{
    io::{self, BufRead as _},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use super::{Client, Lite};

/// A running `streamseal serve`, which is killed when it is dropped.
pub struct Program {
    child: Child,
    address: SocketAddr,
    certificate: String,
}

impl Program {
    /// Starts it with everything in `dir`, and the log of this filter in `dir/log`.
    pub fn start(dir: &Path, upstream: &Lite, streams: &Value, filter: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.pem();
        std::fs::write(dir.join("cert.pem"), &certificate).unwrap();
        std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let endpoint = format!("http://{}", upstream.address);
        let tls = json!({ "cert_file": dir.join("cert.pem"), "key_file": dir.join("key.pem") });
        let config = json!({
            "listen": { "address": "127.0.0.1:0", "tls": tls },
            "upstream": { "account_endpoint": endpoint, "basin_endpoint": endpoint },
            "store": { "path": dir.join("store.redb"), "create": true },
            "streams": streams,
        });
        let file = dir.join("streamseal.toml");
        std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_streamseal"))
            .args(["serve", "--config"])
            .arg(file)
            .env("STREAMSEAL_LOG", filter)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        io::BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim().rsplit('/').next().unwrap().parse();
        Self {
            child,
            address: address.unwrap_or_else(|_| panic!("{line:?}")),
            certificate,
        }
    }

    /// A client of it, with this ALPN protocol.
    pub async fn client(&self, alpn: &str) -> Client {
        Client::tls(self.address, &self.certificate, alpn).await
    }

    /// The most memory that it ever took, in bytes.
    pub fn peak_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
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
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
