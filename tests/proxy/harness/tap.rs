//! A TCP relay between proxy and upstream that keeps every byte of both directions.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// The relay. Clones see the same bytes.
#[derive(Clone)]
pub struct Tap {
    /// Where the proxy connects.
    pub address: SocketAddr,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// Relays to `upstream`.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&bytes);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(upstream).await else {
                    continue;
                };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let (client_read, client_write) = client.into_split();
                let (server_read, server_write) = server.into_split();
                tokio::spawn(relay(client_read, server_write, Arc::clone(&kept)));
                tokio::spawn(relay(server_read, client_write, Arc::clone(&kept)));
            }
        });
        Self { address, bytes }
    }

    /// Every byte so far, of all connections in both directions.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    /// Whether these bytes went over the wire.
    pub fn saw(&self, needle: &[u8]) -> bool {
        contains(&self.bytes.lock().unwrap(), needle)
    }
}

/// Whether `needle` stands somewhere in `haystack`.
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    assert!(needle.len() >= 4, "too short to mean anything");
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

async fn relay(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    kept: Arc<Mutex<Vec<u8>>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        kept.lock().unwrap().extend_from_slice(&buffer[..count]);
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    let _closed = to.shutdown().await;
}
