//! When to kill: at any time, or at a certain byte between proxy and upstream.

use std::time::Duration;

use rand::{RngExt as _, rngs::StdRng};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::harness::{Lite, Program, Tap, Way};

/// Longest wait for the byte to come by.
const PATIENCE: Duration = Duration::from_millis(80);

/// A moment to kill at.
#[derive(Debug, Clone, Copy)]
pub enum Moment {
    /// After this time.
    Time(Duration),
    /// So long after that many bytes went this way, the last of which were held back.
    Byte {
        way: Way,
        bytes: usize,
        then: Duration,
        /// Whether what was held back arrives in the end.
        arrives: bool,
    },
}

impl Moment {
    /// Any moment.
    pub fn random(random: &mut StdRng) -> Self {
        let micros =
            |random: &mut StdRng, most: u64| Duration::from_micros(random.random_range(0..most));
        let way = match random.random_range(0..3) {
            0 => return Self::Time(micros(random, 40_000)),
            1 => Way::Up,
            _ => Way::Down,
        };
        Self::Byte {
            way,
            bytes: random.random_range(1..6000),
            then: micros(random, 3000),
            arrives: random.random(),
        }
    }

    /// Kills at this moment. Returns when the upstream has come to rest.
    pub async fn kill(
        self,
        program: &mut Program,
        tap: &Tap,
        lite: &Lite,
        killed: &watch::Sender<bool>,
    ) {
        match self {
            Self::Time(time) => sleep(time).await,
            Self::Byte {
                way, bytes, then, ..
            } => {
                tap.hold_after(way, bytes);
                let _not_so_many = timeout(PATIENCE, tap.held(way)).await;
                sleep(then).await;
            }
        }
        killed.send_replace(true);
        program.kill();
        if let Self::Byte { arrives: false, .. } = self {
            tap.cut();
            tap.idle().await;
        }
        tap.release();
        tap.idle().await;
        lite.quiet().await;
    }
}
