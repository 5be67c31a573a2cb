//! The running hash of a stream's records, which is the same for a stream and a faithful copy of it.

use s2_sdk::types::Header;

use super::records::trim_point;

/// What the hash is for; another purpose would give another hash.
const CONTEXT: &str = "streamseal/v1/stream-hash";

/// BLAKE3 over position, timestamp, headers and body of each record, with all their lengths.
///
/// Positions count from the first record, and so do the trim points in trim commands: a copy of a stream that
/// has lost its head has other sequence numbers, and the same hash.
pub(super) struct RunningHash {
    hasher: blake3::Hasher,
    first: u64,
    records: u64,
}

impl RunningHash {
    /// The hash of no records, in a stream whose first one has sequence number `first`.
    pub(super) fn new(first: u64) -> Self {
        Self {
            hasher: blake3::Hasher::new_derive_key(CONTEXT),
            first,
            records: 0,
        }
    }

    /// Takes the next record in.
    pub(super) fn add(&mut self, seq_num: u64, timestamp: u64, headers: &[Header], body: &[u8]) {
        self.number(seq_num.saturating_sub(self.first));
        self.number(timestamp);
        self.number(length(headers));
        for Header { name, value, .. } in headers {
            self.bytes(name);
            self.bytes(value);
        }
        match trim_point(headers, body) {
            Some(point) => self.bytes(&point.saturating_sub(self.first).to_be_bytes()),
            None => self.bytes(body),
        }
        self.records += 1;
    }

    /// How many records it holds.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// The hash so far, in hexadecimal.
    pub(super) fn hex(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(length(bytes));
        self.hasher.update(bytes);
    }

    fn number(&mut self, number: u64) {
        self.hasher.update(&number.to_be_bytes());
    }
}

fn length<T>(of: &[T]) -> u64 {
    // No `usize` is wider than 64 bits.
    u64::try_from(of.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use s2_sdk::types::Header;

    use super::RunningHash;

    fn hash(records: &[(u64, u64, &[Header], &[u8])]) -> String {
        let mut hash = RunningHash::new(records.first().map_or(0, |record| record.0));
        for (seq_num, timestamp, headers, body) in records {
            hash.add(*seq_num, *timestamp, headers, body);
        }
        hash.hex()
    }

    #[test]
    fn every_part_of_a_record_counts() {
        let header = |name: &'static str, value: &'static str| Header::new(name, value);
        let plain = hash(&[(0, 5, &[header("a", "bc")], b"body")]);
        let others = [
            hash(&[(0, 6, &[header("a", "bc")], b"body")]),
            hash(&[(0, 5, &[header("ab", "c")], b"body")]),
            hash(&[(0, 5, &[], b"body")]),
            hash(&[(0, 5, &[header("a", "bc")], b"bod")]),
            hash(&[(0, 5, &[header("a", "bc")], b"body"), (1, 5, &[], b"")]),
        ];
        for other in &others {
            assert_ne!(&plain, other);
        }
        let gap = hash(&[(0, 5, &[], b""), (2, 5, &[], b"")]);
        assert_ne!(gap, hash(&[(0, 5, &[], b""), (1, 5, &[], b"")]));
    }

    #[test]
    fn a_copy_with_other_sequence_numbers_has_the_same_hash() {
        let trim = |point: u64| (Header::new("", "trim"), point.to_be_bytes());
        let (header, there) = trim(12);
        let (_, here) = trim(2);
        let there = hash(&[
            (10, 1, &[], b"x"),
            (11, 2, std::slice::from_ref(&header), &there),
        ]);
        let here = hash(&[(0, 1, &[], b"x"), (1, 2, &[header], &here)]);
        assert_eq!(there, here);
    }
}
