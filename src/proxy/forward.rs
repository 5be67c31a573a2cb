//! Passing requests through untouched, for which a proof is needed that they carry no sealed record.

mod plain_body;

use bytes::Bytes;
use http::{Request, Response, header, request};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use self::plain_body::PlainBody;
use super::{
    Error, Proxy,
    call::{Caller, Stop, empty, full},
    registry::{Access, PlainStream, Purpose},
    respond,
    route::NotRecords,
};
use crate::{
    stream::{BasinName, StreamPath},
    upstream::{Body, Target},
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
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Stop> {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let target = basin.map_or(Target::Account, Target::Basin);
        let response = self.upstream.send(target, request).await;
        Ok(respond::relay(response.map_err(Error::from)?))
    }

    /// Forwards an append to a plain stream byte for byte, for as long as the stream stays plain: a
    /// body that is still on its way when the stream is made anew as a sealed one breaks off.
    pub(super) async fn forward_append(
        &self,
        proof: PlainStream,
        path: StreamPath,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Stop> {
        let basin = path.basin.clone();
        let registry = self.registry.clone();
        let request = request.map(|body| {
            let body = body.map_err(Into::into).boxed_unsync();
            PlainBody::new(body, proof, registry, path).boxed_unsync()
        });
        let target = Target::Basin(&basin);
        let response = self.upstream.send(target, request).await;
        Ok(respond::relay(response.map_err(Error::from)?))
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
        parts.headers.remove(header::CONTENT_ENCODING);
        let body = PlainBody::new(full(body), proof, self.registry.clone(), path.clone());
        let request = Request::from_parts(parts, body.boxed_unsync());
        let target = Target::Basin(&path.basin);
        let response = self.upstream.send(target, request).await;
        Ok(respond::relay(response.map_err(Error::from)?))
    }

    /// Forwards a read of a plain stream. A body is no part of it.
    pub(super) async fn forward_read(
        &self,
        _proof: PlainStream,
        path: &StreamPath,
        head: request::Parts,
    ) -> Result<Response<Body>, Stop> {
        let request = Request::from_parts(head, empty());
        let target = Target::Basin(&path.basin);
        let response = self.upstream.send(target, request).await;
        Ok(respond::relay(response.map_err(Error::from)?))
    }

    /// `GET /v1/streams/{stream}/records/tail`: moves no records, but may create the stream.
    pub(super) async fn tail(
        &self,
        path: StreamPath,
        request: Request<Incoming>,
        caller: &Caller,
    ) -> Result<Response<Body>, Stop> {
        // S2 takes no stream configuration here.
        let none = http::HeaderMap::new();
        let access = self.access(&path, Purpose::Read, &none, caller).await?;
        self.forward(TailOf(access).into(), Some(&path.basin), request)
            .await
    }
}
