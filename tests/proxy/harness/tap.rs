//! A TCP relay between proxy and upstream that keeps every byte of both directions, and that can hold
//! them back or cut them off.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// The relay. Clones see the same bytes.
#[derive(Clone)]
pub struct Tap {
    /// Where the proxy connects.
    pub address: SocketAddr,
    wire: Arc<Wire>,
}

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the proxy to the upstream.
    Up,
    /// From the upstream to the proxy.
    Down,
}

#[derive(Default)]
struct Wire {
    /// What went through each connection in each direction.
    lanes: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    up: Direction,
    down: Direction,
    cuts: watch::Sender<usize>,
    open: watch::Sender<usize>,
}

#[derive(Default)]
struct Direction {
    bytes: AtomicUsize,
    /// Holds once `bytes` gets here; 0 for never.
    limit: AtomicUsize,
    held: watch::Sender<bool>,
}

impl Tap {
    /// Relays to `upstream`.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tap = Self {
            address: listener.local_addr().unwrap(),
            wire: Arc::default(),
        };
        let wire = Arc::clone(&tap.wire);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(upstream).await {
                    wire.open.send_modify(|open| *open += 1);
                    tokio::spawn(Arc::clone(&wire).join(client, server));
                }
            }
        });
        tap
    }

    /// Every byte so far, of all connections in both directions.
    pub fn bytes(&self) -> Vec<u8> {
        let lanes = self.wire.lanes.lock().unwrap();
        lanes
            .iter()
            .flat_map(|lane| lane.lock().unwrap().clone())
            .collect()
    }

    /// Every byte since the last time, by connection and direction. No connection may be open.
    pub fn drain(&self) -> Vec<Vec<u8>> {
        assert_eq!(*self.wire.open.borrow(), 0, "connections are open");
        let lanes = std::mem::take(&mut *self.wire.lanes.lock().unwrap());
        let bytes = |lane: Arc<Mutex<Vec<u8>>>| std::mem::take(&mut *lane.lock().unwrap());
        lanes.into_iter().map(bytes).collect()
    }

    /// How many bytes came from the upstream so far.
    pub fn answered(&self) -> usize {
        self.wire.down.bytes.load(Ordering::SeqCst)
    }

    /// Whether these bytes went over the wire.
    pub fn saw(&self, needle: &[u8]) -> bool {
        let lanes = self.wire.lanes.lock().unwrap();
        lanes
            .iter()
            .any(|lane| contains(&lane.lock().unwrap(), needle))
    }

    /// Takes nothing more from the proxy, or goes on.
    pub fn hold(&self, hold: bool) {
        self.wire.up.hold(hold);
    }

    /// Holds this direction from the moment on that so many more bytes came.
    pub fn hold_after(&self, way: Way, bytes: usize) {
        let direction = self.wire.direction(way);
        let limit = direction.bytes.load(Ordering::SeqCst) + bytes.max(1);
        direction.limit.store(limit, Ordering::SeqCst);
    }

    /// Waits until a direction is held.
    pub async fn held(&self, way: Way) {
        let mut held = self.wire.direction(way).held.subscribe();
        drop(held.wait_for(|held| *held).await);
    }

    /// Holds nothing any more.
    pub fn release(&self) {
        self.wire.up.hold(false);
        self.wire.down.hold(false);
    }

    /// Cuts every connection that is open now; new ones come through.
    pub fn cut(&self) {
        self.wire.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Waits until no connection is open.
    pub async fn idle(&self) {
        let mut open = self.wire.open.subscribe();
        let idle = open.wait_for(|open| *open == 0);
        let idle = tokio::time::timeout(super::DEADLINE, idle).await;
        idle.expect("connections stay open").unwrap();
    }
}

/// Whether `needle` stands somewhere in `haystack`.
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    assert!(needle.len() >= 4, "too short to mean anything");
    memchr::memmem::find(haystack, needle).is_some()
}

impl Direction {
    fn hold(&self, hold: bool) {
        self.limit.store(0, Ordering::SeqCst);
        self.held.send_replace(hold);
    }

    /// Counts bytes, and holds them when they are the ones that it waits for.
    fn count(&self, count: usize) {
        let bytes = self.bytes.fetch_add(count, Ordering::SeqCst) + count;
        let limit = self.limit.load(Ordering::SeqCst);
        if limit != 0 && bytes >= limit {
            self.held.send_replace(true);
        }
    }
}

impl Wire {
    fn direction(&self, way: Way) -> &Direction {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }

    /// Relays one connection until either end closes it, or it is cut.
    async fn join(self: Arc<Self>, client: TcpStream, server: TcpStream) {
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        let mut cut = self.cuts.subscribe();
        let both = async {
            tokio::join!(
                self.relay(client_read, server_write, &self.up),
                self.relay(server_read, client_write, &self.down),
            )
        };
        tokio::select! {
            _ = both => {}
            _ = cut.changed() => {}
        }
        self.open.send_modify(|open| *open -= 1);
    }

    async fn relay(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        direction: &Direction,
    ) {
        let lane = Arc::<Mutex<Vec<u8>>>::default();
        self.lanes.lock().unwrap().push(Arc::clone(&lane));
        let mut held = direction.held.subscribe();
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let read = &buffer[..count];
            lane.lock().unwrap().extend_from_slice(read);
            direction.count(count);
            drop(held.wait_for(|held| !held).await);
            if to.write_all(read).await.is_err() {
                break;
            }
        }
        let _closed = to.shutdown().await;
    }
}
