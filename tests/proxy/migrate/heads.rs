//! Streams that have lost their head, or lose it while they are copied.

use s2_api::v1::stream::proto::SequencedRecord;

use super::{End, World, assert_same, command, key, mixed, ran, record, with};
use crate::harness::{nudge, until};

/// Trims stream `from`, and waits until what is before is gone.
async fn trim(end: &End, number: u64, point: u64) {
    let trim = command(number, "trim", &point.to_be_bytes());
    end.append("from", vec![trim]).await;
    trimmed(end, end, "from", point).await;
}

async fn trimmed(store: &End, end: &End, stream: &str, point: u64) {
    until("it is trimmed", async || {
        nudge(&store.client).await;
        let first = end.all(stream).await;
        first.first().is_some_and(|first| first.seq_num >= point)
    })
    .await;
}

/// What a copy of these records must look like.
fn moved(original: Vec<SequencedRecord>, offset: u64) -> Vec<SequencedRecord> {
    let original = original.into_iter().map(|mut record| {
        record.seq_num -= offset;
        if record.headers.len() == 1 && record.headers[0].value == "trim" {
            let point = u64::from_be_bytes(record.body[..].try_into().unwrap());
            record.body = point.saturating_sub(offset).to_be_bytes().to_vec().into();
        }
        record
    });
    original.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trimmed_stream_begins_anew_at_0() {
    let world = World::start(Some("aegis-256")).await;
    let (from, to) = (world.store().await, world.proxy(key()).await);
    from.fill(mixed(400)).await;
    trim(&from, 400, 150).await;
    from.append("from", (401..500).map(record).collect()).await;

    let out = ran(with(world.migrate(&from, &to), ["--verify"])).ok();
    assert!(
        out.contains("seq_num 0 is seq_num 150 of the source"),
        "{out}"
    );
    assert_same(&to.all("to").await, &moved(from.all("from").await, 150));

    // More of the head goes, and more records come: the next run finds its place by what it has.
    trim(&from, 500, 300).await;
    from.append("from", (501..700).map(record).collect()).await;
    let original = from.all("from").await;
    let out = ran(with(world.migrate(&from, &to), ["--verify"])).ok();
    assert!(out.contains("copied 200 records"), "{out}");
    // The trim came over, and takes the same record as the first one.
    trimmed(&from, &to, "to", 150).await;
    assert_same(&to.all("to").await, &moved(original, 150));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_was_not_copied_in_time_is_an_error() {
    let world = World::start(Some("aegis-256")).await;
    let (from, to) = (world.store().await, world.proxy(key()).await);
    from.fill(mixed(100)).await;
    ran(world.migrate(&from, &to)).ok();
    from.append("from", (100..300).map(record).collect()).await;
    trim(&from, 300, 200).await;
    let failed = ran(world.migrate(&from, &to)).failed();
    assert!(failed.contains("records"), "{failed}");
    // Nothing was added that is out of place.
    assert_eq!(to.tail("to").await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_all_alike_do_not_tell_where_a_copy_is() {
    // Of a few places that it could be in, each is tried; many are not.
    for (first_trim, second_trim) in [(3, 6), (10, 40)] {
        let world = World::start(None).await;
        let (from, to) = (world.store().await, world.proxy(None).await);
        let alike = |_| record(1);
        from.fill((0..300).map(alike)).await;
        trim(&from, 1, first_trim).await;
        from.append("from", (0..250).map(alike).collect()).await;
        ran(world.migrate(&from, &to)).ok();
        from.append("from", (0..150).map(alike).collect()).await;
        trim(&from, 1, second_trim).await;
        let before = to.tail("to").await;
        let failed = ran(world.migrate(&from, &to)).failed();
        assert!(failed.contains("start again"), "{failed}");
        assert_eq!(to.tail("to").await, before);
    }
}
