//! Failures that pass: repeated in time, and remembered for a moment only.

use std::time::SystemTime;

use super::*;

impl World {
    async fn wrap(&self) -> Result<WrappedDek, Error> {
        let dek = Key::generate().unwrap();
        self.kms.wrap(&dek, &stream(), 0).await
    }
}

fn status(status: u16) -> Act {
    Act::Answer(status, String::new())
}

#[tokio::test(start_paused = true)]
async fn passing_failures_are_repeated() {
    for act in [
        status(412),
        status(429),
        status(500),
        status(503),
        Act::BreakOff,
        Act::Hang,
    ] {
        let world = World::start().await;
        world.server.next([act.clone(), act]);
        world.wrap().await.unwrap();
        assert_eq!(world.server.count(), 3);
        assert_eq!(world.metrics.kms.retries.get(), 2);
        assert_eq!(world.counted(KmsOperation::Wrap, KmsOutcome::Ok), 1);
        assert_eq!(world.kms.away(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn lasting_failures_are_not_repeated() {
    let world = World::start().await;
    for act in [status(403), status(404), Act::Answer(200, "{}".into())] {
        let before = world.server.count();
        world.server.next([act]);
        world.wrap().await.unwrap_err();
        assert_eq!(world.server.count(), before + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_the_shortest_pause() {
    let in_three_seconds = SystemTime::now() + Duration::from_secs(3);
    for (after, shortest) in [
        ("3".to_owned(), 3000),
        // A date has no fractions of a second.
        (httpdate::fmt_http_date(in_three_seconds), 1900),
        ("0".to_owned(), 50),
        ("soon".to_owned(), 50),
    ] {
        let world = World::start().await;
        world.server.next([Act::Later(429, after.clone())]);
        let began = Instant::now();
        world.wrap().await.unwrap();
        let paused = began.elapsed();
        assert!(
            paused >= Duration::from_millis(shortest),
            "{after}: {paused:?}"
        );
        assert!(
            paused < Duration::from_millis(shortest + 1500),
            "{after}: {paused:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_beyond_the_limit_fails_at_once() {
    for after in [10, 3600, u64::MAX] {
        let world = World::start().await;
        world.server.next([Act::Later(503, after.to_string())]);
        let began = Instant::now();
        let error = world.wrap().await.unwrap_err();
        assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
        assert!(began.elapsed() < Duration::from_millis(50));
    }
}

#[tokio::test(start_paused = true)]
async fn service_that_is_down_is_asked_once_a_call() {
    let world = World::start().await;
    world.server.act(status(503));
    let began = Instant::now();
    world.wrap().await.unwrap_err();
    let took = began.elapsed();
    let range = Duration::from_secs(4)..Duration::from_secs(6);
    assert!(range.contains(&took), "{took:?}");
    for _ in 0..5 {
        let before = world.server.count();
        world.wrap().await.unwrap_err();
        assert_eq!(world.server.count(), before + 1);
    }
    // An old failure says nothing of the next one.
    sleep(Duration::from_secs(60)).await;
    world.server.act(Act::Serve);
    world.server.next([status(503)]);
    world.wrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_32_wait_for_their_turn() {
    let world = World::start().await;
    world.server.act(Act::Slow(Duration::from_millis(100)));
    let calls = (0..200).map(|_| world.wrap());
    for answer in futures_util::future::join_all(calls).await {
        answer.unwrap();
    }
    let most = world.server.state.most_at_once.load(Ordering::SeqCst);
    assert_eq!(most, 32);
    assert!(world.server.connections() <= 32);
}

#[tokio::test(start_paused = true)]
async fn calls_without_a_turn_fail_in_time() {
    let world = World::start().await;
    // Four rounds end in time, the fifth does not, and the last calls have no turn.
    world.server.act(Act::Slow(Duration::from_millis(2200)));
    let began = Instant::now();
    let calls = (0..200).map(|_| world.wrap());
    let answers = futures_util::future::join_all(calls).await;
    assert!(began.elapsed() < CALL_TIMEOUT + Duration::from_secs(1));
    let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 200 - 4 * 32);
    let is_retryable = |error: &Error| matches!(error, Error::Unreachable(_));
    assert!(refused.iter().all(is_retryable), "{refused:?}");
    let no_turn = refused
        .iter()
        .filter(|error| error.reason().contains("no turn"));
    assert_eq!(no_turn.count(), 200 - 5 * 32);
}

#[tokio::test]
async fn failing_server_loses_its_connection() {
    let world = World::start().await;
    for _ in 0..5 {
        world.wrap().await.unwrap();
    }
    assert_eq!(world.server.connections(), 1);
    // Too many calls: the server is as good as any.
    world.server.next([status(429), status(412)]);
    world.wrap().await.unwrap();
    assert_eq!(world.server.connections(), 1);
    // A sealed server, or one that is gone.
    for act in [status(503), Act::BreakOff] {
        let before = world.server.connections();
        world.server.next([act]);
        world.wrap().await.unwrap();
        world.wrap().await.unwrap();
        assert!(world.server.connections() > before);
    }
}

#[tokio::test(start_paused = true)]
async fn silent_connections_are_not_tried_one_by_one() {
    let world = World::start().await;
    world.server.act(Act::Slow(Duration::from_millis(100)));
    futures_util::future::join_all((0..10).map(|_| world.wrap())).await;
    let kept = world.server.connections();
    world.server.act(Act::Serve);
    world.server.next([Act::Hang]);
    world.wrap().await.unwrap();
    assert_eq!(world.server.connections(), kept + 1);
}

#[tokio::test(start_paused = true)]
async fn failures_are_remembered_as_long_as_they_stand() {
    for (act, milliseconds) in [
        (status(404), 100),
        (status(403), 100),
        (Act::Later(503, "3600".into()), 100),
        (Act::Answer(400, "{}".into()), 1000),
    ] {
        let world = World::start().await;
        let (stream, wrapped) = (stream(), world.wrap().await.unwrap());
        let unwrap = || world.kms.unwrap(&wrapped.key, &wrapped.blob, &stream, 0);
        world.server.act(act);
        let first = unwrap().await.unwrap_err();
        let before = world.server.count();
        sleep(Duration::from_millis(milliseconds - 2)).await;
        assert_eq!(unwrap().await, Err(first.clone()));
        assert_eq!(world.server.count(), before, "{first:?}");
        sleep(Duration::from_millis(4)).await;
        unwrap().await.unwrap_err();
        assert_eq!(world.server.count(), before + 1, "{first:?}");
    }
}

#[tokio::test]
async fn refused_token_is_the_proxys_own_trouble() {
    let world = World::start().await;
    world.server.act(status(403));
    let error = world.wrap().await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized(_)), "{error:?}");
    let counted = world.counted(KmsOperation::Wrap, KmsOutcome::Unauthorized);
    assert_eq!(counted, 1);
    assert_eq!(world.kms.away().unwrap().error, error);
}
