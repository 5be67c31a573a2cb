//! Basin and stream calls: the ciphers that clients set and see are the proxy's own; none goes upstream.

mod basin;
mod object;
mod own;
mod stream;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};

use self::object::Object;
use super::{
    Error,
    call::{Caller, Stop, empty, full},
    managed::Keyring,
    route::takes_body,
};
use crate::{
    body::CollectError,
    registry::Registry,
    stream::{BasinName, NameError, StreamPath},
    upstream::Body,
    wire::media::Media,
};

/// Tells what a create or ensure did: `created`, `updated` or `noop`.
pub const PROVISION_RESULT: HeaderName = HeaderName::from_static("s2-provision-result");

/// Makes a create idempotent.
const REQUEST_TOKEN: HeaderName = HeaderName::from_static("s2-request-token");

/// Longest request token, in bytes: S2's figure.
const MAX_TOKEN_BYTES: usize = 36;

/// A call about basins or streams.
#[derive(Debug, PartialEq, Eq)]
pub enum ControlCall {
    /// `POST /v1/basins`
    CreateBasin,
    /// `GET /v1/basins/{basin}`
    BasinConfiguration(BasinName),
    /// `PUT /v1/basins/{basin}`
    EnsureBasin(BasinName),
    /// `PATCH /v1/basins/{basin}`
    ReconfigureBasin(BasinName),
    /// `DELETE /v1/basins/{basin}`
    DeleteBasin(BasinName),
    /// `GET /v1/basins`, when not all of them are shown
    ListBasins,
    /// `GET /v1/streams`
    ListStreams(BasinName),
    /// `POST /v1/streams`
    CreateStream(BasinName),
    /// `PUT /v1/streams/{stream}`
    EnsureStream(StreamPath),
    /// `DELETE /v1/streams/{stream}`
    DeleteStream(StreamPath),
}

impl ControlCall {
    /// Whether it is about the streams of a basin rather than basins.
    pub fn is_about_streams(&self) -> bool {
        match self {
            Self::ListStreams(_)
            | Self::CreateStream(_)
            | Self::EnsureStream(_)
            | Self::DeleteStream(_) => true,
            Self::CreateBasin
            | Self::ListBasins
            | Self::BasinConfiguration(_)
            | Self::EnsureBasin(_)
            | Self::ReconfigureBasin(_)
            | Self::DeleteBasin(_) => false,
        }
    }

    /// The basin it names.
    pub fn basin(&self) -> Option<&BasinName> {
        match self {
            Self::CreateBasin | Self::ListBasins => None,
            Self::BasinConfiguration(basin)
            | Self::EnsureBasin(basin)
            | Self::ReconfigureBasin(basin)
            | Self::DeleteBasin(basin)
            | Self::ListStreams(basin)
            | Self::CreateStream(basin) => Some(basin),
            Self::EnsureStream(path) | Self::DeleteStream(path) => Some(&path.basin),
        }
    }

    /// Refuses a header that S2 refuses before it looks at the body.
    ///
    /// # Errors
    /// A request token that is too long, or no text.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Error> {
        let (Self::CreateBasin | Self::CreateStream(_)) = self else {
            return Ok(());
        };
        let problem = match headers.get(REQUEST_TOKEN).map(HeaderValue::to_str) {
            None => return Ok(()),
            Some(Ok(token)) if token.len() <= MAX_TOKEN_BYTES => return Ok(()),
            Some(Ok(token)) => format!(
                "request token was longer than {MAX_TOKEN_BYTES} bytes in length: {}",
                token.len()
            ),
            Some(Err(_)) => "not UTF-8".to_owned(),
        };
        Err(Error::BadHeader(format!(
            "Invalid header `{REQUEST_TOKEN}`: {problem}"
        )))
    }

    /// What the body names, for calls whose path does not: read as the call itself reads it.
    ///
    /// # Errors
    /// The body names nothing, or could name something else to another reader of JSON.
    pub fn named(&self, control: &Control) -> Result<Option<Named>, Error> {
        let name = |field| {
            let body = Object::of_client(control.required_json()?)?;
            body.only(field)
        };
        match self {
            Self::CreateBasin => Ok(Some(Named::Basin(name("basin")?.parse().map_err(invalid)?))),
            Self::CreateStream(basin) => Ok(Some(Named::Stream(StreamPath {
                basin: basin.clone(),
                stream: name("stream")?.parse().map_err(invalid)?,
            }))),
            Self::ListBasins
            | Self::BasinConfiguration(_)
            | Self::EnsureBasin(_)
            | Self::ReconfigureBasin(_)
            | Self::DeleteBasin(_)
            | Self::ListStreams(_)
            | Self::EnsureStream(_)
            | Self::DeleteStream(_) => Ok(None),
        }
    }

    /// Makes the call upstream and keeps the config store in step with it.
    ///
    /// # Errors
    /// Bad JSON, what the configuration declares, upstream or store failures.
    pub async fn run(
        self,
        registry: &Registry,
        keyring: &Arc<Keyring>,
        caller: &Caller,
        control: &Control,
    ) -> Answered {
        let keys = (registry, keyring);
        match self {
            Self::CreateBasin => basin::create(registry, caller, control).await,
            Self::BasinConfiguration(name) => {
                basin::configuration(registry, caller, control, &name).await
            }
            Self::EnsureBasin(name) => basin::ensure(registry, caller, control, &name).await,
            Self::ReconfigureBasin(name) => {
                basin::reconfigure(registry, caller, control, &name).await
            }
            Self::DeleteBasin(name) => basin::delete(registry, caller, control, &name).await,
            Self::ListBasins => own::basins(caller, control).await,
            Self::ListStreams(name) => stream::list(registry, caller, control, &name).await,
            Self::CreateStream(name) => stream::create(keys, caller, control, &name).await,
            Self::EnsureStream(path) => stream::ensure(keys, caller, control, &path).await,
            Self::DeleteStream(path) => stream::delete(keys, caller, control, &path).await,
        }
    }
}

