//! Which S2 call a request is: method and path to [`Route`], purely, and closed where in doubt.
//!
//! Calls that S2 has are a list: `table`. S2's router matches literal segments on the raw path and decodes
//! only names, and so does this one. A path that is not in the list is answered 404: it must not slip past the
//! proxy to an upstream that reads it differently.

mod lookalike;
mod need;
mod table;
#[cfg(test)]
mod tests;
use http::{HeaderMap, Method, Uri, header};
use percent_encoding::percent_decode_str;

pub use self::{
    lookalike::words,
    need::{Need, allow_without_right, call_needs, needs},
};
use self::{
    lookalike::{looks_intercepted, well_formed},
    table::{Call, Row},
};
use super::{Error, control::ControlCall};
use crate::{
    keys::KEY_HEADER,
    stream::{BasinName, NameError, StreamName, StreamPath},
};

/// The header that names the basin.
pub const BASIN_HEADER: &str = "s2-basin";

/// Proof that a request is neither an append nor a read: it may be forwarded as it is.
#[derive(Debug, PartialEq, Eq)]
pub struct NotRecords(());

/// One S2 call.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// A call about basins or streams.
    Control(ControlCall),
    /// `GET /v1/streams/{stream}/records/tail`
    Tail(StreamPath),
    /// `GET|HEAD /v1/streams/{stream}/records`
    Read(StreamPath),
    /// `POST /v1/streams/{stream}/records`
    Append(StreamPath),
    /// A call that cannot carry records.
    Forward(NotRecords, Forwarded),
    /// A call that S2's v1 API does not have, where `upstream.forward_unknown` is on; holds the basin that it
    /// names. Its body could be records.
    Unknown(Option<BasinName>),
    /// A method that the path does not have; holds those that it has.
    WrongMethod(String),
    /// `OPTIONS` of a path that S2's v1 API does not have: S2 answers a browser that asks about any path. The
    /// upstream is not asked.
    Preflight,
    /// A path that S2's v1 API does not have.
    NotFound,
}

/// A call that cannot carry records, and is none of those that change what is recorded.
#[derive(Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// `GET|HEAD /v1/basins`
    Basins,
    /// `GET|HEAD /v1/streams/{stream}`
    StreamConfiguration(StreamPath),
    /// `PATCH /v1/streams/{stream}`
    ReconfigureStream(StreamPath),
    /// `GET|HEAD /v1/metrics/{basin}`
    BasinMetrics(BasinName),
    /// `GET|HEAD /v1/metrics/{basin}/{stream}`
    StreamMetrics(StreamPath),
    /// A call about access tokens.
    AccessTokens,
    /// `/v1/locations`, `/v1/locations/default`, `GET|HEAD /v1/metrics`
    Account,
    /// `GET|HEAD /health`, `GET|HEAD /ping`
    Liveness,
    /// `OPTIONS` of a path that S2 has, on the basin's endpoint if the request names one.
    Options(Option<BasinName>),
}

impl Forwarded {
    /// The basin on whose endpoint it is; the account's without one.
    pub fn endpoint(&self) -> Option<&BasinName> {
        match self {
            Self::StreamConfiguration(path) | Self::ReconfigureStream(path) => Some(&path.basin),
            Self::Options(basin) => basin.as_ref(),
            Self::Basins
            | Self::BasinMetrics(_)
            | Self::StreamMetrics(_)
            | Self::AccessTokens
            | Self::Account
            | Self::Liveness => None,
        }
    }

    /// The stream it names.
    pub fn stream(&self) -> Option<&StreamPath> {
        match self {
            Self::StreamConfiguration(path)
            | Self::ReconfigureStream(path)
            | Self::StreamMetrics(path) => Some(path),
            Self::Basins
            | Self::BasinMetrics(_)
            | Self::AccessTokens
            | Self::Account
            | Self::Liveness
            | Self::Options(_) => None,
        }
    }

    /// The basin it names.
    pub fn basin(&self) -> Option<&BasinName> {
        match self {
            Self::BasinMetrics(basin) => Some(basin),
            Self::Options(basin) => basin.as_ref(),
            other => other.stream().map(|path| &path.basin),
        }
    }
}

