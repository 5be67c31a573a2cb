//! Moments of the service are not the clients' errors: overload, a lagging replica, a lost connection.

use futures_util::{StreamExt as _, stream};

use super::setup::{Gateway, SECRET, appends, one, reads};
use crate::harness::{Encoding, Transit};

const COLD_STREAMS: usize = 150;

/// A gateway with this many streams, none of whose keys is held.
async fn cold(streams: usize) -> Gateway {
    let mut gateway = Gateway::start().await;
    let puts = (0..streams).map(|at| {
        let gateway = &gateway;
        async move { gateway.put(&format!("s{at}"), SECRET).await }
    });
    stream::iter(puts).buffer_unordered(8).count().await;
    gateway.restart().await;
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn cold_streams_share_a_service_that_takes_few_calls() {
    let gateway = cold(COLD_STREAMS).await;
    gateway.vault.act(Transit::AtMost(20));
    let client = gateway.stack.h2().await;
    let asks = (0..COLD_STREAMS).map(|at| match at % 2 {
        0 => client.ask(reads(&format!("s{at}"), "seq_num=0", Encoding::Json)),
        _ => client.ask(appends(&format!("s{at}"), Encoding::Json, &one("x"))),
    });
    let answers = futures_util::future::join_all(asks).await;
    let failed = answers.iter().filter(|answer| answer.status != 200);
    let failed: Vec<_> = failed.map(|answer| answer.text()).collect();
    assert_eq!(failed, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refusal_for_now_reaches_no_client() {
    let gateway = cold(8).await;
    for (at, status) in [408, 412, 425, 429, 500, 502, 503, 504]
        .into_iter()
        .enumerate()
    {
        let (cold, new) = (format!("s{at}"), format!("new{at}"));
        gateway.vault.act(Transit::RefuseOnce(status));
        assert_eq!(gateway.bodies(&cold).await, [SECRET], "{status}");
        gateway.vault.act(Transit::RefuseOnce(status));
        gateway.put(&new, SECRET).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_share_a_connection() {
    let gateway = cold(20).await;
    let before = gateway.vault.connections();
    for at in 0..20 {
        assert_eq!(gateway.bodies(&format!("s{at}")).await, [SECRET]);
    }
    assert_eq!(gateway.vault.connections(), before + 1);
}
