//! Clients that close their half of an HTTP/1.1 connection. They get the answer to what they asked; but a read session
//! goes on as long as its client stays, and so ends soon after.
//!
//! A client that is gone closes its half just so. Every other answer ends by itself, within the time limits of its
//! request.

use std::{io, os::fd::OwnedFd, time::Duration};

use http::{Method, Response, Version};
use tokio::{io::Interest, net::TcpStream, sync::watch, time::sleep};

use crate::wire::media::Media;

/// Time for the rest of a read session whose client closed its half.
const REST: Duration = Duration::from_secs(5);

/// Whether a connection is answering with a read session over HTTP/1.1.
#[derive(Clone, Default)]
pub(super) struct ReadSessions(watch::Sender<bool>);

impl ReadSessions {
    /// Takes note of a request that arrives.
    pub(super) fn asked(&self) {
        self.0.send_replace(false);
    }

    /// Takes note of the head of the answer to a request of this version and method.
    pub(super) fn answered<B>(&self, version: Version, method: &Method, response: &Response<B>) {
        let media = Media::content_type(response.headers());
        let is_session = matches!(media, Some(Media::S2s | Media::EventStream));
        let is_read_session = is_session && version < Version::HTTP_2 && method == Method::GET;
        self.0.send_replace(is_read_session);
    }

    /// Waits until the connection of `socket` is broken, or the client of a read session has had [`REST`] since it
    /// closed its half.
    pub(super) async fn left(&self, socket: Option<OwnedFd>) {
        if let Some(socket) = socket
            && self.watch(socket).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    async fn watch(&self, socket: OwnedFd) -> io::Result<()> {
        let socket = TcpStream::from_std(socket.into())?;
        tokio::select! {
            // The HTTP library reads nothing while it answers, so it does not see a reset.
            broken = socket.ready(Interest::ERROR) => broken.map(drop),
            over = self.rest_is_over(&socket) => over,
        }
    }

    async fn rest_is_over(&self, socket: &TcpStream) -> io::Result<()> {
        let mut is_running = self.0.subscribe();
        loop {
            let running = is_running.wait_for(|is_running| *is_running).await;
            running.map_err(io::Error::other)?;
            closed_by_peer(socket).await?;
            sleep(REST).await;
            if *self.0.borrow() {
                return Ok(());
            }
        }
    }
}

/// Waits until the other side has closed its half. Reads nothing.
async fn closed_by_peer(socket: &TcpStream) -> io::Result<()> {
    loop {
        if socket.ready(Interest::READABLE).await?.is_read_closed() {
            return Ok(());
        }
        // Makes `ready` wait for the next event.
        let _would_block = socket.try_io(Interest::READABLE, || {
            Err::<(), _>(io::ErrorKind::WouldBlock.into())
        });
    }
}
