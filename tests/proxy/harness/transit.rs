//! A transit engine of Vault's that does as a test says: it hands texts out for keys, and counts who asks.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use streamseal::{config::Config, keys::kms::ProviderName};
use tokio::{net::TcpListener, sync::watch};

/// The token that it asks for.
const TOKEN: &str = "hvs.for-tests";

/// What it does with calls.
#[derive(Debug, Clone)]
pub enum Transit {
    Serve,
    /// It answers nothing, and hangs up.
    Away,
    /// It serves once this is true.
    ServeOnce(watch::Receiver<bool>),
    /// It refuses calls whose path holds this word, and serves the others.
    Refuse(&'static str, u16, &'static str),
    /// It refuses one call with this status, and serves those after it.
    RefuseOnce(u16),
    /// It serves at most this many calls at once, and refuses the others with 429 or 503.
    AtMost(usize),
}

/// Time that a call takes of a service that serves so many at once.
const CALL_TIME: Duration = Duration::from_millis(30);

/// The server. It stops with the test's runtime.
pub struct Vault {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    act: Mutex<Transit>,
    /// The paths of all calls, in order.
    calls: Mutex<Vec<String>>,
    /// Calls that are being served now.
    serving: AtomicUsize,
    connections: AtomicUsize,
    wrapped: Mutex<HashMap<String, Value>>,
}

impl Vault {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            act: Mutex::new(Transit::Serve),
            calls: Mutex::default(),
            serving: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            wrapped: Mutex::default(),
        });
        let served = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                let shared = Arc::clone(&served);
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(io), service));
            }
        });
        Self { url, shared }
    }

    /// Makes it the service of a proxy.
    pub fn aim(&self, config: &mut Config) {
        let token_file = config.store.path.with_file_name("vault-token");
        std::fs::write(&token_file, TOKEN).unwrap();
        self.aim_with(config, &token_file);
    }

    fn aim_with(&self, config: &mut Config, token_file: &Path) {
        config.kms.provider = ProviderName::Vault;
        config.kms.vault.address = self.url.clone();
        config.kms.vault.key = "streams".to_owned();
        config.kms.vault.token_file = token_file.into();
    }

    /// From now on it does this.
    pub fn act(&self, act: Transit) {
        *self.shared.act.lock().unwrap() = act;
    }

    /// How many calls asked for this: `encrypt` or `decrypt`.
    pub fn count(&self, operation: &str) -> usize {
        let calls = self.shared.calls.lock().unwrap();
        calls.iter().filter(|path| path.contains(operation)).count()
    }

    /// How many calls there were.
    pub fn calls(&self) -> usize {
        self.shared.calls.lock().unwrap().len()
    }

    /// Number of connections that were opened to it.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

type Answered = Result<Response<Full<Bytes>>, std::io::Error>;

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Answered {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?;
    let asked: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
    let path = head.uri.path().to_owned();
    shared.calls.lock().unwrap().push(path.clone());
    let token = head.headers.get("x-vault-token");
    let is_known = token.is_some_and(|token| token == TOKEN);
    let act = shared.act.lock().unwrap().clone();
    let (status, said) = match act {
        _ if !is_known => refusal(403, "permission denied"),
        Transit::Serve => served(&shared, &path, asked),
        Transit::Away => return Err(std::io::Error::other("away")),
        Transit::ServeOnce(mut let_go) => {
            let_go.wait_for(|go| *go).await.unwrap();
            served(&shared, &path, asked)
        }
        Transit::Refuse(word, status, text) if path.contains(word) => refusal(status, text),
        Transit::Refuse(..) => served(&shared, &path, asked),
        Transit::RefuseOnce(status) => {
            *shared.act.lock().unwrap() = Transit::Serve;
            refusal(status, "not now")
        }
        Transit::AtMost(most) => at_most(most, &shared, &path, asked).await,
    };
    let said = Full::from(said.to_string());
    Ok(Response::builder().status(status).body(said).unwrap())
}

async fn at_most(most: usize, shared: &Shared, path: &str, asked: Value) -> (u16, Value) {
    let before = shared.serving.fetch_add(1, Ordering::SeqCst);
    let answer = match before < most {
        true => {
            tokio::time::sleep(CALL_TIME).await;
            served(shared, path, asked)
        }
        false => refusal([429, 503][before % 2], "too many calls"),
    };
    shared.serving.fetch_sub(1, Ordering::SeqCst);
    answer
}

/// What it made of a key is another text each time, and opens with the very same associated data.
fn served(shared: &Shared, path: &str, asked: Value) -> (u16, Value) {
    let mut wrapped = shared.wrapped.lock().unwrap();
    match path {
        "/v1/transit/encrypt/streams" => {
            let text = format!("vault:v1:text-number-{}", wrapped.len());
            wrapped.insert(text.clone(), asked);
            (200, json!({ "data": { "ciphertext": text } }))
        }
        "/v1/transit/decrypt/streams" => {
            let found = wrapped.get(asked["ciphertext"].as_str().unwrap());
            match found.filter(|found| found["associated_data"] == asked["associated_data"]) {
                Some(found) => (200, json!({ "data": { "plaintext": found["plaintext"] } })),
                None => refusal(400, "cipher: message authentication failed"),
            }
        }
        _ => refusal(400, "encryption key not found"),
    }
}

fn refusal(status: u16, text: &str) -> (u16, Value) {
    (status, json!({ "errors": [text] }))
}
