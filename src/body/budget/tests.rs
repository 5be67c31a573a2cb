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
    tokio::time::sleep(PATIENCE * 100).await;
    assert!(!waiting.is_finished());
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

#[tokio::test]
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
    let cut = |cutoff: Cutoff| async move { timeout(Duration::ZERO, cutoff.cut()).await.is_ok() };
    assert!(!cut(slow.clone()).await, "it has had no time yet");
    for resting in budget.reads.resting().values_mut() {
        resting.since -= STALLED;
    }
    budget.reads.cut_stalled();
    assert!(cut(slow).await && !cut(other).await);
    drop(parked);
    assert!(budget.reads.resting().is_empty());
}
