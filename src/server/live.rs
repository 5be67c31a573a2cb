//! What a reload replaces: the certificates of the listener, for connections that come after it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{HandshakeKind, ServerConnection};
use tokio_rustls::TlsAcceptor;

use super::{Config, Error, config, tls::Tls};
use crate::certificate::{Certificate, ClientTrust, ClientVerifier, PresentedCertificate};

/// The TLS side of a listener, for as long as it runs. Clones are the same one.
#[derive(Clone)]
pub struct LiveTls {
    /// None for a listener without TLS.
    tls: Option<Arc<ArcSwap<Tls>>>,
    /// The check of client certificates in force, also for those of open connections.
    trust: Arc<ClientTrust>,
}

/// What one handshake goes by.
pub(super) struct Handshake {
    pub(super) acceptor: TlsAcceptor,
    verifier: Option<Arc<ClientVerifier>>,
    trust: Arc<ClientTrust>,
}

impl Handshake {
    /// The certificate that the client presented in this handshake; `None` when none was asked for.
    ///
    /// # Errors
    /// [`UnreadableCertificate`]
    pub(super) fn presented(
        self,
        connection: &ServerConnection,
    ) -> Result<Option<Arc<PresentedCertificate>>, UnreadableCertificate> {
        let Some(chain) = connection.peer_certificates() else {
            return Ok(None);
        };
        let is_checked = connection.handshake_kind() != Some(HandshakeKind::Resumed);
        let verified_by = self.verifier.filter(|_| is_checked);
        let presented = PresentedCertificate::new(chain, verified_by, self.trust);
        presented
            .map(|presented| Some(Arc::new(presented)))
            .ok_or(UnreadableCertificate)
    }
}

/// A client certificate that TLS accepted, but whose names cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("unreadable client certificate")]
pub(super) struct UnreadableCertificate;

/// What [`LiveTls::replace`] puts in force: everything is read and checked.
pub struct Renewed(Option<Tls>);

impl Renewed {
    /// The certificates that come in force.
    pub fn certificates(&self) -> impl Iterator<Item = Certificate> {
        self.0.iter().flat_map(Tls::certificates)
    }
}

impl LiveTls {
    pub(super) fn new(tls: Option<Tls>) -> Self {
        let live = Self {
            trust: Arc::new(ClientTrust::default()),
            tls: tls.map(|tls| Arc::new(ArcSwap::from_pointee(tls))),
        };
        let verifier = live.tls.as_ref().map(|tls| tls.load().verifier().cloned());
        live.trust.replace(verifier.flatten());
        live
    }

    /// Reads everything again, for [`LiveTls::replace`]. Nothing changes yet. A listener without TLS stays
    /// one, and the other way round.
    ///
    /// # Errors
    ///
    /// Every mistake in the section and every file that cannot be used.
    pub fn renew(&self, config: &Config) -> Result<Renewed, Error> {
        let before = self.tls.as_ref().map(|tls| tls.load_full());
        let renewed = load(config, before.as_deref()).map_err(Error::Config)?;
        Ok(Renewed(renewed))
    }

    /// From now on, handshakes go by this. Connections that are open stay so, but a client certificate that
    /// is not accepted any more is of no use on them.
    pub fn replace(&self, renewed: Renewed) {
        if let (Some(tls), Some(new)) = (&self.tls, renewed.0) {
            // First, so that a handshake that is running is checked again.
            self.trust.replace(new.verifier().cloned());
            tls.store(Arc::new(new));
        }
    }

    /// The certificates of the listener and those that clients' must be issued by.
    pub fn certificates(&self) -> Vec<Certificate> {
        let tls = self.tls.as_ref().map(|tls| tls.load_full());
        tls.map_or_else(Vec::new, |tls| tls.certificates().collect())
    }

    /// The certificate in PEM if it was made by the proxy, for clients to trust.
    pub fn self_signed_pem(&self) -> Option<String> {
        self.tls
            .as_ref()?
            .load()
            .self_signed_pem()
            .map(str::to_owned)
    }

    /// For one handshake; `None` where there is none to make.
    pub(super) fn handshake(&self) -> Option<Handshake> {
        let tls = self.tls.as_ref()?.load();
        Some(Handshake {
            acceptor: TlsAcceptor::from(Arc::clone(&tls.config)),
            verifier: tls.verifier().cloned(),
            trust: Arc::clone(&self.trust),
        })
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
