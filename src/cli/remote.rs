//! Asking a running proxy through its admin listener.

use std::{
    io::{self, Read as _},
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::TcpStream, time::timeout};
use zeroize::Zeroizing;

use super::Failure;
use crate::{crypto::ApiKey, file};

/// Longest wait for a connection, for the head of an answer, and for each piece of its body.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer that is taken whole: that of 256 API keys is about a tenth of it.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// Most that is read for an API key: it has 82 characters.
const MAX_KEY_FILE_BYTES: u64 = 4096;

/// Which proxy to ask, as its operator.
#[derive(Debug, clap::Args)]
pub(super) struct Operator {
    /// The admin listener of the proxy.
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN)]
    admin: Uri,
    /// The file with the token that the admin API asks for.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

/// Which proxy to ask, as whoever has an API key with scope `manage`.
#[derive(Debug, clap::Args)]
pub(super) struct Keyed {
    /// The admin listener of the proxy, on this host.
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN)]
    admin: Uri,
    /// The file with an API key with scope `manage`; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    api_key_file: PathBuf,
}

/// A running proxy's admin listener, and an API key with scope `manage` or the operator's token.
#[derive(Debug, clap::Args)]
pub(super) struct KeyedOrOperator {
    /// The admin listener of the proxy; with an API key, on this host.
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN)]
    admin: Uri,
    /// The file with an API key with scope `manage`; `-` reads standard input. For streams whose keys a key
    /// management service holds, leave it out.
    #[arg(long, value_name = "FILE", conflicts_with = "admin_token_file")]
    api_key_file: Option<PathBuf>,
    /// The file with the token that the admin API asks for, where no API key is given.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

impl KeyedOrOperator {
    /// The listener to ask.
    ///
    /// # Errors
    /// A URL or a file that is of no use.
    pub(super) fn listener(&self) -> Result<Listener, Failure> {
        match &self.api_key_file {
            Some(file) => Listener::keyed(&self.admin, file),
            None => Listener::new(&self.admin, self.admin_token_file.as_deref()),
        }
    }
}

/// Where a proxy's admin listener is unless its configuration says otherwise.
const DEFAULT_ADMIN: &str = "http://127.0.0.1:9090";

/// An admin listener to ask.
pub(super) struct Listener {
    host: String,
    port: u16,
    authority: String,
    authorization: Option<HeaderValue>,
    /// Whether it is asked only where what goes either way does not leave this host.
    stays_here: bool,
}

impl Operator {
    /// The listener to ask.
    ///
    /// # Errors
    /// A URL or a token file that is of no use.
    pub(super) fn listener(&self) -> Result<Listener, Failure> {
        Listener::new(&self.admin, self.admin_token_file.as_deref())
    }

    /// The same for an answer that holds an API key.
    ///
    /// # Errors
    /// A URL or a token file that is of no use.
    pub(super) fn listener_here(&self) -> Result<Listener, Failure> {
        let listener = self.listener()?;
        Ok(Listener {
            stays_here: true,
            ..listener
        })
    }
}

impl Keyed {
    /// The listener to ask.
    ///
    /// # Errors
    /// A URL that is of no use, or a file that does not hold one API key.
    pub(super) fn listener(&self) -> Result<Listener, Failure> {
        Listener::keyed(&self.admin, &self.api_key_file)
    }
}

impl Listener {
    /// The listener at `url`, asked with the API key in a file, and only on this host.
    fn keyed(url: &Uri, api_key_file: &Path) -> Result<Self, Failure> {
        let listener = Self::new(url, None)?;
        let authorization = api_key(api_key_file).map_err(Failure::Config)?;
        Ok(Self {
            authorization: Some(authorization),
            stays_here: true,
            ..listener
        })
    }

