//! Ranges of sequence numbers, each with what is to be said of it.

use std::fmt;

use serde::Serialize;

/// Most ranges of one kind that are listed; all are counted.
const MAX_LISTED: usize = 1000;

/// Consecutive sequence numbers of which the same is to be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Range<T> {
    /// The first sequence number.
    pub(super) first: u64,
    /// The last one.
    pub(super) last: u64,
    /// What is to be said of them.
    #[serde(flatten)]
    pub(super) what: T,
}

/// Ranges in ascending order, the first [`MAX_LISTED`] of them listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Ranges<T> {
    /// How many sequence numbers there are in all ranges.
    pub(super) count: u64,
    /// The ranges.
    pub(super) ranges: Vec<Range<T>>,
    /// Whether there are more ranges than these.
    pub(super) truncated: bool,
}

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self {
            count: 0,
            ranges: Vec::new(),
            truncated: false,
        }
    }
}

impl<T: PartialEq> Ranges<T> {
    /// Adds the sequence numbers from `first` to `last`, which follow all that are in it.
    pub(super) fn add(&mut self, first: u64, last: u64, what: T) {
        self.count += (last - first).saturating_add(1);
        if let Some(range) = self.ranges.last_mut()
            && range.last.checked_add(1) == Some(first)
            && range.what == what
        {
            range.last = last;
        } else if self.ranges.len() < MAX_LISTED {
            self.ranges.push(Range { first, last, what });
        } else {
            self.truncated = true;
        }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<T> Range<T> {
    /// Its sequence numbers, as people read them.
    pub(super) fn numbers(&self) -> impl fmt::Display + use<T> {
        match (self.first, self.last) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_LISTED, Ranges};

    #[test]
    fn neighbours_become_one_range() {
        let mut ranges = Ranges::default();
        for (first, last, what) in [(0, 0, 'a'), (1, 3, 'a'), (4, 4, 'b'), (6, 6, 'b')] {
            ranges.add(first, last, what);
        }
        let found: Vec<_> = ranges
            .ranges
            .iter()
            .map(|range| (range.numbers().to_string(), range.what))
            .collect();
        let wanted = [("0-3", 'a'), ("4", 'b'), ("6", 'b')];
        assert_eq!(
            found,
            wanted.map(|(numbers, what)| (numbers.to_owned(), what))
        );
        assert_eq!((ranges.count, ranges.truncated), (6, false));
    }

    #[test]
    fn a_list_has_an_end() {
        let mut ranges = Ranges::default();
        for number in 0..=u64::try_from(MAX_LISTED).unwrap() {
            ranges.add(2 * number, 2 * number, ());
        }
        assert_eq!(ranges.ranges.len(), MAX_LISTED);
        assert_eq!(ranges.count, u64::try_from(MAX_LISTED).unwrap() + 1);
        assert!(ranges.truncated);
    }
}
