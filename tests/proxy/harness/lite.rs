//! A real `s2-lite` in process that also keeps what it was asked, as HTTP and not as packets: header
//! compression hides nothing here.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use hyper::{body::Incoming, service::Service as _};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use s2_lite::{backend::Backend, handlers};
use slatedb::{Db, Settings, object_store::memory::InMemory};
use tokio::net::TcpListener;

/// One request as the upstream saw it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Method, path and query.
    pub line: String,
    /// Every header as `name: value`.
    pub headers: Vec<String>,
    /// The body so far.
    pub body: Vec<u8>,
}

/// The server. It stops with the test's runtime.
pub struct Lite {
    /// Where it listens, in the clear.
    pub address: SocketAddr,
    /// The server's own backend, for looking into it.
    pub backend: Backend,
    seen: Arc<Mutex<Vec<Arc<Mutex<Seen>>>>>,
}

impl Lite {
    /// Starts a fresh, empty server.
    pub async fn start() -> Self {
        let settings = Settings {
            flush_interval: Some(Duration::from_millis(5)),
            ..Settings::default()
        };
        let db = Db::builder("test", Arc::new(InMemory::new()))
            .with_settings(settings)
            .build()
            .await
            .unwrap();
        let backend = Backend::new(db, bytesize::ByteSize::mib(10));
        s2_lite::backend::bgtasks::spawn(&backend);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let lite = Self {
            address: listener.local_addr().unwrap(),
            backend: backend.clone(),
            seen: Arc::default(),
        };
        tokio::spawn(serve(listener, backend, Arc::clone(&lite.seen)));
        lite
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .map(|seen| seen.lock().unwrap().clone())
            .collect()
    }
}

async fn serve(listener: TcpListener, backend: Backend, seen: Arc<Mutex<Vec<Arc<Mutex<Seen>>>>>) {
    let router = TowerToHyperService::new(handlers::router().with_state(backend));
    while let Ok((io, _)) = listener.accept().await {
        io.set_nodelay(true).unwrap();
        let (router, seen) = (router.clone(), Arc::clone(&seen));
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let record = Arc::new(Mutex::new(Seen {
                line: format!("{} {}", request.method(), request.uri()),
                headers: request
                    .headers()
                    .iter()
                    .map(|(name, value)| {
                        format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
                    })
                    .collect(),
                body: Vec::new(),
            }));
            seen.lock().unwrap().push(Arc::clone(&record));
            router.call(request.map(|inner| Recorded { inner, record }))
        });
        tokio::spawn(async move {
            let mut http = auto::Builder::new(TokioExecutor::new());
            http.http2().initial_stream_window_size(1 << 20);
            let _ended = http.serve_connection(TokioIo::new(io), service).await;
        });
    }
}

/// A body that is written down as it is read.
struct Recorded {
    inner: Incoming,
    record: Arc<Mutex<Seen>>,
}

impl Body for Recorded {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.record.lock().unwrap().body.extend_from_slice(data);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}
