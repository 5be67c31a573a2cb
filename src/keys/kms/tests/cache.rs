//! One call however many ask, none while warm, and keys that are due are gone.

use super::*;

fn ages(live: u64, idle: u64) -> Bounds {
    Bounds {
        live: Duration::from_millis(live),
        idle: Duration::from_millis(idle),
        sweep: Duration::from_millis(10),
        bytes: 16 << 20,
    }
}

impl World {
    /// A wrapped key of a new stream.
    async fn wrapped(&self) -> (Key, StreamPath, WrappedDek) {
        let (dek, stream) = (Key::generate().unwrap(), stream());
        let wrapped = self.kms.wrap(&dek, &stream, 7).await.unwrap();
        (dek, stream, wrapped)
    }

    async fn unwrap(&self, stream: &StreamPath, wrapped: &WrappedDek) -> Result<Key, Error> {
        self.kms
            .unwrap(&wrapped.key, &wrapped.blob, stream, 7)
            .await
    }

    fn unwraps(&self) -> usize {
        let calls = self.server.calls();
        calls
            .iter()
            .filter(|call| call.path.contains("/decrypt/"))
            .count()
    }
}

#[tokio::test]
async fn many_callers_share_one_call_and_a_warm_key_takes_none() {
    let world = World::start().await;
    let (dek, stream, wrapped) = world.wrapped().await;
    let (go, waits) = watch::channel(false);
    world.server.act(Act::ServeOnce(waits));
    let asking = (0..200).map(|_| world.unwrap(&stream, &wrapped));
    let asking = futures_util::future::join_all(asking);
    let going = async {
        until(|| world.unwraps() == 1).await;
        go.send(true).unwrap();
    };
    let (keys, ()) = futures_util::future::join(asking, going).await;
    assert!(keys.into_iter().all(|key| key.unwrap() == dek));
    for _ in 0..1000 {
        assert_eq!(world.unwrap(&stream, &wrapped).await.unwrap(), dek);
    }
    assert_eq!((world.unwraps(), world.held()), (1, 1));
    assert_eq!(world.counted(KmsOperation::Unwrap, KmsOutcome::Ok), 1);
    assert_eq!(world.counted(KmsOperation::Wrap, KmsOutcome::Ok), 1);
}

#[tokio::test]
async fn a_caller_that_leaves_takes_the_key_from_nobody() {
    let world = World::start().await;
    let (dek, stream, wrapped) = world.wrapped().await;
    let (go, waits) = watch::channel(false);
    world.server.act(Act::ServeOnce(waits));
    let mut first = Box::pin(world.unwrap(&stream, &wrapped));
    assert!(futures_util::poll!(&mut first).is_pending());
    until_called(&world).await;
    drop(first);
    go.send(true).unwrap();
    world.until_held(1).await;
    assert_eq!(world.unwrap(&stream, &wrapped).await.unwrap(), dek);
    assert_eq!(world.unwraps(), 1);
}

async fn until_called(world: &World) {
    until(|| world.unwraps() == 1).await;
}

#[tokio::test]
async fn a_key_in_use_is_unwrapped_again_after_its_time() {
    let world = World::with(ages(300, 60_000)).await;
    let (dek, stream, wrapped) = world.wrapped().await;
    let began = Instant::now();
    while world.unwraps() < 3 {
        assert_eq!(world.unwrap(&stream, &wrapped).await.unwrap(), dek);
        assert!(world.held() <= 1);
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::task::yield_now().await;
    }
    assert!(began.elapsed() >= Duration::from_millis(600));
}

#[tokio::test]
async fn what_is_due_leaves_memory_though_nobody_asks() {
    for ages in [ages(200, 60_000), ages(60_000, 200)] {
        let world = World::with(ages).await;
        let (_, stream, wrapped) = world.wrapped().await;
        world.unwrap(&stream, &wrapped).await.unwrap();
        assert_eq!(world.held(), 1, "{ages:?}");
        world.until_held(0).await;
    }
}

#[test]
fn unused_keys_are_held_for_cache_ttl_by_default() {
    let idle = |cache_idle| {
        let config = Config {
            cache_ttl: Duration::from_secs(7200),
            cache_idle,
            ..Config::default()
        };
        Bounds::new(&config).idle
    };
    assert_eq!(idle(Duration::ZERO), Duration::from_secs(7200));
    assert_eq!(idle(Duration::from_secs(60)), Duration::from_secs(60));
}

#[tokio::test]
async fn use_keeps_a_key() {
    let world = World::with(ages(60_000, 400)).await;
    let (_, stream, wrapped) = world.wrapped().await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1200) {
        world.unwrap(&stream, &wrapped).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(world.unwraps(), 1);
}

