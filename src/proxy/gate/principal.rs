//! A caller: everything by which it proved who it is, and the rights that come with each.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Denied, Pass, refusal::By};
use crate::{
    certificate::PresentedCertificate,
    keys::{ClientRights, Clients},
    project::Scope,
    stream::{BasinName, StreamPath},
};

/// The `[[clients]]` in force. A reload replaces them.
#[derive(Debug)]
pub struct ClientAccess(ArcSwap<Clients>);

impl ClientAccess {
    /// Starts with these rules.
    pub fn new(clients: Clients) -> Self {
        Self(ArcSwap::from_pointee(clients))
    }

    /// Puts other rules in force.
    pub fn replace(&self, clients: Clients) {
        self.0.store(Arc::new(clients));
    }

    /// The rights that a certificate has now; `None` without a certificate where none is asked for.
    ///
    /// # Errors
    /// [`Denied::Certificate`] when the listener does not accept the certificate any more, or rules ask for
    /// one and there is none.
    pub fn judge(
        &self,
        certificate: Option<&Arc<PresentedCertificate>>,
    ) -> Result<Option<Holder>, Denied> {
        let clients = self.0.load();
        match certificate {
            Some(certificate) if certificate.is_accepted() => Ok(Some(Holder {
                rights: clients.rights(certificate.names()),
                certificate: Arc::clone(certificate),
            })),
            None if matches!(**clients, Clients::Any) => Ok(None),
            Some(_) | None => Err(Denied::Certificate),
        }
    }
}

/// The holder of a client certificate, with the rights that the certificate had when it was judged.
#[derive(Debug, Clone)]
pub struct Holder {
    certificate: Arc<PresentedCertificate>,
    rights: ClientRights,
}

/// A caller. It may do what each of its credentials allows; without any, the upstream decides.
#[derive(Debug, Clone, Default)]
pub struct Principal {
    api_key: Option<Arc<Pass>>,
    holder: Option<Holder>,
}

impl Principal {
    /// A caller with these credentials.
    pub fn new(api_key: Option<Arc<Pass>>, holder: Option<Holder>) -> Self {
        Self { api_key, holder }
    }

    /// The API key that it came with.
    pub fn api_key(&self) -> Option<&Arc<Pass>> {
        self.api_key.as_ref()
    }

    /// The client certificate that it came with.
    pub fn certificate(&self) -> Option<&Arc<PresentedCertificate>> {
        self.holder.as_ref().map(|holder| &holder.certificate)
    }

    /// Whether it may use some streams only, so that lists show it these alone.
    pub fn is_limited(&self) -> bool {
        self.api_key.is_some() || self.rules().is_some()
    }

    /// Makes sure that it has a scope, on whatever stream.
    ///
    /// # Errors
    /// [`Denied`]
    pub fn allow(&self, scope: Scope) -> Result<(), Denied> {
        if let Some(pass) = &self.api_key {
            pass.allow(scope)?;
        }
        self.rights(
            |rights| rights.have(scope),
            || Denied::Scope(By::Certificate, scope),
        )
    }

    /// Makes sure that it has a scope on a stream.
    ///
    /// # Errors
    /// [`Denied`]
    pub fn allow_stream(&self, scope: Scope, path: &StreamPath) -> Result<(), Denied> {
        self.allow(scope)?;
        if let Some(pass) = &self.api_key {
            pass.allow_stream(scope, path)?;
        }
        let denied = || Denied::StreamRight(scope, path.clone());
        self.rights(|rights| rights.allow(scope, path), denied)
    }

    /// Makes sure that it has a scope on a basin as a whole.
    ///
    /// # Errors
    /// [`Denied`]
    pub fn allow_basin(&self, scope: Scope, basin: &BasinName) -> Result<(), Denied> {
        self.allow(scope)?;
        if let Some(pass) = &self.api_key {
            pass.allow_basin(scope, basin)?;
        }
        let denied = || Denied::BasinRight(scope, basin.clone());
        self.rights(|rights| rights.cover(scope, basin), denied)
    }

    /// Makes sure that it can have a scope on a stream of a basin.
    ///
    /// # Errors
    /// [`Denied`]
    pub fn allow_within(&self, scope: Scope, basin: &BasinName) -> Result<(), Denied> {
        self.allow(scope)?;
        if let Some(pass) = &self.api_key {
            pass.allow_within(scope, basin)?;
        }
        let denied = || Denied::BasinRight(scope, basin.clone());
        self.rights(|rights| rights.reach(scope, basin), denied)
    }

    /// Makes sure that it may do what is about no stream or basin that the proxy knows.
    ///
    /// # Errors
    /// [`Denied::Path`]
    pub fn allow_unknown(&self) -> Result<(), Denied> {
        match (&self.api_key, self.rules()) {
            (Some(_), _) => Err(Denied::Path(By::ApiKey)),
            (None, Some(_)) => Err(Denied::Path(By::Certificate)),
            (None, None) => Ok(()),
        }
    }

    /// The rights of a certificate that has not all of them.
    fn rules(&self) -> Option<&ClientRights> {
        let rights = self.holder.as_ref().map(|holder| &holder.rights);
        rights.filter(|rights| !matches!(rights, ClientRights::Any))
    }

    fn rights(
        &self,
        allow: impl FnOnce(&ClientRights) -> bool,
        denied: impl FnOnce() -> Denied,
    ) -> Result<(), Denied> {
        match self.rules() {
            Some(rights) if !allow(rights) => Err(denied()),
            Some(_) | None => Ok(()),
        }
    }
}
