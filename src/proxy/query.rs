//! The query of a read, as S2 takes it: `seq_num`, `timestamp`, `tail_offset`, `clamp`, `count`,
//! `bytes`, `until`, `wait`.

use std::{fmt::Write as _, time::Duration};

use percent_encoding::percent_decode_str;

use super::Error;
use crate::{body::ReadLimit, wire::sse::LastEventId};

/// Longest wait of a unary read in seconds (S2's rule, `s2-lite` handlers).
const MAX_UNARY_WAIT: u32 = 60;

/// A read's parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadQuery {
    start: Start,
    clamp: bool,
    until: Option<u64>,
    wait: Option<u32>,
    limit: ReadLimit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    SeqNum(u64),
    Timestamp(u64),
    TailOffset(u64),
}

#[derive(Default)]
struct Raw {
    seq_num: Option<u64>,
    timestamp: Option<u64>,
    tail_offset: Option<u64>,
    clamp: Option<bool>,
    count: Option<u64>,
    bytes: Option<u64>,
    until: Option<u64>,
    wait: Option<u32>,
}

impl ReadQuery {
    /// Parses and checks a query string. Unknown parameters are ignored.
    ///
    /// # Errors
    /// [`Error::BadQuery`] for a value of the wrong type or a parameter given twice,
    /// [`Error::Invalid`] for more than one start.
    pub fn parse(query: Option<&str>) -> Result<Self, Error> {
        let mut raw = Raw::default();
        for pair in query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            raw.set(&decode(name), &decode(value))?;
        }
        let start = match (raw.seq_num, raw.timestamp, raw.tail_offset) {
            (Some(seq_num), None, None) => Start::SeqNum(seq_num),
            (None, Some(timestamp), None) => Start::Timestamp(timestamp),
            (None, None, offset) => Start::TailOffset(offset.unwrap_or(0)),
            _ => {
                return Err(Error::Invalid(
                    "only one of seq_num, timestamp, or tail_offset can be provided".into(),
                ));
            }
        };
        Ok(Self {
            start,
            clamp: raw.clamp.unwrap_or(false),
            until: raw.until,
            wait: raw.wait,
            limit: ReadLimit::new(raw.count, raw.bytes),
        })
    }

    /// Checks what S2 checks last, before it looks at the stream.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the start is not before `until`.
    pub fn check(&self) -> Result<(), Error> {
        match (self.start, self.until) {
            (Start::Timestamp(start), Some(until)) if start >= until => Err(Error::Invalid(
                "start `timestamp` exceeds or equal to `until`".into(),
            )),
            _ => Ok(()),
        }
    }

    /// The same read within one unary answer: at most 1000 records, 1 MiB, and 60 s of waiting.
    #[must_use]
    pub fn unary(mut self) -> Self {
        self.limit = self.limit.unary();
        self.wait = self.wait.map(|wait| wait.min(MAX_UNARY_WAIT));
        self
    }

    /// The same read, going on after the last event that a client got.
    #[must_use]
    pub fn resumed(mut self, last: &LastEventId) -> Self {
        self.start = Start::SeqNum(last.seq_num.saturating_add(1));
        self.limit = self.limit.after(last.count as u64, last.bytes as u64);
        self
    }

    /// The rest of the same read, from this sequence number on, within what is left of its limits and of its `wait`
    /// after it waited for this long.
    #[must_use]
    pub fn continued(&self, seq_num: u64, (limit, waited): (ReadLimit, Duration)) -> Self {
        let waited = waited.as_secs().try_into().unwrap_or(u32::MAX);
        Self {
            start: Start::SeqNum(seq_num),
            // A tail below is not to be taken for the end.
            clamp: false,
            limit,
            wait: self.wait.map(|wait| wait.saturating_sub(waited)),
            ..self.clone()
        }
    }

    /// Whether the first record does not depend on when the read begins.
    pub fn has_fixed_start(&self) -> bool {
        !matches!(self.start, Start::TailOffset(_))
    }

    /// What the client may still get, in plain sizes.
    pub fn limit(&self) -> ReadLimit {
        self.limit
    }

    /// Whether the read may wait for records that are not there yet, for this many seconds.
    pub fn wait(&self) -> u32 {
        self.wait.unwrap_or(0)
    }

    /// The query for the upstream's session. It never holds `bytes`, which would count sealed sizes.
    pub fn to_upstream(&self) -> String {
        let (name, value) = match self.start {
            Start::SeqNum(value) => ("seq_num", value),
            Start::Timestamp(value) => ("timestamp", value),
            Start::TailOffset(value) => ("tail_offset", value),
        };
        let mut query = format!("{name}={value}");
        let rest = [
            ("count", self.limit.upstream_count()),
            ("until", self.until),
            ("wait", self.wait.map(u64::from)),
        ];
        for (name, value) in rest {
            if let Some(value) = value {
                // Writing to a String does not fail.
                let _ok = write!(query, "&{name}={value}");
            }
        }
        if self.clamp {
            query.push_str("&clamp=true");
        }
        query
    }
}