/// What a body names.
#[derive(Debug, PartialEq, Eq)]
pub enum Named {
    /// A basin.
    Basin(BasinName),
    /// A stream.
    Stream(StreamPath),
}

/// A whole answer, or why there is none.
pub type Answered = Result<Response<Bytes>, Stop>;

/// A control request with its body in memory.
pub struct Control {
    /// `GET`, `POST`, …
    pub method: Method,
    /// Path and query as the client sent them.
    pub uri: Uri,
    /// The client's headers.
    pub headers: HeaderMap,
    /// The body, decompressed.
    pub body: Bytes,
}

impl Control {
    /// The JSON body; `None` when S2 takes the request for one without.
    fn json(&self) -> Result<Option<&Bytes>, Error> {
        match self.headers.contains_key(header::CONTENT_TYPE) {
            false => Ok(None),
            true if Media::content_type(&self.headers) != Some(Media::Json) => Err(no_json()),
            true => Ok((!self.body.is_empty()).then_some(&self.body)),
        }
    }

    /// The JSON body of a call that S2 does not take without one.
    fn required_json(&self) -> Result<&Bytes, Error> {
        if Media::content_type(&self.headers) != Some(Media::Json) {
            return Err(no_json());
        }
        Ok(&self.body)
    }

    /// The same request with another body, for the upstream. Where S2 takes no body, none goes along.
    fn to_upstream(&self, body: Option<Bytes>) -> Request<Body> {
        let body = body.filter(|_| takes_body(&self.method));
        let mut request = Request::new(body.map_or_else(empty, full));
        // HEAD becomes GET: its head must tell the length of a body that is rewritten here.
        *request.method_mut() = match self.method {
            Method::HEAD => Method::GET,
            ref method => method.clone(),
        };
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        for name in [
            header::CONTENT_ENCODING,
            header::CONTENT_LENGTH,
            header::ACCEPT_ENCODING,
        ] {
            request.headers_mut().remove(name);
        }
        request
    }
}

/// Gives a rewritten body to an answer.
fn with_body(answer: Response<Bytes>, body: Vec<u8>) -> Response<Bytes> {
    let mut answer = answer.map(|_| body.into());
    answer.headers_mut().remove(header::CONTENT_LENGTH);
    answer
}

/// What a body that could not be read means to a JSON call.
pub fn collect_error(error: CollectError, bad: impl FnOnce(String) -> Error) -> Stop {
    match error {
        CollectError::Encoding(_) => unsupported_encoding(),
        CollectError::Body(_) => bad(error.to_string()).into(),
        CollectError::Broken(error) => bad(error.to_string()).into(),
        CollectError::Slow => Error::SlowClient.into(),
        CollectError::Draining => Error::Draining.into(),
        CollectError::NoRoom(_) => Error::Busy.into(),
    }
}

/// The answer to a `content-encoding` other than gzip and zstd.
pub fn unsupported_encoding() -> Stop {
    Stop::relay(super::respond::bare(
        http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
        header::ACCEPT_ENCODING,
        crate::wire::compression::SUPPORTED_ENCODINGS,
    ))
}

/// S2's own text for a name that it does not accept.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn invalid(error: NameError) -> Error {
    Error::Invalid(error.to_string())
}

fn no_json() -> Error {
    Error::BadJson("Expected request with `Content-Type: application/json`".into())
}
