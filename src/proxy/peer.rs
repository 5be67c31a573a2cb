//! Who sent a request.

use std::{net::SocketAddr, sync::Arc};

use crate::certificate::PresentedCertificate;

/// The client at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address and port.
    pub address: SocketAddr,
    /// The certificate that it presented and proved to hold; `None` when the listener asks for none.
    pub certificate: Option<Arc<PresentedCertificate>>,
}

impl Peer {
    /// The name in its certificate, as [`crate::certificate::subject`] shows it.
    pub fn subject(&self) -> Option<&str> {
        let certificate = self.certificate.as_deref();
        certificate.map(|certificate| &*certificate.names().shown)
    }
}
