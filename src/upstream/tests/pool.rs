//! How many connections requests take.

use http::StatusCode;
use tokio::sync::{Notify, mpsc};

use super::*;

/// Starts `count` requests at once against a store that answers none until all have arrived, and
/// returns how many connections that took.
async fn connections_for(count: usize, max_streams: u32) -> usize {
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let release = Arc::new(Notify::new());
    let gate = Arc::clone(&release);
    let store = Store::start(max_streams, move |_| {
        let (arrived, gate) = (arrived.clone(), Arc::clone(&gate));
        async move {
            let released = gate.notified();
            arrived.send(()).unwrap();
            released.await;
            answer("")
        }
    })
    .await;
    let upstream = store.upstream();
    let mut requests = JoinSet::new();
    for _ in 0..count {
        let upstream = upstream.clone();
        requests.spawn(async move {
            let sent = upstream.send(Target::Account, request("/"));
            sent.await.unwrap().status()
        });
    }
    for _ in 0..count {
        within(arrivals.recv()).await.unwrap();
    }
    release.notify_waiters();
    let statuses = within(requests.join_all()).await;
    assert_eq!(statuses, vec![StatusCode::OK; count]);
    store.connections()
}

#[tokio::test]
async fn ninety_requests_at_once_share_one_connection() {
    assert_eq!(connections_for(90, 200).await, 1);
}

#[tokio::test]
async fn one_more_opens_a_second_connection() {
    assert_eq!(connections_for(91, 200).await, 2);
}

#[tokio::test]
async fn smaller_limit_of_the_peer_is_kept() {
    assert_eq!(connections_for(5, 2).await, 3);
}

#[tokio::test]
async fn places_are_free_again_after_the_response() {
    let store = Store::start(1, |_| async { answer("body") }).await;
    let upstream = store.upstream();
    for _ in 0..20 {
        let response = within(upstream.send(Target::Account, request("/")))
            .await
            .unwrap();
        response.collect().await.unwrap();
    }
    assert_eq!(store.connections(), 1);
}

#[tokio::test]
async fn connection_that_died_while_idle_is_replaced() {
    let store = Store::start(100, |_| async { answer("") }).await;
    let upstream = store.upstream();
    for round in 1..=5 {
        within(upstream.send(Target::Account, request("/")))
            .await
            .unwrap();
        assert_eq!(store.connections(), round);
        store.kill_connections().await;
    }
}

#[tokio::test]
async fn http1_over_tls_reuses_its_connection() {
    let connections = Arc::new(AtomicUsize::new(0));
    let (address, pem) = http1_store(Arc::clone(&connections)).await;
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(pem.as_bytes()).unwrap();
    let mut config = config(&format!("https://{address}"));
    config.tls.ca_file = ca.path().into();
    let upstream = connect(&config);
    for _ in 0..3 {
        let response = within(upstream.send(Target::Account, request("/")))
            .await
            .unwrap();
        let body = response.collect().await.unwrap().to_bytes();
        assert_eq!(body, address.to_string());
        let inner = upstream.live.load();
        let destination = inner
            .prepare(Target::Account, &mut http::HeaderMap::new(), None)
            .unwrap();
        let host = inner.pool.host(&destination).unwrap();
        within(async {
            while !host.has_idle_http1() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let mut parallel = JoinSet::new();
    for _ in 0..8 {
        let upstream = upstream.clone();
        parallel.spawn(async move {
            let response = upstream.send(Target::Account, request("/")).await.unwrap();
            response.collect().await.unwrap().to_bytes().len()
        });
    }
    assert_eq!(within(parallel.join_all()).await.len(), 8);
}
