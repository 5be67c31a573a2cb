//! What each stream does: off unless asked for, and bounded, for clients choose the names of streams.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use prometheus::{IntCounter, IntCounterVec};

use super::{Each, register::Register};
use crate::telemetry::label::{Direction, Label as _};

/// What stands for the names of streams that there is no room for. No basin is called so: their names
/// have at least eight characters.
const OTHER: &str = "other";

/// Series of one stream: records and bytes in two directions.
const SERIES_OF_A_STREAM: usize = 4;

/// Each stream.
pub struct StreamMetrics {
    records: IntCounterVec,
    bytes: IntCounterVec,
    max_streams: usize,
    known: Mutex<HashMap<String, StreamCounters>>,
}

/// One stream.
pub type StreamCounters = std::sync::Arc<Each<Direction, Amount>>;

/// Records, and how much they are.
pub struct Amount {
    /// How many.
    pub records: IntCounter,
    /// Their metered bytes, in clear.
    pub bytes: IntCounter,
}

impl StreamMetrics {
    pub(super) fn new(register: &Register, max_series: usize) -> Result<Self, prometheus::Error> {
        let by = &["basin", "stream", "direction"];
        Ok(Self {
            records: register.counters(
                "stream_records_total",
                "Records encrypted and decrypted, by stream.",
                by,
            )?,
            bytes: register.counters(
                "stream_bytes_total",
                "Metered bytes of records encrypted and decrypted, in clear, by stream.",
                by,
            )?,
            max_streams: max_series / SERIES_OF_A_STREAM,
            known: Mutex::default(),
        })
    }

    /// The counters of a stream; those of all others where there is no room for one more.
    pub fn of(&self, basin: &str, stream: &str) -> StreamCounters {
        // No basin's name holds a slash.
        let path = format!("{basin}/{stream}");
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counters) = known.get(&path) {
            return StreamCounters::clone(counters);
        }
        if known.len() >= self.max_streams {
            return self.counters(OTHER, OTHER);
        }
        let counters = self.counters(basin, stream);
        known.insert(path, StreamCounters::clone(&counters));
        counters
    }

    fn counters(&self, basin: &str, stream: &str) -> StreamCounters {
        StreamCounters::new(Each::new(|direction: Direction| {
            let names = [basin, stream, direction.word()];
            Amount {
                records: self.records.with_label_values(&names),
                bytes: self.bytes.with_label_values(&names),
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::{label::Direction, metrics::Metrics};

    #[test]
    fn streams_beyond_the_bound_are_counted_together() {
        let metrics = Metrics::with_streams(11).unwrap();
        let streams = metrics.streams.as_ref().unwrap();
        for _ in 0..2 {
            for at in 0..50 {
                let of = streams.of("some-basin", &format!("stream {at}\n\"x\""));
                of.of(Direction::Sealed).records.inc_by(3);
                of.of(Direction::Opened).bytes.inc_by(10);
            }
        }
        let text = metrics.render();
        let series: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("streamseal_stream_"))
            .collect();
        // Two streams and the others, with four series each.
        assert_eq!(series.len(), 12, "{text}");
        for line in [
            "streamseal_stream_records_total{basin=\"some-basin\",direction=\"sealed\",stream=\"stream 1\\n\\\"x\\\"\"} 6",
            "streamseal_stream_records_total{basin=\"other\",direction=\"sealed\",stream=\"other\"} 288",
            "streamseal_stream_bytes_total{basin=\"other\",direction=\"opened\",stream=\"other\"} 960",
        ] {
            assert!(series.contains(&line), "{line} not in\n{text}");
        }
    }
}
