//! Counts records and headers before they are decoded, so that two bytes on the wire cannot demand
//! a hundred in memory.

/// Longest varint in bytes.
const MAX_VARINT_BYTES: usize = 10;

/// Field of `AppendInput` and `ReadBatch` that holds the records.
const RECORDS: u64 = 1;

/// How many records and headers a batch message holds.
#[derive(Default)]
pub(super) struct Census {
    pub(super) records: usize,
    pub(super) headers: usize,
}

impl Census {
    /// Counts in `batch`, whose records hold their headers in field `headers_field`.
    ///
    /// Stops where the message is malformed, and there the decoder stops too. Fields inside unknown
    /// groups are counted as if outside, so the count is never too low.
    pub(super) fn take(mut batch: &[u8], headers_field: u64) -> Self {
        let mut census = Self::default();
        while let Some((field, payload)) = next_field(&mut batch) {
            if let (RECORDS, Some(mut record)) = (field, payload) {
                census.records += 1;
                while let Some((field, payload)) = next_field(&mut record) {
                    census.headers += usize::from(field == headers_field && payload.is_some());
                }
            }
        }
        census
    }
}

/// The next field's number, and its payload when it is length-delimited.
///
/// ```text
/// key: varint = field << 3 | wire type    wire type  0 varint, 1 eight bytes, 2 length and payload,
///                                                    3 and 4 start and end of a group, 5 four bytes
/// ```
fn next_field<'a>(message: &mut &'a [u8]) -> Option<(u64, Option<&'a [u8]>)> {
    let key = varint(message)?;
    let payload = match key & 0b111 {
        0 => varint(message).map(|_| None)?,
        1 => take(message, 8).map(|_| None)?,
        2 => {
            let length = usize::try_from(varint(message)?).ok()?;
            Some(take(message, length)?)
        }
        3 | 4 => None,
        5 => take(message, 4).map(|_| None)?,
        _ => return None,
    };
    Some((key >> 3, payload))
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    message.split_off(..length)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for index in 0..MAX_VARINT_BYTES {
        let byte = *message.split_off_first()?;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
