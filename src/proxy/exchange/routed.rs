//! What a request is for, as far as its head and, where it makes something, its body say.

use std::str::FromStr as _;

use http::HeaderMap;
use serde::Deserialize;

use crate::{
    proxy::route::Route,
    stream::{BasinName, StreamName, StreamPath},
    telemetry::label::{Encoding, Operation},
    wire::media::Media,
};

/// What a request is.
#[derive(Debug, Clone)]
pub(super) struct Routed {
    pub(super) operation: Operation,
    pub(super) encoding: Encoding,
    pub(super) basin: Option<BasinName>,
    pub(super) stream: Option<StreamPath>,
}

/// What a request asks to be made, which its body names.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Made {
    pub(super) basin: Option<String>,
    pub(super) stream: Option<String>,
}

impl Routed {
    /// Nothing that is known.
    pub(super) const UNKNOWN: Self = Self {
        operation: Operation::Unrouted,
        encoding: Encoding::Other,
        basin: None,
        stream: None,
    };

    /// What a request with this route and these headers is.
    pub(super) fn of(route: &Route, headers: &HeaderMap) -> Self {
        let content_type = Media::content_type(headers);
        let accept = Media::accept(headers);
        let (operation, encoding) = match route {
            Route::Append(_) => match content_type {
                Some(Media::S2s) => (Operation::AppendSession, Encoding::S2s),
                Some(Media::Proto) => (Operation::Append, Encoding::Proto),
                Some(Media::Json | Media::EventStream) | None => {
                    (Operation::Append, Encoding::Json)
                }
            },
            Route::Read(_) => match (content_type, accept) {
                (Some(Media::S2s), _) => (Operation::ReadSession, Encoding::S2s),
                (_, Some(Media::EventStream)) => (Operation::ReadSession, Encoding::Sse),
                (_, Some(Media::Proto)) => (Operation::Read, Encoding::Proto),
                (_, Some(Media::Json | Media::S2s) | None) => (Operation::Read, Encoding::Json),
            },
            Route::Tail(_) => (Operation::Tail, Encoding::Other),
            Route::Control(call) if call.is_about_streams() => (Operation::Stream, Encoding::Other),
            Route::Control(_) => (Operation::Basin, Encoding::Other),
            Route::Forward(..) | Route::Unknown(_) => (Operation::Forward, Encoding::Other),
            Route::WrongMethod(_) | Route::Preflight | Route::NotFound => {
                (Operation::Unrouted, Encoding::Other)
            }
        };
        Self {
            operation,
            encoding,
            basin: route.basin_name().cloned(),
            stream: route.stream_path().cloned(),
        }
    }
}

impl Made {
    /// The names in this body. Only what is a name is told.
    pub(super) fn of(body: &[u8]) -> Self {
        let made: Self = serde_json::from_slice(body).unwrap_or_default();
        Self {
            basin: made.basin.filter(|name| BasinName::from_str(name).is_ok()),
            stream: made
                .stream
                .filter(|name| StreamName::from_str(name).is_ok()),
        }
    }
}
