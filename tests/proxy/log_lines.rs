//! A request that fails is one line of the log that says which, why, and whose fault it is; one that works is
//! none.

use std::time::Duration;

use http::Response;

use crate::{
    harness::{
        Ask, BASIN, Client, Encoding, Lite, Live, Packed, Program, append, channel, input, read,
        record, until,
    },
    logs::{GOOD, WRONG, prepare, rules, write_key},
};

/// The lines of the log, as JSON.
fn lines(log: &str) -> Vec<serde_json::Value> {
    log.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failed_request_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let lite = Lite::start().await;
    let program = Program::start(
        dir.path(),
        lite.address,
        &rules(&write_key(dir.path())),
        "info",
    );
    let client = program.client("h2").await;
    prepare(&client, &Client::plain(lite.address).await).await;
    let batch = input([record(&[], "x")]);
    let good = append("s", Encoding::Json, Packed::Not, &batch);
    assert_eq!(client.ask(good.clone()).await.status, 200);
    let spoiled = |encoding| {
        let ask = read("spoiled", "seq_num=0", encoding).without("s2-encryption-key");
        ask.key(&GOOD)
    };
    let no_stream = Ask::new("DELETE", "/v1/streams/a%0Ab%22");
    let cases = [
        (
            "no-key",
            good.clone().without("s2-encryption-key"),
            "append",
            "s",
            "invalid",
            "client",
        ),
        (
            "wrong-key",
            good.without("s2-encryption-key").key(&WRONG),
            "append",
            "s",
            "decryption_failed",
            "client",
        ),
        (
            "spoiled",
            spoiled(Encoding::Json),
            "read",
            "spoiled",
            "decryption_failed",
            "upstream",
        ),
        // Its answer is 200 by then.
        (
            "spoiled-session",
            spoiled(Encoding::Frames),
            "read_session",
            "spoiled",
            "decryption_failed",
            "upstream",
        ),
        ("no-stream", no_stream, "stream", "a\nb\"", "404", "client"),
    ];
    for (id, ask, ..) in &cases {
        client.ask(ask.clone().header("s2-request-id", id)).await;
    }
    // An answer that breaks off.
    lite.lie(|seen| {
        seen.line.contains("/records?seq_num=0").then(|| {
            let (sender, body) = channel();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                sender.send(Err("broken off".into())).await
            });
            let answer = Response::builder().header("content-type", "s2s/proto");
            answer.body(body).unwrap()
        })
    });
    let ask = read("s", "seq_num=0", Encoding::Frames).header("s2-request-id", "broken");
    let mut live = Live::new(client.open(ask).await);
    assert!(live.frame().await.is_err());
    lite.be_honest();
    // A client that leaves before its answer.
    let poll = read("s", "seq_num=1&wait=60", Encoding::Json).header("s2-request-id", "left");
    let leaver = program.client("h2").await;
    tokio::select! {
        _ = leaver.ask(poll) => panic!("answered"),
        () = until("it is asked", async || lite.last("GET").unwrap().line.contains("wait=60")) => {}
    }
    leaver.vanish();

    let broken = ("broken", "read_session", "s", "broken_off", "upstream");
    let left = ("left", "read", "s", "client_left", "client");
    let cases = cases
        .iter()
        .map(|(id, _, operation, stream, code, fault)| (*id, *operation, *stream, *code, *fault));
    let cases: Vec<_> = cases.chain([broken, left]).collect();
    let of = |id: &str| -> Vec<_> {
        let mut lines = lines(&program.log());
        lines.retain(|line| line["request_id"] == id);
        lines
    };
    for (id, operation, stream, code, fault) in &cases {
        until("it is in the log", async || !of(id).is_empty()).await;
        let [line] = &of(id)[..] else {
            panic!("{id}: {:#?}", of(id));
        };
        let told =
            ["operation", "stream", "code", "fault"].map(|name| line[name].as_str().unwrap());
        assert_eq!(told, [*operation, *stream, *code, *fault], "{line}");
        let level = if *fault == "client" { "INFO" } else { "WARN" };
        assert_eq!(line["level"], level, "{line}");
        assert_eq!(line["basin"], BASIN, "{line}");
        assert!(
            line["client"].as_str().unwrap().starts_with("127.0.0.1:"),
            "{line}"
        );
        assert!(line["duration_ms"].is_f64(), "{line}");
        assert_ne!(line["message"], "", "{line}");
        let names_record = line.to_string().contains("at seq_num 0");
        assert_eq!(names_record, stream == &"spoiled", "{line}");
    }
    // Nothing else that was asked is in the log.
    let mut others = lines(&program.log());
    others.retain(|line| line["target"] != "streamseal::cli::serve");
    assert_eq!(others.len(), cases.len(), "{others:#?}");
}
