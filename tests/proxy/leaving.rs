//! When one side goes away the other learns it, and never as a clean end.

use s2_api::v1::stream::s2s::{SessionMessage, TerminalMessage};

use crate::harness::{
    Ask, BodyEnd, BrokenOff, Encoding, End, KEY, Live, Session, Stack, delivered, frame, input,
    read, record, records, sealed_batch, until,
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

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_upstream_never_looks_like_a_clean_end() {
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
    for (mut live, encoding) in reads {
        // The acked record may still come before the cut.
        while goes_on(&mut live, encoding).await.is_ok() {}
    }
    // The next request finds a new connection.
    let answer = h2.ask(read("s", "seq_num=0&count=2", Encoding::Json)).await;
    assert_eq!(delivered(Encoding::Json, &answer).records().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_no_answer() {
    let stack = Stack::with_one_record().await;
    for encoding in [Encoding::Json, Encoding::Base64, Encoding::Proto] {
        let player = stack.lite.play(&records("s"));
        let client = stack.h2().await;
        let (answer, ()) = tokio::join!(client.ask(read("s", "seq_num=0", encoding)), async {
            player.play(frame(&sealed_batch("half an answer"))).await;
            player.break_off().await;
        });
        assert_eq!((answer.status, answer.code().as_str()), (500, "other"));
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
