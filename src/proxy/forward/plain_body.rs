//! The body of an append to a plain stream, which ends when the stream is no longer plain.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};

use crate::{
    registry::{Error, PlainStream, Registry},
    stream::StreamPath,
    upstream::{self, BoxError},
};

/// Forwards what a client sends, frame by frame. Before each frame, and before the end, it makes sure
/// that nothing changed since the stream was looked up, and looks again if something did.
pub(super) struct PlainBody {
    inner: upstream::Body,
    proof: PlainStream,
    registry: Arc<Registry>,
    path: StreamPath,
    /// A look under way, and what waits for it.
    look: Option<(Look, Option<Frame<Bytes>>)>,
}

type Look = BoxFuture<'static, Result<Option<PlainStream>, Error>>;

/// The stream was plain when the append began, and is not any more.
#[derive(Debug, thiserror::Error)]
#[error("the stream is no longer the plain one that this append began on")]
struct NoLongerPlain;

impl PlainBody {
    pub(super) fn new(
        inner: upstream::Body,
        proof: PlainStream,
        registry: Arc<Registry>,
        path: StreamPath,
    ) -> Self {
        Self {
            inner,
            proof,
            registry,
            path,
            look: None,
        }
    }

    fn look_again(&self) -> Look {
        let (registry, path) = (Arc::clone(&self.registry), self.path.clone());
        let proof = self.proof;
        Box::pin(async move { registry.still_plain(&path, &proof).await })
    }
}

impl Body for PlainBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.look.is_none() {
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => Some(frame),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => None,
            };
            if self.proof.is_fresh(&self.registry) {
                return Poll::Ready(frame.map(Ok));
            }
            let look = self.look_again();
            self.look = Some((look, frame));
        }
        let Some((look, _)) = &mut self.look else {
            return Poll::Ready(None);
        };
        let looked = ready!(look.as_mut().poll(cx));
        let frame = self.look.take().and_then(|(_, frame)| frame);
        match looked {
            Ok(Some(proof)) => {
                self.proof = proof;
                Poll::Ready(frame.map(Ok))
            }
            Ok(None) => Poll::Ready(Some(Err(NoLongerPlain.into()))),
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.look.is_none() && self.inner.is_end_stream() && self.proof.is_fresh(&self.registry)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
