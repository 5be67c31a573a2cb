//! How calls about basins and streams are drawn, and their configurations.

use proptest::{option, prelude::*, sample::select};

use super::{
    ops::{BasinConfig, Call, Field, Page, StreamConfig},
    strategy::{basin, place, rarely, text},
};

fn field<T: std::fmt::Debug + Clone>(
    set: impl Strategy<Value = T>,
) -> impl Strategy<Value = Field<T>> {
    prop_oneof![
        3 => Just(Field::Absent),
        1 => Just(Field::Null),
        6 => set.prop_map(Field::Set),
    ]
}

/// A configuration with which much works.
pub fn first_config() -> BoxedStrategy<BasinConfig> {
    let cipher = prop_oneof![9 => text(&["aegis-256", "aes-256-gcm"]).prop_map(Field::Set), 1 => Just(Field::Null)];
    (cipher, rarely(0.95), rarely(0.6), basin_config())
        .prop_map(|(stream_cipher, on_append, on_read, rest)| BasinConfig {
            stream_cipher,
            on_append: Field::Set(on_append),
            on_read: Field::Set(on_read),
            stream: rest.stream,
        })
        .boxed()
}

fn basin_config() -> BoxedStrategy<BasinConfig> {
    let cipher =
        prop_oneof![30 => text(&["aegis-256", "aes-256-gcm"]), 1 => text(&["AEGIS-256", ""])];
    let often = || prop_oneof![3 => Just(Field::Absent), 6 => Just(Field::Set(true)), 3 => Just(Field::Set(false)), 1 => Just(Field::Null)];
    let stream = prop_oneof![4 => Just(Field::Absent), 1 => field(stream_config())];
    (field(cipher), often(), often(), stream)
        .prop_map(|(stream_cipher, on_append, on_read, stream)| BasinConfig {
            stream_cipher,
            on_append,
            on_read,
            stream,
        })
        .boxed()
}

/// A stream's configuration: mostly left as it is, so that timestamps stay the client's.
pub fn stream_config() -> BoxedStrategy<StreamConfig> {
    let class = text(&["standard", "express", "", "bogus"]);
    let modes = text(&["client-prefer", "client-require", "arrival", "never"]);
    let mode = option::weighted(0.4, modes);
    let uncapped = option::of(any::<bool>());
    // Long enough that nothing expires in a test.
    let age = select(vec![0_u64, 86_400, 604_800, u64::MAX]);
    let empty = select(vec![0_u64, 86_400]);
    (
        prop_oneof![3 => Just(Field::Absent), 1 => field(class)],
        prop_oneof![2 => Just(Field::Absent), 1 => field(age)],
        prop_oneof![3 => Just(Field::Absent), 1 => field((mode, uncapped))],
        prop_oneof![3 => Just(Field::Absent), 1 => field(empty)],
    )
        .prop_map(
            |(storage_class, retention_age, timestamping, delete_on_empty)| StreamConfig {
                storage_class,
                retention_age,
                timestamping,
                delete_on_empty,
            },
        )
        .boxed()
}

fn token() -> impl Strategy<Value = Option<u8>> {
    option::of(prop_oneof![8 => 0..3_u8, 1 => Just(37)])
}

fn page() -> BoxedStrategy<Page> {
    let names = text(&[
        "",
        "s",
        "s2",
        "a/",
        "b",
        "basin-",
        "basin-one",
        "100%",
        "ø",
        "zz",
    ]);
    let name = || option::weighted(0.4, names.clone());
    let limit = option::weighted(0.4, text(&["0", "1", "2", "1000", "1001", "-1", "x"]));
    (name(), name(), limit)
        .prop_map(|(prefix, start_after, limit)| Page {
            prefix,
            start_after,
            limit,
        })
        .boxed()
}

/// One call about basins or streams.
pub fn control() -> BoxedStrategy<Call> {
    let config = || basin_config().prop_map(Field::Set).boxed();
    let stream = || prop_oneof![1 => Just(Field::Null), 2 => Just(Field::Absent), 3 => stream_config().prop_map(Field::Set)];
    prop_oneof![
        2 => (basin(), prop_oneof![9 => config(), 1 => Just(Field::Null).boxed()], token())
            .prop_map(|(basin, config, token)| Call::CreateBasin { basin, config, token }).boxed(),
        3 => (basin(), option::weighted(0.9, prop_oneof![9 => config(), 1 => Just(Field::Absent).boxed()]))
            .prop_map(|(basin, config)| Call::EnsureBasin { basin, config }).boxed(),
        4 => (basin(), basin_config()).prop_map(|(basin, change)| Call::ReconfigureBasin { basin, change }).boxed(),
        2 => (basin(), rarely(0.2)).prop_map(|(basin, head)| Call::ShowBasin { basin, head }).boxed(),
        1 => prop_oneof![1 => Just(0_usize), 2 => Just(1), 3 => Just(2)].prop_map(Call::DeleteBasin).boxed(),
        1 => page().prop_map(Call::ListBasins).boxed(),
        5 => (place(), stream(), token())
            .prop_map(|(at, config, token)| Call::CreateStream { at, config, token }).boxed(),
        4 => (place(), option::of(stream_config()))
            .prop_map(|(at, config)| Call::EnsureStream { at, config }).boxed(),
        2 => (place(), stream_config()).prop_map(|(at, change)| Call::ReconfigureStream { at, change }).boxed(),
        2 => (place(), rarely(0.2)).prop_map(|(at, head)| Call::ShowStream { at, head }).boxed(),
        3 => place().prop_map(Call::DeleteStream).boxed(),
        3 => (basin(), page()).prop_map(|(basin, page)| Call::ListStreams { basin, page }).boxed(),
    ]
        .boxed()
}
