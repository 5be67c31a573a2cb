//! Who is let in, and whether it still holds: at first, after what took its time, and while it lasts.

use std::sync::Arc;

use http::{Request, header};
use hyper::body::Incoming;

use super::{
    Error, Proxy,
    call::Caller,
    gate::{Pass, Refusal, Tenure},
    respond::Asked,
};
use crate::{project::Scope, stream::StreamPath};

impl Proxy {
    /// Lets a client in by its API key, if that is how clients come in. Neither the key nor anything of it is
    /// in the request from here on: the project's own token goes with it instead.
    pub(super) async fn admit(
        &self,
        request: &mut Request<Incoming>,
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

    /// Judges once more, after something that took its time: the API key may be over, or allow less.
    ///
    /// # Errors
    /// What `allowed` says, [`Error::Unauthenticated`], or the config store's.
    pub(super) async fn still<E: Into<Error>>(
        &self,
        caller: &Caller,
        allowed: impl FnOnce(&Pass) -> Result<(), E>,
    ) -> Result<(), Error> {
        let (Some(gate), Some(pass)) = (&self.gate, caller.pass()) else {
            return Ok(());
        };
        let rules = self.registry.rules();
        let pass = gate.readmit(pass, rules.projects()).await?;
        allowed(&pass).map_err(Into::into)
    }

    /// How long something may go on that needs this scope on this stream.
    pub(super) fn tenure(&self, caller: &Caller, scope: Scope, path: &StreamPath) -> Tenure {
        match (&self.gate, caller.pass()) {
            (Some(gate), Some(pass)) => Tenure::watched(gate, &self.registry, pass, scope, path),
            _ => Tenure::endless(),
        }
    }
}