impl Raw {
    fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        match name {
            "seq_num" => set(&mut self.seq_num, name, value),
            "timestamp" => set(&mut self.timestamp, name, value),
            "tail_offset" => set(&mut self.tail_offset, name, value),
            "clamp" => set(&mut self.clamp, name, value),
            "count" => set(&mut self.count, name, value),
            "bytes" => set(&mut self.bytes, name, value),
            "until" => set(&mut self.until, name, value),
            "wait" => set(&mut self.wait, name, value),
            _ => Ok(()),
        }
    }
}

fn set<T>(slot: &mut Option<T>, name: &str, value: &str) -> Result<(), Error>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let bad = |why: String| Error::BadQuery(format!("Failed to deserialize query string: {why}"));
    if slot.is_some() {
        return Err(bad(format!("duplicate field `{name}`")));
    }
    let parsed = value
        .parse()
        .map_err(|error: T::Err| bad(format!("{name}: {error}")))?;
    *slot = Some(parsed);
    Ok(())
}

/// Form decoding: `+` is a space, `%xx` a byte.
pub fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(query: &str) -> String {
        ReadQuery::parse(Some(query)).unwrap().to_upstream()
    }

    #[test]
    fn bytes_become_a_count_and_everything_else_goes_through() {
        assert_eq!(upstream(""), "tail_offset=0");
        assert_eq!(upstream("seq_num=5&bytes=100"), "seq_num=5&count=12");
        assert_eq!(upstream("bytes=100&count=3"), "tail_offset=0&count=3");
        assert_eq!(upstream("bytes=0"), "tail_offset=0&count=0");
        assert_eq!(
            upstream("timestamp=7&until=9&wait=3&clamp=true&x=y"),
            "timestamp=7&until=9&wait=3&clamp=true"
        );
        let unary = ReadQuery::parse(Some("wait=100")).unwrap().unary();
        assert_eq!(unary.to_upstream(), "tail_offset=0&count=1000&wait=60");
    }

    #[test]
    fn continued_read_has_what_is_left() {
        let query = ReadQuery::parse(Some("tail_offset=9&count=5&until=7&wait=60&clamp=true"));
        let left = (ReadLimit::new(Some(2), None), Duration::from_millis(20_900));
        let continued = query.unwrap().continued(12, left);
        let sent = "seq_num=12&count=2&until=7&wait=40";
        assert_eq!(continued.to_upstream(), sent);
        let query = ReadQuery::parse(Some("wait=5")).unwrap();
        let left = (query.limit(), Duration::from_secs(6));
        assert_eq!(query.continued(1, left).to_upstream(), "seq_num=1&wait=0");
    }

    #[test]
    fn bad_values_are_refused() {
        for query in [
            "seq_num=x",
            "count=-1",
            "clamp=1",
            "wait=4294967296",
            "count=1&count=2",
        ] {
            let error = ReadQuery::parse(Some(query)).unwrap_err();
            assert!(matches!(error, Error::BadQuery(_)), "{query}");
        }
        let error = ReadQuery::parse(Some("seq_num=1&timestamp=2")).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)));
        let query = ReadQuery::parse(Some("timestamp=5&until=5")).unwrap();
        assert!(matches!(query.check(), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_resumed_read_goes_on_where_it_was() {
        let last: LastEventId = "41,2,30".parse().unwrap();
        let query = ReadQuery::parse(Some("timestamp=1&count=10&bytes=110")).unwrap();
        assert_eq!(query.resumed(&last).to_upstream(), "seq_num=42&count=8");
    }
}
