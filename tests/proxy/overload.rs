//! Whatever clients do at once, memory stays bounded, who is served is served whole, and others get in.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use bytesize::ByteSize;
use futures_util::future::{join_all, select_all};
use http_body_util::BodyExt as _;
use s2_api::v1::stream::proto::AppendInput;
use serde_json::json;

use streamseal::wire::record::RecordCompression;

use crate::{
    harness::{
        Ask, BASIN, Client, Encoding, KEY, Lite, Live, Packed, Program, Session, Stack, append,
        channel, contains, frame, input, read, record, records, until,
    },
    oversize::{full, noise},
};

const MIB: usize = 1 << 20;

/// Bytes of a large record. Sealed and framed it stays below 1 MiB.
const LARGE: usize = 1_000_000;

fn large() -> AppendInput {
    input([record(&[], vec![b'x'; LARGE])])
}

fn small(body: &str) -> AppendInput {
    input([record(&[], body.to_owned())])
}

/// The program itself over a real server, with a stream `s` of one record.
async fn program(lite: &Lite, dir: &std::path::Path, inflight: &str) -> Program {
    // A busy machine may be slow to ask.
    let limits = json!({ "max_inflight_bytes": inflight, "header_timeout": "60s" });
    let limits = json!({ "limits": limits });
    let program = Program::with(dir, lite.address, &limits, "info");
    let config = json!({ "stream_cipher": "aegis-256", "create_stream_on_append": true });
    let basin = json!({ "basin": BASIN, "config": config });
    let client = program.client("h2").await;
    let made = client.ask(Ask::post("/v1/basins").json(&basin)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    served(&program, "s").await;
    program
}

/// A client that has just come appends and reads at once.
async fn served(program: &Program, stream: &str) {
    let work = async {
        let client = program.client("h2").await;
        let ask = append(stream, Encoding::Json, Packed::Not, &small("new"));
        let appended = client.ask(ask).await;
        assert_eq!(appended.status, 200, "{}", appended.text());
        let got = client
            .ask(read(stream, "seq_num=0&count=1", Encoding::Json))
            .await;
        assert_eq!(got.status, 200, "{}", got.text());
    };
    let served = tokio::time::timeout(Duration::from_secs(10), work).await;
    served.expect("a new client had to wait");
}

/// Opens this many append sessions on one connection.
async fn sessions(program: &Program, stream: &str, count: usize) -> Vec<Session> {
    let client = program.client("h2").await;
    let ask = Ask::post(records(stream)).key(&KEY);
    join_all((0..count).map(|_| Session::append(&client, ask.clone()))).await
}

/// Opens this many read sessions on one connection.
async fn reads(program: &Program, stream: &str, count: usize) -> Vec<Live> {
    let client = program.client("h2").await;
    let ask = read(stream, "seq_num=0", Encoding::Frames);
    let opened = join_all((0..count).map(|_| client.open(ask.clone()))).await;
    opened.into_iter().map(Live::new).collect()
}

/// Appends this many large inputs at full speed, and gets an ack for each.
async fn writes(mut session: Session, inputs: u64) {
    let body = frame(&large());
    for _ in 0..inputs {
        session.send(body.clone()).await;
    }
    session.finish();
    for _ in 0..inputs {
        session.live.frame().await.unwrap().unwrap().ack();
    }
    assert_eq!(session.live.frame().await.unwrap(), None);
}

/// Waits until a follower has as many records of its stream.
async fn follows(mut live: Live, wanted: usize) {
    let mut got = 0;
    while got < wanted {
        let frame = live.frame().await.unwrap().unwrap();
        got += frame.batch().records.len();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_with_idle_sessions_slow_readers_and_fast_writers() {
    // As many connections as real clients would have, with up to 90 requests each.
    const READERS: [usize; 2] = [20, 45];
    const APPENDERS: [usize; 2] = [2, 50];
    const SLOW: [usize; 2] = [20, 10];
    const WRITERS: [usize; 2] = [10, 5];
    const INPUTS: u64 = 2;
    const BUDGET: usize = 32 * MIB;
    // What is not in the budget. Records that the upstream has sent and a slow reader's session has not
    // taken: one window each, in pieces of 16 KiB whose buffers take half as much again.
    const PARKED: usize = SLOW[0] * SLOW[1] * MIB / 2 * 3 / 2;
    // What the writers have sent and is not read, one window for each connection, or is not a whole frame.
    const SENT: usize = WRITERS[0] * 4 * MIB + WRITERS[0] * WRITERS[1] * MIB;
    // What a session and its buffers take besides, in a build that is not optimised.
    const SESSIONS: usize = 1250 * 160 * 1024;

    let lite = Lite::start().await;
    let dir = tempfile::tempdir().unwrap();
    let program = program(&lite, dir.path(), "32 MiB").await;
    writes(sessions(&program, "backlog", 1).await.remove(0), 8).await;
    let before = program.peak_memory();

    let idle = join_all((0..READERS[0]).map(|_| reads(&program, "s", READERS[1]))).await;
    let quiet = join_all((0..APPENDERS[0]).map(|_| sessions(&program, "s", APPENDERS[1]))).await;
    let slow = join_all((0..SLOW[0]).map(|_| reads(&program, "backlog", SLOW[1]))).await;
    let writers =
        join_all((0..WRITERS[0]).map(|_| sessions(&program, "written", WRITERS[1]))).await;
    let writing = writers.into_iter().flatten();
    let writing = join_all(writing.map(|session| writes(session, INPUTS)));
    let (_, ()) = tokio::join!(writing, async {
        for _ in 0..5 {
            served(&program, "fresh").await;
        }
    });
    // Who was idle meanwhile is served as if nothing had been.
    let appending = quiet.into_iter().flatten().map(|mut session| async move {
        session.send(frame(&small("from an idle session"))).await;
        session.live.frame().await.unwrap().unwrap().ack();
    });
    let following = idle.into_iter().flatten().map(|live| follows(live, 101));
    tokio::join!(join_all(appending), join_all(following));
    served(&program, "s").await;

    let grown = program.peak_memory() - before;
    let bound = BUDGET + PARKED + SENT + SESSIONS;
    println!("{} of {} MiB more than before", grown / MIB, bound / MIB);
    assert!(grown < bound, "{grown} bytes, bound {bound}");
    drop(slow);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_gives_way_when_others_wait() {
    let lite = Lite::start().await;
    let dir = tempfile::tempdir().unwrap();
    let program = program(&lite, dir.path(), "16 MiB").await;
    writes(sessions(&program, "backlog", 1).await.remove(0), 8).await;
    // Half of the budget is for reads: each of these keeps a batch of it.
    let slow = join_all((0..12).map(|_| reads(&program, "backlog", 1))).await;
    let fresh = reads(&program, "backlog", 1).await.remove(0);
    follows(fresh, 8).await;
    assert!(program.log().contains("does not go on"));
    // Small reads never had to wait.
    served(&program, "s").await;
    drop(slow);
}

/// A stack of the smallest budget.
async fn small_stack(compression: RecordCompression) -> Stack {
    let stack = Stack::with(|config| {
        config.limits.max_inflight_bytes = ByteSize::mib(16);
        config.limits.compression = compression;
    });
    let stack = stack.await;
    stack.create_basin(Some("aegis-256")).await;
    stack
}

/// Opens an append session that takes none of its acks.
async fn deaf(stack: &Stack) -> Session {
    let client = Client::in_window(stack.address, &stack.certificate, "h2", 0).await;
    Session::append(&client, Ask::post(records("s")).key(&KEY)).await
}

/// How long it takes until a large append is admitted, of those that are refused meanwhile.
async fn admitted(stack: &Stack) -> Duration {
    let client = stack.h2().await;
    let began = Instant::now();
    loop {
        let ask = append("other", Encoding::Proto, Packed::Not, &large());
        let answer = client.ask(ask).await;
        if answer.status == 200 {
            return began.elapsed();
        }
        assert_eq!((answer.status, &*answer.code()), (429, "rate_limited"));
        assert!(began.elapsed() < Duration::from_secs(30), "never admitted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn split_inputs_need_no_client_that_takes_acks() {
    let stack = small_stack(RecordCompression::Never).await;
    let deaf = join_all((0..4).map(|_| deaf(&stack))).await;
    for session in &deaf {
        session.send(frame(&full(37, noise))).await;
    }
    let client = stack.h2().await;
    until("all is appended", async || {
        let tail = Ask::get(format!("{}/tail", records("s")));
        let answer = client.ask(tail).await;
        answer.status == 200 && answer.json()["tail"]["seq_num"] == 4 * 37
    })
    .await;
    until("no room is kept", async || stack.inflight() == 0).await;
    assert!(admitted(&stack).await < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_no_acks_keeps_no_room() {
    let stack = small_stack(RecordCompression::Never).await;
    let deaf = join_all((0..4).map(|_| deaf(&stack))).await;
    // More than may wait for the client; then what takes room until its first part is acked.
    let sending = deaf.iter().map(|session| async {
        for _ in 0..200 {
            session.send(frame(&small("unread"))).await;
        }
        session.send(frame(&full(37, noise))).await;
    });
    join_all(sending).await;
    until("there is no room", async || stack.inflight() > 5 * MIB).await;
    let waited = admitted(&stack).await;
    assert!(
        waited > Duration::from_secs(5),
        "{waited:?}: nobody had to wait"
    );
    drop(deaf);
    until("the room is given back", async || stack.inflight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_bodies_give_way_when_others_wait() {
    let stack = small_stack(RecordCompression::Never).await;
    let clients = join_all((0..2).map(|_| stack.h2())).await;
    let mut stalled = Vec::new();
    for client in clients {
        let (sender, body) = channel();
        let ask = Ask::post(records("s")).key(&KEY);
        let ask = ask.header("content-type", "application/json");
        let asked = tokio::spawn(async move { client.send(ask, body).await });
        sender
            .send(Ok(vec![b' '; MIB + MIB / 8].into()))
            .await
            .unwrap();
        stalled.push((sender, asked));
    }
    until("there is no room", async || stack.inflight() > 6 * MIB).await;
    let waited = admitted(&stack).await;
    assert!(
        waited > Duration::from_secs(5),
        "{waited:?}: nobody had to wait"
    );
    let (_senders, asked): (Vec<_>, Vec<_>) = stalled.into_iter().unzip();
    let (answer, _, _) = select_all(asked).await;
    assert_eq!(answer.unwrap().unwrap().status(), 408);
    assert!(waited < Duration::from_secs(25), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_several_pieces_gives_way_when_others_wait() {
    let stack = small_stack(RecordCompression::Always).await;
    let client = stack.h2().await;
    // Half of each record compresses: a stored batch of 1 MiB opens to almost two.
    let half = || [noise(LARGE / 8), vec![b'x'; LARGE / 8]].concat();
    for _ in 0..4 {
        let batch = input((0..4).map(|_| record(&[], half())));
        let ask = append("s", Encoding::Proto, Packed::Not, &batch);
        assert_eq!(client.ask(ask).await.status, 200);
    }
    let ask = read("s", "seq_num=0", Encoding::Frames);
    let slow = join_all((0..4).map(|_| async {
        let client = Client::in_window(stack.address, &stack.certificate, "h2", 1000).await;
        client.open(ask.clone()).await
    }));
    let slow = slow.await;
    let full = || stack.inflight() > 4 * MIB;
    until("there is no room", async || full()).await;
    follows(Live::new(client.open(ask).await), 16).await;
    drop(slow);
    until("the room is given back", async || stack.inflight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_large_appends_than_fit_take_turns_and_all_complete() {
    let lite = Lite::start().await;
    let dir = tempfile::tempdir().unwrap();
    let program = program(&lite, dir.path(), "16 MiB").await;
    // As in S2, clients that create one stream at the same time may be refused with a conflict.
    let client = program.client("h2").await;
    for stream in ["a", "b"] {
        let create = Ask::post("/v1/streams").json(&json!({ "stream": stream }));
        assert_eq!(client.ask(create).await.status, 201);
    }
    let sessions = join_all((0..2).map(|_| sessions(&program, "a", 10))).await;
    let sessions = sessions.into_iter().flatten();
    let sessions = join_all(sessions.map(|session| writes(session, 2)));
    let clients = join_all((0..10).map(|_| program.client("h2"))).await;
    let unary = join_all(clients.iter().enumerate().map(|(at, client)| async move {
        let packed = [Packed::Not, Packed::Gzip, Packed::Zstd][at % 3];
        until("it is admitted", async || {
            let ask = append("b", Encoding::Proto, packed, &large());
            let answer = client.ask(ask).await;
            let outcome = (answer.status, &*answer.code());
            assert!(
                outcome.0 == 200 || outcome == (429, "rate_limited"),
                "{outcome:?}"
            );
            answer.status == 200
        })
        .await;
    }));
    tokio::join!(sessions, unary);
    let ask = Ask::get(format!("{}/tail", records("a")));
    let tail = clients[0].ask(ask).await.json();
    assert_eq!(tail["tail"]["seq_num"], 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_append_without_room_is_refused_and_sessions_wait() {
    const SESSIONS: usize = 6;
    const INPUTS: u64 = 4;
    let stack = Stack::with(|config| config.limits.max_inflight_bytes = ByteSize::mib(16)).await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    let ask = append("s", Encoding::Proto, Packed::Not, &large());
    assert_eq!(client.ask(ask.clone()).await.status, 200);
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(stack.append_session().await);
    }
    // The upstream takes nothing: what is on its way stays, until there is no room for more.
    stack.tap.hold(true);
    let body = frame(&large());
    let writing = sessions.into_iter().map(|mut session| {
        let body = body.clone();
        tokio::spawn(async move {
            for _ in 0..INPUTS {
                session.send(body.clone()).await;
            }
            session.finish();
            for _ in 0..INPUTS {
                session.live.frame().await.unwrap().unwrap().ack();
            }
        })
    });
    let writing: Vec<_> = writing.collect();
    until("there is no room", async || {
        stack.inflight() > 8 * MIB - 3 * LARGE
    })
    .await;
    assert!(stack.inflight() <= 8 * MIB);

    let began = Instant::now();
    let refused = client.ask(ask.clone()).await;
    let outcome = (refused.status, refused.code());
    assert_eq!(outcome, (429, "rate_limited".to_owned()));
    let waited = began.elapsed();
    assert!(
        waited >= Duration::from_secs(5) && waited < Duration::from_secs(15),
        "{waited:?}"
    );
    // The answer reaches a client that is still sending, and its connection lives on.
    let h1 = Arc::new(stack.h1().await);
    let (sender, body) = channel();
    let sending = Ask::post(records("s")).key(&KEY);
    let sending = sending.header("content-type", "application/json");
    let asking = Arc::clone(&h1);
    let asked = tokio::spawn(async move { asking.send(sending, body).await });
    let chunk = Bytes::from(vec![b' '; 100 * 1024]);
    sender.send(Ok(chunk.clone())).await.unwrap();
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(answer.status(), 429);
    for _ in 0..3 {
        sender.send(Ok(chunk.clone())).await.unwrap();
    }
    drop(sender);
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(contains(&text, b"rate_limited"));

    stack.tap.hold(false);
    for written in writing {
        written.await.unwrap();
    }
    assert_eq!(h1.ask(ask.clone()).await.status, 200);
    assert_eq!(client.ask(ask).await.status, 200);
    let tail = Ask::get(format!("{}/tail", records("s")));
    let tail = client.ask(tail).await.json();
    assert_eq!(tail["tail"]["seq_num"], 3 + SESSIONS as u64 * INPUTS);
    until("the room is given back", async || stack.inflight() == 0).await;
}
