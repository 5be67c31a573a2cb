//! What one request holds of a connection, and how the connection gets it back.

use std::{sync::Arc, time::Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    connection::{Http1Sender, Http2Sender, Load},
    pool::Host,
};

/// A connection lent for one request.
pub(super) enum Lent {
    Http1(Http1Sender, Http1Lease),
    Http2(Http2Sender, Slot),
}

/// What a request holds of its connection until its response was received whole.
pub(super) enum Lease {
    Http1(Http1Sender, Http1Lease),
    Http2 { _slot: Slot },
}

/// One stream of an HTTP/2 connection, free again when dropped.
pub(super) struct Slot(pub(super) Arc<Load>);

/// The right to use one HTTP/1.1 connection.
pub(super) struct Http1Lease {
    pub(super) host: Arc<Host>,
    /// When the connection was opened.
    pub(super) opened: Instant,
    pub(super) _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// Makes the connection available again after a response that was received whole.
    pub(super) fn give_back(self) {
        let Lease::Http1(mut sender, lease) = self else {
            return;
        };
        // Without a runtime (the process is going down) the connection closes.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            if sender.ready().await.is_ok() {
                lease.host.keep_http1(sender, lease.opened);
            }
        });
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.release();
    }
}
