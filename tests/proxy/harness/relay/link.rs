//! One relayed connection: a reader and a writer for each direction, and what its streams came to.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
};

use super::{
    CANCEL, Fault, Goaway, Last, Place, Shared,
    frame::{self, Http2Frame, PREFACE},
    stream::Streams,
};
use crate::harness::Way;

/// Bytes for a writer; `None` closes its half of the connection.
type Outbox = mpsc::UnboundedSender<Option<Bytes>>;

/// One connection.
pub(super) struct Link {
    shared: Arc<Shared>,
    to_server: Outbox,
    to_client: Outbox,
    held: watch::Sender<bool>,
    state: Mutex<Streams>,
}

impl Link {
    /// Relays a connection until both of its halves are closed.
    pub(super) async fn run(shared: Arc<Shared>, client: TcpStream, server: TcpStream) {
        let is_http2 = speaks_http2(&client).await;
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let (from_client, client) = client.into_split();
        let (from_server, server) = server.into_split();
        let (to_server, for_server) = mpsc::unbounded_channel();
        let (to_client, for_client) = mpsc::unbounded_channel();
        let link = Arc::new(Self {
            shared: Arc::clone(&shared),
            to_server,
            to_client,
            held: watch::Sender::default(),
            state: Mutex::default(),
        });
        shared.links.lock().unwrap().push(Arc::downgrade(&link));
        shared.stats().connections += 1;
        shared.stats().open += 1;
        let reading = async {
            tokio::join!(
                link.read(Way::Up, from_client, is_http2),
                link.read(Way::Down, from_server, is_http2),
            );
            std::future::pending::<()>().await;
        };
        let writing = async { tokio::join!(write(for_server, server), write(for_client, client)) };
        tokio::select! {
            () = reading => {}
            _ = writing => {}
        }
        shared.stats().open -= 1;
    }

    /// Closes both halves, behind what has passed.
    pub(super) fn close(&self) {
        self.send(Way::Up, None);
        self.send(Way::Down, None);
    }

    pub(super) fn hold(&self, hold: bool) {
        self.held.send_replace(hold);
    }

    /// Sends RST_STREAM with `code` in a direction, and RST_STREAM(CANCEL) in the other.
    pub(super) fn reset(&self, way: Way, code: u32, stream: u32) {
        self.state().stream(stream).is_reset = true;
        self.send(way, Some(frame::reset(stream, code)));
        self.send(way.back(), Some(frame::reset(stream, CANCEL)));
    }

    /// Sends GOAWAY in a direction, about `stream`.
    pub(super) fn goaway(&self, way: Way, goaway: Goaway, stream: u32) {
        let last = match goaway.last {
            Last::Below => stream.saturating_sub(2),
            Last::This => stream,
            Last::Highest => 0x7fff_ffff,
        };
        if way == Way::Down {
            self.state().last_processed = Some(last);
        }
        self.send(way, Some(frame::goaway(last, goaway.code)));
        if goaway.close {
            self.close();
        }
    }

    pub(super) fn last_opened(&self) -> u32 {
        self.state().last_opened
    }

    /// Reads a direction to its end.
    async fn read(&self, way: Way, from: OwnedReadHalf, is_http2: bool) {
        let _over = match is_http2 {
            true => self.read_frames(way, from).await,
            false => self.read_bytes(way, from).await,
        };
        self.not_held().await;
        self.send(way, None);
    }

    async fn read_frames(&self, way: Way, from: OwnedReadHalf) -> io::Result<()> {
        let mut from = tokio::io::BufReader::new(from);
        if way == Way::Up {
            from.read_exact(&mut [0; PREFACE.len()]).await?;
            self.send(way, Some(Bytes::from_static(PREFACE)));
        }
        loop {
            let frame = Http2Frame::read(&mut from).await?;
            self.not_held().await;
            let (delay, rest) = self.relay(way, frame);
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            if let Some(rest) = rest {
                // A hold may have begun.
                self.not_held().await;
                self.pass(way, rest);
            }
        }
    }

    async fn read_bytes(&self, way: Way, mut from: OwnedReadHalf) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        while let count @ 1.. = from.read(&mut buffer).await? {
            self.not_held().await;
            self.send(way, Some(Bytes::copy_from_slice(&buffer[..count])));
        }
        Ok(())
    }

    async fn not_held(&self) {
        let mut held = self.held.subscribe();
        drop(held.wait_for(|held| !held).await);
    }

    /// Relays one frame, but for what comes back: that passes after the time, if anything does.
    fn relay(&self, way: Way, mut frame: Http2Frame) -> (Duration, Option<Http2Frame>) {
        frame.count(self.shared.stats().of(way));
        let (front, found) = self.state().find(&self.shared, way, &mut frame);
        if let Some(front) = front {
            self.pass(way, front);
        }
        let Some((rule, remains)) = found else {
            return (Duration::ZERO, None);
        };
        self.shared.stats().fired += 1;
        let (stream, remains) = (frame.stream, remains.then_some(frame));
        match rule.fault {
            Fault::Reset(code) => {
                if let (Place::Opening, Some(head)) = (rule.at, &remains) {
                    // The head passes for the sake of header compression.
                    self.pass(way, head.clone().without_end());
                }
                self.reset(rule.way, code, stream);
                let data = remains.filter(Http2Frame::is_data);
                return (Duration::ZERO, data);
            }
            Fault::Goaway(goaway) => self.goaway(rule.way, goaway, stream),
            Fault::Cut => {
                self.close();
                return (Duration::ZERO, None);
            }
            Fault::Hold => self.hold(true),
            Fault::NoEnd => self.state().stream(stream).endless = Some(rule.way),
            Fault::Delay(delay) => return (delay, remains),
        }
        (Duration::ZERO, remains)
    }

    /// Passes a frame on, if its stream still has a receiver.
    fn pass(&self, way: Way, frame: Http2Frame) {
        let mut state = self.state();
        let is_unprocessed = state.last_processed.is_some_and(|last| frame.stream > last);
        let stream = state.stream(frame.stream);
        let is_lost = frame.stream != 0 && (is_unprocessed || stream.is_reset);
        if is_lost && frame.is_data() && !frame.payload.is_empty() {
            let window = frame::window_of_connection(frame.payload.len());
            self.send(way.back(), Some(window));
        }
        // Both ends must see every head, or header compression falls out of step.
        if is_lost && (is_unprocessed || !frame.is_head()) {
            return;
        }
        let is_endless = stream.endless == Some(way);
        let frame = if is_endless {
            frame.without_end()
        } else {
            frame
        };
        self.send(way, Some(frame.encode()));
    }

    fn send(&self, way: Way, bytes: Option<Bytes>) {
        let outbox = match way {
            Way::Up => &self.to_server,
            Way::Down => &self.to_client,
        };
        // The writer may be over already.
        let _closed = outbox.send(bytes);
    }

    fn state(&self) -> MutexGuard<'_, Streams> {
        self.state.lock().unwrap()
    }
}

impl Way {
    fn back(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// Whether a client's first bytes are those of HTTP/2.
async fn speaks_http2(client: &TcpStream) -> bool {
    let mut first = [0; 3];
    while let Ok(1..3) = client.peek(&mut first).await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    first == PREFACE[..3]
}

async fn write(mut outbox: mpsc::UnboundedReceiver<Option<Bytes>>, mut to: OwnedWriteHalf) {
    while let Some(Some(bytes)) = outbox.recv().await {
        if to.write_all(&bytes).await.is_err() {
            break;
        }
    }
    let _closed = to.shutdown().await;
}
