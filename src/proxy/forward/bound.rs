//! A body that passes through for as long as the API key is good that it came with.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;

use crate::{
    proxy::{Error, exchange::Exchange, gate::Tenure, respond::Asked},
    upstream::{Body, BoxError},
};

/// The body, broken off when `tenure` is over before it.
pub(super) fn bound(body: Body, tenure: &Tenure, asked: &Asked) -> Body {
    if tenure.is_endless() || body.is_end_stream() {
        return body;
    }
    let tenure = tenure.clone();
    let body = Bound {
        inner: body,
        over: Some(Box::pin(async move { tenure.over().await })),
        exchange: Arc::clone(&asked.exchange),
    };
    body.boxed_unsync()
}

struct Bound {
    inner: Body,
    /// Nothing once it was so.
    over: Option<BoxFuture<'static, Error>>,
    exchange: Arc<Exchange>,
}

impl http_body::Body for Bound {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // First, for a body that always has more would never let it be looked at.
        let Some(over) = &mut self.over else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(error) = over.as_mut().poll(cx) {
            self.over = None;
            self.exchange.failed(&error);
            return Poll::Ready(Some(Err(error.into())));
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
