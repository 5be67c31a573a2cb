//! Who is let in, and whether it still holds: at first, after what took its time, and while it lasts.

use std::sync::Arc;

use crate::received::ReceivedBody;
use http::{Request, header};

use super::{
    Error, Peer, Proxy,
    call::Caller,
    gate::{Judges, Pass, Principal, Refusal, Tenure},
    respond::Asked,
};
use crate::{keys::Clients, project::Scope, stream::StreamPath};

impl Proxy {
    /// Puts other rights of client certificates in force. They hold for requests and sessions that are running,
    /// too.
    pub fn replace_clients(&self, clients: Clients) {
        self.clients.replace(clients);
    }

    /// Lets a client in by its certificate and its API key, as far as clients come in with these. Neither the
    /// key nor anything of it is in the request from here on: the project's own token goes with it instead.
    pub(super) async fn admit(
        &self,
        request: &mut Request<ReceivedBody>,
        peer: &Peer,
        asked: &Asked,
    ) -> Result<Principal, Error> {
        let pass = self.admit_api_key(request, asked).await;
        let holder = self.clients.judge(peer.certificate.as_ref())?;
        Ok(Principal::new(pass?, holder))
    }

    async fn admit_api_key(
        &self,
        request: &mut Request<ReceivedBody>,
        asked: &Asked,
    ) -> Result<Option<Arc<Pass>>, Error> {
        let Some(gate) = &self.gate else {
            return Ok(None);
        };
        let rules = self.registry.rules();
        let admitted = gate.admit(rules.projects(), request.headers()).await;
        request.headers_mut().remove(header::AUTHORIZATION);
        let pass = admitted.inspect_err(|error| {
            if let Error::Unauthenticated(Refusal::Over { project, id }) = error {
                asked.exchange.came_with(project, id);
            }
        })?;
        asked.exchange.came_with(&pass.project.name, &pass.key_id);
        if let Some(credential) = pass.credential() {
            request.extensions_mut().insert(credential);
        }
        Ok(Some(Arc::new(pass)))
    }

    /// Judges once more, after something that took its time: the API key may be over, the certificate revoked,
    /// and each may allow less.
    ///
    /// # Errors
    /// What `allowed` says, [`Error::Unauthenticated`], [`Error::Denied`], or the config store's.
    pub(super) async fn still<E: Into<Error>>(
        &self,
        caller: &Caller,
        allowed: impl FnOnce(&Principal) -> Result<(), E>,
    ) -> Result<(), Error> {
        let principal = caller.principal();
        let holder = self.clients.judge(principal.certificate())?;
        let pass = match (&self.gate, principal.api_key()) {
            (Some(gate), Some(pass)) => {
                let rules = self.registry.rules();
                let pass = gate.readmit(pass, rules.projects()).await?;
                Some(Arc::new(pass))
            }
            _ => None,
        };
        allowed(&Principal::new(pass, holder)).map_err(Into::into)
    }

    /// How long something may go on that needs this scope on this stream.
    pub(super) fn tenure(&self, caller: &Caller, scope: Scope, path: &StreamPath) -> Tenure {
        let principal = caller.principal();
        if principal.api_key().is_none() && principal.certificate().is_none() {
            return Tenure::endless();
        }
        let judges = Judges {
            gate: self.gate.as_ref().map(Arc::downgrade),
            clients: Arc::clone(&self.clients),
            registry: Arc::downgrade(&self.registry),
        };
        Tenure::watched(judges, principal, scope, path)
    }
}
