//! The status page: one file without any data in it, which asks the admin API for what it shows.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Response, StatusCode, header};

use super::answer;
use crate::upstream::Body;

const PAGE: &str = include_str!("page.html");

/// What stands in the page for the value that lets its own script and style run, and nothing else.
const NONCE: &str = "{{nonce}}";

/// The page, with a policy that lets it load nothing and talk to nobody but this listener.
pub(super) fn answer() -> Response<Body> {
    let nonce = STANDARD.encode(rand::random::<[u8; 18]>());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let page = PAGE.replace(NONCE, &nonce);
    let mut response = answer::text(StatusCode::OK, "text/html; charset=utf-8", page);
    match HeaderValue::try_from(policy) {
        Ok(policy) => {
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
            response
        }
        Err(_) => answer::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the page has no policy",
        ),
    }
}
