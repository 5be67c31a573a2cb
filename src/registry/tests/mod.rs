//! Tests of the registry: the table against its invariants, and a search through every small case.

mod model;
mod table;

use crate::{
    crypto::{Key, KeyCheck},
    stream::StreamPath,
};

fn path() -> StreamPath {
    "test-basin/s".parse().unwrap()
}

/// The commitment to the key of this number.
fn check(number: u8) -> KeyCheck {
    Key::from_bytes([number; 32]).check(&path().id())
}
