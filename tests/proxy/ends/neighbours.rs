//! One client leaves every request that it begins. Another client does not notice.

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use futures_util::future::join_all;

use super::exchange::{Relayed, Version};
use crate::harness::{
    Ask, Client, Encoding, Frame, KEY, Live, Packed, Session, append, channel, frame, input, read,
    record, records,
};

const ROUNDS: usize = 20;
const REQUESTS: usize = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// How the other client leaves its requests.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    /// It resets them before it has an answer.
    BeforeTheHead,
    /// It resets them once the answer has begun.
    BehindTheHead,
    /// It closes the connection.
    WithItsConnection,
}

const LEAVINGS: [Leaving; 3] = [
    Leaving::BeforeTheHead,
    Leaving::BehindTheHead,
    Leaving::WithItsConnection,
];

#[tokio::test(flavor = "multi_thread")]
async fn one_client_does_not_end_anothers_sessions() {
    let relayed = Relayed::start().await;
    for stream in ["theirs", "mine", "unary"] {
        relayed.fill(stream, false, 1).await;
    }
    let mine = relayed.client(Version::Http2).await;
    let ask = read("mine", "seq_num=1", Encoding::Frames);
    let live = Live::new(mine.open(ask).await);
    let session = Session::append(&mine, Ask::post(records("mine")).key(&KEY)).await;
    let is_over = AtomicBool::new(false);
    let leave = async {
        for round in 0..ROUNDS {
            leave(&relayed, LEAVINGS[round % LEAVINGS.len()]).await;
        }
        is_over.store(true, SeqCst);
    };
    let (_, appended, called) = tokio::join!(
        leave,
        appends_and_reads(session, live, &is_over),
        calls(&relayed, &is_over)
    );
    let mistakes = [appended, called].concat();
    assert!(mistakes.is_empty(), "{mistakes:#?}");
}

/// Begins many requests of each kind on one connection, and leaves them.
async fn leave(relayed: &Relayed, leaving: Leaving) {
    let client = Client::plain(relayed.stack.address).await;
    let begun = join_all((0..REQUESTS).map(|at| begin(&client, at)));
    match leaving {
        Leaving::BeforeTheHead => {
            // A pause of the upstream: it gets requests and resets at the same moment.
            relayed.back.hold();
            let _left = tokio::time::timeout(PAUSE, begun).await;
            tokio::time::sleep(PAUSE).await;
            relayed.back.release();
        }
        Leaving::BehindTheHead => drop(begun.await),
        Leaving::WithItsConnection => {
            let _begun = begun.await;
            client.vanish();
        }
    }
}

/// Begins a read that follows, a long poll or an append session.
async fn begin(client: &Client, at: usize) -> impl Send + use<> {
    let stream = "theirs";
    let (sender, body) = channel();
    let ask = match at % 4 {
        0 => read(stream, "seq_num=0", Encoding::Frames),
        1 => read(stream, "seq_num=0", Encoding::Events),
        2 => read(stream, "seq_num=0", Encoding::Json),
        _ => {
            let ask = Ask::post(records(stream)).key(&KEY);
            let ask = ask.header("content-type", "s2s/proto");
            return (Some(sender), client.send(ask, body).await.ok());
        }
    };
    let body = http_body_util::Empty::new();
    let body = http_body_util::BodyExt::map_err(body, |never| match never {});
    let body = http_body_util::BodyExt::boxed_unsync(body);
    (None, client.send(ask, body).await.ok())
}

/// Keeps an append session and a read session of its stream until the other client is done.
async fn appends_and_reads(session: Session, live: Live, is_over: &AtomicBool) -> Vec<String> {
    let (mut session, mut live) = (session, live);
    let mut next = 1;
    while !is_over.load(SeqCst) {
        session.send(frame(&input([record(&[], "mine")]))).await;
        let acked = match session.live.frame().await {
            Ok(Some(frame)) => frame,
            ended => return vec![format!("append session after {next} records: {ended:?}")],
        };
        if let Err(mistake) = is_ack(&acked, next) {
            return vec![mistake];
        }
        loop {
            let batch = match live.frame().await {
                Ok(Some(frame @ Frame::Message { .. })) => frame.batch(),
                ended => return vec![format!("read session after {next} records: {ended:?}")],
            };
            match &*batch.records {
                [] => {}
                [record] if record.seq_num == next => break,
                records => return vec![format!("{records:?} in place of {next}")],
            }
        }
        next += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Vec::new()
}

fn is_ack(frame: &Frame, wanted: u64) -> Result<(), String> {
    let Frame::Message { .. } = frame else {
        return Err(format!("append session ends: {frame:?}"));
    };
    let start = frame.ack().start.unwrap().seq_num;
    match start == wanted {
        true => Ok(()),
        false => Err(format!("ack of {start} in place of {wanted}")),
    }
}

/// Makes unary calls until the other client is done.
async fn calls(relayed: &Relayed, is_over: &AtomicBool) -> Vec<String> {
    let client = relayed.client(Version::Http2).await;
    let batch = input([record(&[], "x")]);
    let mut mistakes = Vec::new();
    while !is_over.load(SeqCst) && mistakes.len() < 5 {
        for ask in [
            append("unary", Encoding::Json, Packed::Not, &batch),
            read("unary", "seq_num=0&count=1", Encoding::Json),
            Ask::get("/v1/streams"),
        ] {
            match client.try_ask(ask).await {
                Ok(answer) if answer.status == 200 => {}
                Ok(answer) => mistakes.push(format!("{} {}", answer.status, answer.text())),
                Err(broken) => mistakes.push(format!("{broken:?}")),
            }
        }
    }
    mistakes
}
