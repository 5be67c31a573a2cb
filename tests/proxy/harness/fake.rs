//! An upstream that follows a script: a relay before a real `s2-lite` that answers, garbles or breaks
//! off whichever calls the test says.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, RwLock},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http2, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use streamseal::config::Config;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// One call as the upstream got it.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    /// Path and query.
    pub uri: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What to do with a call.
#[derive(Debug, Clone)]
pub enum Act {
    /// `s2-lite` answers.
    Pass,
    /// `s2-lite` hears nothing and this is the answer.
    Answer(u16, String),
    /// `s2-lite` does it and this is the answer.
    Replace(u16, String),
    /// `s2-lite` hears nothing and the exchange breaks off.
    Drop,
    /// `s2-lite` does it and the exchange breaks off.
    LoseAnswer,
    /// `s2-lite` answers, but hears of it only once this is notified.
    Hold(Arc<Notify>),
    /// `s2-lite` does it, but the answer comes only once this is notified.
    HoldAnswer(Arc<Notify>),
}

type Script = Box<dyn Fn(&Call) -> Act + Send + Sync>;
type Reply = Result<Response<Full<Bytes>>, std::io::Error>;

/// The relay. It stops with the test's runtime.
pub struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: RwLock<Script>,
    calls: Mutex<Vec<Call>>,
    lite: http2::SendRequest<Full<Bytes>>,
}

impl Fake {
    /// Starts a relay before `lite` that passes everything.
    pub async fn start(lite: SocketAddr) -> Self {
        let io = TcpStream::connect(lite).await.unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .unwrap();
        tokio::spawn(connection);
        let shared = Arc::new(Shared {
            script: RwLock::new(Box::new(|_| Act::Pass)),
            calls: Mutex::default(),
            lite: sender,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared }
    }

    /// Makes it the upstream of a proxy.
    pub fn aim(&self, config: &mut Config) {
        let endpoint = format!("http://{}", self.address);
        config.upstream.account_endpoint = endpoint.clone();
        config.upstream.basin_endpoint = endpoint;
    }

    /// From now on, calls are treated so.
    pub fn script(&self, script: impl Fn(&Call) -> Act + Send + Sync + 'static) {
        *self.shared.script.write().unwrap() = Box::new(script);
    }

    /// From now on, everything passes.
    pub fn heal(&self) {
        self.script(|_| Act::Pass);
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }
}

impl Call {
    /// Whether it is this call, by method and start of the path.
    pub fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.uri.starts_with(path)
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((io, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| answer(Arc::clone(&shared), request));
        tokio::spawn(async move {
            let http = auto::Builder::new(TokioExecutor::new());
            let _ended = http.serve_connection(TokioIo::new(io), service).await;
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?;
    let call = Call {
        method: head.method,
        uri: head.uri.path_and_query().unwrap().to_string(),
        headers: head.headers,
        body: body.to_bytes(),
    };
    shared.calls.lock().unwrap().push(call.clone());
    let act = shared.script.read().unwrap()(&call);
    let made_up = |status, text| {
        let answer = Response::builder().status(status);
        let answer = answer.header("content-type", "application/json");
        Ok(answer.body(Full::new(Bytes::from(text))).unwrap())
    };
    match act {
        Act::Pass => pass(&shared, call).await,
        Act::Hold(until) => {
            until.notified().await;
            pass(&shared, call).await
        }
        Act::HoldAnswer(until) => {
            let answer = pass(&shared, call).await;
            until.notified().await;
            answer
        }
        Act::Answer(status, text) => made_up(status, text),
        Act::Replace(status, text) => {
            pass(&shared, call).await?;
            made_up(status, text)
        }
        Act::Drop => Err(std::io::Error::other("dropped")),
        Act::LoseAnswer => {
            pass(&shared, call).await?;
            Err(std::io::Error::other("answer lost"))
        }
    }
}

async fn pass(shared: &Shared, call: Call) -> Reply {
    let uri = format!("http://lite{}", call.uri);
    let mut request = Request::new(Full::new(call.body));
    *request.method_mut() = call.method;
    *request.uri_mut() = uri.parse().unwrap();
    *request.headers_mut() = call.headers;
    request.headers_mut().remove("content-length");
    let answer = shared.lite.clone().send_request(request).await;
    let (head, body) = answer.map_err(std::io::Error::other)?.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?;
    Ok(Response::from_parts(head, Full::new(body.to_bytes())))
}
