//! The rights that each call takes, whatever proves who the caller is: an API key or a client certificate. A call
//! that is not in this table is refused.
//!
//! | call | scope | on what |
//! |---|---|---|
//! | append | `append` | the stream |
//! | read, tail, a stream's configuration and metrics | `read` | the stream |
//! | make, change, delete a stream | `manage` | the stream |
//! | list streams | `read` | any stream of the basin; the list shows those alone |
//! | list basins | `read` | any stream; the list shows basins with such streams alone |
//! | a basin's configuration and metrics | `read` | the basin as a whole |
//! | make, change, delete a basin | `manage` | the basin as a whole |
//! | everything else | | refused |
//!
//! An API key has its scopes on the streams of its project. A certificate has those of every rule of `[[clients]]`
//! that matches it, on the globs of that rule. A certificate that may use every stream may do everything.

use super::{Denied, Pass, Principal};
use crate::{
    project::Scope,
    proxy::{
        Error,
        control::{Control, ControlCall, Named},
        route::{Need, Route, call_needs, needs},
    },
    stream::{BasinName, StreamPath},
};

impl Principal {
    /// Makes sure that it may make this call, as far as its head says what it is. A call whose body names what
    /// it is about needs [`Principal::allow_call`] as well.
    ///
    /// # Errors
    /// [`Denied`]
    pub fn allow_route(&self, route: &Route) -> Result<(), Denied> {
        self.allow_need(needs(route))
    }

    /// Makes sure that it may make a call, also where its body names what it is about: the bytes that go upstream.
    ///
    /// # Errors
    /// [`Denied`], or a body that names nothing.
    pub fn allow_call(&self, call: &ControlCall, control: &Control) -> Result<(), Error> {
        self.allow_need(call_needs(call))?;
        match call.named(control)? {
            None => Ok(()),
            Some(Named::Basin(basin)) => Ok(self.allow_basin(Scope::Manage, &basin)?),
            Some(Named::Stream(path)) => Ok(self.allow_stream(Scope::Manage, &path)?),
        }
    }

    fn allow_need(&self, need: Need<'_>) -> Result<(), Denied> {
        match need {
            Need::Nothing => Ok(()),
            Need::Liveness if self.api_key().is_none() => Ok(()),
            Need::Stream(scope, path) => self.allow_stream(scope, path),
            Need::Within(scope, basin) => self.allow_within(scope, basin),
            Need::Basin(scope, basin) => self.allow_basin(scope, basin),
            // Which basin it is stands in the body.
            Need::NewBasin => self.allow(Scope::Manage),
            Need::BasinList => self.allow(Scope::Read),
            // Access tokens of the upstream's would outlive every right.
            Need::AccessTokens | Need::Account | Need::Liveness | Need::Unknown => {
                self.allow_unknown()
            }
        }
    }
}

impl Pass {
    /// Makes sure that it may be used for this on a stream.
    ///
    /// # Errors
    /// [`Denied`]
    pub fn allow_stream(&self, scope: Scope, path: &StreamPath) -> Result<(), Denied> {
        self.allow(scope)?;
        match self.owns(path) {
            true => Ok(()),
            false => Err(Denied::Stream(path.clone())),
        }
    }

    /// Whether a stream is its project's.
    pub fn owns(&self, path: &StreamPath) -> bool {
        let owner = self.projects.owner(path);
        owner.is_some_and(|owner| owner.name == self.project.name)
    }

    pub(super) fn allow_basin(&self, scope: Scope, basin: &BasinName) -> Result<(), Denied> {
        self.allow(scope)?;
        let owner = self.projects.owner_of(basin);
        match owner.is_some_and(|owner| owner.name == self.project.name) {
            true => Ok(()),
            false => Err(Denied::Basin(basin.clone())),
        }
    }

    pub(super) fn allow_within(&self, scope: Scope, basin: &BasinName) -> Result<(), Denied> {
        self.allow(scope)?;
        match self.projects.reaches(&self.project.name, basin) {
            true => Ok(()),
            false => Err(Denied::Basin(basin.clone())),
        }
    }
}
