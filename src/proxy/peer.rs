//! Who sent a request.

use std::{net::SocketAddr, sync::Arc};

/// The client at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address and port.
    pub address: SocketAddr,
    /// Whose certificate it presented and proved to hold, as [`crate::certificate::subject`] shows it;
    /// `None` when the listener asks for none.
    pub subject: Option<Arc<str>>,
}
