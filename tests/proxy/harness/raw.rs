//! An upstream that speaks bytes: it takes one request as HTTP/2 or HTTP/1.1 has it, and answers whatever
//! the test says, for as long as the proxy reads it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use rustls_pki_types::PrivateKeyDer;
use streamseal::config::Config;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, rustls};

/// What a peer sends at most: then it closes the connection.
pub const FLOOD: usize = 100 << 20;

/// The bytes of HTTP/2's preface, and of a frame's head.
const PREFACE: usize = 24;
const HEAD: usize = 9;
/// Types of frames.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// What a peer says, once and then for ever. `for_ever` may be empty.
pub struct Says {
    pub once: Vec<u8>,
    pub for_ever: Vec<u8>,
}

/// How a peer behaves.
#[derive(Clone, Copy)]
pub enum Peer {
    /// Says this instead of HTTP/2's settings, whatever comes.
    Greets(fn() -> Says),
    /// Speaks HTTP/2 in the clear until a request comes, and answers with this. The stream is 1.
    Http2(fn() -> Says),
    /// Speaks HTTP/1.1 over TLS and answers with this.
    Http1(fn() -> Says),
    /// Speaks HTTP/1.1 over TLS, answers a request with this head so, and closes the connection.
    Http1Closes(fn(&str) -> Vec<u8>),
}

/// The peer. It stops with the test's runtime.
pub struct Raw {
    address: SocketAddr,
    certificate: Option<String>,
    pushed: Arc<AtomicUsize>,
}

impl Raw {
    /// Starts one that treats every connection so.
    pub async fn start(peer: Peer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pushed = Arc::new(AtomicUsize::new(0));
        let (tls, certificate) = match peer {
            Peer::Http1(_) | Peer::Http1Closes(_) => {
                let (tls, certificate) = tls();
                (Some(tls), Some(certificate))
            }
            Peer::Greets(_) | Peer::Http2(_) => (None, None),
        };
        let counter = Arc::clone(&pushed);
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                tokio::spawn(serve(peer, io, tls.clone(), Arc::clone(&counter)));
            }
        });
        Self {
            address,
            certificate,
            pushed,
        }
    }

    /// Makes it the upstream of a proxy. `dir` keeps its certificate.
    pub fn aim(&self, config: &mut Config, dir: &std::path::Path) {
        let scheme = match &self.certificate {
            Some(certificate) => {
                let file = dir.join("ca.pem");
                std::fs::write(&file, certificate).unwrap();
                config.upstream.tls.ca_file = file.into();
                "https"
            }
            None => "http",
        };
        let endpoint = format!("{scheme}://{}", self.address);
        config.upstream.account_endpoint = endpoint.clone();
        config.upstream.basin_endpoint = endpoint;
    }

    /// How many bytes it got rid of, on all connections.
    pub fn pushed(&self) -> usize {
        self.pushed.load(SeqCst)
    }
}

/// A frame of HTTP/2.
pub fn http2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// A header in HPACK, as a literal that is not indexed.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let part = |text: &str| {
        let mut out = Vec::new();
        match u8::try_from(text.len()) {
            Ok(short @ ..127) => out.push(short),
            _ => {
                out.push(127);
                let mut rest = text.len() - 127;
                while rest >= 128 {
                    out.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                out.push(rest as u8);
            }
        }
        out.extend_from_slice(text.as_bytes());
        out
    };
    [vec![0], part(name), part(value)].concat()
}

fn tls() -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    (TlsAcceptor::from(Arc::new(tls)), made.cert.pem())
}

async fn serve(peer: Peer, io: TcpStream, tls: Option<TlsAcceptor>, pushed: Arc<AtomicUsize>) {
    io.set_nodelay(true).unwrap();
    // The proxy may leave at any point: that is no fault.
    let _left = match (peer, tls) {
        (Peer::Greets(says), _) => {
            let (read, write) = split(io);
            answer(read, write, says(), &pushed).await
        }
        (Peer::Http2(says), _) => {
            let (mut read, mut write) = split(io);
            match until_headers(&mut read, &mut write).await {
                Ok(()) => answer(read, write, says(), &pushed).await,
                Err(left) => Err(left),
            }
        }
        (Peer::Http1(says), Some(tls)) => match tls.accept(io).await {
            Ok(io) => {
                let (mut read, write) = split(io);
                match http1_head(&mut read).await {
                    Ok(_) => answer(read, write, says(), &pushed).await,
                    Err(left) => Err(left),
                }
            }
            Err(refused) => Err(refused),
        },
        (Peer::Http1Closes(says), Some(tls)) => match tls.accept(io).await {
            Ok(io) => answer_and_close(io, says).await,
            Err(refused) => Err(refused),
        },
        (Peer::Http1(_) | Peer::Http1Closes(_), None) => unreachable!("HTTP/1.1 takes TLS"),
    };
}

/// Takes the head of a request.
async fn http1_head(read: &mut (impl AsyncRead + Unpin)) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(read.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

async fn answer_and_close(
    io: impl AsyncRead + AsyncWrite,
    says: fn(&str) -> Vec<u8>,
) -> std::io::Result<()> {
    let (mut read, mut write) = split(io);
    let head = http1_head(&mut read).await?;
    write.write_all(&says(&head)).await?;
    write.shutdown().await?;
    // What was not read would reset the connection, and the answer might be lost.
    let mut sink = [0; 4096];
    while let 1.. = read.read(&mut sink).await? {}
    Ok(())
}

/// Takes frames until the first request's headers.
async fn until_headers(
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<()> {
    write.write_all(&http2_frame(SETTINGS, 0, 0, &[])).await?;
    read.read_exact(&mut [0; PREFACE]).await?;
    loop {
        let mut head = [0; HEAD];
        read.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        read.read_exact(&mut payload).await?;
        let is_ack = head[4] & 1 == 1;
        match head[3] {
            HEADERS => return Ok(()),
            SETTINGS if !is_ack => write.write_all(&http2_frame(SETTINGS, 1, 0, &[])).await?,
            PING if !is_ack => write.write_all(&http2_frame(PING, 1, 0, &payload)).await?,
            _ => {}
        }
    }
}

/// Says it all, while what comes is thrown away.
async fn answer(
    mut read: impl AsyncRead + Unpin + Send + 'static,
    mut write: impl AsyncWrite + Unpin,
    says: Says,
    pushed: &AtomicUsize,
) -> std::io::Result<()> {
    let unread = tokio::spawn(async move {
        let mut sink = [0; 4096];
        while let Ok(1..) = read.read(&mut sink).await {}
    });
    write.write_all(&says.once).await?;
    write.flush().await?;
    if says.for_ever.is_empty() {
        // Silent, but there.
        let _closed = unread.await;
        return Ok(());
    }
    let mut sent = 0;
    while sent < FLOOD {
        write.write_all(&says.for_ever).await?;
        sent += says.for_ever.len();
        pushed.fetch_add(says.for_ever.len(), SeqCst);
    }
    write.shutdown().await
}
