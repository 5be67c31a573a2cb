//! A stop lets clients go in their own time, ends the rest honestly, and loses nothing that was acked.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use rustix::process::Signal;
use s2_api::v1::stream::proto::ReadBatch;
use s2_sdk::{
    S2, S2Stream,
    append_session::AppendSessionConfig,
    types::{
        AppendInput, AppendRecord, AppendRecordBatch, EncryptionKey, ReadFrom, ReadInput,
        ReadSessionConfig, ReadStart, RetryConfig,
    },
};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::harness::{
    Answer, Ask, BASIN, Client, DEADLINE, Encoding, Frame, KEY, Lite, Live, Packed, Program,
    RECONNECT, Session, append, channel, frame, heartbeat, input, read, record, records,
    sdk_config, sealed_batch, until,
};

/// The program over a real server, with a basin and an encrypted stream of one record.
struct Deployment {
    lite: Lite,
    program: Program,
    _dir: tempfile::TempDir,
}

impl Deployment {
    async fn start(sections: Value) -> Self {
        let lite = Lite::start().await;
        let dir = tempfile::tempdir().unwrap();
        let program = Program::with(dir.path(), lite.address, &sections, "info");
        let config = json!({ "stream_cipher": "aegis-256", "create_stream_on_append": true });
        let basin = json!({ "basin": BASIN, "config": config });
        let client = program.client("http/1.1").await;
        let made = client.ask(Ask::post("/v1/basins").json(&basin)).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let first = append("s", Encoding::Json, Packed::Not, &one("first"));
        assert_eq!(client.ask(first).await.status, 200);
        Self {
            lite,
            program,
            _dir: dir,
        }
    }

    /// How many records the upstream has in the stream.
    async fn stored(&self) -> u64 {
        let ask = Ask::get(format!("{}/tail", records("s")));
        let tail = Client::plain(self.lite.address).await.ask(ask).await;
        tail.json()["tail"]["seq_num"].as_u64().unwrap()
    }

    async fn session(&self) -> Session {
        let client = self.program.client("h2").await;
        Session::append(&client, Ask::post(records("s")).key(&KEY)).await
    }

    /// A read session that waits at the tail, which is 1.
    async fn follower(&self, encoding: Encoding) -> Live {
        let client = self.program.client("h2").await;
        let mut live = Live::new(client.open(read("s", "seq_num=0", encoding)).await);
        match encoding {
            Encoding::Frames => {
                let first = live.frame().await.unwrap().unwrap();
                assert_eq!((first.batch().records.len(), advised(&first)), (1, false));
                let beat = live.frame().await.unwrap().unwrap();
                assert_eq!(beat.batch().tail.unwrap().seq_num, 1);
            }
            _ => {
                for start in ["event: batch\n", "event: ping\n"] {
                    let event = live.event().await.unwrap().unwrap();
                    assert!(event.starts_with(start), "{event}");
                }
            }
        }
        live
    }
}

fn one(body: &str) -> s2_api::v1::stream::proto::AppendInput {
    input([record(&[], body.to_owned())])
}

fn advised(frame: &Frame) -> bool {
    matches!(frame, Frame::Message { flag, .. } if flag & RECONNECT != 0)
}

async fn next_ack(session: &mut Session) -> (u64, bool) {
    let frame = session.live.frame().await.unwrap().unwrap();
    (frame.ack().end.unwrap().seq_num, advised(&frame))
}

