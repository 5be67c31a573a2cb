//! The audit log says who used which stream, and how that ended: for every request, until the very last.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::harness::{
    Ask, BASIN, Client, Encoding, Frame, KEY, Lite, Packed, Program, Session, Stack, append, frame,
    input, read, record, records, terminate, until,
};

/// A proxy with an audit log in `dir`.
async fn stack(dir: &Path) -> Stack {
    let file = dir.join("audit.log");
    let stack = Stack::with(move |config| config.audit.file = file).await;
    stack.create_basin(Some("aegis-256")).await;
    stack
}

fn lines(file: impl AsRef<Path>) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The lines of this request.
fn of<'a>(lines: &'a [Value], id: &str) -> Vec<&'a Value> {
    let lines = lines.iter();
    lines.filter(|line| line["request_id"] == id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_a_line_that_says_who_did_what() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = stack(dir.path()).await;
    let client = stack.h2().await;
    let two = input([record(&[], "one"), record(&[], "two")]);
    let appended = append("s", Encoding::Proto, Packed::Not, &two);
    let make = Ask::post("/v1/streams").json(&json!({ "stream": "t" }));
    let tail = Ask::get(records("s") + "/tail");
    let reading = read("s", "seq_num=0", Encoding::Json);
    let no_key = appended.clone().without("s2-encryption-key");
    let wrong_key = no_key.clone().key(&[7; 32]);
    let of_s = |operation| (operation, Some("s"));
    // Its id, the request, the operation and stream in its line, code and number of records.
    let asks = [
        ("append", appended, of_s("append"), "ok", json!(2)),
        ("read", reading, of_s("read"), "ok", json!(2)),
        ("tail", tail, of_s("tail"), "ok", Value::Null),
        (
            "wrong-key",
            wrong_key,
            of_s("append"),
            "decryption_failed",
            json!(0),
        ),
        ("no-key", no_key, of_s("append"), "invalid", Value::Null),
        ("make", make, ("stream", Some("t")), "ok", Value::Null),
        (
            "delete",
            Ask::new("DELETE", "/v1/streams/no"),
            ("stream", Some("no")),
            "404",
            Value::Null,
        ),
        (
            "list",
            Ask::get("/v1/basins"),
            ("forward", None),
            "ok",
            Value::Null,
        ),
        (
            "nothing",
            Ask::new("PUT", records("s")),
            ("unrouted", None),
            "405",
            Value::Null,
        ),
    ];
    for (id, ask, ..) in &asks {
        let ask = ask.clone().header("authorization", "Bearer one-token");
        client.ask(ask.header("s2-request-id", id)).await;
    }
    let other = Ask::get("/v1/basins").header("authorization", "Bearer another-token");
    client.ask(other.header("s2-request-id", "other")).await;
    stack.stop().await;

    let all = lines(dir.path().join("audit.log"));
    let token = &of(&all, "append")[0]["who"]["token"];
    assert_eq!(token.as_str().unwrap().len(), 16, "{token}");
    for (id, _, (operation, stream), code, records) in asks {
        let [line] = of(&all, id)[..] else {
            panic!("{id}: {all:#?}");
        };
        assert_eq!(line["operation"], operation, "{line}");
        assert_eq!(line["stream"], json!(stream), "{line}");
        assert_eq!(line["code"], code, "{line}");
        assert_eq!(line["records"], records, "{line}");
        assert_eq!(&line["who"]["token"], token, "{line}");
        assert_eq!(line["who"]["certificate"], Value::Null, "{line}");
        let address = line["who"]["address"].as_str().unwrap();
        assert!(address.starts_with("127.0.0.1:"), "{line}");
        assert_eq!(
            line["fault"],
            if code == "ok" {
                Value::Null
            } else {
                json!("client")
            }
        );
        let has_key = ["append", "read", "wrong-key"].contains(&id);
        assert_eq!(line["key"].is_string(), has_key, "{line}");
        assert_eq!(
            line["cipher"],
            if has_key {
                json!("aegis-256")
            } else {
                Value::Null
            }
        );
    }
    let key = |id| &of(&all, id)[0]["key"];
    assert_eq!(key("append"), key("read"));
    assert_ne!(key("append"), key("wrong-key"));
    let own = &of(&all, "other")[0]["who"]["token"];
    assert!(own.is_string() && own != token, "{own}");
    // Who sent no token is nobody.
    let is_making = |line: &&Value| line["operation"] == "basin";
    let line = all.iter().find(is_making).unwrap();
    assert_eq!(line["who"]["token"], Value::Null, "{line}");
    assert_eq!(line["basin"], BASIN, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_told_when_it_begins_and_when_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = stack(dir.path()).await;
    let file = dir.path().join("audit.log");
    let client = stack.h2().await;
    let ask = Ask::post(records("s")).key(&KEY);
    let mut session = Session::append(&client, ask.header("s2-request-id", "session")).await;
    until("its beginning is told", async || {
        of(&lines(&file), "session").len() == 1
    })
    .await;
    let begun = &of(&lines(&file), "session")[0].clone();
    assert_eq!(
        (&begun["code"], &begun["records"]),
        (&json!("begun"), &json!(0))
    );
    assert_eq!(begun["operation"], "append_session");
    assert!(begun["key"].is_string(), "{begun}");
    for count in 1..=3 {
        let batch = (0..count).map(|_| record(&[], "x"));
        session.send(frame(&input(batch))).await;
        session.live.frame().await.unwrap().unwrap().ack();
    }
    session.finish();
    assert!(session.live.frame().await.unwrap().is_none());
    let reading = read("s", "seq_num=0&count=6", Encoding::Frames);
    client.ask(reading.header("s2-request-id", "reading")).await;
    // One that fails in its middle.
    let ask = Ask::post(records("s")).key(&KEY);
    let mut failing = Session::append(&client, ask.header("s2-request-id", "failing")).await;
    failing.send(&b"\0\0\x01\0\xff"[..]).await;
    let failure = failing.live.frame().await.unwrap().unwrap();
    assert_eq!(failure.failure().1, "invalid");
    stack.stop().await;

    let all = lines(&file);
    for (id, records, code) in [
        ("session", 6, "ok"),
        ("reading", 6, "ok"),
        ("failing", 0, "invalid"),
    ] {
        let told = of(&all, id);
        assert_eq!(told.len(), 2, "{told:#?}");
        assert_eq!(told[0]["code"], "begun", "{told:#?}");
        assert_eq!(told[1]["code"], code, "{told:#?}");
        assert_eq!(told[1]["records"], records, "{told:#?}");
        assert_eq!(told[0]["key"], told[1]["key"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_leaves_no_line_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = stack(dir.path()).await;
    let client = stack.h2().await;
    let batch = input([record(&[], "x")]);
    let ask = append("s", Encoding::Proto, Packed::Not, &batch);
    for n in 0..300 {
        let ask = ask.clone().header("s2-request-id", format!("n-{n}"));
        assert_eq!(client.ask(ask).await.status, 200);
    }
    // One that the stop ends.
    let session = Ask::post(records("s")).key(&KEY);
    let session = Session::append(&client, session.header("s2-request-id", "session")).await;
    let left = tokio::spawn(async move {
        let mut session = session;
        while let Ok(Some(frame)) = session.live.frame().await {
            assert!(matches!(frame, Frame::Terminal { .. }), "{frame:?}");
        }
    });
    client.vanish();
    stack.stop().await;
    left.await.unwrap();
    let all = lines(dir.path().join("audit.log"));
    for n in 0..300 {
        assert_eq!(of(&all, &format!("n-{n}")).len(), 1, "{n}");
    }
    assert_eq!(of(&all, "session").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_lines_and_no_request() {
    let stack = Stack::with(|config| config.audit.file = "/dev/full".into()).await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    for _ in 0..10 {
        assert_eq!(client.ask(Ask::get("/v1/streams")).await.status, 200);
    }
    until("the lost lines are counted", async || {
        let lost = "streamseal_audit_failures_total 11";
        stack.metrics().render().lines().any(|line| line == lost)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_output_is_the_audit_logs_alone() {
    let dir = tempfile::tempdir().unwrap();
    let lite = Lite::start().await;
    let mut program = Program::start(dir.path(), lite.address, &json!([]), "info");
    program.kill();
    program.configure("[audit]\nfile = \"-\"");
    fs::remove_file(dir.path().join("log")).unwrap();
    let child = program.command("serve");
    let listening = "listening on https://";
    until("it listens", async || program.log().contains(listening)).await;
    let log = program.log();
    let address = log.split(listening).nth(1).unwrap();
    let address = address.split('"').next().unwrap().parse().unwrap();
    let certificate = fs::read_to_string(dir.path().join("cert.pem")).unwrap();
    let client = Client::tls(address, &certificate, "h2").await;
    for n in 0..10 {
        let ask = Ask::get("/v1/basins").header("s2-request-id", format!("n-{n}"));
        assert_eq!(client.ask(ask).await.status, 200);
    }
    terminate(&child);
    let ended = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap());
    let ended = ended.await.unwrap();
    assert!(ended.status.success(), "{:?}", ended.status);
    let text = String::from_utf8(ended.stdout).unwrap();
    let ids = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["request_id"].as_str().unwrap().to_owned()
    });
    let wanted: Vec<_> = (0..10).map(|n| format!("n-{n}")).collect();
    assert_eq!(ids.collect::<Vec<_>>(), wanted);
}
