//! A relay for HTTP/2 in the clear that reads frames, counts them, and breaks streams and connections as a
//! test says. It stands between proxy and store, or between client and a plaintext proxy. Connections that
//! speak anything else pass as bytes; they can be cut and held, too.
//!
//! A [`Rule`] names a direction, a place in a stream and a fault. It applies to the next stream that a client
//! opens ([`Relay::set`]) or to every new one ([`Relay::set_for_all`]). HPACK is not read: a test knows its
//! streams by the order in which they are opened.

mod frame;
mod link;
mod stream;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use streamseal::config::Config;
use tokio::net::{TcpListener, TcpStream};

use self::link::Link;
use super::Way;

/// Every error code of RFC 9113 section 7, NO_ERROR first.
pub const RESET_CODES: std::ops::Range<u32> = 0..14;
/// RFC 9113's codes that tests name.
pub const NO_ERROR: u32 = 0x0;
pub const CANCEL: u32 = 0x8;

/// What happens to one stream.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The direction whose frames are counted. Its receiver sees the fault.
    pub way: Way,
    /// Where in the stream.
    pub at: Place,
    /// What happens there.
    pub fault: Fault,
}

/// A place in one direction of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At the request's HEADERS, before they pass. Belongs to both directions.
    Opening,
    /// Behind HEADERS.
    Head,
    /// Behind this many DATA frames, 1 or more. The END_STREAM of the last one does not pass.
    Frames(usize),
    /// Behind this many bytes of DATA, 1 or more. A frame that holds more is split; an END_STREAM at the place
    /// does not pass.
    Bytes(usize),
    /// Behind this many S2S frames, and so many bytes of the next. DATA is split as for [`Place::Bytes`].
    Messages(usize, usize),
    /// Behind END_STREAM.
    End,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The receiver gets RST_STREAM with this code, the sender gets RST_STREAM(CANCEL). No DATA of the stream
    /// passes after it.
    Reset(u32),
    /// The receiver gets GOAWAY.
    Goaway(Goaway),
    /// Both TCP connections are closed, behind what has passed.
    Cut,
    /// Nothing passes on the connection until [`Relay::release`], and it stays open.
    Hold,
    /// END_STREAM does not pass. The stream stays open.
    NoEnd,
    /// The direction stands still for this long, for all streams of the connection.
    Delay(Duration),
}

/// A GOAWAY frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goaway {
    /// What it says of the stream.
    pub last: Last,
    /// Its error code.
    pub code: u32,
    /// Whether the connection is closed behind it.
    pub close: bool,
}

/// The last stream id of a GOAWAY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// Below the stream, which was not processed: nothing of it passes. Only true at [`Place::Opening`].
    Below,
    /// The stream itself, which goes on. Later ones are not processed.
    This,
    /// The highest there is: the first half of a graceful shutdown (RFC 9113 section 6.8).
    Highest,
}

/// What a relay counted, without what it sent by itself.
#[derive(Debug, Clone, Default)]
pub struct RelayStats {
    /// Connections that clients opened.
    pub connections: usize,
    /// How many of them are open now.
    pub open: usize,
    /// Rules that found their place.
    pub fired: usize,
    /// What the client sent.
    pub up: FrameCounts,
    /// What the server sent.
    pub down: FrameCounts,
}

/// Frames of one direction of all connections.
#[derive(Debug, Clone, Default)]
pub struct FrameCounts {
    pub headers: usize,
    pub data: usize,
    /// Bytes of DATA.
    pub bytes: usize,
    /// Streams that ended with END_STREAM.
    pub ends: usize,
    /// The code of each RST_STREAM.
    pub resets: Vec<u32>,
    /// Last stream id and code of each GOAWAY.
    pub goaways: Vec<(u32, u32)>,
    pub pings: usize,
}

/// The relay. It stops with the test's runtime. Clones are the same relay.
#[derive(Clone)]
pub struct Relay {
    /// Where the client connects.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    next: Mutex<Vec<Rule>>,
    for_all: Mutex<Option<Rule>>,
    stats: Mutex<RelayStats>,
    links: Mutex<Vec<Weak<Link>>>,
}

impl Relay {
    /// Relays to `to`.
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let relayed = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(to).await {
                    tokio::spawn(Link::run(Arc::clone(&relayed), client, server));
                }
            }
        });
        Self { address, shared }
    }

    /// Makes it the upstream of a proxy.
    pub fn aim(&self, config: &mut Config) {
        let endpoint = format!("http://{}", self.address);
        config.upstream.account_endpoint = endpoint.clone();
        config.upstream.basin_endpoint = endpoint;
    }

    /// Applies `rule` to the next stream that is opened. Several wait in line.
    pub fn set(&self, rule: Rule) {
        self.shared.next.lock().unwrap().push(rule);
    }

    /// Applies `rule` to every stream opened from now on that has no rule of its own.
    pub fn set_for_all(&self, rule: Rule) {
        *self.shared.for_all.lock().unwrap() = Some(rule);
    }

    /// Forgets the rules that no stream has yet.
    pub fn clear(&self) {
        self.shared.next.lock().unwrap().clear();
        *self.shared.for_all.lock().unwrap() = None;
    }

    /// Closes every open connection. New ones pass.
    pub fn cut(&self) {
        self.each(Link::close);
    }

    /// Lets nothing pass on the connections that are open now, which stay open. New ones pass.
    pub fn hold(&self) {
        self.each(|link| link.hold(true));
    }

    /// Lets everything pass that was held.
    pub fn release(&self) {
        self.each(|link| link.hold(false));
    }

    /// Sends RST_STREAM with `code` in a direction, and RST_STREAM(CANCEL) in the other, for the stream that was
    /// opened last on each open connection.
    pub fn reset(&self, way: Way, code: u32) {
        self.each(|link| link.reset(way, code, link.last_opened()));
    }

    /// Sends GOAWAY to the client of every open connection. `Last::This` is the last stream that it opened.
    pub fn goaway(&self, goaway: Goaway) {
        self.each(|link| link.goaway(Way::Down, goaway, link.last_opened()));
    }

    /// What was counted so far.
    pub fn stats(&self) -> RelayStats {
        self.shared.stats().clone()
    }

    fn each(&self, act: impl Fn(&Link)) {
        let mut links = self.shared.links.lock().unwrap();
        links.retain(|link| link.strong_count() > 0);
        links
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|link| act(&link));
    }
}

impl Shared {
    fn stats(&self) -> MutexGuard<'_, RelayStats> {
        self.stats.lock().unwrap()
    }

    /// The rule for a stream that is being opened.
    fn rule(&self) -> Option<Rule> {
        let mut next = self.next.lock().unwrap();
        match next.is_empty() {
            true => *self.for_all.lock().unwrap(),
            false => Some(next.remove(0)),
        }
    }
}

impl RelayStats {
    fn of(&mut self, way: Way) -> &mut FrameCounts {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}
