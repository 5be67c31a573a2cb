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

#[derive(Default)]
struct Wire {
    bytes: Mutex<Vec<u8>>,
    answered: AtomicUsize,
    cuts: watch::Sender<usize>,
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
                    tokio::spawn(Arc::clone(&wire).join(client, server));
                }
            }
        });
        tap
    }

    /// Every byte so far, of all connections in both directions.
    pub fn bytes(&self) -> Vec<u8> {
        self.wire.bytes.lock().unwrap().clone()
    }

    /// How many bytes came from the upstream so far.
    pub fn answered(&self) -> usize {
        self.wire.answered.load(Ordering::SeqCst)
    }

    /// Whether these bytes went over the wire.
    pub fn saw(&self, needle: &[u8]) -> bool {
        contains(&self.wire.bytes.lock().unwrap(), needle)
    }

    /// Takes nothing more from the proxy, or goes on.
    pub fn hold(&self, hold: bool) {
        self.wire.held.send_replace(hold);
    }

    /// Cuts every connection that is open now; new ones come through.
    pub fn cut(&self) {
        self.wire.cuts.send_modify(|cuts| *cuts += 1);
    }
}

/// Whether `needle` stands somewhere in `haystack`.
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    assert!(needle.len() >= 4, "too short to mean anything");
    memchr::memmem::find(haystack, needle).is_some()
}

impl Wire {
    /// Relays one connection until either end closes it, or it is cut.
    async fn join(self: Arc<Self>, client: TcpStream, server: TcpStream) {
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        let mut cut = self.cuts.subscribe();
        let both = async {
            tokio::join!(
                self.relay(client_read, server_write, false),
                self.relay(server_read, client_write, true),
            )
        };
        tokio::select! {
            _ = both => {}
            _ = cut.changed() => {}
        }
    }

    async fn relay(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        is_answer: bool,
    ) {
        let mut held = self.held.subscribe();
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let read = &buffer[..count];
            self.bytes.lock().unwrap().extend_from_slice(read);
            if is_answer {
                self.answered.fetch_add(count, Ordering::SeqCst);
            } else {
                let _never_closed = held.wait_for(|held| !held).await;
            }
            if to.write_all(read).await.is_err() {
                break;
            }
        }
        let _closed = to.shutdown().await;
    }
}
