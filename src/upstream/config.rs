//! The `[upstream]` section: where the store is, and how the proxy presents itself to it.

use http::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::file::{self, OptionalFile};

/// Where the upstream store is and how to talk to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Base of account-level calls: `http://` (HTTP/2 by prior knowledge) or `https://`, host, port.
    pub account_endpoint: String,
    /// Base of basin-level calls. With `{basin}` in it the basin goes into the host name, otherwise
    /// into the `s2-basin` header.
    pub basin_endpoint: String,
    /// Access token to send instead of each client's `authorization`. Unset: the client's goes through.
    pub access_token_file: OptionalFile,
    /// Calls that S2's v1 API does not have go upstream, instead of being answered 404.
    pub forward_unknown: bool,
    /// TLS towards `https://` endpoints.
    pub tls: TlsConfig,
}

/// TLS towards `https://` endpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM certificates to trust instead of the system's roots.
    pub ca_file: OptionalFile,
    /// PEM chain to present as a client; needs `client_key_file`.
    pub client_cert_file: OptionalFile,
    /// PEM private key of `client_cert_file`.
    pub client_key_file: OptionalFile,
}

/// Everything that is wrong with the `[upstream]` section, each with its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.join("\n"))]
pub struct ConfigError {
    /// One sentence per mistake, starting with the key.
    pub problems: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        // Where s2-lite listens.
        let local = "http://127.0.0.1:8080".to_owned();
        Self {
            account_endpoint: local.clone(),
            basin_endpoint: local,
            access_token_file: OptionalFile::default(),
            forward_unknown: false,
            tls: TlsConfig::default(),
        }
    }
}

impl Config {
    /// The `authorization` value that replaces the clients' own, when one is configured.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or does not hold one token; never quotes what it holds.
    pub(super) fn authorization(&self) -> Result<Option<HeaderValue>, String> {
        const KEY: &str = "upstream.access_token_file";
        let path = self.access_token_file.path();
        path.map(|path| file::read_bearer(KEY, path)).transpose()
    }
}
