//! The budget is never overdrawn, and always comes back.

use super::*;

const MIB: usize = 1024 * 1024;

fn budget() -> (Budget, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new().unwrap());
    (Budget::new(MIN_BUDGET_BYTES, &metrics), metrics)
}

#[tokio::test(start_paused = true)]
async fn a_whole_body_without_room_is_refused_in_time_and_a_session_waits() {
    let (budget, metrics) = budget();
    let held = budget.sending().reserve(2 * MIB).await.unwrap();
    assert_eq!(metrics.clients.inflight.get(), 6 << 20);
    let began = tokio::time::Instant::now();
    let refused = budget.whole_body().reserve(MIB).await.err();
    assert_eq!(refused, Some(NoRoom));
    assert_eq!(began.elapsed(), PATIENCE);
    assert_eq!(metrics.clients.inflight_refused.get(), 1);
    let room = budget.sending();
    let waiting = tokio::spawn(async move { room.reserve(MIB).await });
    tokio::time::sleep(INPUT_PATIENCE - LOOK).await;
    assert!(!waiting.is_finished());
    // Its input is in memory meanwhile: it is not kept for ever.
    let began = tokio::time::Instant::now();
    let refused = budget.sending().reserve(MIB).await.err();
    assert_eq!((refused, began.elapsed()), (Some(NoRoom), INPUT_PATIENCE));
    assert!(waiting.await.unwrap().is_err());
    let room = budget.sending();
    let waiting = tokio::spawn(async move { room.reserve(MIB).await });
    // What clients read is another matter.
    budget.whole_answer(None).reserve(2 * MIB).await.unwrap();
    drop(held);
    waiting.await.unwrap().unwrap();
    assert_eq!(metrics.clients.inflight.get(), 0);
}

#[tokio::test]
async fn bytes_give_back_what_they_carry_with_their_last_slice() {
    let (budget, metrics) = budget();
    let inflight = || metrics.clients.inflight.get();
    let mut charge = budget.sending().reserve(MIB).await.unwrap();
    charge.merge(budget.sending().reserve(MIB / 2).await.unwrap());
    assert_eq!(inflight(), 9 << 19);
    let mut bytes = charge.carried_by(Bytes::from(vec![7; MIB]));
    assert_eq!(inflight(), 1 << 20);
    let slice = bytes.split_to(1);
    drop(bytes);
    assert_eq!((inflight(), &slice[..]), (1 << 20, &[7][..]));
    drop(slice);
    assert_eq!(inflight(), 0);
    budget.sending().reserve(2 * MIB).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_is_cut_off_when_others_wait() {
    let (budget, _metrics) = budget();
    let (slow, other) = (Cutoff::default(), Cutoff::default());
    let mut parked = Vec::new();
    for cutoff in [&slow, &other] {
        let room = budget.reading(Some(cutoff.clone()));
        let charge = room.reserve(MIB).await.unwrap();
        parked.push(charge.carried_by(Bytes::from(vec![0; MIB])));
    }
    budget.reads.cut_stalled();
    assert!(!cut(slow.clone()).await, "it has had no time yet");
    tokio::time::advance(STALLED).await;
    budget.reads.cut_stalled();
    assert!(cut(slow).await && !cut(other.clone()).await);
    // What was cut off takes no other with it when it goes.
    let mut late = vec![budget.reads.rest(other.clone())];
    drop(parked.drain(..1));
    assert_eq!(budget.reads.resting().all.len(), 2);
    late.clear();
    drop(parked);
    assert!(budget.reads.resting().all.is_empty());
}

async fn cut(cutoff: Cutoff) -> bool {
    timeout(Duration::ZERO, cutoff.cut()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn room_that_is_kept_is_seen_before_anything_is_written_and_when_nobody_asks_for_it() {
    let (budget, _metrics) = budget();
    let cutoff = Cutoff::default();
    let room = budget.reading(Some(cutoff.clone()));
    let held = budget.reading(None).reserve(2 * MIB).await.unwrap();
    // Polled once and then left: it is given the room all the same, and then is one that can be cut off.
    let mut left = Box::pin(room.reserve(2 * MIB));
    assert!(timeout(Duration::ZERO, &mut left).await.is_err());
    tokio::task::yield_now().await;
    drop(held);
    let other = budget.reading(None);
    let waits = timeout(STALLED + 5 * LOOK, other.reserve(2 * MIB));
    assert!(waits.await.is_err());
    assert!(cut(cutoff).await);
    drop(left);
    other.reserve(2 * MIB).await.unwrap();
    assert!(budget.reads.resting().all.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_goes_on_has_its_time_anew() {
    let (budget, _metrics) = budget();
    let cutoff = Cutoff::default();
    let room = budget.reading(Some(cutoff.clone()));
    let mut charge = room.reserve(MIB).await.unwrap();
    for _ in 0..3 {
        tokio::time::advance(STALLED * 2 / 3).await;
        budget.reads.cut_stalled();
        assert!(!cut(cutoff.clone()).await);
        charge.renew();
    }
    tokio::time::advance(STALLED).await;
    budget.reads.cut_stalled();
    assert!(cut(cutoff).await);
}
