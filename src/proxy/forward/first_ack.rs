//! The answer to an append session of a plain stream, whose first ack says that the stream is written in clear.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::{
    registry::{PlainStream, Registry},
    stream::StreamPath,
    upstream::{Body, BoxError},
};

/// Bytes of a frame before its payload: its length and its flags.
const FRAME_HEAD: usize = 4;
/// The flag of a frame that ends the session with an error.
const TERMINAL: u8 = 0x80;

/// Passes an answer through and notes its first ack.
pub(super) struct FirstAck {
    inner: Body,
    /// Taken once the first frame came.
    waiting: Option<(PlainStream, Arc<Registry>, StreamPath)>,
}

impl FirstAck {
    pub(super) fn new(
        inner: Body,
        proof: PlainStream,
        registry: &Arc<Registry>,
        path: StreamPath,
    ) -> Self {
        Self {
            inner,
            waiting: Some((proof, Arc::clone(registry), path)),
        }
    }
}

impl http_body::Body for FirstAck {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
            && let Some((proof, registry, path)) = self.waiting.take()
            && let Some([_, _, _, flags]) = data.first_chunk::<FRAME_HEAD>()
            && flags & TERMINAL == 0
        {
            registry.saw_plain(&path, &proof, None);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
