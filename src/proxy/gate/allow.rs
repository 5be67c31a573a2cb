//! What an API key may do, and to whose streams: every call is judged here, and what nobody thought of is
//! refused.
//!
//! | call | scope | of whom |
//! |---|---|---|
//! | append | `append` | the stream's project |
//! | read, tail, a stream's configuration and metrics | `read` | the stream's project |
//! | make, change, delete a stream | `manage` | the stream's project |
//! | list streams | `read` | what the project has in the basin |
//! | list basins | `read` | those that the project has streams in |
//! | a basin's configuration and metrics | `read` | who owns the whole basin |
//! | make, change, delete a basin | `manage` | who owns the whole basin |
//! | everything else | | nobody |

use super::{Denied, Pass};
use crate::{
    project::Scope,
    proxy::{
        Error,
        control::{Control, ControlCall, Named},
        route::{Forwarded, Route},
    },
    stream::{BasinName, StreamPath},
};

impl Pass {
    /// Makes sure that it allows this call, as far as its head says what it is. A call whose body names what it
    /// is about needs [`Pass::allow_call`] as well.
    ///
    /// # Errors
    /// [`Denied`]
    pub fn allow_route(&self, route: &Route) -> Result<(), Denied> {
        match route {
            Route::Append(path) => self.allow_stream(Scope::Append, path),
            Route::Read(path) | Route::Tail(path) => self.allow_stream(Scope::Read, path),
            Route::Control(call) => self.allow_head(call),
            Route::Forward(_, forwarded) => self.allow_forwarded(forwarded),
            Route::Unknown(_) => Err(Denied::Path),
            // They go nowhere.
            Route::WrongMethod(_) | Route::Preflight | Route::NotFound => Ok(()),
        }
    }

    /// Makes sure that it allows a call, also where its body names what it is about: the bytes that go upstream.
    ///
    /// # Errors
    /// [`Denied`], or a body that names nothing.
    pub fn allow_call(&self, call: &ControlCall, control: &Control) -> Result<(), Error> {
        self.allow_head(call)?;
        match call.named(control)? {
            None => Ok(()),
            Some(Named::Basin(basin)) => Ok(self.allow_basin(Scope::Manage, &basin)?),
            Some(Named::Stream(path)) => Ok(self.allow_stream(Scope::Manage, &path)?),
        }
    }

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

    /// Whether its project can have streams in a basin.
    pub fn reaches(&self, basin: &BasinName) -> bool {
        self.projects.reaches(&self.project.name, basin)
    }

    fn allow_head(&self, call: &ControlCall) -> Result<(), Denied> {
        match call {
            // Whose they are is in the body.
            ControlCall::CreateBasin => self.allow(Scope::Manage),
            ControlCall::CreateStream(basin) => self.allow_within(Scope::Manage, basin),
            ControlCall::ListStreams(basin) => self.allow_within(Scope::Read, basin),
            ControlCall::ListBasins => self.allow(Scope::Read),
            ControlCall::BasinConfiguration(basin) => self.allow_basin(Scope::Read, basin),
            ControlCall::EnsureBasin(basin)
            | ControlCall::ReconfigureBasin(basin)
            | ControlCall::DeleteBasin(basin) => self.allow_basin(Scope::Manage, basin),
            ControlCall::EnsureStream(path) | ControlCall::DeleteStream(path) => {
                self.allow_stream(Scope::Manage, path)
            }
        }
    }

    fn allow_forwarded(&self, forwarded: &Forwarded) -> Result<(), Denied> {
        match forwarded {
            Forwarded::Basins => self.allow(Scope::Read),
            Forwarded::StreamConfiguration(path) | Forwarded::StreamMetrics(path) => {
                self.allow_stream(Scope::Read, path)
            }
            Forwarded::ReconfigureStream(path) => self.allow_stream(Scope::Manage, path),
            Forwarded::BasinMetrics(basin) => self.allow_basin(Scope::Read, basin),
            // Access tokens of the upstream's would outlive every API key.
            Forwarded::AccessTokens
            | Forwarded::Account
            | Forwarded::Liveness
            | Forwarded::Options(_) => Err(Denied::Path),
        }
    }

    fn allow_basin(&self, scope: Scope, basin: &BasinName) -> Result<(), Denied> {
        self.allow(scope)?;
        let owner = self.projects.owner_of(basin);
        match owner.is_some_and(|owner| owner.name == self.project.name) {
            true => Ok(()),
            false => Err(Denied::Basin(basin.clone())),
        }
    }

    fn allow_within(&self, scope: Scope, basin: &BasinName) -> Result<(), Denied> {
        self.allow(scope)?;
        match self.reaches(basin) {
            true => Ok(()),
            false => Err(Denied::Basin(basin.clone())),
        }
    }
}
