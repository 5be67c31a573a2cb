//! What a reload replaces: the certificates of the listener, for connections that come after it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;

use super::{Config, Error, config, tls::Tls};
use crate::certificate::Certificate;

/// The TLS side of a listener, for as long as it runs. Clones are the same one.
#[derive(Clone)]
pub struct LiveTls(Option<Arc<ArcSwap<Tls>>>);

/// What [`LiveTls::replace`] puts in force: everything is read and checked.
pub struct Renewed(Option<Tls>);

impl LiveTls {
    pub(super) fn new(tls: Option<Tls>) -> Self {
        Self(tls.map(|tls| Arc::new(ArcSwap::from_pointee(tls))))
    }

    /// Reads everything again, for [`LiveTls::replace`]. Nothing changes yet. A listener without TLS stays
    /// one, and the other way round.
    ///
    /// # Errors
    ///
    /// Every mistake in the section and every file that cannot be used.
    pub fn renew(&self, config: &Config) -> Result<Renewed, Error> {
        let before = self.0.as_ref().map(|tls| tls.load_full());
        let renewed = load(config, before.as_deref()).map_err(Error::Config)?;
        Ok(Renewed(renewed))
    }

    /// From now on, handshakes go by this. Connections that are open stay as they are.
    pub fn replace(&self, renewed: Renewed) {
        if let (Some(tls), Some(new)) = (&self.0, renewed.0) {
            tls.store(Arc::new(new));
        }
    }

    /// The certificates of the listener and those that clients' must be issued by.
    pub fn certificates(&self) -> Vec<Certificate> {
        let tls = self.0.as_ref().map(|tls| tls.load_full());
        tls.map_or_else(Vec::new, |tls| tls.certificates().collect())
    }

    /// The certificate in PEM if it was made by the proxy, for clients to trust.
    pub fn self_signed_pem(&self) -> Option<String> {
        self.0.as_ref()?.load().self_signed_pem().map(str::to_owned)
    }

    /// For one handshake; `None` where there is none to make.
    pub(super) fn acceptor(&self) -> Option<TlsAcceptor> {
        let tls = self.0.as_ref()?.load();
        Some(TlsAcceptor::from(Arc::clone(&tls.config)))
    }
}

/// What the section comes to, with every mistake in it and in the files that it names.
pub(super) fn load(
    config: &config::Config,
    before: Option<&Tls>,
) -> Result<Option<Tls>, Vec<String>> {
    let problems = config.problems();
    if problems.is_empty() {
        Tls::load(config, before)
    } else {
        Err(problems)
    }
}
