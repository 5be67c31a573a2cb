//! Which S2 call a request is: method and path to [`Route`], purely, and closed where in doubt.
//!
//! S2's router matches literal segments on the raw path and decodes only names. A path that would
//! mean an intercepted call to a more lenient router, but does not match here, is answered 404: it
//! must not slip past the proxy to an upstream that reads it differently.

use http::{HeaderMap, Method, Uri, header};
use percent_encoding::percent_decode_str;

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
    /// Anything that cannot carry records.
    Forward(NotRecords, Forwarded),
    /// A route of S2 with a method it does not have; holds the methods it has.
    WrongMethod(&'static str),
    /// Nothing that S2 has.
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
    /// `OPTIONS` of whatever, on the basin's endpoint if it names one.
    Options(Option<BasinName>),
    /// What this proxy does not know.
    Other,
}

impl Forwarded {
    /// The basin on whose endpoint it is; the account's without one.
    pub fn endpoint(&self) -> Option<&BasinName> {
        match self {
            Self::StreamConfiguration(path) | Self::ReconfigureStream(path) => Some(&path.basin),
            Self::Options(basin) => basin.as_ref(),
            Self::Basins | Self::BasinMetrics(_) | Self::StreamMetrics(_) | Self::Other => None,
        }
    }

    /// The stream it names.
    pub fn stream(&self) -> Option<&StreamPath> {
        match self {
            Self::StreamConfiguration(path)
            | Self::ReconfigureStream(path)
            | Self::StreamMetrics(path) => Some(path),
            Self::Basins | Self::BasinMetrics(_) | Self::Options(_) | Self::Other => None,
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

impl Route {
    /// The call that this request makes. `basin_domain` is the host suffix that follows a basin.
    ///
    /// # Errors
    /// Bad names, a missing or contradictory basin, a key in the query string.
    pub fn of(
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        basin_domain: &str,
    ) -> Result<Self, Error> {
        refuse_key_in_query(uri)?;
        let basin = BasinOf {
            uri,
            headers,
            basin_domain,
        };
        if *method == Method::OPTIONS {
            return Ok(if uri.path().starts_with('/') {
                Self::forward(Forwarded::Options(basin.find().ok().flatten()))
            } else {
                Self::NotFound
            });
        }
        let segments: Vec<&str> = uri.path().split('/').collect();
        match segments.as_slice() {
            ["", "v1", "basins"] => Ok(Self::basins(method)),
            ["", "v1", "basins", name] if !name.is_empty() => Self::basin(method, name),
            ["", "v1", "streams"] => Self::streams(method, &basin),
            ["", "v1", "streams", name] if !name.is_empty() => Self::stream(method, &basin, name),
            ["", "v1", "streams", name, "records"] => Self::records(method, &basin, name),
            ["", "v1", "streams", name, "records", "tail"] => match *method {
                Method::GET | Method::HEAD => basin.stream(name).map(Self::Tail),
                _ => Ok(Self::WrongMethod("GET,HEAD")),
            },
            _ if looks_intercepted(uri.path()) => Ok(Self::NotFound),
            ["", "v1", "metrics", names @ ..] => Ok(Self::forward(metrics(method, names))),
            _ => Ok(Self::forward(Forwarded::Other)),
        }
    }

    /// The basin it names.
    pub fn basin_name(&self) -> Option<&BasinName> {
        match self {
            Self::Append(path) | Self::Read(path) | Self::Tail(path) => Some(&path.basin),
            Self::Control(call) => call.basin(),
            Self::Forward(_, forwarded) => forwarded.basin(),
            Self::WrongMethod(_) | Self::NotFound => None,
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
            Self::Control(_) | Self::WrongMethod(_) | Self::NotFound => None,
        }
    }

    fn forward(forwarded: Forwarded) -> Self {
        Self::Forward(NotRecords(()), forwarded)
    }

    fn basins(method: &Method) -> Self {
        match *method {
            Method::GET | Method::HEAD => Self::forward(Forwarded::Basins),
            Method::POST => Self::Control(ControlCall::CreateBasin),
            _ => Self::WrongMethod("GET,HEAD,POST"),
        }
    }

    fn basin(method: &Method, segment: &str) -> Result<Self, Error> {
        let call = match *method {
            Method::GET | Method::HEAD => ControlCall::BasinConfiguration,
            Method::PUT => ControlCall::EnsureBasin,
            Method::PATCH => ControlCall::ReconfigureBasin,
            Method::DELETE => ControlCall::DeleteBasin,
            _ => return Ok(Self::WrongMethod("GET,HEAD,PUT,DELETE,PATCH")),
        };
        let Some(name) = decode("basin", segment)? else {
            return Ok(Self::NotFound);
        };
        let basin = name.parse().map_err(bad_name)?;
        Ok(Self::Control(call(basin)))
    }

    fn streams(method: &Method, basin: &BasinOf<'_>) -> Result<Self, Error> {
        match *method {
            Method::GET | Method::HEAD => {
                Ok(Self::Control(ControlCall::ListStreams(basin.name()?)))
            }
            Method::POST => Ok(Self::Control(ControlCall::CreateStream(basin.name()?))),
            _ => Ok(Self::WrongMethod("GET,HEAD,POST")),
        }
    }

    fn stream(method: &Method, basin: &BasinOf<'_>, segment: &str) -> Result<Self, Error> {
        if !well_formed(segment) {
            return Ok(Self::NotFound);
        }
        match *method {
            Method::GET | Method::HEAD => {
                let path = basin.stream(segment)?;
                Ok(Self::forward(Forwarded::StreamConfiguration(path)))
            }
            Method::PATCH => {
                let path = basin.stream(segment)?;
                Ok(Self::forward(Forwarded::ReconfigureStream(path)))
            }
            Method::PUT => {
                let path = basin.stream(segment)?;
                Ok(Self::Control(ControlCall::EnsureStream(path)))
            }
            Method::DELETE => {
                let path = basin.stream(segment)?;
                Ok(Self::Control(ControlCall::DeleteStream(path)))
            }
            _ => Ok(Self::WrongMethod("GET,HEAD,PUT,DELETE,PATCH")),
        }
    }

    fn records(method: &Method, basin: &BasinOf<'_>, segment: &str) -> Result<Self, Error> {
        if !well_formed(segment) {
            return Ok(Self::NotFound);
        }
        match *method {
            Method::GET | Method::HEAD => basin.stream(segment).map(Self::Read),
            Method::POST => basin.stream(segment).map(Self::Append),
            _ => Ok(Self::WrongMethod("GET,HEAD,POST")),
        }
    }
}

/// Whose metrics these names below `/v1/metrics` ask for. What does not name one basin or stream for certain
/// is nobody's.
fn metrics(method: &Method, names: &[&str]) -> Forwarded {
    let decoded = |segment| decode("name", segment).ok().flatten();
    let basin = |segment| decoded(segment)?.parse().ok();
    let stream = |segment| decoded(segment)?.parse().ok();
    let wanted = match (method, names) {
        (&Method::GET | &Method::HEAD, [name]) => basin(*name).map(Forwarded::BasinMetrics),
        (&Method::GET | &Method::HEAD, [name, segment]) => basin(*name)
            .zip(stream(*segment))
            .map(|(basin, stream)| Forwarded::StreamMetrics(StreamPath { basin, stream })),
        _ => None,
    };
    wanted.unwrap_or(Forwarded::Other)
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
        let basin = self.name()?;
        let name = decode("stream", segment)?.unwrap_or_default();
        let stream: StreamName = name.parse().map_err(bad_name)?;
        Ok(StreamPath { basin, stream })
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

/// Decodes a path segment exactly once; `None` when its percent-encoding is broken.
fn decode(name: &str, segment: &str) -> Result<Option<String>, Error> {
    if !well_formed(segment) {
        return Ok(None);
    }
    percent_decode_str(segment)
        .decode_utf8()
        .map(|name| Some(name.into_owned()))
        .map_err(|_| Error::BadPath(format!("Invalid URL: Invalid UTF-8 in `{name}`")))
}

/// Whether every `%` starts a pair of hex digits, and the segment is not a literal dot segment.
fn well_formed(segment: &str) -> bool {
    let mut rest = segment.split('%');
    let _before_the_first = rest.next();
    segment != "."
        && segment != ".."
        && rest.all(|part| {
            let digits = part.as_bytes().get(..2);
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        })
}

/// Whether a router that decodes, merges slashes or resolves dots could take the path for a call
/// about basins or streams.
fn looks_intercepted(path: &str) -> bool {
    if !path.split('/').all(well_formed) {
        return true;
    }
    // Twice: a front end may decode before the router does.
    let once = percent_decode_str(path).decode_utf8_lossy();
    let twice = percent_decode_str(&once).decode_utf8_lossy();
    [path, &once, &twice].into_iter().any(|path| {
        let mut segments: Vec<&str> = Vec::new();
        for segment in path.split(['/', '\\']) {
            match segment {
                "" | "." => {}
                ".." => {
                    segments.pop();
                }
                segment => segments.push(segment.split(';').next().unwrap_or_default()),
            }
        }
        let is = |at: usize, word: &str| {
            segments
                .get(at)
                .is_some_and(|segment| segment.trim().eq_ignore_ascii_case(word))
        };
        is(0, "v1") && (is(1, "streams") || is(1, "basins"))
    })
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

#[cfg(test)]
mod tests;
