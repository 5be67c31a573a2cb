//! How far a long command is: a bar on a terminal, and a line now and then anywhere else.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between two lines where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(5);
/// Time between two pictures of the bar.
const BETWEEN_PICTURES: Duration = Duration::from_millis(100);
/// How the bar looks; what does not fit the terminal is cut off at its end.
const TEMPLATE: &str = "{prefix} [{bar:20}] {percent}%, ETA {eta}, {wide_msg}";

/// Counts records and bytes, and says so on standard error.
pub(super) struct Progress {
    doing: &'static str,
    /// Done by an earlier run.
    before: u64,
    /// Done, all in all.
    records: u64,
    bytes: u64,
    total: u64,
    start: Instant,
    last: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// For a command that will be `doing` that to `total` records, of which `before` are done.
    pub(super) fn new(doing: &'static str, before: u64, total: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(TEMPLATE);
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                .with_prefix(doing)
                .with_position(before)
        });
        let now = Instant::now();
        Self {
            doing,
            before,
            records: before,
            bytes: 0,
            total,
            start: now,
            last: now,
            bar,
        }
    }

    /// So many are there to do, as far as is known by now.
    pub(super) fn expect(&mut self, total: u64) {
        self.total = total;
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// So many more are done, of so many bytes.
    pub(super) fn add(&mut self, records: u64, bytes: u64) {
        self.records += records;
        self.bytes += bytes;
        let between = match self.bar {
            Some(_) => BETWEEN_PICTURES,
            None => BETWEEN_LINES,
        };
        if self.last.elapsed() >= between {
            self.last = Instant::now();
            self.show();
        }
    }

    /// Leaves the screen to what comes next.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn show(&self) {
        if let Some(bar) = &self.bar {
            bar.set_message(self.volume());
            bar.set_position(self.records);
            return;
        }
        let left = self.total.saturating_sub(self.records);
        let left = left.saturating_mul(self.elapsed_ms()) / self.done().max(1);
        let left = Duration::from_millis(left).as_secs();
        let (doing, volume) = (self.doing, self.volume());
        // Nobody is left to tell if standard error is closed.
        let _ = writeln!(
            io::stderr().lock(),
            "{doing}: {volume}, about {left} s left"
        );
    }

    /// Records, bytes, and both rates.
    fn volume(&self) -> String {
        let per_second = |amount: u64| amount.saturating_mul(1000) / self.elapsed_ms();
        let (bytes, rate) = (ByteSize(self.bytes), ByteSize(per_second(self.bytes)));
        let (records, total, pace) = (self.records, self.total, per_second(self.done()));
        format!("{records} of {total} records, {bytes}, {rate}/s, {pace} records/s")
    }

    /// Records of this run.
    fn done(&self) -> u64 {
        self.records - self.before
    }

    /// At least 1.
    fn elapsed_ms(&self) -> u64 {
        let elapsed = self.start.elapsed().as_millis();
        u64::try_from(elapsed).unwrap_or(u64::MAX).max(1)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