    /// The listener at `url`, which asks for the token in a file, if for any.
    ///
    /// # Errors
    /// A URL or a token file that is of no use.
    pub(super) fn new(url: &Uri, token_file: Option<&Path>) -> Result<Self, Failure> {
        let wrong = || Failure::Config(format!("--admin: {url} is not like http://127.0.0.1:9090"));
        let authority = url.authority().ok_or_else(wrong)?;
        let is_bare = matches!(url.path(), "" | "/") && url.query().is_none();
        if url.scheme_str() != Some("http") || !is_bare || authority.as_str().contains('@') {
            return Err(wrong());
        }
        let authorization = token_file.map(|path| file::read_bearer("--admin-token-file", path));
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.to_string(),
            authorization: authorization.transpose().map_err(Failure::Config)?,
            stays_here: false,
        })
    }

    /// The same listener, asked with this API key.
    ///
    /// # Errors
    /// A text that is no API key.
    pub(super) fn with_key(&self, api_key: &str) -> Result<Self, Failure> {
        let no_key = || self.failed(&"the answer holds something else than an API key");
        Ok(Self {
            host: self.host.clone(),
            port: self.port,
            authority: self.authority.clone(),
            authorization: Some(bearer(api_key.as_bytes()).ok_or_else(no_key)?),
            stays_here: true,
        })
    }

    /// What it answers to a question.
    ///
    /// # Errors
    /// The listener cannot be asked, or refuses.
    pub(super) async fn read<T: DeserializeOwned>(&self, path: &'static str) -> Result<T, Failure> {
        let answer = self.open(Method::GET, path, Bytes::new()).await?;
        self.whole(answer).await
    }

    /// What it answers to an order.
    ///
    /// # Errors
    /// The listener cannot be asked, or refuses.
    pub(super) async fn order<T: DeserializeOwned>(
        &self,
        path: &'static str,
        order: &serde_json::Value,
    ) -> Result<T, Failure> {
        let body = Bytes::from(order.to_string());
        let answer = self.open(Method::POST, path, body).await?;
        self.whole(answer).await
    }

    /// Its answer, with the body still to come.
    ///
    /// # Errors
    /// The listener cannot be asked, or refuses.
    pub(super) async fn open(
        &self,
        method: Method,
        path: &'static str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let answer = self.ask(method, path, body).await?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            _ => Err(self.refused(answer).await),
        }
    }

    /// The next piece of an answer's body, if there is one.
    ///
    /// # Errors
    /// It breaks off, or does not come in time.
    pub(super) async fn next(&self, body: &mut Incoming) -> Result<Option<Bytes>, Failure> {
        while let Some(frame) = self.in_time(body.frame()).await? {
            let frame = frame.map_err(|error| self.failed(&error))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// A failure of this listener's.
    pub(super) fn failed(&self, why: &impl std::fmt::Display) -> Failure {
        Failure::Other(format!("admin listener {}: {why}", self.authority))
    }

    async fn connect(&self) -> Result<TcpStream, Failure> {
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let io = self.in_time(connecting).await?;
        let io = io.map_err(|error| self.failed(&error))?;
        let peer = io.peer_addr().map_err(|error| self.failed(&error))?;
        self.may_be_asked(peer.ip())?;
        Ok(io)
    }

    /// Makes sure that nothing is sent which must not leave this host.
    fn may_be_asked(&self, peer: IpAddr) -> Result<(), Failure> {
        match self.stays_here && !peer.to_canonical().is_loopback() {
            false => Ok(()),
            true => Err(Failure::Config(format!(
                "--admin: {} is not on this host; the admin listener speaks plain HTTP, and an API key holds \
                 the project's master key: run this command on the proxy's host, or through a tunnel to it",
                self.authority
            ))),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &'static str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let io = TokioIo::new(self.connect().await?);
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

    async fn whole<T: DeserializeOwned>(&self, answer: Response<Incoming>) -> Result<T, Failure> {
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect();
        let body = self.in_time(body).await?;
        let body = body.map_err(|error| self.failed(&error))?.to_bytes();
        serde_json::from_slice(&body)
            .map_err(|_| self.failed(&"the answer is not an admin listener's"))
    }

    async fn refused(&self, answer: Response<Incoming>) -> Failure {
        let status = answer.status();
        let said = self.whole::<serde_json::Value>(answer).await;
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
}

/// The API key in a file, or from standard input, as the value of an `authorization` header.
fn api_key(path: &Path) -> Result<HeaderValue, String> {
    const KEY: &str = "--api-key-file";
    let text = match path.as_os_str() == "-" {
        false => file::read(KEY, path)?,
        true => {
            let mut text = Zeroizing::new(Vec::new());
            let input = io::stdin().lock().take(MAX_KEY_FILE_BYTES);
            { input }
                .read_to_end(&mut text)
                .map_err(|error| format!("{KEY}: cannot read standard input: {error}"))?;
            text
        }
    };
    let token = text.trim_ascii();
    bearer(token).ok_or_else(|| format!("{KEY}: {} does not hold one API key", path.display()))
}

/// An API key as the value of an `authorization` header.
fn bearer(token: &[u8]) -> Option<HeaderValue> {
    ApiKey::parse(token)?;
    let value = Zeroizing::new([b"Bearer ", token].concat());
    let mut value = HeaderValue::from_bytes(&value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_keys_do_not_leave_this_host() {
        let url: Uri = "http://localhost:9090".parse().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let key = format!("sk-ss-{}", "AQ".to_owned() + &"A".repeat(74));
        std::fs::write(file.path(), key + "\n").unwrap();
        let keyed = Keyed {
            admin: url.clone(),
            api_key_file: file.path().into(),
        };
        let operator = Operator {
            admin: url,
            admin_token_file: None,
        };
        let may = |listener: &Listener, peer: &str| {
            let peer = peer.parse().unwrap();
            listener.may_be_asked(peer).is_ok()
        };
        for listener in [keyed.listener().unwrap(), operator.listener_here().unwrap()] {
            for here in ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"] {
                assert!(may(&listener, here), "{here}");
            }
            for elsewhere in ["10.0.0.1", "192.0.2.1", "::ffff:10.0.0.1", "2001:db8::1"] {
                assert!(!may(&listener, elsewhere), "{elsewhere}");
            }
        }
        assert!(may(&operator.listener().unwrap(), "10.0.0.1"));
    }
}
