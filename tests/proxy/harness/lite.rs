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
use http::{HeaderValue, Request, Response, Version};
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
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
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
type Lie = Box<dyn Fn(&Seen) -> Option<Response<AnyBody>> + Send + Sync>;

/// The server. It stops with the test's runtime.
pub struct Lite {
    /// Where it listens, in the clear.
    pub address: SocketAddr,
    seen: Log,
    plays: Plays,
    working: watch::Sender<usize>,
    lie: Arc<Mutex<Option<Lie>>>,
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
            working: watch::Sender::default(),
            lie: Arc::default(),
        };
        let by_hand = ByHand {
            seen: Arc::clone(&lite.seen),
            plays: Arc::clone(&lite.plays),
            lie: Arc::clone(&lite.lie),
        };
        let working = lite.working.clone();
        tokio::spawn(serve(listener, backend, pages, by_hand, working));
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

    /// Waits until it has nothing more to do for anybody, whether they wait for it or not.
    pub async fn quiet(&self) {
        let mut working = self.working.subscribe();
        let quiet = working.wait_for(|working| *working == 0);
        let quiet = tokio::time::timeout(super::DEADLINE, quiet).await;
        quiet
            .expect("the upstream does not come to an end")
            .unwrap();
    }

    /// From now on, answers what the script has an answer to so, whatever the request's body: nothing of
    /// it takes effect.
    pub fn lie(&self, lie: impl Fn(&Seen) -> Option<Response<AnyBody>> + Send + Sync + 'static) {
        *self.lie.lock().unwrap() = Some(Box::new(lie));
    }

    /// From now on, tells the truth.
    pub fn be_honest(&self) {
        *self.lie.lock().unwrap() = None;
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

/// What is not `s2-lite`'s own doing.
#[derive(Clone)]
struct ByHand {
    seen: Log,
    plays: Plays,
    lie: Arc<Mutex<Option<Lie>>>,
}

impl ByHand {
    /// Writes a request down; the answer to it, if it is not for `s2-lite` to give one.
    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<AnyBody>, Box<Request<Recorded>>> {
        let noted = note(&request);
        let lie = self.lie.lock().unwrap();
        let lie = lie.as_ref().and_then(|lie| lie(&noted));
        let played = self.plays.lock().unwrap().remove(request.uri().path());
        let record = Arc::new(Mutex::new(noted));
        self.seen.lock().unwrap().push(Arc::clone(&record));
        let http1 = request.version() < Version::HTTP_2;
        let request = request.map(|inner| Recorded {
            inner: Some(inner),
            record,
            http1,
        });
        let Some(answer) = lie.or_else(|| played.map(in_frames)) else {
            return Err(Box::new(request));
        };
        let mut unread = request.into_body();
        tokio::spawn(async move { while let Some(Ok(_)) = unread.frame().await {} });
        Ok(answer)
    }
}

async fn serve(
    listener: TcpListener,
    backend: Backend,
    pages: bool,
    by_hand: ByHand,
    working: watch::Sender<usize>,
) {
    let mut router = handlers::router().with_state(backend);
    if pages {
        router = router.layer(CorsLayer::very_permissive());
    }
    let router = TowerToHyperService::new(router);
    while let Ok((io, _)) = listener.accept().await {
        io.set_nodelay(true).unwrap();
        let (router, by_hand, working) = (router.clone(), by_hand.clone(), working.clone());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let answer = by_hand.answer(request);
            let (router, working) = (router.clone(), working.clone());
            async move {
                match answer {
                    Ok(answer) => Ok(answer),
                    Err(request) => {
                        // What it began it carries out, whether or not the client waits for it.
                        working.send_modify(|working| *working += 1);
                        let work = tokio::spawn(async move {
                            let response = router.call(*request).await;
                            working.send_modify(|working| *working -= 1);
                            response
                        });
                        let response = work.await.unwrap()?;
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

fn in_frames(body: AnyBody) -> Response<AnyBody> {
    let mut response = Response::new(body);
    let s2s = HeaderValue::from_static("s2s/proto");
    response.headers_mut().insert("content-type", s2s);
    response
}

/// A body that is written down as it is read.
struct Recorded {
    /// Until it is dropped.
    inner: Option<Incoming>,
    record: Arc<Mutex<Seen>>,
    http1: bool,
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let mut record = self.record.lock().unwrap();
        record.end.get_or_insert(BodyEnd::Broken);
        // An HTTP/1.1 connection with a body that nobody reads is reset, and the answer may go with it.
        if let (true, Some(unread)) = (self.http1, self.inner.take())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(read_on(unread));
        }
    }
}

async fn read_on(mut unread: Incoming) {
    while let Some(Ok(_)) = unread.frame().await {}
}

impl Body for Recorded {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let inner = self.inner.as_mut().unwrap();
        let polled = Pin::new(inner).poll_frame(cx);
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
        self.inner.as_ref().unwrap().is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.as_ref().unwrap().size_hint()
    }
}