/// The keys of the configuration that decide how requests are routed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Routing<'a> {
    /// The host suffix that follows a basin's name; empty for none.
    pub basin_domain: &'a str,
    /// `upstream.forward_unknown`: paths that S2's v1 API does not have make [`Route::Unknown`].
    pub forward_unknown: bool,
}

impl Route {
    /// The call that this request makes.
    ///
    /// # Errors
    /// Bad names, a missing or contradictory basin, a key in the query string.
    pub fn of(
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        routing: Routing<'_>,
    ) -> Result<Self, Error> {
        refuse_key_in_query(uri)?;
        let basin = BasinOf {
            uri,
            headers,
            basin_domain: routing.basin_domain,
        };
        let row = Row::of(uri.path());
        let known = row.filter(|(_, names)| names.iter().all(|name| well_formed(name)));
        match (known, method) {
            (Some(_), &Method::OPTIONS) => {
                let basin = basin.find().ok().flatten();
                Ok(Self::forward(Forwarded::Options(basin)))
            }
            (Some((row, names)), method) => match row.call(method) {
                Some(call) => Self::make(call, &names, &basin),
                None => Ok(Self::WrongMethod(row.allow())),
            },
            // An upstream that echoes the request would show the client the proxy's token.
            (None, &Method::TRACE | &Method::CONNECT) => Ok(Self::NotFound),
            (None, _) if routing.forward_unknown && is_forwardable(uri.path()) => {
                Ok(Self::Unknown(basin.find()?))
            }
            (None, &Method::OPTIONS) if uri.path().starts_with('/') => Ok(Self::Preflight),
            (None, _) => Ok(Self::NotFound),
        }
    }

    /// Builds the call from the names in its path. There are as many as the call's row has.
    fn make(call: Call, names: &[&str], basin: &BasinOf<'_>) -> Result<Self, Error> {
        let first = names.first().copied().unwrap_or_default();
        let stream = || basin.stream(first);
        let named = || basin_in_path(first);
        Ok(match call {
            Call::ListBasins => Self::forward(Forwarded::Basins),
            Call::CreateBasin => Self::Control(ControlCall::CreateBasin),
            Call::BasinConfiguration => Self::Control(ControlCall::BasinConfiguration(named()?)),
            Call::EnsureBasin => Self::Control(ControlCall::EnsureBasin(named()?)),
            Call::DeleteBasin => Self::Control(ControlCall::DeleteBasin(named()?)),
            Call::ReconfigureBasin => Self::Control(ControlCall::ReconfigureBasin(named()?)),
            Call::ListStreams => Self::Control(ControlCall::ListStreams(basin.name()?)),
            Call::CreateStream => Self::Control(ControlCall::CreateStream(basin.name()?)),
            Call::StreamConfiguration => Self::forward(Forwarded::StreamConfiguration(stream()?)),
            Call::EnsureStream => Self::Control(ControlCall::EnsureStream(stream()?)),
            Call::DeleteStream => Self::Control(ControlCall::DeleteStream(stream()?)),
            Call::ReconfigureStream => Self::forward(Forwarded::ReconfigureStream(stream()?)),
            Call::Read => Self::Read(stream()?),
            Call::Append => Self::Append(stream()?),
            Call::Tail => Self::Tail(stream()?),
            Call::AccessTokens => Self::forward(Forwarded::AccessTokens),
            Call::Account => Self::forward(Forwarded::Account),
            Call::BasinMetrics => Self::forward(Forwarded::BasinMetrics(named()?)),
            Call::StreamMetrics => {
                let stream = names.get(1).copied().unwrap_or_default();
                let (basin, stream) = (named()?, stream_in_path(stream)?);
                Self::forward(Forwarded::StreamMetrics(StreamPath { basin, stream }))
            }
            Call::Liveness => Self::forward(Forwarded::Liveness),
        })
    }

    /// The basin it names.
    pub fn basin_name(&self) -> Option<&BasinName> {
        match self {
            Self::Append(path) | Self::Read(path) | Self::Tail(path) => Some(&path.basin),
            Self::Control(call) => call.basin(),
            Self::Forward(_, forwarded) => forwarded.basin(),
            Self::Unknown(basin) => basin.as_ref(),
            Self::WrongMethod(_) | Self::Preflight | Self::NotFound => None,
        }
    }

