//! What a request to a real server shows about the upstream layer.

use std::{
    convert::Infallible,
    io::Write as _,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, task::JoinSet};

use http::HeaderValue;
use hyper::body::Incoming;

use super::*;

mod config;
mod failure;
mod headers;
mod lanes;
mod metrics;
mod pool;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A plaintext HTTP/2 server on port 0.
struct Store {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Store {
    async fn start<F, R>(max_streams: u32, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let tasks = Arc::new(Mutex::new(JoinSet::new()));
        let (count, spawned) = (Arc::clone(&connections), Arc::clone(&tasks));
        tokio::spawn(async move {
            loop {
                let (io, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let handler = handler.clone();
                let service = service_fn(move |request| {
                    let answer = handler(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .max_concurrent_streams(max_streams)
                    .serve_connection(TokioIo::new(io), service);
                spawned.lock().unwrap().spawn(async move {
                    let _ = connection.await;
                });
            }
        });
        Self {
            address,
            connections,
            tasks,
        }
    }

    fn upstream(&self) -> Upstream {
        upstream(&format!("http://{}", self.address))
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    async fn kill_connections(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        tasks.shutdown().await;
    }
}

fn upstream(endpoint: &str) -> Upstream {
    connect(&config(endpoint))
}

fn connect(config: &Config) -> Upstream {
    Upstream::new(config, Arc::new(Metrics::new().unwrap())).unwrap()
}

fn config(endpoint: &str) -> Config {
    Config {
        account_endpoint: endpoint.to_owned(),
        basin_endpoint: endpoint.to_owned(),
        ..Config::default()
    }
}

fn request(path: &str) -> Request<Body> {
    Request::builder().uri(path).body(empty()).unwrap()
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn full(text: &'static str) -> Body {
    Full::from(text)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// An answer of a type that passes.
fn typed<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    let kind = http::HeaderValue::from_static("text/plain");
    response.headers_mut().insert("content-type", kind);
    response
}

fn answer(text: &'static str) -> Answer {
    typed(Full::from(text).boxed_unsync())
}

fn basin() -> BasinName {
    "test-basin".parse().unwrap()
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what)
        .await
        .expect("it should have happened by now")
}

/// A TLS server that speaks HTTP/1.1 only, with the PEM of its certificate.
async fn http1_store(connections: Arc<AtomicUsize>) -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let io = acceptor.accept(tcp).await.unwrap();
                let service = service_fn(|request: Request<Incoming>| async move {
                    let host = request.headers()["host"].to_str().unwrap().to_owned();
                    Ok::<_, Infallible>(typed(Full::<Bytes>::from(host)))
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(io), service)
                    .await;
            });
        }
    });
    (address, made.cert.pem())
}
