//! What became of the configuration while the proxy runs, for whoever watches over it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::certificate::Certificate;

/// Reloads so far, and the certificates in use. Shared by who reloads and who reports it.
#[derive(Debug, Default)]
pub struct Reloads {
    applied: AtomicU64,
    refused: AtomicU64,
    last: ArcSwapOption<Reload>,
    certificates: ArcSwap<Vec<Certificate>>,
}

/// One attempt to put another configuration in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reload {
    /// When it ended.
    pub at: SystemTime,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The new configuration is in force, except for these keys: they take effect at the next start.
    Applied(Vec<String>),
    /// The old one stays in force, for this reason.
    Refused(String),
}

impl Outcome {
    /// The names of all.
    pub const NAMES: [&str; 2] = ["applied", "refused"];

    /// Its name as a label of metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Applied(_) => "applied",
            Self::Refused(_) => "refused",
        }
    }
}

impl Reloads {
    /// No reloads so far.
    pub fn new(certificates: Vec<Certificate>) -> Self {
        let reloads = Self::default();
        reloads.certificates.store(Arc::new(certificates));
        reloads
    }

    /// How many new configurations were put in force since the start.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// How many were refused since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Acquire)
    }

    /// The last one; `None` before the first.
    pub fn last(&self) -> Option<Arc<Reload>> {
        self.last.load_full()
    }

    /// The certificates in use: every one of each chain and bundle that the configuration names.
    pub fn certificates(&self) -> Arc<Vec<Certificate>> {
        self.certificates.load_full()
    }

    /// Counts a reload. With new certificates, if it was applied.
    pub fn ended(&self, outcome: Outcome, certificates: Option<Vec<Certificate>>) {
        let count = match &outcome {
            Outcome::Applied(_) => &self.applied,
            Outcome::Refused(_) => &self.refused,
        };
        if let Some(certificates) = certificates {
            self.certificates.store(Arc::new(certificates));
        }
        let at = SystemTime::now();
        self.last.store(Some(Arc::new(Reload { at, outcome })));
        // Last, so that whoever sees the count sees what it counts.
        count.fetch_add(1, Ordering::Release);
    }
}
