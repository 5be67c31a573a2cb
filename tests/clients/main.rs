//! Released client libraries, installed as their users install them, work through the proxy over TLS as they
//! do with S2; what they wrote is stored encrypted where it must be, and as it is elsewhere.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "that is how a test fails"
)]
#![allow(missing_docs, reason = "tests are read, not linked to")]

mod authority;
#[allow(dead_code, unused_imports, reason = "other tests need the rest of it")]
#[path = "../proxy/harness/mod.rs"]
mod harness;
mod program;

use prost::Message as _;
use s2_api::v1::stream::proto::{AppendInput, ReadBatch, SequencedRecord};

use harness::{Ask, BASIN, Frame, KEY, Stack, leaks, open, records};
use program::{PYTHON, Program, TYPESCRIPT};

/// Every body that the programs send begins with it.
const MARKER: &str = "the plaintext of a client";

#[tokio::test(flavor = "multi_thread")]
async fn typescript_works_with_aegis_256() {
    works(&TYPESCRIPT, Some("aegis-256")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn typescript_works_with_aes_256_gcm() {
    works(&TYPESCRIPT, Some("aes-256-gcm")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn typescript_works_on_plain_streams() {
    works(&TYPESCRIPT, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_works_with_aegis_256() {
    works(&PYTHON, Some("aegis-256")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_works_with_aes_256_gcm() {
    works(&PYTHON, Some("aes-256-gcm")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_works_on_plain_streams() {
    works(&PYTHON, None).await;
}

async fn works(program: &Program, cipher: Option<&str>) {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority::make(dir.path());
    let stack = Stack::with(|config| config.listen.tls = authority.server).await;
    let port = stack.address.port();
    program.run(dir.path(), port, &authority.file, cipher).await;

    let wire = stack.tap.bytes();
    assert_eq!(leaks(&wire, MARKER.as_bytes()), cipher.is_none(), "marker");
    // On the wire headers are compressed, but not as the upstream reads them.
    let heads = stack
        .lite
        .seen()
        .into_iter()
        .map(|seen| seen.line + &seen.headers.concat());
    let heads: String = heads.collect();
    for bytes in [&wire, heads.as_bytes()] {
        assert!(!leaks(bytes, &KEY), "the key went upstream");
    }
    assert_eq!(splits(&stack), cipher.is_some(), "split batches");
    let streams = streams(&stack).await;
    let mut count = 0;
    for stream in &streams {
        for record in stored(&stack, stream).await {
            count += usize::from(is_as_it_must_be(stream, cipher, &record));
        }
    }
    assert!(count > 3000, "{count} records in {streams:?}");
}

/// Whether it is a data record, which must be stored under this cipher.
fn is_as_it_must_be(stream: &str, cipher: Option<&str>, record: &SequencedRecord) -> bool {
    if record.headers.len() == 1 && record.headers[0].name.is_empty() {
        return false;
    }
    let body = match cipher {
        Some(cipher) => open(cipher, KEY, stream, record).unwrap().1,
        None => record.body.clone(),
    };
    let (seq_num, marker) = (record.seq_num, MARKER.as_bytes());
    assert!(body.starts_with(marker), "{stream}: record {seq_num}");
    true
}

/// The streams that the upstream has.
async fn streams(stack: &Stack) -> Vec<String> {
    let answer = stack.direct().await.ask(Ask::get("/v1/streams")).await;
    let json = answer.json();
    let streams = json["streams"].as_array().unwrap();
    let live = streams
        .iter()
        .filter(|stream| stream["deleted_at"].is_null());
    live.map(|stream| stream["name"].as_str().unwrap().to_owned())
        .collect()
}

/// All that the upstream has of a stream.
async fn stored(stack: &Stack, stream: &str) -> Vec<SequencedRecord> {
    let direct = stack.direct().await;
    let mut all: Vec<SequencedRecord> = Vec::new();
    loop {
        let next = all.last().map_or(0, |record| record.seq_num + 1);
        let ask = Ask::get(format!("{}?seq_num={next}", records(stream)));
        let answer = direct
            .ask(ask.header("accept", "application/protobuf"))
            .await;
        match answer.status {
            416 => return all,
            status => assert_eq!(status, 200, "{}", answer.text()),
        }
        all.extend(ReadBatch::decode(answer.body).unwrap().records);
    }
}

/// Whether a batch of a session went up in parts: only then does one follow a sequence number here.
fn splits(stack: &Stack) -> bool {
    let seen = stack.lite.seen();
    let sessions = seen.iter().filter(|seen| {
        let framed = seen
            .headers
            .iter()
            .any(|at| at == "content-type: s2s/proto");
        framed && seen.line.contains("/v1/streams/session")
    });
    let mut inputs = sessions
        .flat_map(|seen| Frame::all(&seen.body))
        .map(|frame| match frame {
            Frame::Message { payload, .. } => AppendInput::decode(payload).unwrap(),
            Frame::Terminal { .. } => panic!("a terminal frame in a request"),
        });
    inputs.any(|input| input.match_seq_num.is_some())
}
