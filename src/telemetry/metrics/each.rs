//! Metrics that are found without looking up their labels, and gauges that go down by themselves.

use std::marker::PhantomData;

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use crate::telemetry::label::Label;

/// One metric for each value of a label, found once: to look one up by name takes longer than to count.
/// All of them are there from the start, at zero, so that a first failure is a rise and not a new series.
pub struct Each<L, M> {
    metrics: Vec<M>,
    _label: PhantomData<L>,
}

impl<L: Label, M> Each<L, M> {
    pub(super) fn new(make: impl FnMut(L) -> M) -> Self {
        Self {
            metrics: L::VALUES.iter().copied().map(make).collect(),
            _label: PhantomData,
        }
    }

    /// The metric of this value.
    #[expect(clippy::indexing_slicing, reason = "there is one for each value")]
    pub fn of(&self, value: L) -> &M {
        &self.metrics[value.index()]
    }
}

impl<L: Label> Each<L, IntCounter> {
    pub(super) fn of_counters(counters: &IntCounterVec) -> Self {
        Self::new(|value: L| counters.with_label_values(&[value.word()]))
    }
}

/// One more in a gauge, for as long as it lives: also when its task is cut off, or panics.
pub struct Held(IntGauge);

impl Held {
    /// Counts one more in `gauge`.
    pub fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}
