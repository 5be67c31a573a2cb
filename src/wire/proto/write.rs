//! A protobuf writer that runs a description twice: first to measure, then to fill one buffer.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::wire::record::{Header, Position};

/// Wire type of integers.
const VARINT: u32 = 0;
/// Wire type of bytes, strings and messages.
const DELIMITED: u32 = 2;

/// Where fields go: a counter of bytes, or the buffer itself.
pub(super) trait Field: Sized {
    /// Adds a varint without a key.
    fn varint(&mut self, value: u64);
    /// Adds bytes without a key or length.
    fn raw(&mut self, bytes: &[u8]);
    /// Adds a nested message with key and length.
    fn message(&mut self, field: u32, fill: impl Fn(&mut dyn DynField));
}
