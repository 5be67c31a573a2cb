//! Read limits on plain sizes: the upstream counts sealed bytes, clients count their own.

use crate::wire::record::{MAX_BATCH_BYTES, MAX_BATCH_RECORDS, RECORD_BASE_BYTES, ReadBatch};

/// How many records, and how many metered bytes in clear, a read may still deliver.
///
/// S2's rule: the first record that does not fit ends the read, whatever would fit after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    count: Option<u64>,
    bytes: Option<u64>,
}

impl ReadLimit {
    /// The limits a client gave; `None` is no limit.
    pub fn new(count: Option<u64>, bytes: Option<u64>) -> Self {
        Self { count, bytes }
    }

    /// The same, within what one unary answer holds: 1000 records and 1 MiB.
    #[must_use]
    pub fn unary(self) -> Self {
        let within =
            |limit: Option<u64>, max: usize| Some(limit.unwrap_or(u64::MAX).min(max as u64));
        Self {
            count: within(self.count, MAX_BATCH_RECORDS),
            bytes: within(self.bytes, MAX_BATCH_BYTES),
        }
    }

    /// The same after some was delivered earlier, by a session that this one resumes.
    #[must_use]
    pub fn after(self, count: u64, bytes: u64) -> Self {
        Self {
            count: self.count.map(|limit| limit.saturating_sub(count)),
            bytes: self.bytes.map(|limit| limit.saturating_sub(bytes)),
        }
    }

    /// The `count` to ask the upstream for.
    ///
    /// `bytes` cannot be passed on, for it would count sealed bytes; but dropping it could turn a
    /// bounded read into an endless one. Every record meters at least 8 bytes, so a budget of bytes
    /// is a budget of records too.
    pub fn upstream_count(self) -> Option<u64> {
        let by_bytes = self.bytes.map(|bytes| match bytes {
            0 => 0,
            bytes => (bytes / RECORD_BASE_BYTES as u64).max(1),
        });
        match (self.count, by_bytes) {
            (Some(count), Some(by_bytes)) => Some(count.min(by_bytes)),
            (limit, None) | (None, limit) => limit,
        }
    }

    /// Whether nothing more may be delivered.
    pub fn is_exhausted(self) -> bool {
        self.count == Some(0) || self.bytes == Some(0)
    }

    /// Cuts `batch` at its first record that does not fit and counts the rest. Returns whether it
    /// was cut, which ends the read.
    pub fn take(&mut self, batch: &mut ReadBatch) -> bool {
        let mut fits = 0;
        for record in &batch.records {
            let size = record.record.metered_size() as u64;
            let left = (
                self.count.map(|count| count.checked_sub(1)),
                self.bytes.map(|bytes| bytes.checked_sub(size)),
            );
            if matches!(left, (Some(None), _) | (_, Some(None))) {
                break;
            }
            self.count = left.0.flatten();
            self.bytes = left.1.flatten();
            fits += 1;
        }
        let cut = fits < batch.records.len();
        batch.records.truncate(fits);
        cut
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::record::{Record, SequencedRecord};

    fn batch(sizes: &[usize]) -> ReadBatch {
        let records = sizes
            .iter()
            .zip(0..)
            .map(|(size, seq_num)| SequencedRecord {
                seq_num,
                timestamp: 0,
                record: Record::from_parts(Vec::new(), Bytes::from(vec![0; size - 8])).unwrap(),
            });
        ReadBatch {
            records: records.collect(),
            tail: None,
        }
    }

    #[test]
    fn the_first_record_that_does_not_fit_ends_the_read() {
        let mut limit = ReadLimit::new(None, Some(30));
        let mut first = batch(&[10, 30, 8]);
        assert!(limit.take(&mut first));
        assert_eq!(first.records.len(), 1);

        let mut limit = ReadLimit::new(Some(2), Some(100));
        let mut all = batch(&[50, 50]);
        assert!(!limit.take(&mut all));
        assert!(limit.is_exhausted());

        let mut limit = ReadLimit::new(None, Some(12));
        let mut none = batch(&[13]);
        assert!(limit.take(&mut none) && none.records.is_empty());
        assert!(!limit.is_exhausted());
    }

    #[test]
    fn a_byte_budget_bounds_the_upstream_count() {
        for (count, bytes, upstream) in [
            (None, None, None),
            (Some(5), None, Some(5)),
            (None, Some(0), Some(0)),
            (None, Some(7), Some(1)),
            (None, Some(80), Some(10)),
            (Some(3), Some(80), Some(3)),
            (Some(0), Some(80), Some(0)),
        ] {
            assert_eq!(ReadLimit::new(count, bytes).upstream_count(), upstream);
        }
        let unary = ReadLimit::new(None, None).unary();
        assert_eq!(unary.upstream_count(), Some(1000));
        let resumed = ReadLimit::new(Some(5), Some(100)).after(2, 200);
        assert_eq!(resumed, ReadLimit::new(Some(3), Some(0)));
    }
}
