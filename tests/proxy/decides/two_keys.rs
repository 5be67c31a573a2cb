//! Two keys for one stream: at most one of them ever has acknowledged records there.

use serde_json::json;
use streamseal::registry::rules::RuleCipher;

use super::{
    OTHER, bodies, body_of, ensure, is, keyed_by, never_plain, outcome, read, session_by,
    stream_rule,
};
use crate::harness::{Ask, Client, KEY, Session, Stack, frame, input, record, records};

/// Rounds of each race.
const ROUNDS: usize = 30;

/// How the streams of a race come to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Explicitly,
    OnFirstUse,
    ByRule,
}

/// How the first key's append is sent; the second key's is unary.
type First = fn(&str, &[u8]) -> Ask;

async fn deployment(made: Made) -> Stack {
    let rules = vec![stream_rule("test-basin/**", RuleCipher::Aegis256)];
    let is_declared = made == Made::ByRule;
    let rules = if is_declared { rules } else { Vec::new() };
    let stack = Stack::with(|config| config.streams = rules).await;
    let cipher = (!is_declared).then_some("aegis-256");
    stack.create_basin(cipher).await;
    stack
}

/// One race, and what it leaves.
async fn race(clients: [&Client; 2], stream: &str, (first, may_conflict): (First, bool)) {
    let (one, two) = tokio::join!(
        clients[0].ask(first(stream, &KEY)),
        clients[1].ask(keyed_by(stream, &OTHER)),
    );
    let outcomes = [outcome(&one), outcome(&two)];
    if outcomes.iter().any(|outcome| outcome.0 == 404) {
        // S2 itself: of two requests that create a stream at once, one may not find it.
        return Box::pin(race(
            clients,
            &format!("{stream}-again"),
            (first, may_conflict),
        ))
        .await;
    }
    let won = (200, String::new());
    let lost = (400, "decryption_failed".to_owned());
    // Where the upstream makes the stream, it may turn away one of two that make it at the same time.
    let conflict = (409, "transaction_conflict".to_owned());
    let has_lost =
        |outcome: &(u16, String)| *outcome == lost || may_conflict && *outcome == conflict;
    let (winner, loser) = match &outcomes {
        [a, b] if *a == won && has_lost(b) => (KEY, OTHER),
        [a, b] if has_lost(a) && *b == won => (OTHER, KEY),
        both => panic!("{stream}: {both:?}"),
    };
    is(clients[0], keyed_by(stream, &winner), 200, "").await;
    is(
        clients[1],
        keyed_by(stream, &loser),
        400,
        "decryption_failed",
    )
    .await;
    let sent = body_of(stream, &winner);
    let opened = clients[1].ask(read(stream).key(&winner)).await;
    assert_eq!(bodies(&opened), [&*sent, &*sent], "{stream}");
}

async fn races(made: Made, (first, may_conflict): (First, bool)) {
    let stack = deployment(made).await;
    let clients = [stack.h2().await, stack.h2().await];
    for round in 0..ROUNDS {
        let stream = format!("race-{round}");
        if made == Made::Explicitly {
            is(&clients[0], ensure(&stream), 201, "").await;
        }
        race([&clients[0], &clients[1]], &stream, (first, may_conflict)).await;
    }
    never_plain(&stack.tap, &format!("{made:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn first_appends_with_two_keys_have_one_winner() {
    for made in [Made::Explicitly, Made::OnFirstUse, Made::ByRule] {
        races(made, (keyed_by, false)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn session_and_append_with_two_keys_have_one_winner() {
    for made in [Made::Explicitly, Made::OnFirstUse, Made::ByRule] {
        races(made, (session_by, made != Made::Explicitly)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn session_ends_when_another_key_was_first() {
    for made in [Made::Explicitly, Made::ByRule] {
        let stack = deployment(made).await;
        let client = stack.h2().await;
        is(&client, ensure("s"), 201, "").await;
        let ask = Ask::post(records("s")).key(&KEY);
        let mut session = Session::append(&stack.h2().await, ask).await;
        is(&client, keyed_by("s", &OTHER), 200, "").await;
        let batch = input([record(&[], body_of("s", &KEY))]);
        session.send(frame(&batch)).await;
        session.finish();
        let last = session.live.frame().await.unwrap().expect("an end");
        assert_eq!(last.failure(), (400, "decryption_failed".to_owned()));
        assert_eq!(session.live.frame().await.unwrap(), None);
        let opened = client.ask(read("s").key(&OTHER)).await;
        assert_eq!(bodies(&opened), [body_of("s", &OTHER)], "{made:?}");
        never_plain(&stack.tap, "two keys");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn append_is_refused_when_a_session_was_first() {
    let stack = deployment(Made::Explicitly).await;
    let client = stack.h2().await;
    is(&client, ensure("s"), 201, "").await;
    let ask = Ask::post(records("s")).key(&KEY);
    let mut session = Session::append(&stack.h2().await, ask).await;
    let batch = frame(&input([record(&[], body_of("s", &KEY))]));
    for _ in 0..2 {
        session.send(batch.clone()).await;
        session.live.frame().await.unwrap().unwrap().ack();
        is(&client, keyed_by("s", &OTHER), 400, "decryption_failed").await;
    }
    session.finish();
    assert_eq!(session.live.frame().await.unwrap(), None);
    let opened = client.ask(read("s").key(&KEY)).await;
    let sent = body_of("s", &KEY);
    assert_eq!(bodies(&opened), [&*sent, &*sent]);
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_between_two_keys_changes_nothing() {
    let mut stack = deployment(Made::OnFirstUse).await;
    is(&stack.h2().await, keyed_by("s", &KEY), 200, "").await;
    stack.restart(|_| {}).await;
    let client = stack.h2().await;
    is(&client, keyed_by("s", &OTHER), 400, "decryption_failed").await;
    is(&client, session_by("s", &OTHER), 400, "decryption_failed").await;
    is(&client, keyed_by("s", &KEY), 200, "").await;
    let shown = super::cipher_of(&client, "s").await;
    assert_eq!(shown, json!("aegis-256"));
}
