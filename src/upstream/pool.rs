//! The upstream hosts that requests go to, each with its connections.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio_rustls::TlsConnector;

use super::{Error, endpoint::Destination, host::Host};
use crate::telemetry::metrics::Metrics;

/// Hosts at a time; past it, those without requests are forgotten. Clients choose basin names, so
/// `{basin}` hosts need a bound; this is far above the basins one proxy is expected to serve at once.
const MAX_HOSTS: usize = 1024;

/// The connections to every host.
pub(super) struct Pool {
    tls: TlsConnector,
    metrics: Arc<Metrics>,
    hosts: Mutex<HashMap<Destination, Arc<Host>>>,
}

impl Pool {
    pub(super) fn new(tls: TlsConnector, metrics: Arc<Metrics>) -> Self {
        Self {
            tls,
            metrics,
            hosts: Mutex::default(),
        }
    }

    /// The connections to `to`.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] when there are requests to [`MAX_HOSTS`] other hosts.
    pub(super) fn host(&self, to: &Destination) -> Result<Arc<Host>, Error> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(to) {
            return Ok(Arc::clone(host));
        }
        if hosts.len() >= MAX_HOSTS {
            hosts.retain(|_, host| host.in_use());
        }
        if hosts.len() >= MAX_HOSTS {
            return Err(Error::connect(to, "too many upstream hosts are in use"));
        }
        let (tls, metrics) = (self.tls.clone(), Arc::clone(&self.metrics));
        let host = Arc::new(Host::new(to.clone(), tls, metrics));
        hosts.insert(to.clone(), Arc::clone(&host));
        Ok(host)
    }
}
