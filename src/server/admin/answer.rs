//! Answers of the admin listener: JSON, text and the page, none of them kept or shown within another site.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde::Serialize;

use crate::upstream::Body;

/// What every answer says: no store on the way keeps it, no browser takes it for something else, and no
/// other site's page may hold it.
const GUARDS: [(HeaderName, &str); 6] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// An answer with this body.
pub(super) fn answer(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in GUARDS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Text of this kind.
pub(super) fn text(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    answer(status, kind, full(text.into()))
}

/// A value in JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_string(value) {
        Ok(json) => text(status, "application/json", json),
        Err(error) => {
            tracing::error!(%error, "an answer of the admin listener has no JSON form");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            text(status, "application/json", String::from("{}"))
        }
    }
}

/// What is wrong.
#[derive(Serialize)]
pub(super) struct Info<'a> {
    pub(super) code: &'a str,
    pub(super) message: &'a str,
}

/// An error, with a word for programs and a sentence for people.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    json(status, &Info { code, message })
}

pub(super) fn full(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}
