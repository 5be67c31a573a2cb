//! Bodies that do not go on give way to others.

use std::sync::Arc;

use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::mpsc;

use super::*;
use crate::{
    body::{Budget, MIN_BUDGET_BYTES},
    telemetry::metrics::Metrics,
};

const MIB: usize = 1024 * 1024;

fn budget() -> (Budget, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new().unwrap());
    (Budget::new(MIN_BUDGET_BYTES, &metrics), metrics)
}

/// A body under way: what is sent arrives.
fn begin(
    room: Room,
) -> (
    mpsc::Sender<usize>,
    tokio::task::JoinHandle<Result<Bytes, CollectError>>,
) {
    let (sender, receiver) = mpsc::channel(1);
    let collecting = tokio::spawn(async move {
        let chunks = stream::unfold(receiver, |mut receiver: mpsc::Receiver<usize>| async move {
            let chunk = Bytes::from(vec![b'x'; receiver.recv().await?]);
            Some((Ok(Frame::data(chunk)), receiver))
        });
        let mut body = StreamBody::new(Box::pin(chunks));
        collect_all(&HeaderMap::new(), &mut body, &room).await
    });
    (sender, collecting)
}

#[tokio::test(start_paused = true)]
async fn a_body_takes_little_more_than_what_has_arrived() {
    let (budget, metrics) = budget();
    let (sender, collecting) = begin(budget.whole_body());
    for _ in 0..11 {
        sender.send(100_000).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let inflight = metrics.clients.inflight.get();
    assert!((3_300_000..4_200_000).contains(&inflight), "{inflight}");
    drop(sender);
    let whole = collecting.await.unwrap().unwrap();
    assert_eq!(whole.len(), 1_100_000);
    drop(whole);
    assert_eq!(metrics.clients.inflight.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn bodies_that_do_not_go_on_give_way_when_others_wait_and_one_that_does_stays() {
    let (budget, metrics) = budget();
    let (stalled, ended) = begin(budget.whole_body());
    stalled.send(MIB).await.unwrap();
    let (slow, arrives) = begin(budget.whole_body());
    slow.send(MIB / 2).await.unwrap();
    // Nobody waits: both may take their time.
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!ended.is_finished());
    slow.send(400_000).await.unwrap();
    let session = budget.sending();
    let began = tokio::time::Instant::now();
    let waiting = tokio::spawn(async move { session.reserve(3 * MIB / 2).await });
    let ended = tokio::time::timeout(Duration::from_secs(120), ended);
    let ended = ended.await.unwrap().unwrap();
    assert!(matches!(ended, Err(CollectError::Slow)), "{ended:?}");
    drop(waiting.await.unwrap().unwrap());
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        slow.send(100_000).await.unwrap();
    }
    drop(slow);
    assert_eq!(arrives.await.unwrap().unwrap().len(), MIB / 2 + 600_000);
    assert_eq!(metrics.clients.inflight.get(), 0);
}