/// How many of 3,000 keys with a wrapped form of so many bytes are held in 1 MiB.
async fn held_in_a_mebibyte(blob: &[u8]) -> i64 {
    let gauge = prometheus::IntGauge::new("held", "Keys.").unwrap();
    let bytes = 1 << 20;
    let cache = Cache::new(
        &Bounds {
            bytes,
            ..ages(60_000, 60_000)
        },
        &gauge,
    );
    let id = stream().id();
    for epoch in 0..3000 {
        let slot = Slot::new(id, epoch, "a-key", blob);
        let unwrapping = async { Ok(Key::generate().unwrap()) };
        cache.load(&slot, unwrapping).await.unwrap();
    }
    cache.sweep().await;
    let newest = Slot::new(id, 2999, "a-key", blob);
    assert!(cache.held(&newest).await.is_some());
    let oldest = Slot::new(id, 0, "a-key", blob);
    assert!(cache.held(&oldest).await.is_none());
    gauge.get()
}

#[tokio::test]
async fn keys_are_held_in_a_bounded_number_of_bytes() {
    assert_eq!(held_in_a_mebibyte(&[b'a'; 100]).await, (1 << 20) / 617);
    assert_eq!(held_in_a_mebibyte(&[b'a'; 8192]).await, (1 << 20) / 8709);
}

#[tokio::test(start_paused = true)]
async fn an_outage_leaves_warm_streams_working_and_names_the_cold() {
    let world = World::start().await;
    let (warm, warm_stream, warm_wrapped) = world.wrapped().await;
    let (cold, cold_stream, cold_wrapped) = world.wrapped().await;
    world.unwrap(&warm_stream, &warm_wrapped).await.unwrap();
    world.server.act(Act::BreakOff);
    let refused = world.unwrap(&cold_stream, &cold_wrapped).await.unwrap_err();
    assert!(matches!(refused, Error::Unreachable(_)), "{refused:?}");
    let key = world.unwrap(&warm_stream, &warm_wrapped).await.unwrap();
    assert_eq!(key, warm);
    let troubles = world.kms.troubles();
    let [trouble] = troubles.as_slice() else {
        panic!("{troubles:?}");
    };
    assert_eq!((&trouble.stream, trouble.epoch), (&cold_stream, 7));
    assert_eq!(trouble.error, refused);
    assert!(trouble.since <= std::time::SystemTime::now());
    world.server.act(Act::Serve);
    let deadline = Instant::now() + Duration::from_secs(20);
    let key = loop {
        match world.unwrap(&cold_stream, &cold_wrapped).await {
            Ok(key) => break key,
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(key, cold);
    assert_eq!(world.kms.troubles(), []);
}

#[tokio::test]
async fn a_wrapped_key_opens_for_its_stream_and_epoch_alone() {
    let world = World::start().await;
    let (dek, own, wrapped) = world.wrapped().await;
    let WrappedDek { key, blob } = &wrapped;
    let other: StreamPath = stream();
    // Warm, too: what is held must not serve another.
    assert_eq!(world.unwrap(&own, &wrapped).await.unwrap(), dek);
    for (stream, epoch) in [(&other, 7), (&own, 8), (&other, 8), (&own, 0)] {
        let refused = world.kms.unwrap(key, blob, stream, epoch).await;
        let refused = refused.unwrap_err();
        assert!(
            matches!(refused, Error::InvalidCiphertext(_)),
            "{refused:?}"
        );
    }
    let (_, _, foreign) = world.wrapped().await;
    let refused = world.unwrap(&own, &foreign).await.unwrap_err();
    assert!(
        matches!(refused, Error::InvalidCiphertext(_)),
        "{refused:?}"
    );
    let longer = [blob.as_slice(), b"A"].concat();
    assert!(world.kms.unwrap(key, &longer, &own, 7).await.is_err());
    assert!(world.kms.unwrap("b-key", blob, &own, 7).await.is_err());
}

#[tokio::test]
async fn forgotten_keys_are_gone_at_once() {
    let world = World::start().await;
    let (_, one, one_wrapped) = world.wrapped().await;
    let (_, two, two_wrapped) = world.wrapped().await;
    world.unwrap(&one, &one_wrapped).await.unwrap();
    world.unwrap(&two, &two_wrapped).await.unwrap();
    assert_eq!(world.held(), 2);
    world.kms.forget(&one).await;
    assert_eq!(world.held(), 1);
    world.unwrap(&two, &two_wrapped).await.unwrap();
    assert_eq!(world.unwraps(), 2);
    world.unwrap(&one, &one_wrapped).await.unwrap();
    assert_eq!((world.unwraps(), world.held()), (3, 2));
    world.kms.forget_all().await;
    assert_eq!(world.held(), 0);
}

#[tokio::test]
async fn a_key_that_is_forgotten_while_it_is_unwrapped_does_not_stay() {
    let world = World::start().await;
    let (_, stream, wrapped) = world.wrapped().await;
    let (go, waits) = watch::channel(false);
    world.server.act(Act::ServeOnce(waits));
    let asking = async { world.unwrap(&stream, &wrapped).await };
    let forgetting = async {
        until_called(&world).await;
        world.kms.forget(&stream).await;
        go.send(true).unwrap();
    };
    let (asked, ()) = futures_util::future::join(asking, forgetting).await;
    asked.unwrap();
    assert_eq!(world.held(), 0);
}

#[tokio::test]
async fn nothing_runs_on_when_it_is_dropped() {
    let world = World::with(ages(60_000, 60_000)).await;
    let held = Arc::downgrade(&world.kms.0);
    drop(world.kms);
    until(|| held.strong_count() == 0).await;
}
