//! A program that runs takes new files when it is told to or sees them, and says what it did not take.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use serde_json::{Value, json};

use crate::harness::{
    Answer, Ask, Authority, BASIN, Client, KEY, Lite, Program, base64, meet, presenting, records,
    until,
};

struct Running {
    dir: tempfile::TempDir,
    lite: Lite,
    program: Program,
    client: Client,
}

impl Running {
    /// A program with these stream rules, and a basin.
    async fn start(streams: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("stream.key"), base64(&KEY)).unwrap();
        let lite = Lite::start().await;
        let program = Program::start(dir.path(), lite.address, &streams, "info");
        let client = program.client("h2").await;
        let config = json!({ "create_stream_on_append": true });
        let basin = json!({ "basin": BASIN, "config": config });
        let made = client.ask(Ask::post("/v1/basins").json(&basin)).await;
        assert_eq!(made.status, 201, "{}", made.text());
        Self {
            dir,
            lite,
            program,
            client,
        }
    }

    /// Changes the configuration file.
    fn write(&self, change: impl FnOnce(&mut toml::Table)) {
        let file = self.config();
        let mut config: toml::Table = fs::read_to_string(&file).unwrap().parse().unwrap();
        change(&mut config);
        fs::write(file, config.to_string()).unwrap();
    }

    fn config(&self) -> std::path::PathBuf {
        self.dir.path().join("streamseal.toml")
    }

    fn hang_up(&self) {
        let id = self.program.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-HUP", &id])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits until this was logged so often.
    async fn logged(&self, what: &str, times: usize) {
        until(what, async || {
            self.program.log().matches(what).count() >= times
        })
        .await;
        assert_eq!(self.program.log().matches(what).count(), times, "{what}");
    }

    async fn append(&self, stream: &str) -> Answer {
        let batch = json!({ "records": [{ "body": "a body" }] });
        self.client
            .ask(Ask::post(records(stream)).json(&batch))
            .await
    }
}

/// Rules for streams whose key the program has.
fn own_key(dir: &Path, glob: &str) -> toml::Value {
    let rule = json!([{ "match": glob, "cipher": "aegis-256", "key": "file",
        "key_file": dir.join("stream.key") }]);
    toml::Value::try_from(rule).unwrap()
}

const APPLIED: &str = "configuration reloaded";
const REFUSED: &str = "configuration refused, the one before stays in force";
const SEEN: &str = "reloading the configuration: a file changed";
const TOLD: &str = "reloading the configuration: SIGHUP";

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_reloads_at_once() {
    let running = Running::start(json!([])).await;
    running.hang_up();
    running.logged(TOLD, 1).await;
    running.logged(APPLIED, 1).await;
    let rules = own_key(running.dir.path(), "test-basin/sealed");
    running.write(|config| drop(config.insert("streams".into(), rules)));
    running.hang_up();
    running.logged(APPLIED, 2).await;
    assert_eq!(running.append("sealed").await.status, 200);
    let body = json!("a body");
    let direct = Client::plain(running.lite.address).await;
    let stored = direct.ask(Ask::get(records("sealed") + "?seq_num=0")).await;
    assert_ne!(stored.json()["records"][0]["body"], body);
    let read = running
        .client
        .ask(Ask::get(records("sealed") + "?seq_num=0"))
        .await;
    assert_eq!(read.json()["records"][0]["body"], body);
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_files_are_noticed_and_bad_ones_refused_until_they_are_good() {
    let running = Running::start(json!([])).await;
    let rules = own_key(running.dir.path(), "test-basin/**");
    let key = running.dir.path().join("stream.key");
    running.write(|config| drop(config.insert("streams".into(), rules)));
    running.logged(APPLIED, 1).await;
    assert_eq!(running.append("s").await.status, 200);
    // A file that is named only since the last reload.
    fs::write(&key, "this is no key").unwrap();
    running.logged(REFUSED, 1).await;
    assert!(running.program.log().contains("streams[0].key_file"));
    assert!(!running.program.log().contains("this is no key"));
    assert_eq!(running.append("s").await.status, 200);
    fs::write(&key, base64(&KEY)).unwrap();
    running.logged(APPLIED, 2).await;
    let good = fs::read(running.config()).unwrap();
    fs::write(running.config(), "[listen\n").unwrap();
    running.logged(REFUSED, 2).await;
    running.logged("cannot be parsed", 1).await;
    fs::remove_file(running.config()).unwrap();
    running.logged(REFUSED, 3).await;
    running.logged("cannot read the configuration", 1).await;
    assert_eq!(running.append("s").await.status, 200);
    fs::write(running.config(), good).unwrap();
    running.logged(APPLIED, 3).await;
    running.write(|config| {
        let limits = json!({ "drain_timeout": "1s" });
        config.insert("limits".into(), toml::Value::try_from(limits).unwrap());
    });
    running
        .logged("take effect at the next start: limits.drain_timeout", 1)
        .await;
    assert_eq!(running.append("s").await.status, 200);
    // Each change once, and nothing without one.
    assert_eq!(running.program.log().matches(SEEN).count(), 7);
    assert!(!running.program.log().contains(TOLD));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_its_key_waits_for_it() {
    let running = Running::start(json!([])).await;
    let at = |name: &str| running.dir.path().join(name);
    let authority = Authority::new("servers");
    let pem = authority.pem();
    let trusting = presenting([pem.as_str()], None);
    let address: SocketAddr = running.program.address();
    let meets = async || meet(address, &trusting, Ask::get("/v1/basins")).await;
    assert!(meets().await.is_err());
    let next = authority.issue("next");
    fs::write(at("cert.pem"), &next.pem).unwrap();
    running.logged(REFUSED, 1).await;
    assert!(running.program.log().contains("listen.tls.cert_file"));
    assert!(meets().await.is_err());
    running
        .program
        .client("h2")
        .await
        .ask(Ask::get("/v1/basins"))
        .await;
    // As Kubernetes and certbot do it: another file in the place of the old one.
    fs::write(at("key.new"), &next.key_pem).unwrap();
    fs::rename(at("key.new"), at("key.pem")).unwrap();
    running.logged(APPLIED, 1).await;
    assert_eq!(meets().await.unwrap().0.certificate, next.der());
    assert_eq!(running.client.ask(Ask::get("/v1/basins")).await.status, 200);
    assert_eq!(running.program.log().matches(REFUSED).count(), 1);
}