/// Asks the program to stop, and waits until it has begun to.
async fn stopping(deployment: &Deployment) {
    deployment.program.signal(Signal::TERM);
    let address = deployment.program.address();
    until("the listener closes", async || {
        TcpStream::connect(address).await.is_err()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_advised_to_go_and_the_program_ends_when_they_have() {
    let mut deployment = Deployment::start(json!({})).await;
    let mut follower = deployment.follower(Encoding::Frames).await;
    let events = deployment.follower(Encoding::Events).await;
    let mut session = deployment.session().await;
    stopping(&deployment).await;
    // Who waits at the tail is told at once, by the tail it knows.
    let told = follower.frame().await.unwrap().unwrap();
    assert!(advised(&told) && told.batch().records.is_empty());
    assert_eq!(told.batch().tail.unwrap().seq_num, 1);
    // Who appends is told with the ack, and gets every ack before its session ends.
    for number in 2..12 {
        session.send(frame(&one("late"))).await;
        assert_eq!(next_ack(&mut session).await, (number, true));
    }
    session.send(frame(&one("last"))).await;
    session.finish();
    assert_eq!(next_ack(&mut session).await, (12, true));
    assert_eq!(session.live.frame().await.unwrap(), None);
    // Records go on until the reader leaves.
    let mut got = 1;
    while got < 12 {
        let frame = follower.frame().await.unwrap().unwrap();
        assert!(advised(&frame));
        got += frame.batch().records.len();
    }
    drop((follower, events, session));
    assert_eq!(deployment.program.ended().await, Some(0));
    assert_eq!(deployment.stored().await, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_reader_that_has_every_record_before_the_tail_is_told_it_again() {
    let mut deployment = Deployment::start(json!({})).await;
    // Answered by hand, for the upstream says something every few seconds.
    let at_tail = heartbeat(1);
    let behind = ReadBatch {
        tail: heartbeat(5).tail,
        ..sealed_batch("the first of five")
    };
    let mut reads = Vec::new();
    for batch in [&at_tail, &behind] {
        let player = deployment.lite.play(&records("s"));
        let client = deployment.program.client("h2").await;
        let opened = client.open(read("s", "seq_num=0", Encoding::Frames)).await;
        let mut live = Live::new(opened);
        player.play(frame(batch)).await;
        assert!(!advised(&live.frame().await.unwrap().unwrap()));
        reads.push((player, live));
    }
    stopping(&deployment).await;
    let told = reads[0].1.frame().await.unwrap().unwrap();
    assert!(advised(&told));
    assert_eq!(told.batch(), at_tail);
    // To resume from a tail that was not reached would skip records.
    let (player, mut live) = reads.pop().unwrap();
    player.play(frame(&heartbeat(9))).await;
    let next = live.frame().await.unwrap().unwrap();
    assert!(advised(&next));
    assert_eq!(next.batch(), heartbeat(9));
    drop((reads, live));
    assert_eq!(deployment.program.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_in_time_is_told_so_after_its_acks() {
    let limits = json!({ "limits": { "drain_timeout": "1s" } });
    let mut deployment = Deployment::start(limits).await;
    let program = &deployment.program;
    let mut follower = deployment.follower(Encoding::Frames).await;
    let mut events = deployment.follower(Encoding::Events).await;
    let mut session = deployment.session().await;
    // Appends that get no answer, and one that does not come whole; a poll.
    let hanging = append("hang", Encoding::Json, Packed::Not, &one("x"));
    let made = program.client("h2").await.ask(hanging.clone()).await;
    assert_eq!(made.status, 200);
    let _player = deployment.lite.play(&records("hang"));
    let poll = read("s", "seq_num=1&wait=60", Encoding::Json);
    let polling = asking(program.client("h2").await, poll);
    let (half, body) = channel();
    half.send(Ok("{".into())).await.unwrap();
    let ask = append("half", Encoding::Json, Packed::Not, &one("x"));
    let client = Arc::new(program.client("h2").await);
    let asks = Arc::clone(&client);
    let sending = tokio::spawn(async move {
        let response = asks.send(ask, body).await.unwrap();
        response.status()
    });
    until("the half is sent", async || {
        half.capacity() == half.max_capacity()
    })
    .await;
    // It comes on the same connection, so when it is there, the half is.
    let hanging = tokio::spawn(async move { client.ask(hanging).await });
    until("all have arrived", async || {
        let seen = deployment.lite.seen();
        let appends = |seen: &&crate::harness::Seen| seen.line.ends_with("/hang/records");
        seen.iter().any(|seen| seen.line.contains("wait=60"))
            && seen.iter().filter(appends).count() == 2
    })
    .await;

    let begun = std::time::Instant::now();
    program.signal(Signal::TERM);
    for _ in 0..8 {
        session.send(frame(&one("x"))).await;
    }
    let mut acked = 1;
    let failure = loop {
        match session.live.frame().await.unwrap().unwrap() {
            end @ Frame::Terminal { .. } => break end.failure(),
            ack => {
                acked += 1;
                assert_eq!(ack.ack().end.unwrap().seq_num, acked);
                session.send(frame(&one("x"))).await;
            }
        }
    };
    let draining = (503, "server_draining".to_owned());
    assert_eq!(failure, draining);
    assert_eq!(session.live.frame().await.unwrap(), None, "a clean end");
    let mut read = 1;
    let failure = loop {
        match follower.frame().await.unwrap().unwrap() {
            end @ Frame::Terminal { .. } => break end.failure(),
            batch => read += batch.batch().records.len() as u64,
        }
    };
    assert_eq!(failure, draining);
    assert!(read <= acked);
    let failure = loop {
        let event = events.event().await.unwrap().unwrap();
        if !event.starts_with("event: batch\n") {
            break event;
        }
    };
    let start = "event: error\ndata: {\"code\":\"server_draining\"";
    assert!(failure.starts_with(start), "{failure}");
    assert_eq!(events.event().await.unwrap(), None, "a clean end");
    let late = hanging.await.unwrap();
    assert_eq!((late.status, &*late.code()), (504, "upstream_timeout"));
    let polled = polling.await.unwrap();
    // Its answer came with the first record that was appended.
    assert_eq!(polled.status, 200, "{}", polled.text());
    assert_eq!(sending.await.unwrap(), 503);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(deployment.program.ended().await, Some(0));
    // Every acked record is there, and none that was not acked.
    assert_eq!(deployment.stored().await, acked);
    assert!(!deployment.program.log().contains("cutting them"));
}

/// Asks in a task of its own.
fn asking(client: Client, ask: Ask) -> tokio::task::JoinHandle<Answer> {
    tokio::spawn(async move { client.ask(ask).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_poll_learns_that_the_proxy_goes() {
    let limits = json!({ "limits": { "drain_timeout": "1s" } });
    let mut deployment = Deployment::start(limits).await;
    let client = deployment.program.client("h2").await;
    let poll = read("s", "seq_num=1&wait=60", Encoding::Json);
    let polling = asking(client, poll);
    until("the poll has arrived", async || {
        let seen = deployment.lite.seen();
        seen.iter().any(|seen| seen.line.contains("wait=60"))
    })
    .await;
    stopping(&deployment).await;
    let polled = polling.await.unwrap();
    assert_eq!((polled.status, &*polled.code()), (503, "server_draining"));
    assert_eq!(deployment.program.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_does_not_keep_the_program() {
    let limits = json!({ "limits": { "drain_timeout": "1s" } });
    let mut deployment = Deployment::start(limits).await;
    let client = deployment.program.client("h2").await;
    let large = input([record(&[], vec![b'x'; 1_000_000])]);
    for _ in 0..8 {
        let ask = append("s", Encoding::Proto, Packed::Not, &large);
        assert_eq!(client.ask(ask).await.status, 200);
    }
    let unread = client.open(read("s", "seq_num=0", Encoding::Frames)).await;
    stopping(&deployment).await;
    assert_eq!(deployment.program.ended().await, Some(0));
    assert!(deployment.program.log().contains("cutting them"));
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_stops_at_once() {
    let mut deployment = Deployment::start(json!({})).await;
    let follower = deployment.follower(Encoding::Frames).await;
    let begun = std::time::Instant::now();
    stopping(&deployment).await;
    deployment.program.signal(Signal::INT);
    assert_eq!(deployment.program.ended().await, Some(1));
    assert!(begun.elapsed() < Duration::from_secs(15));
    let log = deployment.program.log();
    assert!(log.contains("streamseal: stopped at once"), "{log}");
    drop(follower);
}

/// The stream as the real SDK has it. It goes on for as long as a restart takes.
fn sdk_stream(program: &Program) -> S2Stream {
    let patient = RetryConfig::new()
        .with_max_attempts(NonZeroU32::new(100).unwrap())
        .with_max_base_delay(Duration::from_millis(200));
    let config = sdk_config(program.address()).with_retry(patient);
    let basin = S2::new(config).unwrap().basin(BASIN.parse().unwrap());
    let stream = basin.stream("s".parse().unwrap());
    stream.with_encryption_key(EncryptionKey::new(KEY))
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_and_consumers_live_through_a_restart() {
    const PRODUCERS: usize = 3;
    const INPUTS: usize = 400;
    const RECORDS: usize = 1 + PRODUCERS * INPUTS;
    // The same port again, so that the SDK finds it.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let listen = json!({ "listen": { "address": address.to_string() } });
    let mut deployment = Deployment::start(listen).await;
    let produce = |producer: usize, stream: S2Stream| async move {
        let session = stream.append_session(AppendSessionConfig::new());
        let (mut acks, mut acked) = (Vec::new(), Vec::new());
        for number in 0..INPUTS {
            let body = format!("{producer}/{number}");
            let record = AppendRecord::new(body.clone()).unwrap();
            let records = AppendRecordBatch::try_from_iter([record]).unwrap();
            let ticket = session.submit(AppendInput::new(records)).await.unwrap();
            // A few are on their way together.
            acks.push((body, ticket));
            if acks.len() == 4 || number + 1 == INPUTS {
                for (body, ack) in acks.drain(..) {
                    acked.push((ack.await.unwrap().start.seq_num, body));
                }
            }
        }
        session.close().await.unwrap();
        acked
    };
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| tokio::spawn(produce(producer, sdk_stream(&deployment.program))))
        .collect();
    let consumers: Vec<_> = (0..2)
        .map(|_| tokio::spawn(consume(sdk_stream(&deployment.program), RECORDS)))
        .collect();
    until("half of it is there", async || {
        deployment.stored().await > RECORDS as u64 / 2
    })
    .await;
    deployment.program.signal(Signal::TERM);
    assert_eq!(deployment.program.ended().await, Some(0));
    let before = deployment.stored().await;
    assert!(before < RECORDS as u64, "nothing was running any more");
    deployment.program.start_again();

    let mut acked = vec![(0, "first".to_owned())];
    for producer in producers {
        acked.extend(producer.await.unwrap());
    }
    acked.sort();
    // Each input is in the stream once, where its ack says.
    assert_eq!(deployment.stored().await, RECORDS as u64);
    for consumer in consumers {
        let seen = tokio::time::timeout(DEADLINE, consumer).await;
        assert_eq!(seen.expect("not all in time").unwrap(), acked);
    }
}

/// The first records of the stream, as a follower gets them.
async fn consume(stream: S2Stream, count: usize) -> Vec<(u64, String)> {
    use futures_util::StreamExt as _;
    let start = ReadStart::new().with_from(ReadFrom::SeqNum(0));
    let input = ReadInput::new().with_start(start);
    let session = stream.read_session(input, ReadSessionConfig::new()).await;
    let mut session = session.unwrap();
    let mut seen = Vec::new();
    while seen.len() < count {
        for record in session.next().await.unwrap().unwrap().records {
            let body = String::from_utf8(record.body.to_vec()).unwrap();
            seen.push((record.seq_num, body));
        }
    }
    seen
}
