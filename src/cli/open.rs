//! A warning at start, and after a reload, for keys that nobody has to bring behind a listener that lets everybody in.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue, header};

use crate::{
    config::Config,
    server::Authenticate,
    telemetry::label::Operation,
    upstream::{self, Upstream},
};

/// What is wrong with a listener that everybody reaches, keys that nobody has to bring, and nobody who
/// asks who comes.
const OPEN: &str = "keys come from files or a key management service, nothing checks access tokens, and the listener is not on loopback: \
                    whoever reaches the listener can read those streams";

/// To be called when keys are the operator's: says so in the log if nobody asks who comes.
pub(super) fn warn_if_open(config: &Config, address: SocketAddr, upstream: &Upstream) {
    if address.ip().is_loopback() {
        return;
    }
    match config.listen.authenticate {
        Authenticate::Upstream => {
            tokio::spawn(warn_of_open_upstream(upstream.clone()));
        }
        Authenticate::None => tracing::warn!("{OPEN}"),
        Authenticate::Mtls | Authenticate::ApiKey => {}
    }
}

/// With the operator's keys the upstream alone decides who may read. One that takes any token lets
/// everybody read who reaches the listener.
async fn warn_of_open_upstream(upstream: Upstream) {
    let mut request = http::Request::new(empty());
    *request.uri_mut() = http::Uri::from_static("/v1/basins?limit=1");
    let mut headers = HeaderMap::new();
    let nobody = HeaderValue::from_static("Bearer streamseal-start-up-probe");
    headers.insert(header::AUTHORIZATION, nobody);
    *request.headers_mut() = headers;
    request.extensions_mut().insert(Operation::Basin);
    match upstream.send(upstream::Target::Account, request).await {
        Ok(response) if response.status().is_success() => tracing::warn!("{OPEN}"),
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(%error, "cannot ask the upstream whether it checks access tokens")
        }
    }
}

/// A body without bytes.
pub(super) fn empty() -> upstream::Body {
    use http_body_util::BodyExt as _;
    http_body_util::Empty::new()
        .map_err(|never| match never {})
        .boxed_unsync()
}
