//! An upstream connection whose peer is silently gone delays no other request for long.

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::exchange::{Relayed, Version};
use crate::{
    admin::{get, local},
    harness::{Encoding, Packed, append, ask_until, input, read, record},
};

/// Longest time to an answer while a connection is dead.
const IN_TIME: Duration = Duration::from_secs(3);
/// Times that all connections die.
const ROUNDS: usize = 3;
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn dead_connection_delays_no_other_request() {
    let relayed = Relayed::with(|config| {
        let address = "127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap();
        config.admin.address = address.into();
    })
    .await;
    relayed.fill("s", false, 3).await;
    let admin = relayed.stack.admin().await;
    ask_until(&admin, local("GET", "/ready"), |answer| {
        answer.status == 200
    })
    .await;

    let is_over = AtomicBool::new(false);
    let calls = async {
        let mut mistakes = Vec::new();
        for round in 0..ROUNDS {
            relayed.back.hold();
            mistakes.extend(calls(&relayed, round).await);
        }
        is_over.store(true, SeqCst);
        mistakes
    };
    let (slow, unready) = tokio::join!(calls, unready(&relayed, &is_over));
    let mistakes = [slow, unready].concat();
    assert!(mistakes.is_empty(), "{mistakes:#?}");
}

/// What is wrong with calls right after the connections are dead, each on a connection of its own. The read shows the
/// proxy that its connection is dead.
async fn calls(relayed: &Relayed, round: usize) -> Vec<String> {
    let mut mistakes = Vec::new();
    let batch = input([record(&[], "x")]);
    let read = || ("read", read("s", "seq_num=0&count=3", Encoding::Json));
    let append = || ("append", append("s", Encoding::Proto, Packed::Not, &batch));
    for (what, ask) in [read(), append(), read(), append()] {
        let client = relayed.client(Version::Http2).await;
        let began = Instant::now();
        match timeout(IN_TIME, client.ask(ask)).await {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => {
                let after = began.elapsed();
                mistakes.push(format!(
                    "round {round}, {what}, {after:?}: {}",
                    answer.text()
                ));
            }
            Err(_) => mistakes.push(format!("round {round}, {what}: no answer in {IN_TIME:?}")),
        }
    }
    mistakes
}

/// Answers of `/ready` that are not 200.
async fn unready(relayed: &Relayed, is_over: &AtomicBool) -> Vec<String> {
    let mut mistakes = Vec::new();
    while !is_over.load(SeqCst) {
        let answer = get(&relayed.stack, "/ready").await;
        if answer.status != 200 {
            mistakes.push(format!("/ready: {} {}", answer.status, answer.text()));
        }
        tokio::time::sleep(PAUSE).await;
    }
    mistakes.truncate(2);
    mistakes
}
