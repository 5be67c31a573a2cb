//! Responses to clients: relayed, rebuilt, or the proxy's own; compression, CORS and `HEAD` in one place.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;

use super::{
    call::{Stop, empty, full},
    exchange::Exchange,
};
use crate::{
    upstream::{Body, ResponseBody},
    wire::{
        compression::{self, MIN_COMPRESS_BYTES, ResponseEncoding, compress},
        media::Media,
        s2s, sse,
    },
};

/// What of a request its response depends on.
#[derive(Clone)]
pub struct Asked {
    /// `HEAD` gets the head that `GET` would get.
    head_only: bool,
    encoding: Option<ResponseEncoding>,
    origin: Option<HeaderValue>,
    /// The request as a whole.
    pub exchange: Arc<Exchange>,
}

impl Asked {
    /// Takes from the request what the response needs.
    pub fn of<B>(request: &Request<B>, exchange: &Arc<Exchange>) -> Self {
        Self {
            exchange: Arc::clone(exchange),
            head_only: *request.method() == Method::HEAD,
            encoding: ResponseEncoding::negotiate(request.headers()),
            origin: request.headers().get(header::ORIGIN).cloned(),
        }
    }

    /// A whole answer, compressed as the client asks.
    pub fn whole(&self, response: Response<Bytes>) -> Response<Body> {
        let (mut parts, mut body) = response.into_parts();
        let is_encoded = parts.headers.contains_key(header::CONTENT_ENCODING);
        match self.encoding {
            // S2's router answers what it has no route for before it looks at encodings.
            None if is_unrouted(parts.status, &body) => {}
            None => not_acceptable(&mut parts.status, &mut parts.headers),
            Some(encoding) if body.len() >= MIN_COMPRESS_BYTES && !is_encoded => {
                let vary = HeaderValue::from_static(compression::VARY);
                parts.headers.append(header::VARY, vary);
                body = compressed(encoding, body, &mut parts.headers);
            }
            Some(_) => {}
        }
        parts.headers.remove(header::CONTENT_LENGTH);
        parts
            .headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        let body = if self.head_only { empty() } else { full(body) };
        self.allow_origin(Response::from_parts(parts, body))
    }

    /// A session: server-sent events or S2S frames, never compressed as a whole.
    pub fn session(&self, media: Media, body: Body) -> Response<Body> {
        let mut response = Response::new(if self.head_only { empty() } else { body });
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_TYPE, media.as_str()),
            (header::CACHE_CONTROL, sse::CACHE_CONTROL),
            (HeaderName::from_static("x-accel-buffering"), "no"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if self.encoding.is_none() {
            let mut status = response.status();
            not_acceptable(&mut status, response.headers_mut());
            *response.status_mut() = status;
        }
        self.allow_origin(response)
    }

    /// The answer for a request that stopped early.
    pub fn stopped(&self, stop: Stop) -> Response<Body> {
        match stop {
            Stop::Error(error) => {
                let status = error.code().status();
                let mut answer = json(status, error.to_json().into());
                if status == StatusCode::UNAUTHORIZED {
                    // What RFC 9110 (section 11.6.1) asks of every 401; some clients insist.
                    let bearer = HeaderValue::from_static("Bearer");
                    answer
                        .headers_mut()
                        .insert(header::WWW_AUTHENTICATE, bearer);
                }
                self.whole(answer)
            }
            Stop::Relay(refusal) => self.whole(refusal.answer()),
        }
    }

    /// Browsers hide an answer without these from the page that asked. The upstream's own stay.
    fn allow_origin(&self, mut response: Response<Body>) -> Response<Body> {
        let headers = response.headers_mut();
        if let Some(origin) = &self.origin
            && !headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN)
        {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        response
    }
}

/// Keeps a browser from taking an answer for another type than it says: records could be text that is a page.
pub fn forbid_sniffing(headers: &mut HeaderMap) {
    let value = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, value);
}

/// The upstream's answer as it is.
pub fn relay(response: Response<ResponseBody>) -> Response<Body> {
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// A JSON answer of the proxy's own.
pub fn json(status: StatusCode, body: Bytes) -> Response<Bytes> {
    typed(status, Media::Json, body)
}

/// An answer of the proxy's own in one of S2's formats.
pub fn typed(status: StatusCode, media: Media, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let value = HeaderValue::from_static(media.as_str());
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

/// An answer without a body.
pub fn bare(status: StatusCode, name: HeaderName, value: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static(value));
    response
}

/// What S2 answers a browser that asks whether a page may send a request: yes.
pub fn preflight(asked: &HeaderMap) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    for (asks, allows) in [
        (
            header::ACCESS_CONTROL_REQUEST_METHOD,
            header::ACCESS_CONTROL_ALLOW_METHODS,
        ),
        (
            header::ACCESS_CONTROL_REQUEST_HEADERS,
            header::ACCESS_CONTROL_ALLOW_HEADERS,
        ),
    ] {
        if let Some(asked) = asked.get(&asks) {
            headers.insert(allows, asked.clone());
            headers.append(header::VARY, asks.into());
        }
    }
    response
}

/// 405 without a body, as S2's router answers a method that a path does not have.
pub fn wrong_method(allowed: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// 404 without a body, as S2's router answers a path it does not have.
pub fn not_found() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// Why a session stops, as its last frame.
pub fn terminal_frame(stop: &Stop) -> Bytes {
    match stop {
        Stop::Error(error) => {
            s2s::encode_terminal(error.code().status().as_u16(), &error.to_json())
        }
        Stop::Relay(refusal) => {
            let (status, body) = refusal.parts();
            s2s::encode_terminal(status.as_u16(), &String::from_utf8_lossy(body))
        }
    }
}

fn is_unrouted(status: StatusCode, body: &[u8]) -> bool {
    let has_no_route = matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
    );
    has_no_route && body.is_empty()
}

/// What S2 does for a client that refuses every encoding, even none: all is done, but the status says so.
fn not_acceptable(status: &mut StatusCode, headers: &mut HeaderMap) {
    *status = StatusCode::NOT_ACCEPTABLE;
    headers.append(header::VARY, HeaderValue::from_static(compression::VARY));
}

fn compressed(encoding: ResponseEncoding, body: Bytes, headers: &mut HeaderMap) -> Bytes {
    let Some(name) = encoding.content_encoding() else {
        return body;
    };
    match compress(encoding, &body) {
        Ok(smaller) => {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
            smaller.into()
        }
        Err(error) => {
            tracing::warn!(%error, "response not compressed");
            body
        }
    }
}
