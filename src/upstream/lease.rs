//! What one request holds of a connection, and how the connection gets it back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    connection::{Http1Sender, Http2Sender, Load},
    host::Host,
};

/// A connection lent for one request.
pub(super) enum Lent {
    Http1(Http1Sender, Http1Lease),
    Http2(Http2Sender, Slot),
}

/// What a request holds of its connection until its response was received whole.
pub(super) enum Lease {
    Http1(Http1Sender, Http1Lease),
    Http2(Slot),
}

/// One stream of an HTTP/2 connection, free again when dropped.
pub(super) struct Slot {
    load: Arc<Load>,
    is_whole: bool,
}

/// The right to use one HTTP/1.1 connection.
pub(super) struct Http1Lease {
    pub(super) host: Arc<Host>,
    /// When the connection was opened.
    pub(super) opened: Instant,
    /// How long it may be kept without a request.
    pub(super) idle_limit: Duration,
    pub(super) _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// Makes the connection available again after a response that was received whole.
    pub(super) fn give_back(self) {
        let (mut sender, lease) = match self {
            Lease::Http1(sender, lease) => (sender, lease),
            Lease::Http2(mut slot) => {
                slot.is_whole = true;
                return;
            }
        };
        // Without a runtime (the process is going down) the connection closes.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            if sender.ready().await.is_ok() {
                lease
                    .host
                    .keep_http1(sender, lease.opened, lease.idle_limit);
            }
        });
    }
}

impl Slot {
    /// Takes a place on a connection, if there is one.
    pub(super) fn on(load: &Arc<Load>) -> Option<Self> {
        load.reserve().then(|| Self {
            load: Arc::clone(load),
            is_whole: false,
        })
    }

    /// The state of its connection.
    pub(super) fn load(&self) -> &Arc<Load> {
        &self.load
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.load.release(self.is_whole);
    }
}
