//! The transit engine of HashiCorp Vault and OpenBao, over its HTTP API.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Request, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
    response::Parts,
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, HttpConnector, capture_connection},
    },
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    CONNECT_TIMEOUT, Error, IDLE_TIMEOUT, MAX_ANSWER_BYTES, MAX_CALLS, WrappedDek,
    config::{VaultConfig, endpoint, is_name},
    context::Context,
    retry::{Connection, Failed},
};
use crate::{crypto::Key, file, telemetry::with_causes};

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Asked for by agents that stand before a server.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");
/// What every ciphertext of the engine starts with.
const PREFIX: &str = "vault:v";

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// One key of a transit engine.
pub(super) struct Vault {
    kept: HttpClient,
    unkept: HttpClient,
    /// Up to the operation: `https://vault:8200/v1/transit`.
    mount: String,
    key: String,
    token_file: PathBuf,
    namespace: Option<HeaderValue>,
}

/// What is asked of the engine.
#[derive(Serialize)]
struct Ask<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext: Option<&'a str>,
    associated_data: String,
}

/// What it answers, of which texts are read in place: one of them is a key.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    plaintext: Option<&'a str>,
    ciphertext: Option<&'a str>,
}

#[derive(Deserialize)]
struct Refusal {
    errors: Vec<String>,
}

/// What the engine does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Encrypt,
    Decrypt,
}

impl Vault {
    pub(super) fn new(config: &VaultConfig) -> Result<Self, Error> {
        let wrong = |problem: String| Error::Misconfigured(problem.into());
        let url = endpoint(&config.address).map_err(|problem| wrong(problem.to_owned()))?;
        let namespace = match config.namespace.as_str() {
            "" => None,
            name => HeaderValue::from_str(name).ok(),
        };
        let connector = connector(config).map_err(wrong)?;
        let base = url.to_string();
        Ok(Self {
            kept: client(&connector, MAX_CALLS),
            unkept: client(&connector, 0),
            mount: format!("{}/v1/{}", base.trim_end_matches('/'), config.mount),
            key: config.key.clone(),
            token_file: config.token_file.path().unwrap_or(Path::new("")).into(),
            namespace,
        })
    }

    pub(super) async fn wrap(
        &self,
        dek: &Key,
        context: Context<'_>,
        connection: Connection,
    ) -> Result<WrappedDek, Failed> {
        let ask = Ask {
            plaintext: Some(&dek.to_base64()),
            ciphertext: None,
            associated_data: STANDARD.encode(context.bytes()),
        };
        let answer = self.call((Operation::Encrypt, &self.key), &ask, connection);
        let answer = answer.await?;
        let blob = data(&answer)?.ciphertext.filter(|text| is_wrapped(text));
        let blob =
            blob.ok_or_else(|| Error::Unreachable("its answer holds no ciphertext".into()))?;
        Ok(WrappedDek {
            key: self.key.clone(),
            blob: blob.into(),
        })
    }

    pub(super) async fn unwrap(
        &self,
        key: &str,
        blob: &[u8],
        context: Context<'_>,
        connection: Connection,
    ) -> Result<Key, Failed> {
        // Both come from the config store, and one of them goes into a path.
        let blob = std::str::from_utf8(blob)
            .ok()
            .filter(|text| is_wrapped(text));
        let Some(blob) = blob.filter(|_| is_name(key)) else {
            return Err(Error::InvalidCiphertext("not a ciphertext of Vault".into()).into());
        };
        let ask = Ask {
            plaintext: None,
            ciphertext: Some(blob),
            associated_data: STANDARD.encode(context.bytes()),
        };
        let answer = self.call((Operation::Decrypt, key), &ask, connection);
        let answer = answer.await?;
        let plaintext = data(&answer)?.plaintext;
        let plaintext =
            plaintext.ok_or_else(|| Error::Unreachable("its answer holds no plaintext".into()))?;
        Key::from_base64(plaintext.as_bytes()).map_err(|error| {
            Error::InvalidCiphertext(format!("what it holds {error}").into()).into()
        })
    }

