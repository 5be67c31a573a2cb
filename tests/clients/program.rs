//! A program that uses a client library, and how it is run.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use super::{BASIN, KEY, MARKER, harness::base64};

/// What the slowest program may take on a busy machine. A healthy one takes seconds.
const PATIENCE: Duration = Duration::from_secs(240);

/// A client program, as `tests/clients/install` left it. Paths are relative to where that installs.
pub struct Program {
    /// The interpreter.
    command: &'static str,
    arguments: &'static [&'static str],
    /// Where its packages are.
    packages: &'static str,
    /// The variable that names the authority to trust.
    authority: &'static str,
}

/// The TypeScript SDK from npm. The options keep node from looking for packages beside the sources.
pub const TYPESCRIPT: Program = Program {
    command: "node",
    arguments: &[
        "--preserve-symlinks",
        "--preserve-symlinks-main",
        "typescript/program/client.mjs",
    ],
    packages: "typescript/node_modules/@s2-dev/streamstore/package.json",
    authority: "NODE_EXTRA_CA_CERTS",
};

/// The Python SDK from PyPI.
pub const PYTHON: Program = Program {
    command: "python/bin/python",
    arguments: &["-B", "python/program/client.py"],
    packages: "python/bin/python",
    authority: "SSL_CERT_FILE",
};

impl Program {
    /// Runs it against a proxy on this port, and insists that it ends well.
    pub async fn run(&self, dir: &Path, port: u16, authority: &Path, cipher: Option<&str>) {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let installed = target.join("clients");
        let packages = installed.join(self.packages);
        let is_there = packages.exists();
        assert!(is_there, "no {packages:?}: run tests/clients/install first");
        let output = dir.join("output");
        let file = File::create(&output).unwrap();
        let command = match self.command.contains('/') {
            true => installed.join(self.command),
            false => self.command.into(),
        };
        let child = Command::new(command)
            .args(self.arguments)
            .current_dir(&installed)
            .env(self.authority, authority)
            .env("CLIENT_ENDPOINT", format!("https://localhost:{port}"))
            .env("CLIENT_BASIN", BASIN)
            .env("CLIENT_CIPHER", cipher.unwrap_or_default())
            .env("CLIENT_KEY", base64(&KEY))
            .env("CLIENT_MARKER", MARKER)
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn();
        let running = Running(child.unwrap());
        let ended = tokio::time::timeout(PATIENCE, running.end()).await;
        let said = std::fs::read_to_string(output).unwrap();
        let well = ended.as_ref().is_ok_and(ExitStatus::success);
        assert!(well, "it ended with {ended:?} and said:\n{said}");
    }
}

/// A process, which is killed when it is dropped.
struct Running(Child);

impl Running {
    async fn end(mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
