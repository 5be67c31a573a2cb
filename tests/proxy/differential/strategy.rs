//! How operations are drawn: few names, values near each other, and mostly what should work, so that
//! interesting things meet.

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{
    ops::{Append, Bytes, Call, Fence, Field, Input, Key, Op, Place, Pos, Rec, Spelling, What},
    strategy_control::{control, first_config, stream_config},
    strategy_odd::odd,
    strategy_read::{read, tail},
};
use crate::harness::{Encoding, Packed};

/// Longest sequence after the two basins are made.
const MAX_OPS: usize = 160;

/// Sequences of operations that begin with two basins.
pub fn sequences() -> impl Strategy<Value = Vec<Op>> {
    let basin = |basin| {
        first_config().prop_map(move |config| {
            let (config, token) = (Field::Set(config), Some(0));
            quiet(Call::CreateBasin {
                basin,
                config,
                token,
            })
        })
    };
    (basin(0), basin(1), vec(op(), 1..=MAX_OPS)).prop_map(|(one, two, mut ops)| {
        ops.splice(0..0, [one, two]);
        ops
    })
}

fn quiet(call: Call) -> Op {
    Op {
        http1: false,
        origin: false,
        accept_encoding: None,
        call,
    }
}

fn op() -> BoxedStrategy<Op> {
    let call = prop_oneof![
        36 => append().prop_map(Call::Append).boxed(),
        32 => read().prop_map(Call::Read).boxed(),
        22 => control(),
        6 => tail().boxed(),
        8 => odd().prop_map(Call::Odd).boxed(),
    ];
    let accept = option::weighted(
        0.2,
        text(&["gzip", "zstd", "gzip, zstd", "br", "identity", "gzip;q=0"]),
    );
    (rarely(0.2), rarely(0.1), accept, call)
        .prop_map(|(http1, origin, accept_encoding, call)| Op {
            http1,
            origin,
            accept_encoding,
            call,
        })
        .boxed()
}

/// One of these.
pub fn text(of: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    select(of).prop_map(str::to_owned)
}

/// True this often.
pub fn rarely(often: f64) -> impl Strategy<Value = bool> {
    proptest::bool::weighted(often)
}

/// A basin.
pub fn basin() -> impl Strategy<Value = usize> {
    prop_oneof![8 => Just(0_usize), 2 => Just(1), 1 => Just(2)]
}

/// A stream.
pub fn place() -> BoxedStrategy<Place> {
    let spelling = select(vec![Spelling::Upper, Spelling::Lower, Spelling::Escaped]);
    let stream =
        prop_oneof![10 => Just(0_usize), 3 => Just(1), 2 => Just(2), 1 => Just(3), 1 => Just(4)];
    (basin(), stream, spelling)
        .prop_map(|(basin, stream, spelling)| Place {
            basin,
            stream,
            spelling,
        })
        .boxed()
}

/// A key, mostly the right one.
pub fn key() -> impl Strategy<Value = Key> {
    let unusable = vec![
        Key::Absent,
        Key::Half,
        Key::NotBase64,
        Key::Long,
        Key::Empty,
    ];
    prop_oneof![84 => Just(Key::Right), 5 => Just(Key::Other), 11 => select(unusable)]
}

fn append() -> BoxedStrategy<Append> {
    let accept = text(&[
        "application/json",
        "application/protobuf",
        "text/html",
        "*/*",
    ]);
    let sent = (
        select(&Encoding::APPENDS),
        prop_oneof![4 => Just(Packed::Not), 1 => Just(Packed::Gzip), 1 => Just(Packed::Zstd)],
        option::weighted(0.2, accept),
        option::weighted(0.1, stream_config()),
    );
    let inputs = prop_oneof![
        40 => input().prop_map(|input| vec![input]),
        10 => vec(input(), 1..5),
        3 => large().prop_map(|input| vec![input]),
    ];
    (place(), key(), inputs, sent)
        .prop_map(
            |(at, key, mut inputs, (encoding, packed, accept, config))| {
                if encoding != Encoding::Frames {
                    inputs.truncate(1);
                }
                Append {
                    at,
                    key,
                    inputs,
                    encoding,
                    packed,
                    accept,
                    config,
                }
            },
        )
        .boxed()
}

