//! The `[listen]` and `[limits]` sections: where clients connect, and how much of the proxy they may use.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::balancer::AddressRange;
use crate::{
    body::MIN_BUDGET_BYTES,
    file::OptionalFile,
    wire::record::{OversizeBatches, RecordCompression},
};

/// Longest domain that still leaves room for the longest basin name (48 bytes) and its dot in a host
/// name (253 bytes, RFC 1035).
const MAX_BASIN_DOMAIN_BYTES: usize = 253 - 48 - 1;
/// Longest label of a host name (RFC 1035).
const MAX_LABEL_BYTES: usize = 63;

/// Where clients connect, and who may.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// IP address and port to accept connections on; port 0 lets the system choose.
    pub address: SocketAddr,
    /// No TLS. Only on a loopback address, unless `plaintext_anywhere` says otherwise.
    pub plaintext: bool,
    /// Accepts `plaintext` on any address: for when something in front of the proxy ends TLS.
    pub plaintext_anywhere: bool,
    /// Domain under which the host name `<basin>.<domain>` names a basin; empty turns it off.
    pub basin_domain: String,
    /// Who decides whether a client may come in.
    pub authenticate: Authenticate,
    /// Addresses of balancers. Each connection from one of them begins with a PROXY header, which says where its client
    /// is; from other addresses no such header is read.
    pub proxy_protocol: Vec<AddressRange>,
    /// The listener's certificate and the clients'.
    pub tls: TlsConfig,
}

/// Who decides whether a client may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authenticate {
    /// The upstream: the client's `authorization` goes through untouched.
    Upstream,
    /// The TLS handshake: only certificates issued by `listen.tls.client_ca_file`.
    Mtls,
    /// The proxy, by API keys of its own: those of `[[projects]]`.
    ApiKey,
    /// Nobody: whoever reaches the listener comes in.
    None,
}

/// The listener's certificate and the clients'.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM chain, the listener's own certificate first.
    pub cert_file: OptionalFile,
    /// PEM private key of `cert_file`.
    pub key_file: OptionalFile,
    /// A fresh certificate at each start, for development.
    pub self_signed: bool,
    /// PEM certificates that client certificates must be issued by; unset asks for none.
    pub client_ca_file: OptionalFile,
    /// PEM revocation lists of the authorities in `client_ca_file`.
    pub client_crl_file: OptionalFile,
}

/// How much of the proxy clients may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// What happens to a batch that fits the store's limit of 1 MiB, but not once encrypted, nor compressed
    /// and encrypted: `split` sends it in several batches that follow each other, `reject` refuses it.
    pub oversize_batches: OversizeBatches,
    /// Which records are compressed before they are encrypted: those of a batch that does not fit otherwise
    /// (`when-needed`), all that become smaller (`always`, which shows the store how well each compresses),
    /// or none (`never`).
    pub compression: RecordCompression,
    /// Client connections at a time; more wait in the system's accept queue.
    pub max_connections: usize,
    /// Memory for the bodies of all requests and answers that are worked on: half of it for what clients
    /// send, half for what they read. A request that finds no room waits, and is refused after five seconds
    /// unless it is a session. At least 16 MiB.
    #[serde(serialize_with = "crate::size::write")]
    pub max_inflight_bytes: ByteSize,
    /// Time for what precedes HTTP on a connection: a balancer's PROXY header and the TLS handshake.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// Time for the first request on a connection, and for each HTTP/1.1 request head. An idle HTTP/1.1
    /// connection is closed after it, too.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// Time for running requests to end once a stop was asked for.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443),
            plaintext: false,
            plaintext_anywhere: false,
            basin_domain: String::new(),
            authenticate: Authenticate::Upstream,
            proxy_protocol: Vec::new(),
            tls: TlsConfig::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            oversize_batches: OversizeBatches::Split,
            compression: RecordCompression::WhenNeeded,
            max_connections: 10_000,
            max_inflight_bytes: ByteSize::mib(256),
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// What is wrong with the section, each with its key. Does not open any file.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.plaintext {
            self.check_plaintext(&mut problems);
        } else {
            self.tls.check(&mut problems);
        }
        let has_client_ca = self.tls.client_ca_file.is_set();
        match self.authenticate {
            Authenticate::Mtls if self.plaintext || !has_client_ca => problems.push(
                "listen.authenticate: \"mtls\" needs TLS and listen.tls.client_ca_file".to_owned(),
            ),
            Authenticate::Mtls
            | Authenticate::ApiKey
            | Authenticate::Upstream
            | Authenticate::None => {}
        }
        if !self.basin_domain.is_empty() && !is_domain(&self.basin_domain) {
            problems.push(format!(
                "listen.basin_domain: {:?} is not a domain in lower case of at most \
                 {MAX_BASIN_DOMAIN_BYTES} bytes",
                self.basin_domain
            ));
        }
        problems
    }

    fn check_plaintext(&self, problems: &mut Vec<String>) {
        if !self.address.ip().is_loopback() && !self.plaintext_anywhere {
            problems.push(format!(
                "listen.plaintext: encryption keys would cross the network readably on {}; use TLS, or \
                 set listen.plaintext_anywhere",
                self.address
            ));
        }
        if self.tls != TlsConfig::default() {
            problems.push("listen.plaintext: does not go together with listen.tls".to_owned());
        }
    }
}

impl TlsConfig {
    fn check(&self, problems: &mut Vec<String>) {
        if self.client_crl_file.is_set() && !self.client_ca_file.is_set() {
            problems.push(
                "listen.tls.client_crl_file: is set without listen.tls.client_ca_file".to_owned(),
            );
        }
        let mistake = match (self.cert_file.is_set(), self.key_file.is_set()) {
            (true, false) => "listen.tls.cert_file: is set without listen.tls.key_file",
            (false, true) => "listen.tls.key_file: is set without listen.tls.cert_file",
            (true, true) if self.self_signed => {
                "listen.tls.self_signed: does not go together with listen.tls.cert_file"
            }
            (false, false) if !self.self_signed => {
                "listen.tls.cert_file: not set; name a certificate and its key_file, or set \
                 listen.tls.self_signed (development) or listen.plaintext (loopback)"
            }
            (true, true) | (false, false) => return,
        };
        problems.push(mistake.to_owned());
    }
}

impl Limits {
    /// What is wrong with the section, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let checks = [
            (self.max_connections == 0, "max_connections"),
            (self.handshake_timeout.is_zero(), "handshake_timeout"),
            (self.header_timeout.is_zero(), "header_timeout"),
        ];
        let mut problems: Vec<_> = checks
            .into_iter()
            .filter(|(is_zero, _)| *is_zero)
            .map(|(_, key)| format!("limits.{key}: must not be zero"))
            .collect();
        if self.max_inflight_bytes.as_u64() < MIN_BUDGET_BYTES {
            problems.push(format!(
                "limits.max_inflight_bytes: must be at least {}: one large request takes that much",
                ByteSize::b(MIN_BUDGET_BYTES)
            ));
        }
        problems
    }
}

fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= MAX_BASIN_DOMAIN_BYTES && text.split('.').all(is_label)
}
