//! The right that each call needs. Every check of a client's rights goes by [`needs`].

use super::{Forwarded, Route};
use crate::{
    project::Scope,
    proxy::{Error, control::ControlCall},
    stream::{BasinName, StreamPath},
};

/// The right that a call needs of the client that makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need<'a> {
    /// Nothing: the call goes nowhere.
    Nothing,
    /// Nothing: the answer is the same for every client, and tells nothing of basins.
    Liveness,
    /// The scope, for this stream.
    Stream(Scope, &'a StreamPath),
    /// The scope, for some stream of this basin: the call lists streams, or its body names one.
    Within(Scope, &'a BasinName),
    /// The scope, for this basin as a whole.
    Basin(Scope, &'a BasinName),
    /// `manage`, for the basin that the body names, as a whole.
    NewBasin,
    /// `read`; and only the client's own basins are shown.
    BasinList,
    /// The account as a whole. No client of the proxy's token has that.
    Account,
    /// Access tokens of the upstream. No client of the proxy's token may have them.
    AccessTokens,
    /// A call that the proxy does not know. No client of the proxy's token may make it.
    Unknown,
}

/// Returns the right that a request needs.
pub fn needs(route: &Route) -> Need<'_> {
    match route {
        Route::Append(path) => Need::Stream(Scope::Append, path),
        Route::Read(path) | Route::Tail(path) => Need::Stream(Scope::Read, path),
        Route::Control(call) => call_needs(call),
        Route::Forward(_, forwarded) => match forwarded {
            Forwarded::Basins => Need::BasinList,
            Forwarded::StreamConfiguration(path) | Forwarded::StreamMetrics(path) => {
                Need::Stream(Scope::Read, path)
            }
            Forwarded::ReconfigureStream(path) => Need::Stream(Scope::Manage, path),
            Forwarded::BasinMetrics(basin) => Need::Basin(Scope::Read, basin),
            Forwarded::AccessTokens => Need::AccessTokens,
            Forwarded::Account => Need::Account,
            Forwarded::Liveness | Forwarded::Options(_) => Need::Liveness,
        },
        Route::Unknown(_) => Need::Unknown,
        Route::WrongMethod(_) | Route::Preflight | Route::NotFound => Need::Nothing,
    }
}

/// Returns the right that a call about basins or streams needs.
pub fn call_needs(call: &ControlCall) -> Need<'_> {
    match call {
        ControlCall::CreateBasin => Need::NewBasin,
        ControlCall::ListBasins => Need::BasinList,
        ControlCall::BasinConfiguration(basin) => Need::Basin(Scope::Read, basin),
        ControlCall::EnsureBasin(basin)
        | ControlCall::ReconfigureBasin(basin)
        | ControlCall::DeleteBasin(basin) => Need::Basin(Scope::Manage, basin),
        ControlCall::ListStreams(basin) => Need::Within(Scope::Read, basin),
        ControlCall::CreateStream(basin) => Need::Within(Scope::Manage, basin),
        ControlCall::EnsureStream(path) | ControlCall::DeleteStream(path) => {
            Need::Stream(Scope::Manage, path)
        }
    }
}

/// Checks that a client without rights of its own may make a call with the proxy's token.
///
/// # Errors
/// [`Error::NotAllowed`], which says what to configure.
pub fn allow_without_right(need: Need<'_>) -> Result<(), Error> {
    let reason = match need {
        Need::Nothing
        | Need::Liveness
        | Need::Stream(..)
        | Need::Within(..)
        | Need::Basin(Scope::Read, _) => return Ok(()),
        Need::Basin(Scope::Append | Scope::Manage, _) | Need::NewBasin => {
            "basins are created, changed and deleted only by clients whose rights the proxy checks: set \
             listen.authenticate = \"api-key\" and [[projects]], or \"mtls\" and [[clients]], or call the upstream \
             with a token of your own"
        }
        Need::BasinList | Need::Account => {
            "calls about the whole account are not passed on: call the upstream with a token of your own"
        }
        Need::AccessTokens => {
            "access tokens are not handed out through it: call the upstream with a token of your own"
        }
        Need::Unknown => "calls that it does not know are not passed on",
    };
    Err(Error::NotAllowed(format!(
        "this proxy acts with an access token of its own (upstream.access_token_file): {reason}"
    )))
}
