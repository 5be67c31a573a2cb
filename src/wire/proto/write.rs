//! A protobuf writer that runs a description twice: first to measure, then to fill one buffer.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::wire::record::{Header, Position};

/// Wire type of integers.
const VARINT: u32 = 0;

/// Wire type of bytes, strings and messages.
const DELIMITED: u32 = 2;

/// Where fields go.
pub(super) enum Writer {
    /// Nowhere: their bytes are counted.
    Measure(usize),
    /// Into a buffer that has room for them.
    Fill(BytesMut),
}

/// Encodes the message that `describe` writes, in one allocation of its exact size.
pub(super) fn encode(describe: impl Fn(&mut Writer)) -> Bytes {
    let mut writer = Writer::Fill(BytesMut::with_capacity(measure(&describe)));
    describe(&mut writer);
    match writer {
        Writer::Fill(out) => out.freeze(),
        Writer::Measure(_) => Bytes::new(),
    }
}

fn measure(describe: &impl Fn(&mut Writer)) -> usize {
    let mut writer = Writer::Measure(0);
    describe(&mut writer);
    match writer {
        Writer::Measure(length) => length,
        Writer::Fill(out) => out.len(),
    }
}

impl Writer {
    /// A nested message, even when it is empty.
    pub(super) fn message(&mut self, field: u32, describe: impl Fn(&mut Self)) {
        let length = measure(&describe);
        self.delimited(field, length);
        match self {
            Self::Measure(total) => *total += length,
            Self::Fill(_) => describe(self),
        }
    }

    /// Bytes, left out when there are none.
    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.present_bytes(field, value);
        }
    }

    /// Bytes of a field that tells absent from empty.
    pub(super) fn present_bytes(&mut self, field: u32, value: &[u8]) {
        self.delimited(field, value.len());
        match self {
            Self::Measure(total) => *total += value.len(),
            Self::Fill(out) => out.put_slice(value),
        }
    }

    /// An integer, left out when it is zero.
    pub(super) fn nonzero(&mut self, field: u32, value: u64) {
        self.optional(field, (value != 0).then_some(value));
    }

    /// An integer of a field that tells absent from zero.
    pub(super) fn optional(&mut self, field: u32, value: Option<u64>) {
        if let Some(value) = value {
            self.varint(u64::from(field << 3 | VARINT));
            self.varint(value);
        }
    }

    /// A `StreamPosition`.
    pub(super) fn position(&mut self, field: u32, position: Position) {
        self.message(field, |out| {
            out.nonzero(1, position.seq_num);
            out.nonzero(2, position.timestamp);
        });
    }

    /// A `Header` each.
    pub(super) fn headers(&mut self, field: u32, headers: &[Header]) {
        for Header { name, value } in headers {
            self.message(field, |out| {
                out.bytes(1, name);
                out.bytes(2, value);
            });
        }
    }

    fn delimited(&mut self, field: u32, length: usize) {
        self.varint(u64::from(field << 3 | DELIMITED));
        self.varint(length as u64);
    }

    /// Seven bits a byte, lowest first; the high bit says that more follow.
    fn varint(&mut self, mut value: u64) {
        match self {
            Self::Measure(total) => *total += varint_len(value),
            Self::Fill(out) => {
                while value >= 0x80 {
                    out.put_u8(value as u8 | 0x80);
                    value >>= 7;
                }
                out.put_u8(value as u8);
            }
        }
    }
}

fn varint_len(value: u64) -> usize {
    let bits = u64::BITS - value.leading_zeros();
    bits.div_ceil(7).max(1) as usize
}
