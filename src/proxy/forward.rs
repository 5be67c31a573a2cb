//! Passing requests through untouched, for which a proof is needed that they carry no sealed record.

mod bound;
mod first_ack;
mod plain_body;
mod unknown;

use crate::received::ReceivedBody;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header, request};
use http_body_util::BodyExt as _;

use self::{bound::bound, first_ack::FirstAck, plain_body::PlainBody};
use super::{
    Error, Proxy,
    call::{Caller, Stop, empty, full},
    gate::{Principal, Tenure},
    respond::{self, Asked},
    route::{Forwarded, NotRecords, takes_body},
};
use crate::{
    project::Scope,
    registry::{Access, PlainStream, Purpose},
    stream::{BasinName, StreamPath},
    upstream::{Body, Target},
    wire::media::Media,
};

/// Why a request without records may be forwarded as it is. There is no other way to make one than
/// from a proof.
pub struct Untouched(());

impl From<NotRecords> for Untouched {
    fn from(_: NotRecords) -> Self {
        Self(())
    }
}

/// Checking the tail moves no record, whatever the stream.
struct TailOf(#[expect(dead_code, reason = "the proof is that it was looked up")] Access);

impl From<TailOf> for Untouched {
    fn from(_: TailOf) -> Self {
        Self(())
    }
}

impl Proxy {
    /// Forwards a request byte for byte, and the answer likewise.
    pub(super) async fn forward(
        &self,
        _proof: Untouched,
        basin: Option<&BasinName>,
        request: Request<Body>,
    ) -> Result<Response<Body>, Stop> {
        let target = basin.map_or(Target::Account, Target::Basin);
        let response = self.upstream.send(target, request).await;
        Ok(respond::relay(response.map_err(Error::from)?))
    }

    /// The same request, whose body breaks off when the API key is over that allows the change which it is. Where
    /// S2 takes no body, none goes along.
    pub(super) fn bound_by_api_key(
        &self,
        request: Request<ReceivedBody>,
        forwarded: &Forwarded,
        caller: &Caller,
        asked: &Asked,
    ) -> Request<Body> {
        let tenure = match forwarded {
            Forwarded::ReconfigureStream(path) => self.tenure(caller, Scope::Manage, path),
            Forwarded::Basins
            | Forwarded::StreamConfiguration(_)
            | Forwarded::StreamMetrics(_)
            | Forwarded::BasinMetrics(_)
            | Forwarded::AccessTokens
            | Forwarded::Account
            | Forwarded::Liveness
            | Forwarded::Options(_) => Tenure::endless(),
        };
        match takes_body(request.method()) {
            true => request.map(|body| bound(unbound(body), &tenure, asked)),
            false => request.map(|_| empty()),
        }
    }

    /// Forwards an append to a plain stream byte for byte, for as long as the stream stays plain: a
    /// body that is still on its way when the stream is made anew as a sealed one breaks off. So does what is
    /// on its way when the API key is over.
    pub(super) async fn forward_append(
        &self,
        proof: PlainStream,
        path: StreamPath,
        request: Request<ReceivedBody>,
        caller: &Caller,
        asked: &Asked,
    ) -> Result<Response<Body>, Stop> {
        self.allow_plain(&path, &proof, request.headers())?;
        self.count_plain(&path);
        let tenure = self.tenure(caller, Scope::Append, &path);
        let registry = self.registry.clone();
        let request = request.map(|body| {
            let body = PlainBody::new(unbound(body), proof, registry, path.clone());
            bound(body.boxed_unsync(), &tenure, asked)
        });
        let target = Target::Basin(&path.basin);
        let response = self.upstream.send(target, request).await;
        let answer = respond::relay(response.map_err(Error::from)?);
        Ok(match is_session(&answer) {
            true => answer.map(|body| {
                let body = FirstAck::new(body, proof, &self.registry, path);
                bound(body.boxed_unsync(), &tenure, asked)
            }),
            // Whatever it says of the append, the client had better know.
            false => self.note_plain(&path, &proof, answer),
        })
    }

    /// Forwards an append to a plain stream whose body is already in memory, decompressed; it, too, only
    /// while the stream stays plain.
    pub(super) async fn forward_read_body(
        &self,
        proof: PlainStream,
        path: &StreamPath,
        mut parts: request::Parts,
        body: Bytes,
    ) -> Result<Response<Body>, Stop> {
        self.allow_plain(path, &proof, &parts.headers)?;
        self.count_plain(path);
        parts.headers.remove(header::CONTENT_ENCODING);
        let body = PlainBody::new(full(body), proof, self.registry.clone(), path.clone());
        let request = Request::from_parts(parts, body.boxed_unsync());
        let target = Target::Basin(&path.basin);
        let response = self.upstream.send(target, request).await;
        let answer = respond::relay(response.map_err(Error::from)?);
        Ok(self.note_plain(path, &proof, answer))
    }

    /// Notes an acknowledged append to a plain stream.
    fn note_plain(
        &self,
        path: &StreamPath,
        proof: &PlainStream,
        answer: Response<Body>,
    ) -> Response<Body> {
        if answer.status() == StatusCode::OK {
            self.registry.saw_plain(path, proof, None);
        }
        answer
    }

    /// Forwards a read of a plain stream, for as long as its API key is good. A body is no part of it.
    pub(super) async fn forward_read(
        &self,
        proof: PlainStream,
        path: &StreamPath,
        head: request::Parts,
        caller: &Caller,
        asked: &Asked,
    ) -> Result<Response<Body>, Stop> {
        self.allow_plain(path, &proof, &head.headers)?;
        let request = Request::from_parts(head, empty());
        let target = Target::Basin(&path.basin);
        let tenure = self.tenure(caller, Scope::Read, path);
        let sent = async { Ok(self.upstream.send(target, request).await?) };
        let answer = respond::relay(tenure.within::<_, Error>(sent).await?);
        // The tenure looks now and then only.
        let allowed = |caller: &Principal| caller.allow_stream(Scope::Read, path);
        self.still(caller, allowed).await?;
        Ok(answer.map(|body| bound(body, &tenure, asked)))
    }

    /// `GET /v1/streams/{stream}/records/tail`: moves no records, but may create the stream.
    pub(super) async fn tail(
        &self,
        path: StreamPath,
        request: Request<ReceivedBody>,
        caller: &Caller,
    ) -> Result<Response<Body>, Stop> {
        // S2 takes no stream configuration here.
        let none = http::HeaderMap::new();
        let access = self.access(&path, Purpose::Read, &none, caller).await?;
        let request = request.map(|_| empty());
        let tenure = self.tenure(caller, Scope::Read, &path);
        let forwarded = self.forward(TailOf(access).into(), Some(&path.basin), request);
        tenure.within(forwarded).await
    }
}

fn unbound(body: ReceivedBody) -> Body {
    body.map_err(Into::into).boxed_unsync()
}

/// Whether it goes on for as long as both sides keep it.
fn is_session(answer: &Response<Body>) -> bool {
    match Media::content_type(answer.headers()) {
        Some(Media::Json | Media::Proto) => false,
        // What it is not known to be, it may be.
        Some(Media::S2s | Media::EventStream) | None => true,
    }
}
