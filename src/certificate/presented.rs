//! A client's certificate while its connection is open, and the authorities and revocation lists that it is
//! checked against again when they change.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::CertificateNames;

/// Checks client certificates by one set of authorities and revocation lists.
#[derive(Debug)]
pub struct ClientVerifier(pub Arc<dyn ClientCertVerifier>);

/// The verifier in force; none while the listener asks for no certificates. Shared by the listener, which
/// replaces it at a reload, and by every certificate of an open connection.
#[derive(Debug, Default)]
pub struct ClientTrust(ArcSwapOption<ClientVerifier>);

impl ClientTrust {
    /// Puts a verifier in force.
    pub fn replace(&self, verifier: Option<Arc<ClientVerifier>>) {
        self.0.store(verifier);
    }
}

/// The certificate that a client presented and proved to hold.
#[derive(Debug)]
pub struct PresentedCertificate {
    names: CertificateNames,
    chain: Vec<CertificateDer<'static>>,
    /// The time of the handshake. A certificate that expires later ends no open connection.
    at: UnixTime,
    trust: Arc<ClientTrust>,
    last: Mutex<Option<Verdict>>,
}

/// Answer of one verifier.
#[derive(Debug)]
struct Verdict {
    by: Arc<ClientVerifier>,
    is_accepted: bool,
}

impl PresentedCertificate {
    /// Records a handshake that ends now. `verified_by` is the verifier that checked the chain in it; none
    /// when the client resumed a TLS session, in which nothing is checked. `None` when the first
    /// certificate cannot be read.
    pub fn new(
        chain: &[CertificateDer<'_>],
        verified_by: Option<Arc<ClientVerifier>>,
        trust: Arc<ClientTrust>,
    ) -> Option<Self> {
        let chain: Vec<_> = chain.iter().map(|der| der.clone().into_owned()).collect();
        let is_accepted = true;
        Some(Self {
            names: CertificateNames::read(chain.first()?)?,
            chain,
            at: UnixTime::now(),
            trust,
            last: Mutex::new(verified_by.map(|by| Verdict { by, is_accepted })),
        })
    }

    /// The names in the certificate.
    pub fn names(&self) -> &CertificateNames {
        &self.names
    }

    /// Whether the authorities and revocation lists in force accept the certificate as of its handshake.
    /// Checks signatures only when they were replaced since the last call.
    pub fn is_accepted(&self) -> bool {
        let Some(now) = self.trust.0.load_full() else {
            return true;
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(verdict) if Arc::ptr_eq(&verdict.by, &now) => verdict.is_accepted,
            Some(_) | None => {
                let is_accepted = self.passes(&now);
                let by = now;
                *last = Some(Verdict { by, is_accepted });
                is_accepted
            }
        }
    }

    fn passes(&self, verifier: &ClientVerifier) -> bool {
        let Some((own, intermediates)) = self.chain.split_first() else {
            return false;
        };
        let verified = verifier.0.verify_client_cert(own, intermediates, self.at);
        verified.is_ok()
    }
}
