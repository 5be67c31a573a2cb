//! Calls that S2's v1 API does not have, which pass only with `upstream.forward_unknown`.
//!
//! Nothing is known of such a call but its basin, so a body passes only to a basin where no record is sealed.
//!
//! | request | forwarded |
//! |---|---|
//! | goes up with a token of the proxy's own | no: it could do anything with it |
//! | without a body | yes |
//! | with a body and an encryption key | no: the client believes that it is encrypted |
//! | with a body, names no basin | no: it could be for any |
//! | with a body, names a basin where a record is or would be sealed, also in path or query | no |
//! | with a body, names a plain basin | yes |

use crate::received::ReceivedBody;
use http::{HeaderMap, Request, Response, Uri, header, uri::PathAndQuery};

use super::Untouched;
use crate::{
    body,
    keys::KEY_HEADER,
    proxy::{
        Error, Proxy,
        call::{Caller, Stop, empty, full},
        control,
        registry::PlainBasin,
        route::{Need, words},
    },
    stream::BasinName,
    upstream::Body,
};

/// Most basin names that are looked for in one path and query.
const MAX_NAMES: usize = 64;

impl From<PlainBasin> for Untouched {
    fn from(_: PlainBasin) -> Self {
        Self(())
    }
}

/// Proof that a request has no body.
struct NoBody(());

impl From<NoBody> for Untouched {
    fn from(_: NoBody) -> Self {
        Self(())
    }
}

impl Proxy {
    /// Forwards a call that S2's v1 API does not have, unless its body could be records of a sealed stream. The
    /// body is read whole before: its basin must be plain at the moment in which it is sent.
    pub(in crate::proxy) async fn forward_unknown(
        &self,
        basin: Option<BasinName>,
        request: Request<ReceivedBody>,
        caller: &Caller,
    ) -> Result<Response<Body>, Stop> {
        let (mut parts, body) = request.into_parts();
        if hyper::body::Body::is_end_stream(&body) {
            let request = Request::from_parts(parts, empty());
            return self
                .forward(NoBody(()).into(), basin.as_ref(), request)
                .await;
        }
        let room = self.budget.whole_body();
        let body = body::collect(&parts.headers, body, &room, &self.drain);
        let body = body
            .await
            .map_err(|error| control::collect_error(error, Error::Invalid))?;
        parts.headers.remove(header::CONTENT_ENCODING);
        // A reload may have given the proxy a token of its own while the body arrived.
        self.allow_without_right(caller.principal(), Need::Unknown)?;
        let proof = self
            .unknown_body(basin.as_ref(), &parts.uri, &parts.headers)
            .await?;
        let request = Request::from_parts(parts, full(body));
        self.forward(proof.into(), basin.as_ref(), request).await
    }

    /// Looks up every basin that the request names. Returns the proof for the one that the request is for.
    async fn unknown_body(
        &self,
        basin: Option<&BasinName>,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<PlainBasin, Error> {
        if headers.get(KEY_HEADER).is_some_and(|key| !key.is_empty()) {
            return Err(refused(
                "it has an encryption key, and would not be encrypted",
            ));
        }
        let Some(basin) = basin else {
            return Err(refused("it names no basin; send the header `s2-basin`"));
        };
        let path = uri.path_and_query().map_or("", PathAndQuery::as_str);
        let mut named: Vec<BasinName> = words(path).iter().filter_map(|w| w.parse().ok()).collect();
        named.sort_unstable();
        named.dedup();
        if named.len() > MAX_NAMES {
            return Err(refused("its path names too much"));
        }
        for name in &named {
            self.plain_basin(name).await?;
        }
        self.plain_basin(basin).await
    }

    async fn plain_basin(&self, basin: &BasinName) -> Result<PlainBasin, Error> {
        let proof = self.registry.plain_basin(basin).await?;
        proof.ok_or_else(|| {
            refused(&format!(
                "basin `{basin}` has, or may have, encrypted streams"
            ))
        })
    }
}

fn refused(reason: &str) -> Error {
    Error::NotAllowed(format!(
        "a body of a call that this proxy does not know is not forwarded (upstream.forward_unknown): {reason}"
    ))
}
