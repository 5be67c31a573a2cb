//! Lines are whole, lost ones are counted, and the file can be moved away.

use std::{
    fs,
    io::Read as _,
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
};

use super::*;
use crate::telemetry::{
    label::{Encoding, Operation},
    report::{Client, Key},
    request_id::RequestId,
};

fn report<R>(stream: &str, with: impl FnOnce(&Report<'_>) -> R) -> R {
    with(&Report {
        id: &RequestId::fresh(),
        upstream_id: None,
        what: "POST /v1/streams/s/records",
        client: Client {
            address: "127.0.0.1:1".parse().unwrap(),
            certificate: Some("CN=a \"client\""),
            token: Some("0123456789abcdef"),
            project: Some("payments"),
            api_key: Some("key-1"),
        },
        operation: Operation::Append,
        encoding: Encoding::Json,
        basin: Some("basin"),
        stream: Some(stream),
        status: Some(200),
        code: "ok",
        fault: None,
        cause: None,
        key: Some(&Key {
            cipher: "aegis-256",
            check: "00112233".to_owned(),
        }),
        records: Some(3),
        answered_after: None,
        took: Duration::from_micros(1500),
    })
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new().unwrap())
}

/// Written and lost lines, as the metrics have them.
fn counts(metrics: &Metrics) -> (u64, u64) {
    let process = &metrics.process;
    (process.audit_lines.get(), process.audit_failures.get())
}

fn lines(text: &str) -> Vec<serde_json::Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_line_has_every_field_and_is_private_to_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("audit.log");
    let metrics = metrics();
    let config = Config { file: file.clone() };
    assert_eq!(config.problems(), Vec::<String>::new());
    let audit = Audit::start(&config, &metrics).unwrap().unwrap();
    report("a\nstream", |report| audit.write(report));
    audit.flush(SOON).await;
    assert_eq!(counts(&metrics), (1, 0));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let written = lines(&fs::read_to_string(&file).unwrap());
    let line = &written[0];
    assert_eq!(written.len(), 1);
    assert_eq!(line["stream"], "a\nstream");
    assert_eq!(line["who"]["certificate"], "CN=a \"client\"");
    assert_eq!(line["who"]["token"], "0123456789abcdef");
    assert_eq!(line["who"]["project"], "payments");
    assert_eq!(line["who"]["api_key"], "key-1");
    assert_eq!(line["key"], "00112233");
    assert_eq!(line["records"], 3);
    assert_eq!(line["duration_ms"], 1.5);
    assert_eq!(line["fault"], serde_json::Value::Null);

    // What was written before stays.
    drop(audit);
    let audit = Audit::start(&config, &metrics).unwrap().unwrap();
    report("s", |report| audit.write(report));
    audit.flush(SOON).await;
    assert_eq!(lines(&fs::read_to_string(&file).unwrap()).len(), 2);
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let [file, moved] = ["audit.log", "audit.log.1"].map(|name| dir.path().join(name));
    let config = Config { file: file.clone() };
    let audit = Audit::start(&config, &metrics()).unwrap().unwrap();
    report("before", |report| audit.write(report));
    audit.flush(SOON).await;
    fs::rename(&file, &moved).unwrap();
    audit.reopen();
    report("after", |report| audit.write(report));
    audit.flush(SOON).await;
    assert_eq!(
        lines(&fs::read_to_string(&moved).unwrap())[0]["stream"],
        "before"
    );
    assert_eq!(
        lines(&fs::read_to_string(&file).unwrap())[0]["stream"],
        "after"
    );

    // Where no file can be made, the old one goes on.
    fs::rename(&file, &moved).unwrap();
    fs::create_dir(&file).unwrap();
    audit.reopen();
    report("still", |report| audit.write(report));
    audit.flush(SOON).await;
    assert_eq!(
        lines(&fs::read_to_string(&moved).unwrap())[1]["stream"],
        "still"
    );
}

#[test]
fn no_line_is_lost_without_being_counted() {
    let (mut reader, writer) = io::pipe().unwrap();
    let metrics = metrics();
    let out = Out {
        file: File::from(OwnedFd::from(writer)),
        path: None,
    };
    let audit = Audit::write_to(out, &metrics).unwrap();
    // Nobody reads: the pipe is full after some, and the queue after some more. This never blocks.
    let sent = 2 * QUEUE as u64;
    for n in 0..sent {
        report(&n.to_string(), |report| audit.write(report));
    }
    let (_, lost) = counts(&metrics);
    assert!(lost > 0);
    drop(audit);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let written = lines(&text).len() as u64;
    assert_eq!(written + lost, sent);
    assert_eq!(counts(&metrics), (written, lost));
}

#[test]
fn a_torn_line_does_not_spoil_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let mut writer = Writer {
        out: Out::open(&path).unwrap(),
        torn: false,
        reopen: Arc::default(),
        lost: Lost {
            metrics: metrics(),
            told: Rarely::default(),
        },
    };
    writer.out.file.write_all(b"{\"half").unwrap();
    writer.torn = true;
    writer.write(b"{}\n".to_vec()).unwrap();
    writer.write(b"[]\n".to_vec()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"{\"half\n{}\n[]\n");
}

#[test]
fn a_full_disk_is_counted() {
    let metrics = metrics();
    let config = Config {
        file: "/dev/full".into(),
    };
    assert_eq!(config.problems(), Vec::<String>::new());
    let audit = Audit::start(&config, &metrics).unwrap().unwrap();
    report("s", |report| audit.write(report));
    let deadline = std::time::Instant::now() + SOON;
    while counts(&metrics) != (0, 1) {
        assert!(std::time::Instant::now() < deadline);
        thread::yield_now();
    }
}

#[test]
fn what_cannot_be_written_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (file, wrong) in [
        (dir.path().to_owned(), "is no file"),
        (dir.path().join("no/audit.log"), "does not exist"),
    ] {
        let config = Config { file };
        let problems = config.problems();
        assert!(problems[0].starts_with("audit.file: "), "{problems:?}");
        assert!(problems[0].contains(wrong), "{problems:?}");
        let error = Audit::start(&config, &metrics()).err().unwrap();
        assert!(error.starts_with("audit.file: "), "{error}");
    }
    assert!(
        Audit::start(&Config::default(), &metrics())
            .unwrap()
            .is_none()
    );
}
