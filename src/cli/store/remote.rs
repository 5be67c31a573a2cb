//! Asking a running proxy through its admin listener, while it has the config store open.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use zeroize::Zeroizing;

use super::super::{Failure, print};
use crate::{config::Config, file, stream::StreamPath};

/// Longest wait for a connection, for the head of an answer, and for each piece of its body.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer but an export.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Where a running proxy's admin listener is.
#[derive(Debug, clap::Args)]
pub(super) struct Remote {
    /// Ask the proxy that runs on the config store, at its admin listener (`http://127.0.0.1:9090`),
    /// instead of opening the store.
    #[arg(long, value_name = "URL")]
    admin: Option<Uri>,
    /// The file with the token that the admin API asks for.
    #[arg(long, value_name = "FILE", requires = "admin")]
    admin_token_file: Option<PathBuf>,
}

/// An admin listener to ask.
pub(super) struct Listener {
    host: String,
    port: u16,
    authority: String,
    authorization: Option<HeaderValue>,
}

impl Remote {
    /// The listener to ask, if one is named.
    ///
    /// # Errors
    /// A URL or a token file that is of no use.
    pub(super) fn listener(&self) -> Result<Option<Listener>, Failure> {
        let Some(url) = &self.admin else {
            return Ok(None);
        };
        let wrong = || Failure::Config(format!("--admin: {url} is not like http://127.0.0.1:9090"));
        let authority = url.authority().ok_or_else(wrong)?;
        let is_bare = matches!(url.path(), "" | "/") && url.query().is_none();
        if url.scheme_str() != Some("http") || !is_bare || authority.as_str().contains('@') {
            return Err(wrong());
        }
        let authorization = self.authorization().map_err(Failure::Config)?;
        Ok(Some(Listener {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.to_string(),
            authorization,
        }))
    }

    fn authorization(&self) -> Result<Option<HeaderValue>, String> {
        const KEY: &str = "--admin-token-file";
        let Some(path) = &self.admin_token_file else {
            return Ok(None);
        };
        let text = file::read(KEY, path)?;
        let value = Zeroizing::new([b"Bearer ", text.trim_ascii()].concat());
        let mut value = HeaderValue::from_bytes(&value)
            .map_err(|_| format!("{KEY}: {} does not hold one token", path.display()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

impl Listener {
    /// Writes the store's export to standard output.
    ///
    /// # Errors
    /// The listener cannot be asked, refuses, or breaks off.
    pub(super) async fn export(&self) -> Result<(), Failure> {
        let answer = self
            .ask(Method::GET, "/api/store/export", Bytes::new())
            .await?;
        if answer.status() != StatusCode::OK {
            return Err(self.refused(answer).await);
        }
        let mut body = answer.into_body();
        while let Some(frame) = self.in_time(body.frame()).await? {
            let frame = frame.map_err(|error| self.failed(&error))?;
            if let Ok(data) = frame.into_data() {
                io::stdout().lock().write_all(&data)?;
            }
        }
        Ok(io::stdout().lock().flush()?)
    }

    /// Lets the proxy forget which key a stream is written with.
    ///
    /// # Errors
    /// The listener cannot be asked, or refuses.
    pub(super) async fn unpin(&self, path: &StreamPath) -> Result<(), Failure> {
        let asked = serde_json::json!({
            "basin": path.basin.as_str(),
            "stream": path.stream.as_str(),
        });
        let body = Bytes::from(asked.to_string());
        let answer = self.ask(Method::POST, "/api/streams/unpin", body).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.refused(answer).await);
        }
        let said = self.whole(answer).await?;
        match said.get("was_pinned").and_then(serde_json::Value::as_bool) {
            Some(true) => print(&format!("forgot the key of stream {path}\n")),
            Some(false) => print(&format!("stream {path} has no pinned key\n")),
            None => Err(self.failed(&"the answer is not an admin listener's")),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &'static str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let io = self.in_time(connecting).await?;
        let io = TokioIo::new(io.map_err(|error| self.failed(&error))?);
        let (mut sender, connection) = http1::handshake(io)
            .await
            .map_err(|error| self.failed(&error))?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| self.failed(&error))?;
        let answer = self.in_time(sender.send_request(request)).await?;
        answer.map_err(|error| self.failed(&error))
    }

    async fn whole(&self, answer: Response<Incoming>) -> Result<serde_json::Value, Failure> {
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect();
        let body = self.in_time(body).await?;
        let body = body.map_err(|error| self.failed(&error))?.to_bytes();
        serde_json::from_slice(&body)
            .map_err(|_| self.failed(&"the answer is not an admin listener's"))
    }

    async fn refused(&self, answer: Response<Incoming>) -> Failure {
        let status = answer.status();
        let said = self.whole(answer).await;
        let message = said
            .ok()
            .and_then(|said| said.get("message")?.as_str().map(str::to_owned));
        match message {
            Some(message) => self.failed(&message),
            None => self.failed(&format!("it answered {status}")),
        }
    }

    async fn in_time<T>(&self, wait: impl Future<Output = T>) -> Result<T, Failure> {
        let waited = timeout(PATIENCE, wait).await;
        waited.map_err(|_| self.failed(&format!("no answer within {PATIENCE:?}")))
    }

    fn failed(&self, why: &impl std::fmt::Display) -> Failure {
        Failure::Other(format!("admin listener {}: {why}", self.authority))
    }
}

/// How to go about a command on a store that a running proxy holds, as the end of a sentence.
pub(super) fn hint(config: &Config) -> String {
    let Some(address) = config.admin.address.address() else {
        return String::new();
    };
    let token = match config.admin.token_file.is_set() {
        true => " --admin-token-file FILE",
        false => "",
    };
    format!(", or ask the proxy that runs on it: add --admin http://{address}{token}")
}
