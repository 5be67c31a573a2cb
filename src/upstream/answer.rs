//! The content types in which an answer of the upstream may reach a client: no browser runs them.
//!
//! S2 answers in five types. A page or a script, shown under the proxy's name, could read decrypted records with
//! what the browser sends along. So the types that pass are a list.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::{Error, body::ResponseBody};

/// Types that pass; so does every `application/…+json`. S2 has all but the last, which is nothing to a browser.
const PASSIVE: [&str; 7] = [
    "application/json",
    "application/protobuf",
    "application/x-protobuf",
    "s2s/proto",
    "text/event-stream",
    "text/plain",
    "application/octet-stream",
];

/// Longest wait for the end of a body of no type: an empty one ends with the head of its answer, or right behind.
const EMPTY_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns true if an answer may reach a client. An answer without a type must have no body.
///
/// # Errors
/// The answer breaks off.
pub(super) async fn is_passive(
    headers: &HeaderMap,
    body: &mut ResponseBody,
) -> Result<bool, Error> {
    let types = headers.get_all(header::CONTENT_TYPE);
    if types.iter().next().is_some() {
        return Ok(types.iter().all(all_passive));
    }
    let empty = tokio::time::timeout(EMPTY_BODY_TIMEOUT, is_empty(body));
    empty.await.unwrap_or(Ok(false))
}

async fn is_empty(body: &mut ResponseBody) -> Result<bool, Error> {
    while !body.is_end_stream() {
        match body.frame().await.transpose()? {
            None => break,
            Some(frame) if frame.data_ref().is_some_and(|data| !data.is_empty()) => {
                return Ok(false);
            }
            Some(_) => {}
        }
    }
    Ok(true)
}

/// Returns true if every type in a header value passes: browsers use the last of a list.
fn all_passive(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else {
        return false;
    };
    text.split(',').all(|one| {
        let essence = one.split(';').next().unwrap_or_default().trim();
        let essence = essence.to_ascii_lowercase();
        let is_json = || essence.starts_with("application/") && essence.ends_with("+json");
        PASSIVE.contains(&&*essence) || is_json()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_s2_pass_and_no_other() {
        for (value, passes) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/problem+json", true),
            ("text/plain; version=0.0.4", true),
            ("text/event-stream", true),
            ("s2s/proto", true),
            ("application/octet-stream", true),
            ("text/html", false),
            ("text/plain, text/html", false),
            ("text/html;application/json", false),
            ("text/html+json", false),
            ("application/xhtml+xml", false),
            ("application/javascript", false),
            ("image/svg+xml", false),
            ("", false),
            (",", false),
            ("json", false),
        ] {
            let value = HeaderValue::from_static(value);
            assert_eq!(all_passive(&value), passes, "{value:?}");
        }
        assert!(!all_passive(
            &HeaderValue::from_bytes(b"text/plain\xff").unwrap()
        ));
    }
}
