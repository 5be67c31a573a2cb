//! The relay itself: what it says it does, on the way to a store without a proxy.

use std::time::{Duration, Instant};

use crate::harness::{
    Ask, CANCEL, Client, Fault, Goaway, Last, Lite, NO_ERROR, Place, Relay, Rule, Way, until,
};

/// Long enough for an answer that comes at all.
const SOON: Duration = Duration::from_millis(300);

async fn relayed() -> (Lite, Relay) {
    let lite = Lite::start().await;
    let relay = Relay::start(lite.address).await;
    (lite, relay)
}

fn list() -> Ask {
    Ask::get("/v1/basins").without("s2-basin")
}

/// Whether the answer ends soon, and well.
async fn is_answered(client: &Client) -> bool {
    let answer = tokio::time::timeout(SOON, client.try_ask(list())).await;
    answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status == 200))
}

fn rule(at: Place, fault: Fault) -> Rule {
    let way = Way::Down;
    Rule { way, at, fault }
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_breaks_what_its_rules_say() {
    let (_lite, relay) = relayed().await;
    let client = Client::plain(relay.address).await;
    assert!(is_answered(&client).await);

    relay.set(rule(Place::Head, Fault::Delay(SOON * 2)));
    let began = Instant::now();
    client.ask(list()).await;
    assert!(began.elapsed() > SOON);

    relay.set_for_all(rule(Place::Opening, Fault::NoEnd));
    assert!(!is_answered(&client).await);
    assert!(!is_answered(&client).await);
    until("the client left both", async || {
        relay.stats().up.resets == [CANCEL, CANCEL]
    })
    .await;
    relay.clear();

    relay.set(rule(Place::Frames(1), Fault::Reset(CANCEL)));
    assert!(!is_answered(&client).await);
    assert!(is_answered(&client).await, "the connection is well");

    relay.set(rule(Place::Opening, Fault::Hold));
    assert!(!is_answered(&client).await);
    relay.release();
    assert!(is_answered(&client).await);
    assert_eq!(relay.stats().connections, 1);
    assert_eq!(relay.stats().fired, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_says_goodbye() {
    let (_lite, relay) = relayed().await;
    for (last, passes) in [
        (Last::Below, false),
        (Last::This, true),
        (Last::Highest, true),
    ] {
        let client = Client::plain(relay.address).await;
        assert!(is_answered(&client).await);
        let (code, close) = (NO_ERROR, false);
        let fault = Fault::Goaway(Goaway { last, code, close });
        relay.set(rule(Place::Opening, fault));
        assert_eq!(is_answered(&client).await, passes, "{last:?}");
        assert!(!is_answered(&client).await, "the client goes elsewhere");
    }
    let client = Client::plain(relay.address).await;
    assert!(is_answered(&client).await);
    let (last, code, close) = (Last::This, NO_ERROR, true);
    relay.goaway(Goaway { last, code, close });
    assert!(!is_answered(&client).await);
    let old = Client::plain_http1(relay.address).await;
    assert!(is_answered(&old).await, "HTTP/1.1 passes");
    relay.cut();
    assert!(!is_answered(&old).await);
}
