//! The proxy's own small requests to the upstream: probes, lists, creates, with bounded time and memory.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Full};
use serde::de::DeserializeOwned;

use super::{
    Error,
    gate::{Pass, Principal},
};
use crate::{
    telemetry::label::Operation,
    upstream::{self, Body, ClientAddress, InMemory, ResponseBody, Target, Upstream},
    wire::media::Media,
};

/// Longest wait for a whole control answer. The S2 CLI waits as long.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest control answer kept in memory: 1000 list entries of 512-byte names, six-fold escaped, fit.
const MAX_CONTROL_BYTES: usize = 8 * 1024 * 1024;

/// Why a request ends before it has an answer of its own.
#[derive(Debug)]
pub enum Stop {
    /// Something went wrong in the proxy.
    Error(Error),
    /// The upstream's error, or an answer of S2's without a body, is the client's answer.
    Relay(Box<Refusal>),
}

/// An answer that is certainly a refusal: a status of 400 or above. Nothing else that an upstream says
/// may stand in for records or acks that it does not have.
#[derive(Debug)]
pub struct Refusal(Response<Bytes>);

impl Refusal {
    /// The answer.
    pub fn answer(self) -> Response<Bytes> {
        self.0
    }

    /// Status and body.
    pub fn parts(&self) -> (StatusCode, &Bytes) {
        (self.0.status(), self.0.body())
    }
}

impl Stop {
    /// What happened, as it may stand in a log.
    pub fn told(&self) -> String {
        match self {
            Self::Error(error) => error.told(),
            Self::Relay(refusal) => format!("the upstream answered {}", refusal.parts().0),
        }
    }

    /// Whether the append that it is the answer to certainly stored nothing.
    pub fn had_no_effect(&self) -> bool {
        match self {
            Self::Error(error) => matches!(error, Error::Unreachable(_)),
            Self::Relay(refusal) => had_no_effect(refusal.parts().0),
        }
    }

    /// The status of the upstream's refusal.
    pub fn refused_with(&self) -> Option<StatusCode> {
        match self {
            Self::Relay(refusal) => Some(refusal.parts().0),
            Self::Error(_) => None,
        }
    }

    /// Lets the upstream's answer be the client's, if it is a refusal.
    pub fn relay(answer: Response<Bytes>) -> Self {
        let status = answer.status();
        if status.is_client_error() || status.is_server_error() {
            Self::Relay(Box::new(Refusal(answer)))
        } else {
            Self::Error(Error::Garbage("a status that makes no sense here"))
        }
    }

    /// The same, had after a part of a split batch was appended: whatever it promised of itself, the
    /// batch as a whole had an effect.
    #[must_use]
    pub fn after_a_part(self) -> Self {
        match self {
            Self::Error(Error::Timeout) => Self::Error(Error::Timeout),
            Self::Error(error) => Self::Error(Error::PartlyAppended(error.to_string())),
            Self::Relay(refusal) => {
                let (status, body) = refusal.parts();
                let body = String::from_utf8_lossy(body);
                Self::Error(Error::PartlyAppended(format!("{status}: {body}")))
            }
        }
    }

    /// The same, had after the upstream was asked to act: it can no longer promise that nothing happened.
    #[must_use]
    pub fn after_acting(self) -> Self {
        match self {
            Self::Error(error) => Self::Error(error.after_acting()),
            Self::Relay(_) => Self::Error(Error::Garbage("no tail of a stream that it created")),
        }
    }

    /// The same, had before anything of the client's request itself was sent: what could not be asked
    /// in preparation had no effect on its stream's records.
    #[must_use]
    pub fn before_sending(self) -> Self {
        match self {
            Self::Error(
                error @ (Error::Lost(_)
                | Error::Broken
                | Error::Timeout
                | Error::Garbage(_)
                | Error::Unrecorded(_)),
            ) => Self::Error(Error::Unprepared(Box::new(error))),
            other => other,
        }
    }
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// Makes calls upstream in the name of one client.
#[derive(Clone)]
pub struct Caller {
    upstream: Upstream,
    operation: Operation,
    authorization: Option<HeaderValue>,
    client: Option<ClientAddress>,
    /// The client, and its rights.
    principal: Principal,
    /// The request's id and its place in a trace.
    origin: Vec<(&'static str, HeaderValue)>,
}

/// Headers that say which request a call belongs to.
const ORIGIN: [&str; 3] = ["s2-request-id", "traceparent", "tracestate"];

impl Caller {
    /// Calls with the credentials in `headers`, for a request of this operation.
    pub fn new(
        upstream: &Upstream,
        headers: &HeaderMap,
        operation: Operation,
        principal: Principal,
    ) -> Self {
        let authorization = headers.get(header::AUTHORIZATION).cloned();
        let origin = |name| headers.get(name).map(|value| (name, value.clone()));
        Self {
            upstream: upstream.clone(),
            operation,
            principal,
            client: None,
            authorization: authorization.map(|mut value| {
                value.set_sensitive(true);
                value
            }),
            origin: ORIGIN.into_iter().filter_map(origin).collect(),
        }
    }