fn input() -> BoxedStrategy<Input> {
    let condition = prop_oneof![8 => Just(Pos::Tail(0)), 1 => pos()];
    let fence =
        prop_oneof![4 => Just(Fence::Right), 1 => text(&["", "t", "other"]).prop_map(Fence::Other)];
    let records = prop_oneof![30 => vec(rec(), 1..8), 1 => Just(Vec::new())];
    (
        records,
        option::weighted(0.25, condition),
        option::weighted(0.3, fence),
    )
        .prop_map(|(records, match_seq_num, fencing_token)| Input {
            records,
            times: 1,
            match_seq_num,
            fencing_token,
        })
        .boxed()
}

/// Batches around S2's limits of 1000 records and 1 MiB.
fn large() -> impl Strategy<Value = Input> {
    const MIB: usize = 1 << 20;
    let sizes = vec![
        (MIB - 8, 1),
        (MIB - 7, 1),
        (MIB - 8 - 30, 1),
        (MIB - 8 - 50, 1),
        (MIB / 2 - 8, 2),
        (61_680 - 8, 17),
        (61_440, 3),
        (1040, 1000),
        (1041, 1000),
        (0, 1000),
        (0, 1001),
    ];
    (select(sizes), any::<bool>()).prop_map(|((len, times), noise)| Input {
        records: vec![Rec {
            timestamp: Some(1000),
            what: What::Data {
                headers: Vec::new(),
                body: Bytes { len, noise },
            },
        }],
        times,
        match_seq_num: None,
        fencing_token: None,
    })
}

fn rec() -> BoxedStrategy<Rec> {
    let odd = vec![What::BadTrim, What::UnknownCommand, What::EmptyName];
    // The last two are of 36 bytes, the most that S2 takes, and of 37.
    let fences = text(&[
        "",
        "t",
        "token",
        "0123456789abcdef0123456789abcdef0123",
        "0123456789abcdef0123456789abcdef01234",
    ]);
    let what = prop_oneof![
        84 => data(),
        8 => fences.prop_map(What::Fence),
        6 => pos().prop_map(What::Trim),
        2 => select(odd),
    ];
    let timestamp = prop_oneof![
        96 => (1000..1020_u64).prop_map(Some),
        2 => Just(None),
        1 => Just(Some(u64::MAX)),
        1 => Just(Some(0)),
    ];
    (timestamp, what)
        .prop_map(|(timestamp, what)| Rec { timestamp, what })
        .boxed()
}

fn data() -> BoxedStrategy<What> {
    let len = prop_oneof![3 => Just(0_usize), 3 => Just(1), 20 => 2..60_usize, 5 => 60..3000_usize, 1 => Just(61_440)];
    let bytes = |len: BoxedStrategy<usize>| {
        (len, rarely(0.3)).prop_map(|(len, noise)| Bytes { len, noise })
    };
    let header = (
        text(&["n", "name", "näme", "x-y"]),
        bytes(prop_oneof![Just(0_usize), 1..9_usize, Just(300)].boxed()),
    );
    let headers = prop_oneof![3 => Just(Vec::new()), 2 => vec(header, 1..4)];
    (headers, bytes(len.boxed()))
        .prop_map(|(headers, body)| What::Data { headers, body })
        .boxed()
}

/// A sequence number, mostly near the tail.
pub fn pos() -> BoxedStrategy<Pos> {
    prop_oneof![
        5 => (0..6_u64).prop_map(Pos::At),
        9 => (-8..=2_i64).prop_map(Pos::Tail),
        1 => Just(Pos::At(u64::MAX)),
    ]
    .boxed()
}
