//! What a running proxy does with the config store that it has open, through its admin listener.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use bytes::Bytes;
use http::{Method, Uri};
use serde::Deserialize;

use super::super::{Failure, print, remote::Listener};
use crate::{config::Config, stream::StreamPath};

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

#[derive(Deserialize)]
struct Unpinned {
    was_pinned: bool,
}

impl Remote {
    /// The listener to ask, if one is named.
    ///
    /// # Errors
    /// A URL or a token file that is of no use.
    pub(super) fn listener(&self) -> Result<Option<Listener>, Failure> {
        let token_file = self.admin_token_file.as_deref();
        let listener = self.admin.as_ref();
        listener
            .map(|url| Listener::new(url, token_file))
            .transpose()
    }
}

/// Writes the store's export to standard output.
///
/// # Errors
/// The listener cannot be asked, refuses, or breaks off.
pub(super) async fn export(listener: Listener) -> Result<(), Failure> {
    let path = "/api/store/export";
    let answer = listener.open(Method::GET, path, Bytes::new()).await?;
    let mut body = answer.into_body();
    while let Some(data) = listener.next(&mut body).await? {
        io::stdout().lock().write_all(&data)?;
    }
    Ok(io::stdout().lock().flush()?)
}

/// Lets the proxy forget which key a stream is written with.
///
/// # Errors
/// The listener cannot be asked, or refuses.
pub(super) async fn unpin(listener: Listener, path: StreamPath) -> Result<(), Failure> {
    let order = serde_json::json!({
        "basin": path.basin.as_str(),
        "stream": path.stream.as_str(),
    });
    let said: Unpinned = listener.order("/api/streams/unpin", &order).await?;
    match said.was_pinned {
        true => print(&format!("forgot the key of stream {path}\n")),
        false => print(&format!("stream {path} has no pinned key\n")),
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
