//! A directory in place of a host: the configuration, keys and certificates, the running program, a shell.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rcgen::DnType;

use crate::{
    Changes,
    harness::{self, Authority},
    readme::Section,
};

const MANIFEST: &str = include_str!("../../Cargo.toml");

/// The program, and what belongs to it. The program is killed when this is dropped.
pub struct Host {
    dir: tempfile::TempDir,
    running: Option<Running>,
}

struct Running {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Host {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, running: None }
    }

    /// The directory, for paths in commands.
    pub fn path(&self) -> String {
        self.dir.path().to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// Makes the certificates that the README takes for given: the proxy's, a client's, and their authorities'.
    pub fn certify(&self) {
        let authority = Authority::new("servers");
        authority.issue("proxy").write(self.dir.path(), "tls");
        self.write("ca.pem", &authority.pem());
        self.write("s2-ca.pem", &authority.pem());
        let authority = Authority::new("clients");
        let client = authority.issue_with("legacy-1", |params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            let name = &mut params.distinguished_name;
            name.push(DnType::OrganizationName, "Example");
            name.push(DnType::CommonName, "legacy-1");
        });
        client.write(self.dir.path(), "legacy-1");
        self.write("clients-ca.pem", &authority.pem());
    }

    /// Writes the configuration with these changes.
    pub fn configure(&self, config: &str, changes: Changes) {
        self.write("streamseal.toml", &changed(config, changes));
    }

    /// Runs the commands of "Run it", the last of which serves until this is dropped.
    pub fn start(&mut self) {
        let commands = Section::of("## Run it").only("sh");
        let (install, commands) = commands.split_once('\n').unwrap();
        assert_eq!(install, "cargo install --path .");
        let (commands, serve) = commands.rsplit_once('\n').unwrap();
        assert!(serve.starts_with("streamseal serve "), "{serve}");
        self.run(commands, &[]);
        let log = fs::File::create(self.dir.path().join("log")).unwrap();
        let mut child = self
            .shell(&format!("exec {serve}"))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next = || {
            let line = lines.next().and_then(Result::ok).unwrap_or_default();
            let address = line
                .trim()
                .trim_end_matches('/')
                .rsplit('/')
                .next()
                .unwrap();
            address.parse().unwrap_or_else(|_| {
                let log = fs::read_to_string(self.dir.path().join("log")).unwrap();
                panic!("does not start: {line:?} {log}")
            })
        };
        let (address, admin) = (next(), next());
        self.running = Some(Running {
            child,
            address,
            admin,
        });
    }

    /// Where the program listens.
    pub fn address(&self) -> SocketAddr {
        self.running.as_ref().expect("it is started").address
    }

    /// Where its admin listener is.
    pub fn admin(&self) -> SocketAddr {
        self.running.as_ref().expect("it is started").admin
    }

    /// Runs commands with these changes, up to the first that fails, which fails the test. What they print.
    pub fn run(&self, commands: &str, changes: Changes) -> String {
        let commands = changed(commands, changes);
        let ran = self.shell(&commands).output().unwrap();
        let out = String::from_utf8(ran.stdout).unwrap();
        let err = String::from_utf8(ran.stderr).unwrap();
        assert!(ran.status.success(), "{}\n{err}\n{out}", ran.status);
        out
    }

    /// A shell with the program and the CLI, which says each command before it runs.
    fn shell(&self, commands: &str) -> Command {
        let ours = Path::new(env!("CARGO_BIN_EXE_streamseal"))
            .parent()
            .unwrap();
        let cli = cli();
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{}:{path}", ours.display(), cli.display());
        let mut shell = Command::new("timeout");
        shell
            .args(["300", "bash", "-euxo", "pipefail", "-c", commands])
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.dir.path())
            .env("S2_NO_UPDATE_CHECK", "1")
            // As the configurations have it, but on free ports.
            .env("STREAMSEAL_LISTEN__ADDRESS", "127.0.0.1:0")
            .env("STREAMSEAL_ADMIN__ADDRESS", "127.0.0.1:0")
            .stdin(Stdio::null());
        shell
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            harness::terminate(&running.child);
            running.child.wait().unwrap();
        }
    }
}

/// The text with these changes, each of which must change something.
fn changed(text: &str, changes: Changes) -> String {
    let mut text = text.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "no {from} in:\n{text}");
        text = text.replace(from, to);
    }
    text
}

/// Where `tests/deployments/install` put the CLI, which is of the version of the upstream of the tests.
fn cli() -> PathBuf {
    let (_, version) = MANIFEST.split_once("s2-lite = { version = \"=").unwrap();
    let (version, _) = version.split_once('"').unwrap();
    let tools = match std::env::var_os("STREAMSEAL_TOOLS") {
        Some(tools) => PathBuf::from(tools),
        None => Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/streamseal"),
    };
    let installed = tools.join(format!("s2-{version}/bin"));
    let is_there = installed.join("s2").exists();
    assert!(
        is_there,
        "no s2 in {installed:?}: run tests/deployments/install first"
    );
    installed
}
