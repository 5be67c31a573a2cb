//! Both services as they answer over HTTP, well and badly, and what the cache makes of it.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use super::*;
use crate::file::OptionalFile;

mod aws;
mod cache;
mod config;
mod moments;
mod vault;

const TOKEN: &str = "hvs.a-token-of-vault";

/// A request as the service got it.
#[derive(Debug, Clone)]
struct Call {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// What the service does with a request.
#[derive(Clone)]
enum Act {
    /// What it should.
    Serve,
    /// The same, once this is true.
    ServeOnce(watch::Receiver<bool>),
    Answer(u16, String),
    /// A refusal with this `Retry-After`.
    Later(u16, String),
    /// What it should, after this time.
    Slow(Duration),
    Redirect(String),
    /// An answer without an end.
    Endless,
    Hang,
    BreakOff,
}

type Serve = dyn Fn(&Call) -> (u16, String) + Send + Sync;

/// A server over plain HTTP that stops with the test's runtime.
struct Server {
    url: String,
    state: Arc<State>,
}

struct State {
    act: Mutex<Act>,
    /// What it does with the next calls instead.
    next: Mutex<VecDeque<Act>>,
    connections: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    calls: Mutex<Vec<Call>>,
    serve: Box<Serve>,
}

impl Server {
    async fn start(serve: impl Fn(&Call) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            act: Mutex::new(Act::Serve),
            next: Mutex::default(),
            connections: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            calls: Mutex::default(),
            serve: Box::new(serve),
        });
        let served = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                let state = Arc::clone(&served);
                state.connections.fetch_add(1, Ordering::SeqCst);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                let connection = http1::Builder::new().serve_connection(TokioIo::new(io), service);
                tokio::spawn(connection);
            }
        });
        Self { url, state }
    }

    fn act(&self, act: Act) {
        *self.state.act.lock().unwrap() = act;
    }

    /// Has it do this with the next calls, one after another.
    fn next(&self, acts: impl IntoIterator<Item = Act>) {
        self.state.next.lock().unwrap().extend(acts);
    }

    fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.calls().len()
    }

    fn last(&self) -> Call {
        self.calls().pop().unwrap()
    }
}

impl Call {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

type Answered = Result<Response<UnsyncBoxBody<Bytes, Infallible>>, std::io::Error>;

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Answered {
    let (head, body) = request.into_parts();
    let call = Call {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body: body.collect().await.unwrap().to_bytes(),
    };
    state.calls.lock().unwrap().push(call.clone());
    let next = state.next.lock().unwrap().pop_front();
    let act = next.unwrap_or_else(|| state.act.lock().unwrap().clone());
    let full = |text: String| Full::from(text).boxed_unsync();
    let (status, text) = match act {
        Act::Serve => (state.serve)(&call),
        Act::ServeOnce(mut let_go) => {
            let_go.wait_for(|go| *go).await.unwrap();
            (state.serve)(&call)
        }
        Act::Answer(status, text) => (status, text),
        Act::Later(status, after) => {
            let answer = Response::builder().status(status);
            let answer = answer.header("retry-after", after);
            return Ok(answer.body(full(String::new())).unwrap());
        }
        Act::Slow(time) => {
            let at_once = state.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            state.most_at_once.fetch_max(at_once, Ordering::SeqCst);
            sleep(time).await;
            state.at_once.fetch_sub(1, Ordering::SeqCst);
            (state.serve)(&call)
        }
        Act::Redirect(to) => {
            let answer = Response::builder().status(307).header("location", to);
            return Ok(answer.body(full(String::new())).unwrap());
        }
        Act::Endless => {
            let frames = stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b' '; 4096]))));
            return Ok(Response::new(StreamBody::new(frames).boxed_unsync()));
        }
        Act::Hang => std::future::pending().await,
        Act::BreakOff => return Err(std::io::Error::other("broken off")),
    };
    Ok(Response::builder().status(status).body(full(text)).unwrap())
}

/// A transit engine that remembers what it encrypted instead of encrypting it.
async fn transit() -> Server {
    let wrapped: Mutex<HashMap<String, Value>> = Mutex::default();
    Server::start(move |call| {
        if call
            .headers
            .get("x-vault-token")
            .is_none_or(|token| token != TOKEN)
        {
            return refusal(403, "permission denied");
        }
        let (asked, mut wrapped) = (call.json(), wrapped.lock().unwrap());
        match call.path.as_str() {
            "/v1/transit/encrypt/a-key" => {
                let text = format!("vault:v1:{}", STANDARD.encode([wrapped.len() as u8; 60]));
                wrapped.insert(text.clone(), asked);
                (
                    200,
                    json!({ "data": { "ciphertext": text, "key_version": 1 } }).to_string(),
                )
            }
            "/v1/transit/decrypt/a-key" => {
                let found = wrapped.get(asked["ciphertext"].as_str().unwrap());
                match found.filter(|found| found["associated_data"] == asked["associated_data"]) {
                    None => refusal(400, "cipher: message authentication failed"),
                    Some(found) => {
                        let data = json!({ "plaintext": found["plaintext"] });
                        (200, json!({ "data": data }).to_string())
                    }
                }
            }
            path if path.starts_with("/v1/transit/") => refusal(400, "encryption key not found"),
            _ => refusal(404, "no handler for route"),
        }
    })
    .await
}

fn refusal(status: u16, text: &str) -> (u16, String) {
    (status, json!({ "errors": [text] }).to_string())
}

/// A transit engine and what uses it.
struct World {
    server: Server,
    kms: Kms,
    metrics: Arc<Metrics>,
    dir: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        Self::with(Bounds::new(&Config::default())).await
    }

    async fn with(bounds: Bounds) -> Self {
        let (server, dir) = (transit().await, tempfile::tempdir().unwrap());
        let config = vault_config(&server.url, dir.path().join("token"));
        assert_eq!(
            Config {
                provider: ProviderName::Vault,
                vault: config.clone(),
                ..Config::default()
            }
            .problems(),
            Vec::<String>::new()
        );
        let metrics = Arc::new(Metrics::new().unwrap());
        let provider = Provider::Vault(Box::new(Vault::new(&config).unwrap()));
        let kms = Kms::with(provider, bounds, Arc::clone(&metrics));
        Self {
            server,
            kms,
            metrics,
            dir,
        }
    }

    fn held(&self) -> i64 {
        self.metrics.kms.cached_keys.get()
    }

    fn counted(&self, operation: KmsOperation, outcome: KmsOutcome) -> u64 {
        self.metrics
            .kms
            .calls
            .of(operation)
            .outcomes
            .of(outcome)
            .get()
    }

    /// Waits until so many keys are held, without asking for any.
    async fn until_held(&self, count: i64) {
        until(|| self.held() == count).await;
    }
}

/// Waits for a condition, for at most 20 seconds.
async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .expect("it should have happened by now");
}

fn vault_config(url: &str, token_file: PathBuf) -> VaultConfig {
    std::fs::write(&token_file, format!("{TOKEN}\n")).unwrap();
    VaultConfig {
        address: url.to_owned(),
        key: "a-key".to_owned(),
        token_file: token_file.into(),
        ..VaultConfig::default()
    }
}

/// A stream that no other call names.
fn stream() -> StreamPath {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("some-basin/stream/{count}").parse().unwrap()
}

fn no_file() -> OptionalFile {
    OptionalFile::default()
}