    async fn call(
        &self,
        (operation, key): (Operation, &str),
        ask: &Ask<'_>,
        connection: Connection,
    ) -> Result<Zeroizing<Vec<u8>>, Failed> {
        let lost = |error: &dyn std::error::Error| Failed::lost(with_causes(error).into());
        let mut request = self.request(operation, key, ask).await?;
        let used = capture_connection(&mut request);
        let client = match connection {
            Connection::Kept => &self.kept,
            Connection::New => &self.unkept,
        };
        let answer = client.request(request).await;
        let (head, body) = answer.map_err(|error| lost(&error))?.into_parts();
        if head.status.is_server_error() {
            // The server at the other end may be sealed, and another one behind the same address not.
            used.connection_metadata().as_ref().map(Connected::poison);
        }
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| lost(&*error))?.to_bytes();
        let body = Zeroizing::new(Vec::from(body));
        match head.status {
            StatusCode::OK => Ok(body),
            _ => Err(refused(operation, &head, &body)),
        }
    }

    async fn request(
        &self,
        operation: Operation,
        key: &str,
        ask: &Ask<'_>,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let wrong = |problem: &str| Error::Misconfigured(problem.into());
        let path = self.token_file.clone();
        let token = tokio::task::spawn_blocking(move || token(&path)).await;
        let token = token.map_err(|_| Error::Unreachable("the proxy is stopping".into()))?;
        let body = serde_json::to_vec(ask).map_err(|_| wrong("no JSON"))?;
        let body = Bytes::from_owner(Zeroizing::new(body));
        let request = Request::post(format!("{}/{}/{key}", self.mount, operation.word()))
            .header(CONTENT_TYPE, "application/json")
            .header(REQUEST, "true")
            .header(TOKEN, token.map_err(|problem| wrong(&problem))?);
        let request = match &self.namespace {
            Some(namespace) => request.header(NAMESPACE, namespace),
            None => request,
        };
        let request = request.body(Full::new(body));
        request.map_err(|_| wrong("mount and key make no path"))
    }
}

impl Operation {
    fn word(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
        }
    }
}

/// The token in the file.
///
/// # Errors
///
/// When it cannot be read or does not hold one token; never quotes what it holds.
pub(super) fn token(path: &Path) -> Result<HeaderValue, String> {
    const KEY: &str = "kms.vault.token_file";
    let bytes = file::read(KEY, path)?;
    let token = bytes.trim_ascii();
    let is_token = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
    let value = HeaderValue::from_bytes(token).ok().filter(|_| is_token);
    let mut value =
        value.ok_or_else(|| format!("{KEY}: {} does not hold one token", path.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Makes a client that keeps so many idle connections. It follows no redirect, and repeats only what
/// did not fit a connection that the server had just ended.
fn client(connector: &HttpsConnector<HttpConnector>, connections: usize) -> HttpClient {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(connections)
        .http1_max_buf_size(MAX_ANSWER_BYTES)
        .build(connector.clone())
}

fn connector(config: &VaultConfig) -> Result<HttpsConnector<HttpConnector>, String> {
    const CA: &str = "kms.vault.ca_file";
    let mut roots = RootCertStore::empty();
    match config.ca_file.path() {
        Some(path) => {
            for certificate in file::certificates(CA, path)? {
                roots
                    .add(certificate)
                    .map_err(|error| format!("{CA}: {}: {error}", path.display()))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs().certs;
            roots.add_parsable_certificates(found);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http))
}

fn data(answer: &[u8]) -> Result<Data<'_>, Error> {
    match serde_json::from_slice(answer) {
        Ok(Answer { data }) => Ok(data),
        // The error would quote what it stumbled over.
        Err(_) => Err(Error::Unreachable("its answer is not Vault's".into())),
    }
}

/// Whether it looks as what the engine makes.
fn is_wrapped(text: &str) -> bool {
    text.starts_with(PREFIX) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What a refusal means. The engine answers 400 to whatever is wrong with a request or the key, and tells
/// them apart only in words. 401 and 403 are about the token and its policies: Vault tells no difference between a
/// token that expired and one that may not use the key.
fn refused(operation: Operation, head: &Parts, body: &[u8]) -> Failed {
    let refusal = serde_json::from_slice(body).unwrap_or(Refusal { errors: Vec::new() });
    let said = refusal.errors.join("; ");
    let reason = format!("{}: {said}", head.status.as_u16()).into();
    let says = |words: &[&str]| words.iter().any(|words| said.contains(words));
    let gone = ["encryption key not found", "disallowed by policy"];
    let misused = [
        "non-AEAD",
        "missing 'context'",
        "not supported",
        "unsupported",
    ];
    let error = match head.status.as_u16() {
        400 if says(&gone) => Error::Denied(reason),
        400 if operation == Operation::Encrypt || says(&misused) => Error::Misconfigured(reason),
        400 => Error::InvalidCiphertext(reason),
        401 | 403 => Error::Unauthorized(reason),
        // 412 is a replica that lags behind.
        408 | 412 | 425 | 429 | 500.. => {
            let after = head.headers.get(RETRY_AFTER);
            return Failed::later(reason, after.and_then(|after| after.to_str().ok()));
        }
        300..400 => Error::Misconfigured("it redirects to another server".into()),
        _ => Error::Misconfigured(reason),
    };
    error.into()
}
