//! When one side goes away the other learns it, and never as a clean end.

use futures_util::future::join_all;
use http::Response;
use s2_api::v1::stream::s2s::{SessionMessage, TerminalMessage};
use serde_json::json;

use crate::harness::{
    Ask, BodyEnd, BrokenOff, Encoding, End, KEY, Live, Session, Stack, channel, delivered, frame,
    input, read, record, records, sealed_batch, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_an_append_session_leaves_nothing_upstream() {
    let stack = Stack::with_one_record().await;
    let session_end = || stack.lite.last("POST").unwrap().end;
    for (client, dies) in [
        (stack.h2().await, false),
        (stack.h2().await, true),
        (stack.h1().await, true),
    ] {
        let mut session = Session::append(&client, Ask::post(records("s")).key(&KEY)).await;
        session.send(frame(&input([record(&[], "acked")]))).await;
        session.live.frame().await.unwrap().unwrap().ack();
        assert_eq!(session_end(), None);
        if dies {
            client.vanish();
        } else {
            session.break_off().await;
        }
        until("the upstream's session breaks off", async || {
            session_end() == Some(BodyEnd::Broken)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_a_read_session_leaves_nothing_upstream() {
    let stack = Stack::with_one_record().await;
    for encoding in [Encoding::Events, Encoding::Frames] {
        let (player, live) = stack.played_read(encoding).await;
        drop(live);
        player.left().await;
        for client in [stack.h1().await, stack.h2().await] {
            let player = stack.lite.play(&records("s"));
            let _live = Live::new(client.open(read("s", "seq_num=0", encoding)).await);
            client.vanish();
            player.left().await;
        }
    }
    // A long poll, too.
    let player = stack.lite.play(&records("s"));
    let poll = read("s", "seq_num=1&wait=60", Encoding::Json);
    let client = stack.h2().await;
    let arrived = until("the poll arrives", async || {
        stack.lite.last("GET").unwrap().line.contains("wait=60")
    });
    tokio::select! {
        _ = client.ask(poll) => panic!("answered"),
        () = arrived => {}
    }
    player.left().await;
}

/// Whether a read session goes on with records; an end that is clean fails the test.
async fn goes_on(live: &mut Live, encoding: Encoding) -> Result<bool, BrokenOff> {
    Ok(match encoding {
        Encoding::Frames => {
            let frame = live.frame().await?.expect("a clean end");
            !frame.batch().records.is_empty()
        }
        _ => {
            let event = live.event().await?.expect("a clean end");
            event.starts_with("event: batch\n")
        }
    })
}

/// Whether the next frame or event of a read session has a record with this body.
async fn delivers(live: &mut Live, encoding: Encoding, body: &[u8]) -> bool {
    match encoding {
        Encoding::Frames => {
            let batch = live.frame().await.unwrap().unwrap().batch();
            batch.records.iter().any(|record| record.body == body)
        }
        _ => {
            let event = live.event().await.unwrap().unwrap();
            event.contains(std::str::from_utf8(body).unwrap())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_upstream_breaks_appends_and_reads_go_on() {
    let stack = Stack::with_one_record().await;
    let (h1, h2) = (stack.h1().await, stack.h2().await);
    let mut reads = Vec::new();
    for (client, encoding) in [
        (&h1, Encoding::Events),
        (&h2, Encoding::Events),
        (&h2, Encoding::Frames),
    ] {
        let mut live = Live::new(client.open(read("s", "seq_num=0", encoding)).await);
        assert!(goes_on(&mut live, encoding).await.unwrap());
        assert!(!goes_on(&mut live, encoding).await.unwrap(), "following");
        reads.push((live, encoding));
    }
    let mut session = stack.append_session().await;
    session.send(frame(&input([record(&[], "acked")]))).await;
    session.live.frame().await.unwrap().unwrap().ack();

    stack.tap.cut();
    session.live.frame().await.unwrap_err();
    // The next request finds a new connection, and so do the sessions.
    let batch = json!({ "records": [{ "body": "after the cut" }] });
    let append = Ask::post(records("s")).json(&batch).key(&KEY);
    assert_eq!(h2.ask(append).await.status, 200);
    let last = Ask::get(records("s") + "?seq_num=2").key(&KEY);
    assert_eq!(
        h2.ask(last).await.json()["records"][0]["body"],
        "after the cut"
    );
    for (mut live, encoding) in reads {
        while !delivers(&mut live, encoding, b"after the cut").await {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_that_always_breaks_off_is_no_answer() {
    let stack = Stack::with_one_record().await;
    stack.lite.lie(|seen| {
        (seen.line.starts_with("GET") && seen.line.contains("/records")).then(|| {
            let (sender, body) = channel();
            let half = frame(&sealed_batch("half an answer"));
            tokio::spawn(async move {
                sender.send(Ok(half)).await.unwrap();
                sender.send(Err("broken off".into())).await.unwrap();
            });
            let answer = Response::builder().header("content-type", "s2s/proto");
            answer.body(body).unwrap()
        })
    });
    let client = stack.h2().await;
    let asks = [Encoding::Json, Encoding::Base64, Encoding::Proto]
        .map(|encoding| client.ask(read("s", "seq_num=0", encoding)));
    for answer in join_all(asks).await {
        assert_eq!((answer.status, answer.code().as_str()), (500, "other"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_that_breaks_off_once_is_read_again() {
    let stack = Stack::with_one_record().await;
    let whole = stack.h2().await;
    for encoding in [Encoding::Json, Encoding::Base64, Encoding::Proto] {
        let whole = whole.ask(read("s", "seq_num=0", encoding)).await;
        let player = stack.lite.play(&records("s"));
        let client = stack.h2().await;
        let (answer, ()) = tokio::join!(client.ask(read("s", "seq_num=0", encoding)), async {
            player.play(frame(&sealed_batch("half an answer"))).await;
            player.break_off().await;
        });
        assert_eq!((answer.status, answer.body), (200, whole.body));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_from_upstream_passes_in_every_encoding() {
    let stack = Stack::with_one_record().await;
    let json = r#"{"code":"server_draining","message":"going"}"#;
    let terminal = SessionMessage::from(TerminalMessage {
        status: 503,
        body: json.to_owned(),
    });
    for encoding in Encoding::READS {
        let player = stack.lite.play(&records("s"));
        player.play(terminal.encode()).await;
        drop(player);
        let answer = stack.h2().await.ask(read("s", "seq_num=0", encoding)).await;
        let got = delivered(encoding, &answer);
        let status = if answer.text().starts_with("event: error") {
            0
        } else {
            503
        };
        let code = "server_draining".to_owned();
        assert_eq!(got.end, End::Failed { status, code }, "{encoding:?}");
        assert!(answer.text().contains(json));
    }
    let player = stack.lite.play(&records("s"));
    let mut session = stack.append_session().await;
    player.play(terminal.encode()).await;
    let failure = session.live.frame().await.unwrap().unwrap().failure();
    assert_eq!(failure, (503, "server_draining".to_owned()));
    drop(player);
    assert_eq!(session.live.frame().await.unwrap(), None);
}
