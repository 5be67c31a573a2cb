//! `streamseal project` and `streamseal apikey`: keys on standard output alone, from files alone, and in no log.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use crate::{
    harness::{Ask, Lite, Program, Ran, Stack, base64, leaks},
    projects::stack,
};

/// The command line of one proxy.
struct Commands {
    url: String,
    dir: tempfile::TempDir,
}

impl Commands {
    fn of(admin: std::net::SocketAddr) -> Self {
        Self {
            url: format!("http://{admin}"),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let admin = ["--admin", &self.url];
        Ran::of(arguments.iter().chain(&admin).copied())
    }

    /// With the API key of this file.
    fn keyed(&self, file: &str, arguments: &[&str]) -> Ran {
        let file = self.file(file);
        let key = ["--api-key-file", file.to_str().unwrap()];
        self.run(&[&["apikey"], arguments, &key].concat())
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Keeps an API key that was printed in a file, as `>` does.
    fn keep(&self, file: &str, ran: Ran) -> String {
        assert_eq!(ran.code, 0, "{ran:?}");
        let key = ran.out.trim_end();
        assert!(key.starts_with("sk-ss-") && key.len() == 82, "{ran:?}");
        assert_eq!(ran.out, format!("{key}\n"));
        assert!(!ran.err.contains(&key[6..20]), "{}", ran.err);
        assert!(
            ran.err.contains("loses its data; there is no recovery"),
            "{}",
            ran.err
        );
        fs::write(self.file(file), &ran.out).unwrap();
        key.to_owned()
    }
}

async fn is_good(stack: &Stack, key: &str) -> bool {
    let ask = Ask::get("/v1/streams").header("authorization", format!("Bearer {key}"));
    stack.h2().await.ask(ask).await.status != 401
}

/// The id in the line of a table that holds this.
fn id_of(table: &str, what: &str) -> String {
    let line = table.lines().find(|line| line.contains(what));
    let line = line.unwrap_or_else(|| panic!("no {what} in {table}"));
    line.split(' ').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_and_its_keys_live_by_commands() {
    let stack = stack().await;
    let commands = Commands::of(stack.admin.unwrap());
    let first = commands.keep("first", commands.run(&["project", "create", "payments"]));
    let listed = commands.run(&["project", "list"]).ok();
    assert!(
        listed.contains("payments  created      1         1           test-*/**"),
        "{listed}"
    );
    assert!(
        listed.contains("other     not created  0         -           other-*/**"),
        "{listed}"
    );
    let exists = commands.run(&["project", "create", "payments"]).failed();
    assert!(exists.contains("exists already"), "{exists}");

    let create = ["create", "--scope", "append", "--scope", "read"];
    let create = [&create[..], &["--label", "the CI", "--expires-in", "30d"]].concat();
    let ci = commands.keep("ci", commands.keyed("first", &create));
    assert!(is_good(&stack, &ci).await);
    let denied = commands.keyed("ci", &["list"]).failed();
    assert!(denied.contains("scope `manage`"), "{denied}");

    let second = commands.keep("second", commands.keyed("first", &["rotate"]));
    let table = commands.keyed("second", &["list"]).ok();
    assert!(table.starts_with("ID"), "{table}");
    let first_id = id_of(&table, "retiring until");
    assert!(id_of(&table, "active (this one)").starts_with("key-"));
    let ci_id = id_of(&table, "the CI  append,read");
    let twice = commands
        .keyed("first", &["rotate", "--grace", "1h"])
        .failed();
    assert!(twice.contains("has a successor already"), "{twice}");

    for id in [&first_id, &ci_id] {
        let said = commands.keyed("second", &["revoke", "--id", id]).ok();
        assert_eq!(said, format!("revoked API key {id}\n"));
    }
    assert!(!is_good(&stack, &first).await && !is_good(&stack, &ci).await);
    let second_id = id_of(&table, "(this one)");
    let last = commands
        .keyed("second", &["revoke", "--id", &second_id])
        .failed();
    assert!(
        last.contains("losing every API key of a project loses its data"),
        "{last}"
    );
    assert!(is_good(&stack, &second).await);
    commands
        .keyed("second", &["revoke", "--id", &second_id, "--force"])
        .ok();
    assert!(!is_good(&stack, &second).await);
    commands.keep(
        "third",
        commands.run(&["project", "create", "payments", "--again"]),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_from_files_and_standard_input_alone() {
    let stack = stack().await;
    let commands = Commands::of(stack.admin.unwrap());
    let key = commands.keep("key", commands.run(&["project", "create", "payments"]));
    let piped = Command::new("sh")
        .args([
            "-c",
            "\"$0\" apikey list --admin \"$1\" --api-key-file - < \"$2\"",
        ])
        .arg(env!("CARGO_BIN_EXE_streamseal"))
        .arg(&commands.url)
        .arg(commands.file("key"))
        .output()
        .unwrap();
    assert!(piped.status.success(), "{piped:?}");
    for (name, content) in [
        ("empty", ""),
        ("short", &key[..81]),
        ("two", &format!("{key}\n{key}\n")),
        ("other", "not-an-api-key"),
    ] {
        fs::write(commands.file(name), content).unwrap();
        let ran = commands.keyed(name, &["list"]);
        assert_eq!(ran.code, 64, "{name}: {ran:?}");
        assert!(ran.err.contains("does not hold one API key"), "{}", ran.err);
        assert!(!ran.err.contains(&key[6..20]), "{}", ran.err);
    }
    for arguments in [
        &["apikey", "list", "--api-key", &key][..],
        &["apikey", "create", "--api-key-file", "x"],
        &["apikey", "rotate", "--api-key-file", "x", "--grace", "soon"],
        &["project", "create", "a b"],
    ] {
        assert_eq!(commands.run(arguments).code, 64, "{arguments:?}");
    }
}

/// The pepper of the program's project.
pub const PEPPER: [u8; 32] = [3; 32];

/// The program, with one project.
pub fn start(dir: &Path, lite: &Lite, filter: &str) -> Program {
    let pepper = dir.join("pepper");
    fs::write(&pepper, base64(&PEPPER)).unwrap();
    let sections = json!({
        "listen": { "authenticate": "api-key" },
        "admin": { "address": "127.0.0.1:0" },
        "projects": [{ "name": "payments", "match": ["test-*/**"], "pepper_file": pepper }],
        "audit": { "file": dir.join("audit") },
    });
    Program::with(dir, lite.address, &sections, filter)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_in_the_loudest_log() {
    let dir = tempfile::tempdir().unwrap();
    let lite = Lite::start().await;
    let loudest = "trace,h2=trace,hyper=trace,rustls=trace";
    let mut program = start(dir.path(), &lite, loudest);
    let commands = Commands::of(program.admin());
    let first = commands.keep("first", commands.run(&["project", "create", "payments"]));
    let reader = commands.keep(
        "ci",
        commands.keyed("first", &["create", "--scope", "read"]),
    );
    let second = commands.keep("second", commands.keyed("first", &["rotate"]));
    let table = commands.keyed("second", &["list"]).ok();
    let reader_id = id_of(&table, "  read  ");
    commands
        .keyed("second", &["revoke", "--id", &reader_id])
        .ok();
    for file in ["ci", "first"] {
        for client in [program.client("h2").await, program.client("http/1.1").await] {
            let key = fs::read_to_string(commands.file(file)).unwrap();
            let bearer = format!("Bearer {}", key.trim());
            client
                .ask(Ask::get("/v1/streams").header("authorization", bearer))
                .await;
        }
        commands.keyed(file, &["rotate", "--id", "key-0"]).failed();
    }
    let program = tokio::task::spawn_blocking(move || {
        program.stop();
        program
    });
    let log = program.await.unwrap().log();
    for said in [
        "project created",
        "API key issued",
        "API key rotated",
        "API key revoked",
        &reader_id,
    ] {
        assert!(log.contains(said), "not in the log: {said}");
    }
    let audit = fs::read(dir.path().join("audit")).unwrap();
    assert!(!audit.is_empty());
    for key in [&first, &reader, &second] {
        for part in [&key[8..40], &key[40..]] {
            assert!(!leaks(log.as_bytes(), part.as_bytes()), "in the log");
            assert!(!leaks(&audit, part.as_bytes()), "in the audit log");
        }
    }
}
