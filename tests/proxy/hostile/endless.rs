//! An answer without end costs the proxy a few mebibytes, and the client gets a clear error.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::json;

use super::script::Reply;
use crate::{
    flow::settled,
    harness::{
        Ask, BASIN, CIPHERS, Encoding, End, Packed, Stack, append, delivered, frame, input, read,
        record, sealed_batch, until,
    },
};

const MIB: usize = 1 << 20;

/// More than any answer is allowed to cost: the largest that is read whole is 8 MiB, and one connection's
/// window and buffers come on top.
const BOUND: usize = 16 * MIB;

/// How much of an endless answer was taken, and whether it was left.
#[derive(Clone, Default)]
struct Taken {
    bytes: Arc<AtomicUsize>,
    left: Arc<AtomicBool>,
}

struct Leaves(Taken);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.left.store(true, SeqCst);
    }
}

impl Taken {
    /// An answer that repeats `chunk` for ever.
    fn endless(&self, status: u16, content_type: &str, chunk: &Bytes) -> Reply {
        let (leaves, chunk) = (Leaves(self.clone()), chunk.clone());
        let chunks = stream::unfold((leaves, chunk), |(leaves, chunk)| async {
            leaves.0.bytes.fetch_add(chunk.len(), SeqCst);
            let frame = http_body::Frame::data(chunk.clone());
            Some((Ok(frame), (leaves, chunk)))
        });
        let response = Response::builder().status(status);
        let response = response.header("content-type", content_type);
        let body = StreamBody::new(chunks).boxed_unsync();
        response.body(body).unwrap()
    }

    async fn is_bounded(&self, what: &str) {
        until(what, async || self.left.load(SeqCst)).await;
        let bytes = self.bytes.load(SeqCst);
        assert!((1..BOUND).contains(&bytes), "{what}: {bytes} bytes taken");
    }
}

/// Asks while `path` is answered without end.
async fn ask(
    stack: &Stack,
    path: &'static str,
    taken: &Taken,
    reply: Endless,
    ask: Ask,
) -> crate::harness::Answer {
    let taken = taken.clone();
    let (status, content_type, chunk) = reply;
    stack.lite.lie(move |seen| {
        let is_path = seen.line.contains(path);
        is_path.then(|| taken.endless(status, content_type, &chunk))
    });
    stack.h2().await.ask(ask).await
}

type Endless = (u16, &'static str, Bytes);

fn zeros() -> Bytes {
    vec![0; 64 * 1024].into()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_about_records_end_at_a_limit() {
    let stack = Stack::with_one_record().await;
    let batch = input([record(&[], "x")]);
    let unary = append("s", Encoding::Json, Packed::Not, &batch);
    let session = append("s", Encoding::Frames, Packed::Not, &batch);
    let reads = Encoding::READS.map(|encoding| read("s", "seq_num=0", encoding));
    let error = || {
        (
            503,
            "application/json",
            // In pieces of some size: a million tiny ones take their time on a busy machine.
            Bytes::from(format!("{{\"code\":\"unavailable\"}}{}", " ".repeat(4096))),
        )
    };
    let mut attacks = vec![
        (
            "an endless ack",
            unary.clone(),
            (200, "application/protobuf", zeros()),
        ),
        ("an endless error to an append", unary, error()),
        ("an endless error to a session", session, error()),
    ];
    attacks.extend(reads.map(|read| ("an endless error to a read", read, error())));
    for (what, request, reply) in attacks {
        let taken = Taken::default();
        let answer = ask(&stack, "/streams/s/records", &taken, reply, request).await;
        assert_eq!((answer.status, &*answer.code()), (500, "other"), "{what}");
        taken.is_bounded(what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_read_takes_what_one_answer_holds() {
    let stack = Stack::with_one_record().await;
    for body in ["short", &"l".repeat(50_000)] {
        for encoding in [Encoding::Json, Encoding::Base64, Encoding::Proto] {
            let (taken, batch) = (Taken::default(), frame(&sealed_batch(body)));
            let request = read("s", "seq_num=0", encoding);
            let reply = (200, "s2s/proto", batch);
            let answer = ask(&stack, "/streams/s/records", &taken, reply, request).await;
            let got = delivered(encoding, &answer);
            assert_eq!(got.end, End::Clean);
            let fit = (MIB / (body.len() + 8)).min(1000);
            assert_eq!(got.records().len(), fit);
            taken.is_bounded("endless batches").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_about_basins_and_streams_end_at_a_limit() {
    let stack = Stack::with_one_record().await;
    let basin = || format!("/v1/basins/{BASIN}");
    let cipher = json!({ "stream_cipher": CIPHERS[1] });
    let asks = [
        ("list", Ask::get("/v1/streams")),
        ("create", Ask::new("PUT", "/v1/streams/new")),
        ("delete", Ask::new("DELETE", "/v1/streams/gone")),
        ("basin", Ask::get(basin())),
        ("change", Ask::new("PATCH", basin()).json(&cipher)),
    ];
    for status in [200, 404] {
        for (what, request) in asks.clone() {
            let taken = Taken::default();
            let reply = (status, "application/json", Bytes::from(vec![b' '; 4096]));
            let answer = ask(&stack, "/v1/", &taken, reply, request).await;
            assert_eq!((answer.status, &*answer.code()), (500, "other"), "{what}");
            taken.is_bounded(what).await;
        }
    }
    // What is asked in preparation leaves the request safe to repeat.
    let taken = Taken::default();
    let reply = (200, "application/json", Bytes::from(vec![b' '; 4096]));
    let request = read("unknown", "seq_num=0", Encoding::Json);
    let answer = ask(&stack, "/v1/streams?prefix=unknown", &taken, reply, request).await;
    assert_eq!((answer.status, &*answer.code()), (502, "hot_server"));
    taken.is_bounded("a probe").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_passed_through_waits_for_the_client() {
    let stack = Stack::with_one_record().await;
    stack.lite.be_honest();
    for (what, request) in [
        ("a call that is forwarded", Ask::get("/v1/locations")),
        (
            "events of a sealed stream",
            read("s", "seq_num=0", Encoding::Events),
        ),
        (
            "frames of a sealed stream",
            read("s", "seq_num=0", Encoding::Frames),
        ),
    ] {
        for client in [stack.h1().await, stack.h2().await] {
            let taken = Taken::default();
            let lies = taken.clone();
            let batch = frame(&sealed_batch(&"l".repeat(50_000)));
            stack
                .lite
                .lie(move |_| Some(lies.endless(200, "s2s/proto", &batch)));
            let response = client.open(request.clone()).await;
            assert_eq!(response.status(), 200, "{what}");
            let bytes = settled(|| taken.bytes.load(SeqCst)).await;
            assert!(
                (1..2 * BOUND).contains(&bytes),
                "{what}: {bytes} bytes taken"
            );
            drop((response, client));
            until(what, async || taken.left.load(SeqCst)).await;
        }
    }
}
