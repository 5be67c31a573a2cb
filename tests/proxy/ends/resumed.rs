//! A read session outlives the upstream connection that it began on.

use super::exchange::{Mistakes, Relayed, Version};
use crate::harness::{
    Encoding, Fault, Goaway, Last, Live, NO_ERROR, Place, Rule, Way, delete, delivered, purged,
    read,
};
use Version::{Http1, Http2};

const STORED: usize = 2_500;

/// Graceful, and with the connection closed while answers are due.
const GRACEFUL: Fault = goaway(Last::Highest, false);
const COVERED: Fault = goaway(Last::This, false);
const CLOSED: Fault = goaway(Last::This, true);

const fn goaway(last: Last, close: bool) -> Fault {
    let code = NO_ERROR;
    Fault::Goaway(Goaway { last, code, close })
}

const READERS: [(Version, Encoding); 3] = [
    (Http2, Encoding::Frames),
    (Http2, Encoding::Events),
    (Http1, Encoding::Events),
];

const PLACES: [Place; 4] = [
    Place::Head,
    Place::Messages(0, 9),
    Place::Messages(1, 0),
    Place::Messages(2, 700),
];

/// Ways to ask for all records.
const QUERIES: [&str; 2] = ["seq_num=0&count=2500", "tail_offset=2500&count=2500"];

#[tokio::test(flavor = "multi_thread")]
async fn read_session_resumes_after_goaway_or_loss() {
    let relayed = Relayed::start().await;
    relayed.fill("s", false, STORED).await;
    let mut mistakes = Mistakes::default();
    for (version, encoding) in READERS {
        let ask = read("s", QUERIES[0], encoding);
        let undisturbed = relayed.see(version, ask).await;
        let ids = delivered(encoding, &undisturbed.answer.unwrap()).ids;
        for fault in [Fault::Cut, CLOSED, COVERED, GRACEFUL] {
            for at in PLACES {
                for query in QUERIES {
                    let what = format!("{version:?}, {encoding:?}, {fault:?}, {query}");
                    let reader = (version, encoding, query);
                    match disturbed(&relayed, reader, (at, fault)).await {
                        Ok(last_id) if last_id.as_ref() == ids.last() => {}
                        // Nothing tells where the tail was: another start could leave records out.
                        Err(Mistake::Broken(_)) if query == QUERIES[1] && is_early(at) => {}
                        Ok(last_id) => mistakes.add(format!("{what}, last id {last_id:?}"), at),
                        Err(mistake) => mistakes.add(format!("{what}, {mistake}"), at),
                    }
                }
            }
        }
    }
    mistakes.assert_none();
}

/// Whether the fault comes before the first batch.
fn is_early(at: Place) -> bool {
    matches!(at, Place::Head | Place::Messages(0, _))
}

/// Why a read is not as it should be.
enum Mistake {
    /// It ended with an error.
    Broken(String),
    Wrong(String),
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Broken(text) | Self::Wrong(text)) = self;
        f.write_str(text)
    }
}

/// The id of the last event of a session with a fault, or what is wrong with it.
async fn disturbed(
    relayed: &Relayed,
    (version, encoding, query): (Version, Encoding, &str),
    (at, fault): (Place, Fault),
) -> Result<Option<String>, Mistake> {
    let way = Way::Down;
    let fired = relayed.back.stats().fired;
    relayed.back.set(Rule { way, at, fault });
    let outcome = relayed.see(version, read("s", query, encoding)).await;
    assert_eq!(relayed.back.stats().fired, fired + 1, "{at:?} is nowhere");
    if !outcome.is_success(encoding) {
        let counted = &outcome.counted;
        return Err(Mistake::Broken(format!("an error, counted as {counted}")));
    }
    let bodies = outcome.bodies(encoding);
    let wanted = (0..STORED).map(|at| format!("record {at}"));
    if !bodies
        .iter()
        .map(|body| &**body)
        .eq(wanted.clone().map(String::into_bytes))
    {
        let wrong = format!("{} records, not those stored", bodies.len());
        return Err(Mistake::Wrong(wrong));
    }
    if outcome.counted != "ok" {
        return Err(Mistake::Wrong(format!("counted as {}", outcome.counted)));
    }
    let delivered = delivered(encoding, &outcome.answer.unwrap());
    Ok(delivered.ids.last().cloned())
}

/// Reads these records of a session, and none besides.
async fn deliver(live: &mut Live, mut seq_nums: std::ops::Range<u64>) {
    while !seq_nums.is_empty() {
        let frame = live.frame().await.expect("it broke off").expect("it ended");
        for record in frame.batch().records {
            assert_eq!(Some(record.seq_num), seq_nums.next());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_at_the_tail_outlives_its_connection() {
    let relayed = Relayed::start().await;
    relayed.fill("s", false, 3).await;
    let client = relayed.client(Http2).await;
    let ask = read("s", "seq_num=0", Encoding::Frames);
    let mut live = Live::new(client.open(ask).await);
    for round in 0..5 {
        deliver(&mut live, 3 * round..3 * (round + 1)).await;
        relayed.back.cut();
        // The loss is noticed before there is more to read.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        relayed.fill("s", false, 3).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn session_does_not_go_on_with_another_stream() {
    let relayed = Relayed::start().await;
    relayed.fill("s", false, 3).await;
    let client = relayed.client(Http2).await;
    let ask = read("s", "seq_num=0", Encoding::Frames);
    let mut live = Live::new(client.open(ask).await);
    deliver(&mut live, 0..3).await;
    // Silent connections take no requests after 1.5 s.
    relayed.back.hold();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    delete(&client, "/v1/streams/s").await;
    purged(&relayed.stack.direct().await, "/v1/streams/s").await;
    relayed.fill("s", false, 6).await;
    relayed.back.cut();
    loop {
        match live.frame().await {
            Ok(Some(frame)) => assert!(frame.batch().records.is_empty(), "records of another"),
            Ok(None) => panic!("a clean end"),
            Err(_) => break,
        }
    }
}
