//! A copy that is killed or cut off at any point goes on where it stopped: no record twice, none missing.

use std::{net::SocketAddr, process::Child};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{End, World, assert_same, key, ran, record, start, with};
use crate::harness::until;

const RECORDS: u64 = 24_000;

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Waits until the copy has this many records, or the child has ended.
async fn reaches(to: &End, child: &mut Child, count: u64) {
    until("the copy goes on", async || {
        child.try_wait().unwrap().is_some() || to.tail("to").await >= count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_lose_nothing_and_double_nothing() {
    let world = World::start(Some("aegis-256")).await;
    let (from, to) = (world.store().await, world.proxy(key()).await);
    from.fill((0..RECORDS).map(record)).await;
    let original = from.all("from").await;

    let (mut random, mut midway) = (0x2545_f491_4f6c_dd1d_u64, 0);
    for round in 0.. {
        assert!(round < 60, "it does not get on");
        let mut child = start(world.migrate(&from, &to));
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Right at its start now and then: while it makes the stream, and while it looks where it is.
        let further = match round % 5 {
            0 => 0,
            _ => 1 + random % 1500,
        };
        let before = to.tail("to").await;
        reaches(&to, &mut child, before + further).await;
        kill(child);
        let after = to.tail("to").await;
        if after >= RECORDS {
            break;
        }
        midway += u64::from(after > 0);
        // What is there is the beginning of the source, at every time.
        if round % 4 == 3 {
            let copy = to.all("to").await;
            assert_same(&copy, &original[..copy.len()]);
        }
    }
    assert!(midway >= 8, "killed on its way {midway} times only");

    ran(with(world.migrate(&from, &to), ["--verify"])).ok();
    assert_same(&to.all("to").await, &original);
    assert_eq!(to.config("to").await, from.config("from").await);
}

/// A way to an address that can be cut, with everything that is on it.
struct Way {
    address: SocketAddr,
    cuts: watch::Sender<u64>,
}

impl Way {
    async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cuts, cut) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut cut = cut.clone();
                cut.mark_unchanged();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, cuts }
    }

    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_off_is_made_again_in_the_same_run() {
    let world = World::start(Some("aegis-256")).await;
    let (from, mut to) = (world.store().await, world.proxy(key()).await);
    from.fill((0..RECORDS).map(record)).await;
    let way = Way::to(world.stack.address).await;
    to.url = format!("https://localhost:{}", way.address.port());
    let mut child = start(world.migrate(&from, &to));
    let mut cuts = 0;
    // What is under way is written or is not, and its acknowledgement is lost.
    while to.tail("to").await + 6000 < RECORDS {
        let before = to.tail("to").await;
        reaches(&to, &mut child, before + 2000).await;
        way.cut();
        cuts += 1;
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(cuts > 3, "{cuts}");
    assert_same(&to.all("to").await, &from.all("from").await);
}