    /// The stream it names, when it is about one.
    pub fn stream_path(&self) -> Option<&StreamPath> {
        match self {
            Self::Append(path)
            | Self::Read(path)
            | Self::Tail(path)
            | Self::Control(ControlCall::EnsureStream(path) | ControlCall::DeleteStream(path)) => {
                Some(path)
            }
            Self::Forward(_, forwarded) => forwarded.stream(),
            Self::Control(_)
            | Self::Unknown(_)
            | Self::WrongMethod(_)
            | Self::Preflight
            | Self::NotFound => None,
        }
    }

    fn forward(forwarded: Forwarded) -> Self {
        Self::Forward(NotRecords(()), forwarded)
    }
}

/// Returns true if a call of S2's v1 API with this method may have a body. S2 ignores any other body, which could
/// be records.
pub fn takes_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// Returns true if a path that S2's v1 API does not have cannot mean a call that the proxy intercepts.
fn is_forwardable(path: &str) -> bool {
    path.starts_with('/') && !looks_intercepted(path)
}

/// The basin a request names: in the header, in the host name, or in both alike.
struct BasinOf<'a> {
    uri: &'a Uri,
    headers: &'a HeaderMap,
    basin_domain: &'a str,
}

impl BasinOf<'_> {
    fn find(&self) -> Result<Option<BasinName>, Error> {
        let in_header = self.headers.get(BASIN_HEADER);
        let in_header = in_header.map(|value| parse_basin(value.to_str().unwrap_or_default()));
        let in_host = self.label().map(parse_basin);
        match (in_header.transpose()?, in_host.transpose()?) {
            (Some(header), Some(host)) if header != host => Err(Error::BadHeader(
                "header `s2-basin` and the host name name different basins".into(),
            )),
            (Some(basin), _) | (None, Some(basin)) => Ok(Some(basin)),
            (None, None) => Ok(None),
        }
    }

    fn name(&self) -> Result<BasinName, Error> {
        self.find()?
            .ok_or_else(|| Error::BadHeader("Missing header `s2-basin`".into()))
    }

    fn stream(&self, segment: &str) -> Result<StreamPath, Error> {
        Ok(StreamPath {
            basin: self.name()?,
            stream: stream_in_path(segment)?,
        })
    }

    /// What stands before `.{basin_domain}` in the host name.
    fn label(&self) -> Option<&str> {
        if self.basin_domain.is_empty() {
            return None;
        }
        let host = match self.uri.host() {
            Some(host) => host,
            None => {
                let value = self.headers.get(header::HOST)?.to_str().ok()?;
                value.rsplit_once(':').map_or(value, |(host, _)| host)
            }
        };
        let at = host.len().checked_sub(self.basin_domain.len())?;
        let (label, domain) = host.split_at_checked(at)?;
        domain
            .eq_ignore_ascii_case(self.basin_domain)
            .then(|| label.strip_suffix('.'))
            .flatten()
    }
}

fn parse_basin(text: &str) -> Result<BasinName, Error> {
    text.parse()
        .map_err(|error| Error::BadHeader(format!("Invalid header `s2-basin`: {error}")))
}

/// S2's own text for a name that does not parse.
fn bad_name(error: NameError) -> Error {
    Error::BadPath(format!("Invalid URL: {error}"))
}

fn basin_in_path(segment: &str) -> Result<BasinName, Error> {
    decode("basin", segment)?.parse().map_err(bad_name)
}

fn stream_in_path(segment: &str) -> Result<StreamName, Error> {
    decode("stream", segment)?.parse().map_err(bad_name)
}

/// Decodes a path segment exactly once. It is well-formed.
fn decode(name: &str, segment: &str) -> Result<String, Error> {
    percent_decode_str(segment)
        .decode_utf8()
        .map(|name| name.into_owned())
        .map_err(|_| Error::BadPath(format!("Invalid URL: Invalid UTF-8 in `{name}`")))
}

fn refuse_key_in_query(uri: &Uri) -> Result<(), Error> {
    let query = uri.query().unwrap_or_default();
    let names_key = query.split(['&', ';']).any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        let name = percent_decode_str(name).decode_utf8_lossy();
        name.trim().eq_ignore_ascii_case(KEY_HEADER.as_str())
    });
    if names_key {
        return Err(Error::BadQuery(
            "an encryption key belongs in the `s2-encryption-key` header, never in a query string"
                .into(),
        ));
    }
    Ok(())
}
