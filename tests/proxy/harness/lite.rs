//! A real `s2-lite` in process that also keeps what it was asked, as HTTP and not as packets: header
//! compression hides nothing here.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, service::Service as _};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use s2_lite::{backend::Backend, handlers};
use slatedb::{Db, Settings, object_store::memory::InMemory};
use tokio::{net::TcpListener, sync::mpsc};
use tower_http::cors::CorsLayer;

use super::AnyBody;

/// One request as the upstream saw it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Method, path and query.
    pub line: String,
    /// Every header as `name: value`.
    pub headers: Vec<String>,
    /// The body so far.
    pub body: Vec<u8>,
    /// How the body ended, once it did.
    pub end: Option<BodyEnd>,
}

/// How a request's body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    /// Cleanly.
    Clean,
    /// It broke off, or the server gave up on it.
    Broken,
}

/// Writes the upstream's answer to one request by hand.
pub struct Player(mpsc::Sender<Result<Bytes, BoxError>>);

impl Player {
    /// Sends these bytes.
    pub async fn play(&self, bytes: impl Into<Bytes>) {
        self.0.send(Ok(bytes.into())).await.unwrap();
    }

    /// Breaks the answer off, where dropping the player ends it cleanly.
    pub async fn break_off(self) {
        self.0.send(Err("broken off".into())).await.unwrap();
    }

    /// Waits until the proxy has left the answer.
    pub async fn left(&self) {
        let left = tokio::time::timeout(super::DEADLINE, self.0.closed()).await;
        left.expect("the proxy did not leave");
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Log = Arc<Mutex<Vec<Arc<Mutex<Seen>>>>>;
type Plays = Arc<Mutex<HashMap<String, AnyBody>>>;

/// The server. It stops with the test's runtime.
pub struct Lite {
    /// Where it listens, in the clear.
    pub address: SocketAddr,
    seen: Log,
    plays: Plays,
}

impl Lite {
    /// Starts a fresh, empty server.
    pub async fn start() -> Self {
        Self::serving(false).await
    }

    /// Starts a server that answers web pages, as the program `s2 lite` does unless it is told not to.
    pub async fn for_pages() -> Self {
        Self::serving(true).await
    }

    async fn serving(pages: bool) -> Self {
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
            seen: Arc::default(),
            plays: Arc::default(),
        };
        let (seen, plays) = (Arc::clone(&lite.seen), Arc::clone(&lite.plays));
        tokio::spawn(serve(listener, backend, pages, seen, plays));
        lite
    }

    /// Answers the next request for this path by hand: 200, in S2S frames.
    pub fn play(&self, path: &str) -> Player {
        let (sender, body) = super::channel();
        let mut plays = self.plays.lock().unwrap();
        let earlier = plays.insert(path.to_owned(), body);
        assert!(earlier.is_none(), "{path} is played already");
        Player(sender)
    }

    /// The last request whose line starts so.
    pub fn last(&self, line: &str) -> Option<Seen> {
        let mut seen = self.seen();
        seen.retain(|seen| seen.line.starts_with(line));
        seen.pop()
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .map(|seen| seen.lock().unwrap().clone())
            .collect()
    }
}

async fn serve(listener: TcpListener, backend: Backend, pages: bool, seen: Log, plays: Plays) {
    let mut router = handlers::router().with_state(backend);
    if pages {
        router = router.layer(CorsLayer::very_permissive());
    }
    let router = TowerToHyperService::new(router);
    while let Ok((io, _)) = listener.accept().await {
        io.set_nodelay(true).unwrap();
        let (router, seen, plays) = (router.clone(), Arc::clone(&seen), Arc::clone(&plays));
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let record = Arc::new(Mutex::new(note(&request)));
            seen.lock().unwrap().push(Arc::clone(&record));
            let played = plays.lock().unwrap().remove(request.uri().path());
            let request = request.map(|inner| Recorded { inner, record });
            let router = router.clone();
            async move {
                match played {
                    Some(body) => Ok(by_hand(request.into_body(), body)),
                    None => {
                        let response = router.call(request).await?;
                        Ok::<_, Infallible>(
                            response.map(|body| body.map_err(Into::into).boxed_unsync()),
                        )
                    }
                }
            }
        });
        tokio::spawn(async move {
            let mut http = auto::Builder::new(TokioExecutor::new());
            http.http2().initial_stream_window_size(1 << 20);
            let _ended = http.serve_connection(TokioIo::new(io), service).await;
        });
    }
}

fn note(request: &Request<Incoming>) -> Seen {
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
    };
    Seen {
        line: format!("{} {}", request.method(), request.uri()),
        headers: request.headers().iter().map(header).collect(),
        ..Seen::default()
    }
}

fn by_hand(mut request: Recorded, body: AnyBody) -> Response<AnyBody> {
    tokio::spawn(async move { while let Some(Ok(_)) = request.frame().await {} });
    let mut response = Response::new(body);
    let s2s = HeaderValue::from_static("s2s/proto");
    response.headers_mut().insert("content-type", s2s);
    response
}

/// A body that is written down as it is read.
struct Recorded {
    inner: Incoming,
    record: Arc<Mutex<Seen>>,
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let mut record = self.record.lock().unwrap();
        record.end.get_or_insert(BodyEnd::Broken);
    }
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
        match &polled {
            Poll::Ready(None) => self.record.lock().unwrap().end = Some(BodyEnd::Clean),
            Poll::Ready(Some(Err(_))) => self.record.lock().unwrap().end = Some(BodyEnd::Broken),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
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
