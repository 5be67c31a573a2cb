//! `streamseal stream migrate` and `streamseal stream verify`, run as the program that they are.

mod copies;
mod crash;
mod heads;
mod managed;
mod others;
mod refusals;
mod verify;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use prost::Message as _;
use s2_api::v1::stream::proto::{AppendInput, AppendRecord, Header, ReadBatch, SequencedRecord};
use serde_json::{Value, json};

use crate::harness::{Ask, BASIN, Client, KEY, Lite, Ran, Stack, base64, records};

/// A proxy over a plain store, and files for the commands.
struct World {
    stack: Stack,
    dir: tempfile::TempDir,
}

/// One of the endpoints that a command can be sent to, and a client of the test's own to look there.
struct End {
    url: String,
    client: Client,
    key: Option<[u8; 32]>,
    key_file: Option<PathBuf>,
}

impl World {
    /// With a basin that gives new streams this cipher.
    async fn start(cipher: Option<&str>) -> Self {
        let stack = Stack::start().await;
        stack.create_basin(cipher).await;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), &stack.certificate).unwrap();
        Self { stack, dir }
    }

    /// From now on, new streams get this cipher.
    async fn cipher(&self, cipher: Option<&str>) {
        let ask = Ask::new("PATCH", format!("/v1/basins/{BASIN}"));
        let ask = ask.json(&json!({ "stream_cipher": cipher }));
        let answer = self.stack.h2().await.ask(ask).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// The proxy, with a key or without.
    async fn proxy(&self, key: Option<[u8; 32]>) -> End {
        let client = self.stack.h2().await;
        // The source is filled first, which may take longer than a connection has for its first request.
        client.ask(Ask::get("/v1/basins?limit=1")).await;
        End {
            url: format!("https://localhost:{}", self.stack.address.port()),
            client,
            key,
            key_file: self.key_file(key),
        }
    }

    /// The store beneath it.
    async fn store(&self) -> End {
        self.lite(&self.stack.lite, None).await
    }

    /// Some S2.
    async fn lite(&self, lite: &Lite, key: Option<[u8; 32]>) -> End {
        End {
            url: format!("http://{}", lite.address),
            client: Client::plain(lite.address).await,
            key,
            key_file: self.key_file(key),
        }
    }

    fn key_file(&self, key: Option<[u8; 32]>) -> Option<PathBuf> {
        let key = key?;
        let file = self.dir.path().join(format!("{:x?}.key", key[0]));
        std::fs::write(&file, base64(&key)).unwrap();
        Some(file)
    }

    /// A command on streams that trusts the proxy's certificate, as every client of the SDK does.
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamseal"));
        command
            .arg("stream")
            .env("SSL_CERT_FILE", self.dir.path().join("ca.pem"));
        command
    }

    /// `stream migrate` of stream `from` into stream `to`.
    fn migrate(&self, from: &End, to: &End) -> Command {
        let mut command = self.command();
        let address = |name| format!("s2://{BASIN}/{name}");
        command.args(["migrate", &address("from"), &address("to")]);
        command.args(["--from-endpoint", &from.url, "--to-endpoint", &to.url]);
        for (option, file) in [
            ("--from-key-file", &from.key_file),
            ("--key-file", &to.key_file),
        ] {
            if let Some(file) = file {
                command.arg(option).arg(file);
            }
        }
        command
    }

    /// `stream verify` of a stream.
    fn verify(&self, end: &End, stream: &str) -> Command {
        let mut command = self.command();
        command.args(["verify", &format!("s2://{BASIN}/{stream}")]);
        command.args(["--endpoint", &end.url]);
        if let Some(file) = &end.key_file {
            command.arg("--key-file").arg(file);
        }
        command
    }
}

impl End {
    fn keyed(&self, ask: Ask) -> Ask {
        match &self.key {
            Some(key) => ask.key(key),
            None => ask,
        }
    }

    /// Makes a stream whose records keep whatever timestamps they come with.
    async fn create(&self, stream: &str) {
        let config = json!({
            "retention_policy": { "infinite": {} },
            "timestamping": { "mode": "client-prefer", "uncapped": true },
            "delete_on_empty": { "min_age_secs": 86400 },
        });
        self.create_as(stream, &config).await;
    }