    /// Lets the calls share the connections of a client.
    #[must_use]
    pub fn in_name_of(self, client: ClientAddress) -> Self {
        Self {
            client: Some(client),
            ..self
        }
    }

    /// The API key that the client came in with, if that is how it came.
    pub fn pass(&self) -> Option<&Arc<Pass>> {
        self.principal.api_key()
    }

    /// The client, with the rights that it had when its request was let in.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// `GET`s `path` and reads the whole answer.
    ///
    /// # Errors
    /// [`Error`] when there is no whole answer in time.
    pub async fn fetch(&self, target: Target<'_>, path: &str) -> Result<Response<Bytes>, Error> {
        let request = self.request(Method::GET, path, empty())?;
        self.exchange(target, request).await
    }

    /// The same, asking for an answer of this type.
    ///
    /// # Errors
    /// [`Error`] when there is no whole answer in time.
    pub async fn fetch_as(
        &self,
        target: Target<'_>,
        path: &str,
        media: Media,
    ) -> Result<Response<Bytes>, Error> {
        let mut request = self.request(Method::GET, path, empty())?;
        let accept = HeaderValue::from_static(media.as_str());
        request.headers_mut().insert(header::ACCEPT, accept);
        self.exchange(target, request).await
    }

    /// `POST`s JSON to `path` and reads the whole answer.
    ///
    /// # Errors
    /// [`Error`] when there is no whole answer in time.
    pub async fn post(
        &self,
        target: Target<'_>,
        path: &str,
        json: Vec<u8>,
    ) -> Result<Response<Bytes>, Error> {
        let mut request = self.request(Method::POST, path, full(json.into()))?;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        self.exchange(target, request).await
    }

    /// Sends `request`, whose body is in memory, and reads the whole answer.
    ///
    /// # Errors
    /// [`Error`] when there is no whole answer in time.
    pub async fn exchange(
        &self,
        target: Target<'_>,
        mut request: Request<Body>,
    ) -> Result<Response<Bytes>, Error> {
        request.extensions_mut().insert(self.operation);
        request.extensions_mut().insert(InMemory);
        if let Some(client) = self.client {
            request.extensions_mut().insert(client);
        }
        if let Some(credential) = self.pass().and_then(|pass| pass.credential()) {
            request.extensions_mut().insert(credential);
        }
        let whole = async {
            let response = self.upstream.send(target, request).await?;
            let (parts, body) = response.into_parts();
            let body = collect(body, MAX_CONTROL_BYTES).await?;
            Ok(Response::from_parts(parts, body))
        };
        self.upstream
            .within(CONTROL_TIMEOUT, whole)
            .await
            .unwrap_or(Err(Error::Timeout))
    }

    fn request(&self, method: Method, path: &str, body: Body) -> Result<Request<Body>, Error> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        for (name, value) in &self.origin {
            request = request.header(*name, value.clone());
        }
        request
            .body(body)
            .map_err(|_| upstream::Error::Request("its path is not a URI").into())
    }
}

/// Parses the JSON of a 200 or 201 answer; any other answer is the client's.
///
/// # Errors
/// [`Stop::Relay`] with an answer of another status, [`Error::Garbage`] for other JSON.
pub fn parse<T: DeserializeOwned>(answer: Response<Bytes>) -> Result<T, Stop> {
    match answer.status() {
        StatusCode::OK | StatusCode::CREATED => serde_json::from_slice(answer.body())
            .map_err(|_| Error::Garbage("unexpected JSON").into()),
        _ => Err(Stop::relay(answer)),
    }
}

/// Whether an answer promises that the request had no effect: a client error, except for those that
/// S2 lets mean anything.
pub fn had_no_effect(status: StatusCode) -> bool {
    status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT && status.as_u16() != 499
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// [`Error::Garbage`] beyond the limit, [`Error::Lost`] when it breaks off.
pub async fn collect(mut body: ResponseBody, limit: usize) -> Result<Bytes, Error> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if whole.len() + data.len() > limit {
                return Err(Error::Garbage("body too large"));
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

/// A body without bytes.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body of these bytes.
pub fn full(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}
