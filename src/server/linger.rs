//! Closing an HTTP/1.1 connection so that a client that is still sending reads the answer all the same.
//!
//! A request may be refused before its body has arrived. A socket that is closed with bytes unread resets
//! the connection, and the client then finds its own sending broken instead of the answer. So only our half
//! is closed, and what still arrives is thrown away for a while: below TLS, undecrypted.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Version};
use hyper::body::Body;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Longest wait for the client to close its half: what nginx waits between two reads.
const LINGER: Duration = Duration::from_secs(5);
/// Most bytes thrown away: the largest body that is taken, and as much again for its encoding and TLS.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Bytes thrown away at once.
const CHUNK: usize = 16 * 1024;

/// A connection's bytes, closed in this way if the last request had a body.
pub(super) struct Lingering<I> {
    io: I,
    body: LastBody,
    closing: Closing,
}

/// Whether the last request of a connection had a body that may not have been read.
#[derive(Clone, Default)]
pub(super) struct LastBody(Arc<AtomicBool>);

enum Closing {
    Open,
    Reading { until: Pin<Box<Sleep>>, left: usize },
    Closed,
}

impl<I> Lingering<I> {
    pub(super) fn new(io: I) -> Self {
        Self {
            io,
            body: LastBody::default(),
            closing: Closing::Open,
        }
    }

    /// Where requests are noted.
    pub(super) fn body(&self) -> LastBody {
        self.body.clone()
    }
}

impl<I: AsFd> Lingering<I> {
    /// The socket once more, to look at it while the connection is in use. `None` when the system has no room for it.
    pub(super) fn socket(&self) -> Option<OwnedFd> {
        self.io.as_fd().try_clone_to_owned().ok()
    }
}

impl LastBody {
    /// Takes note of a request as it arrives. HTTP/2 ends single requests without the connection.
    pub(super) fn note<B: Body>(&self, request: &Request<B>) {
        let has_body = request.version() < Version::HTTP_2 && !request.body().is_end_stream();
        self.0.store(has_body, Ordering::Relaxed);
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Lingering<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            this.closing = match &mut this.closing {
                Closing::Open => {
                    ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
                    match this.body.0.load(Ordering::Relaxed) {
                        true => Closing::Reading {
                            until: Box::pin(sleep(LINGER)),
                            left: MAX_BYTES,
                        },
                        false => Closing::Closed,
                    }
                }
                Closing::Reading { until, left } => {
                    if until.as_mut().poll(cx).is_ready() {
                        Closing::Closed
                    } else {
                        // Whatever the failure, the client has nothing more to say.
                        match ready!(poll_discard(&mut this.io, cx)).unwrap_or(0) {
                            0 => Closing::Closed,
                            bytes if bytes >= *left => Closing::Closed,
                            bytes => {
                                *left -= bytes;
                                continue;
                            }
                        }
                    }
                }
                Closing::Closed => return Poll::Ready(Ok(())),
            };
        }
    }
}

/// Reads some bytes and forgets them. None are left at the end.
fn poll_discard(
    io: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut chunk = [MaybeUninit::uninit(); CHUNK];
    let mut into = ReadBuf::uninit(&mut chunk);
    ready!(Pin::new(io).poll_read(cx, &mut into))?;
    Poll::Ready(Ok(into.filled().len()))
}

#[cfg(test)]
mod tests {
    use http_body_util::{Empty, Full};
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    fn after(version: Version, body: impl Body) -> (Lingering<DuplexStream>, DuplexStream) {
        let (io, client) = duplex(CHUNK);
        let io = Lingering::new(io);
        let mut request = Request::new(body);
        *request.version_mut() = version;
        io.body().note(&request);
        (io, client)
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_body_over_http1_is_waited_for_and_not_for_ever() {
        let began = tokio::time::Instant::now();
        let body = Full::new(&b"body"[..]);
        let (mut io, _client) = after(Version::HTTP_2, body);
        io.shutdown().await.unwrap();
        let (mut io, _client) = after(Version::HTTP_11, Empty::<&[u8]>::new());
        io.shutdown().await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
        let (mut io, _client) = after(Version::HTTP_11, body);
        io.shutdown().await.unwrap();
        assert!((LINGER..LINGER * 2).contains(&began.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_stops_is_left_at_the_limit() {
        let began = tokio::time::Instant::now();
        let (mut io, mut client) = after(Version::HTTP_11, Full::new(&b"body"[..]));
        let sending = tokio::spawn(async move {
            let mut sent = 0;
            while let Ok(bytes) = client.write(&[0; CHUNK]).await {
                sent += bytes;
            }
            sent
        });
        io.shutdown().await.unwrap();
        drop(io);
        let sent = sending.await.unwrap();
        assert!((MAX_BYTES..MAX_BYTES + 2 * CHUNK).contains(&sent), "{sent}");
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
