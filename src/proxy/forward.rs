//! Passing requests through untouched, for which a proof is needed that they carry no sealed record.

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{
    Error, Proxy,
    call::{Caller, Stop},
    registry::{Access, PlainStream, Purpose},
    respond,
    route::NotRecords,
};
use crate::{
    stream::{BasinName, StreamPath},
    upstream::{Body, Target},
};

/// Why a request may be forwarded as it is. There is no other way to make one than from a proof.
pub struct Untouched(());

impl From<NotRecords> for Untouched {
    fn from(_: NotRecords) -> Self {
        Self(())
    }
}

impl From<PlainStream> for Untouched {
    fn from(_: PlainStream) -> Self {
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
        let target = basin.map_or(Target::Account, Target::Basin);
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let response = self
            .upstream
            .send(target, request)
            .await
            .map_err(Error::from)?;
        Ok(respond::relay(response))
    }

    /// Forwards a read of a plain stream whose body, if it had one, is dropped.
    pub(super) async fn forward_read(
        &self,
        _proof: Untouched,
        path: &StreamPath,
        request: Request<Body>,
    ) -> Result<Response<Body>, Stop> {
        let target = Target::Basin(&path.basin);
        let response = self
            .upstream
            .send(target, request)
            .await
            .map_err(Error::from)?;
        Ok(respond::relay(response))
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