    async fn create_as(&self, stream: &str, config: &Value) {
        let body = json!({ "stream": stream, "config": config });
        let answer = self.client.ask(Ask::post("/v1/streams").json(&body)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }

    async fn config(&self, stream: &str) -> Value {
        let answer = self
            .client
            .ask(Ask::get(format!("/v1/streams/{stream}")))
            .await;
        answer.json()
    }

    async fn append(&self, stream: &str, batch: Vec<AppendRecord>) {
        let input = AppendInput {
            records: batch,
            ..AppendInput::default()
        };
        let ask = Ask::post(records(stream)).body("application/protobuf", input.encode_to_vec());
        let answer = self.client.ask(self.keyed(ask)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Makes stream `from` of these records.
    async fn fill(&self, records: impl IntoIterator<Item = AppendRecord>) {
        self.create("from").await;
        let records: Vec<_> = records.into_iter().collect();
        for batch in records.chunks(500) {
            self.append("from", batch.to_vec()).await;
        }
    }

    async fn tail(&self, stream: &str) -> u64 {
        let answer = self.client.ask(Ask::get(records(stream) + "/tail")).await;
        answer.json()["tail"]["seq_num"].as_u64().unwrap_or(0)
    }

    /// Every record of a stream, through nothing but S2's own types.
    async fn all(&self, stream: &str) -> Vec<SequencedRecord> {
        let mut all: Vec<SequencedRecord> = Vec::new();
        loop {
            let next = all.last().map_or(0, |last| last.seq_num + 1);
            let ask = Ask::get(format!("{}?seq_num={next}", records(stream)))
                .header("accept", "application/protobuf");
            let answer = self.client.ask(self.keyed(ask)).await;
            if answer.status == 416 {
                return all;
            }
            assert_eq!(answer.status, 200, "{}", answer.text());
            let batch = ReadBatch::decode(answer.body).unwrap();
            assert!(!batch.records.is_empty());
            all.extend(batch.records);
        }
    }
}

/// Runs a command to its end.
fn ran(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Starts a command.
fn start(mut command: Command) -> Child {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn with<'a>(mut command: Command, arguments: impl IntoIterator<Item = &'a str>) -> Command {
    command.args(arguments);
    command
}

/// A record whose timestamp, headers and body are those of this number and no other.
fn record(number: u64) -> AppendRecord {
    let header = |name: &[u8], value: &[u8]| Header {
        name: Bytes::copy_from_slice(name),
        value: Bytes::copy_from_slice(value),
    };
    let headers = match number % 4 {
        0 => vec![],
        1 => vec![header(b"name", b"")],
        2 => vec![header(b"twice", b"a"), header(b"twice", b"a")],
        _ => vec![header(&[0xff, 0], &number.to_be_bytes())],
    };
    let body = match number % 5 {
        0 => Bytes::new(),
        _ => format!("{SECRET} {number} ")
            .repeat((number % 50) as usize)
            .into(),
    };
    AppendRecord {
        // Some at the same time, and all of them long before or long after now.
        timestamp: Some(1000 + number / 3 + if number > 60 { 9_000_000_000_000 } else { 0 }),
        headers,
        body,
    }
}

/// A command record.
fn command(number: u64, name: &str, body: &[u8]) -> AppendRecord {
    let headers = vec![Header {
        name: Bytes::new(),
        value: Bytes::copy_from_slice(name.as_bytes()),
    }];
    AppendRecord {
        headers,
        body: Bytes::copy_from_slice(body),
        ..record(number)
    }
}

/// Records with commands among them that trim nothing.
fn mixed(count: u64) -> Vec<AppendRecord> {
    let record = |number| match number {
        7 => command(number, "fence", b"token"),
        11 => command(number, "trim", &0_u64.to_be_bytes()),
        12 => command(number, "fence", b""),
        23 => command(number, "fence", b"the last token"),
        number => record(number),
    };
    (0..count).map(record).collect()
}

/// Whether no more of it than this is different: nothing.
fn assert_same(copy: &[SequencedRecord], original: &[SequencedRecord]) {
    assert_eq!(copy.len(), original.len());
    for (copy, original) in copy.iter().zip(original) {
        assert!(copy == original, "record {}", original.seq_num);
    }
}

/// What a file holds, for tests that write one by hand.
fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// In the body of most records.
const SECRET: &str = "what only those may see who read";

const OTHER_KEY: [u8; 32] = [7; 32];

/// Everybody's key.
fn key() -> Option<[u8; 32]> {
    Some(KEY)
}
