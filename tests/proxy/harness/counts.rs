//! Metrics as a scrape sees them: read from the text, so that no product code judges the product.

use std::collections::BTreeMap;

use super::{Stack, until};

/// Every series of one scrape, without the project's prefix.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts(BTreeMap<String, f64>);

impl Counts {
    /// Reads Prometheus' text format.
    pub fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#'));
        let series = series.map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let name = name.strip_prefix("streamseal_").unwrap_or(name);
            (name.to_owned(), value.parse().unwrap())
        });
        Self(series.collect())
    }

    /// The value of one series; one that is not there is at zero.
    pub fn of(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or_default()
    }

    /// The series of these families.
    pub fn only(&self, families: &[&str]) -> Self {
        let family = |series: &str| series.split('{').next().unwrap().to_owned();
        let kept = self.0.iter();
        let kept = kept.filter(|(series, _)| families.contains(&&*family(series)));
        Self(
            kept.map(|(series, value)| (series.clone(), *value))
                .collect(),
        )
    }

    /// Everything together.
    pub fn sum(&self) -> f64 {
        self.0.values().sum()
    }

    /// The names of all series.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// What changed since then, by how much.
    pub fn since(&self, before: &Self) -> Vec<(String, f64)> {
        let moved = self.0.iter();
        let moved = moved.map(|(series, value)| (series.clone(), value - before.of(series)));
        moved.filter(|(_, by)| *by != 0.0).collect()
    }
}

impl Stack {
    /// Everything as it is counted now.
    pub fn counts(&self) -> Counts {
        Counts::parse(&self.metrics().render())
    }

    /// Waits until these families moved by exactly this since then, and no request is running.
    pub async fn moved(&self, before: &Counts, families: &[&str], by: &[(&str, f64)]) {
        let mut by: Vec<(String, f64)> = by.iter().map(|(s, by)| ((*s).to_owned(), *by)).collect();
        by.sort_by(|a, b| a.0.cmp(&b.0));
        let mut last = Vec::new();
        let waiting = until("the counts are as expected", async || {
            let now = self.counts();
            last = now.only(families).since(&before.only(families));
            last == by && now.only(&["requests_active"]).sum() == 0.0
        });
        let waited = std::panic::AssertUnwindSafe(waiting);
        if futures_util::FutureExt::catch_unwind(waited).await.is_err() {
            assert_eq!(last, by);
            panic!("requests do not end");
        }
    }
}
