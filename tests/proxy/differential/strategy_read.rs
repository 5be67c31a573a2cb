//! How reads are drawn: starts and ends near what is there, in every encoding.

use proptest::{option, prelude::*, sample::select};

use super::{
    ops::{Call, Read, Start},
    strategy::{key, place, pos, text},
    strategy_control::stream_config,
};
use crate::harness::Encoding;

/// One read.
pub fn read() -> impl Strategy<Value = Read> {
    let encoding = select(&Encoding::READS);
    let small =
        || prop_oneof![1 => Just(0_u64), 6 => 1..12_u64, 1 => Just(1000), 1 => Just(u64::MAX)];
    let bytes = prop_oneof![1 => 0..8_u64, 6 => 8..200_u64, 3 => 200..8000_u64, 1 => Just(1 << 20), 1 => Just(u64::MAX)];
    let ends = (
        option::weighted(0.4, small()),
        option::weighted(0.4, bytes),
        option::weighted(0.15, timestamp()),
        option::weighted(0.15, prop_oneof![9 => Just(0_u32), 1 => Just(1)]),
        option::weighted(0.2, any::<bool>()),
    );
    let more = text(&[
        "count=x",
        "seq_num=1&seq_num=2",
        "bytes=-1",
        "unknown=1",
        "clamp=1",
        "wait=",
        "%63ount=2",
        "until=1e3",
    ]);
    let rest = (
        option::weighted(0.06, more),
        option::weighted(0.3, (pos(), 0..6_u64, 0..300_u64)),
        option::weighted(0.05, stream_config()),
    );
    let head = proptest::bool::weighted(0.08);
    (place(), key(), head, encoding, start(), ends, rest).prop_map(
        |(
            at,
            key,
            head,
            encoding,
            start,
            (count, bytes, until, wait, clamp),
            (more, last, config),
        )| {
            let is_events = matches!(encoding, Encoding::Events | Encoding::EventsBase64);
            Read {
                at,
                key,
                head,
                encoding,
                start,
                count,
                bytes,
                until,
                wait,
                clamp,
                more,
                last_event_id: last.filter(|_| is_events),
                config,
            }
        },
    )
}

fn start() -> impl Strategy<Value = Option<Start>> {
    let start = prop_oneof![
        6 => pos().prop_map(Start::SeqNum),
        2 => timestamp().prop_map(Start::Timestamp),
        3 => (0..16_u64).prop_map(Start::TailOffset),
    ];
    option::weighted(0.95, start)
}

/// A point in time that no record's arrival is near to.
fn timestamp() -> impl Strategy<Value = u64> {
    prop_oneof![12 => 998..1022_u64, 1 => Just(0), 1 => Just(1_000_000_000_000), 1 => Just(u64::MAX)]
}

/// A check of the tail.
pub fn tail() -> impl Strategy<Value = Call> {
    (place(), proptest::bool::weighted(0.2), key()).prop_map(|(at, head, key)| Call::Tail {
        at,
        head,
        key,
    })
}
