//! The plain decision: no answer of the upstream, no race and no lost state lets a record that was sent
//! with a key go up in clear, and no stream ever holds acknowledged records of two keys.

mod basin_calls;
mod board;
mod cases;
mod doing;
mod expiry;
mod lies;
mod other_stores;
mod plain_streams;
mod random;
mod row;
mod seen;
mod table;
mod two_keys;
mod wrong_side;

use serde_json::{Value, json};
use streamseal::registry::rules::{BasinRule, KeySource, RuleCipher, StreamRule};

use crate::harness::{
    Answer, Ask, BASIN, Client, Counts, Frame, KEY, Lite, Program, Stack, Tap, frame, input,
    record, records,
};

/// Start of the body of every record that is sent with a key. The upstream must never see it.
pub const KEYED: &str = "sent-with-a-key:";

/// Body of the records that are sent without a key.
pub const CLEAR: &str = "sent in clear";

/// A second key.
pub const OTHER: [u8; 32] = [7; 32];

/// An append of one record without a key.
pub fn append(stream: &str, body: &str) -> Ask {
    let batch = json!({ "records": [{ "body": body }] });
    Ask::post(records(stream)).json(&batch)
}

/// An append of one record with [`KEY`].
pub fn keyed(stream: &str) -> Ask {
    keyed_by(stream, &KEY)
}

/// An append of one record with a key.
pub fn keyed_by(stream: &str, key: &[u8]) -> Ask {
    append(stream, &body_of(stream, key)).key(key)
}

/// The body that [`keyed_by`] sends.
pub fn body_of(stream: &str, key: &[u8]) -> String {
    format!("{KEYED}{stream}:{}", key[0])
}

/// A whole append session of one record with a key.
pub fn session_by(stream: &str, key: &[u8]) -> Ask {
    session(stream, &body_of(stream, key)).key(key)
}

/// A whole append session of one record without a key.
pub fn session(stream: &str, body: &str) -> Ask {
    let batch = input([record(&[], body.to_owned())]);
    Ask::post(records(stream)).body("s2s/proto", frame(&batch))
}

/// A read from the start, without a key.
pub fn read(stream: &str) -> Ask {
    Ask::get(records(stream) + "?seq_num=0")
}

/// An explicit creation.
pub fn create(stream: &str) -> Ask {
    Ask::post("/v1/streams").json(&json!({ "stream": stream }))
}

/// An ensure of a stream.
pub fn ensure(stream: &str) -> Ask {
    Ask::new("PUT", format!("/v1/streams/{stream}"))
}

/// Status and error code of an answer; of a session, those of its last frame.
pub fn outcome(answer: &Answer) -> (u16, String) {
    let is_session = answer.header("content-type") == Some("s2s/proto");
    match (answer.status, is_session) {
        (200, true) => match Frame::all(&answer.body).last() {
            Some(last @ Frame::Terminal { .. }) => last.failure(),
            Some(Frame::Message { .. }) => (200, String::new()),
            None => (500, "no ack".to_owned()),
        },
        (status, _) => (status, answer.code()),
    }
}

/// Bodies of the records that a read in JSON delivered.
pub fn bodies(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    let records = json["records"].as_array().unwrap().iter();
    let body = |record: &Value| record["body"].as_str().unwrap_or_default().to_owned();
    records.map(body).collect()
}

/// Asks, and checks status and error code.
pub async fn is(client: &Client, ask: Ask, status: u16, code: &str) -> Answer {
    let answer = client.ask(ask.clone()).await;
    let said = (status, code.to_owned());
    assert_eq!(outcome(&answer), said, "{ask:?}: {}", answer.text());
    answer
}

/// Checks that nothing that was sent with a key went up in clear.
pub fn never_plain(tap: &Tap, why: &str) {
    if tap.saw(KEYED.as_bytes()) {
        let wire = tap.bytes();
        let at = memchr::memmem::find(&wire, KEYED.as_bytes()).unwrap();
        let end = wire.len().min(at + 80);
        let shown = String::from_utf8_lossy(&wire[at..end]);
        panic!("{why}: went up in clear: {shown}");
    }
}

/// A rule that declares basins sealed with AEGIS-256.
pub fn basin_rule(glob: &str) -> BasinRule {
    BasinRule {
        r#match: glob.to_owned(),
        stream_cipher: RuleCipher::Aegis256,
    }
}

/// A rule that declares streams, with the client's keys.
pub fn stream_rule(glob: &str, cipher: RuleCipher) -> StreamRule {
    StreamRule {
        r#match: glob.to_owned(),
        cipher,
        key: KeySource::Header,
        key_file: Default::default(),
        header_overrides: false,
    }
}

/// The cipher that a stream shows.
pub async fn cipher_of(client: &Client, stream: &str) -> Value {
    let list = client.ask(Ask::get("/v1/streams")).await.json();
    let mut streams = list["streams"].as_array().unwrap().iter();
    let listed = streams.find(|listed| listed["name"] == stream);
    listed.unwrap_or_else(|| panic!("{list}"))["cipher"].clone()
}

/// Changes the cipher of [`BASIN`].
pub async fn set_cipher(client: &Client, cipher: Value) {
    let change = crate::registry_races::patch(cipher);
    is(client, change, 200, "").await;
}

/// A running program, for its log and its metrics as an operator sees them.
pub struct Served {
    pub lite: Lite,
    pub tap: Tap,
    pub program: Program,
    _dir: tempfile::TempDir,
}

impl Served {
    /// Starts the program with these sections of the configuration.
    pub async fn start(mut sections: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lite = Lite::start().await;
        let tap = Tap::start(lite.address).await;
        sections["admin"] = json!({ "address": "127.0.0.1:0" });
        let program = Program::with(dir.path(), tap.address, &sections, "info");
        Self {
            lite,
            tap,
            program,
            _dir: dir,
        }
    }

    pub async fn client(&self) -> Client {
        self.program.client("h2").await
    }

    /// Creates [`BASIN`] with this cipher, and streams on the first append.
    pub async fn create_basin(&self, cipher: Option<&str>) {
        let config = json!({ "stream_cipher": cipher, "create_stream_on_append": true });
        let basin = json!({ "basin": BASIN, "config": config });
        let ask = Ask::post("/v1/basins").json(&basin);
        is(&self.client().await, ask, 201, "").await;
    }

    /// Lines of the log at this level that contain every one of these texts.
    pub fn logged(&self, levels: &[&str], texts: &[&str]) -> usize {
        let log = self.program.log();
        let lines = log.lines().filter(|line| {
            let json: Value = serde_json::from_str(line).unwrap_or_default();
            let level = json["level"].as_str().unwrap_or_default();
            levels.contains(&level) && texts.iter().all(|text| line.contains(text))
        });
        lines.count()
    }

    /// The sum of a family of the metrics.
    pub async fn count(&self, family: &str) -> f64 {
        let client = Client::plain_http1(self.program.admin()).await;
        let metrics = client.ask(Ask::get("/metrics")).await;
        assert!(metrics.text().contains(family), "no {family}");
        Counts::parse(&metrics.text()).only(&[family]).sum()
    }
}

/// A deployment with one record of [`KEY`] in stream `s`, sealed with AEGIS-256.
pub async fn sealed_stream() -> Stack {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    is(&stack.h2().await, keyed("s"), 200, "").await;
    stack
}
