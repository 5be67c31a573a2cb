//! What is told about one request, in the log, in the audit log, in traces and on the status page.

use std::{net::SocketAddr, time::Duration};

use super::{
    label::{Encoding, Fault, Operation},
    request_id::RequestId,
};

/// One request, at its end or in its course. Holds no key, no token and nothing of any record.
#[derive(Debug)]
pub struct Report<'a> {
    /// The id that the client sees, unless the upstream gave another.
    pub id: &'a RequestId,
    /// The upstream's own id for it.
    pub upstream_id: Option<&'a RequestId>,
    /// Method and path, without query.
    pub what: &'a str,
    /// Who asked.
    pub client: Client<'a>,
    /// What for.
    pub operation: Operation,
    /// In which encoding.
    pub encoding: Encoding,
    /// The basin it names.
    pub basin: Option<&'a str>,
    /// The stream it names.
    pub stream: Option<&'a str>,
    /// Status of the answer, if there was one.
    pub status: Option<u16>,
    /// How it ended: `ok`, an error code of the proxy, or the status of the upstream's error.
    pub code: &'a str,
    /// Whose fault, if it failed.
    pub fault: Option<Fault>,
    /// Why, if it failed: control characters escaped.
    pub cause: Option<&'a str>,
    /// What was used to encrypt or decrypt.
    pub key: Option<&'a Key>,
    /// Records that were encrypted and acked, or decrypted and sent; `None` where the proxy does not look.
    pub records: Option<u64>,
    /// From its arrival to the head of the answer.
    pub answered_after: Option<Duration>,
    /// From its arrival until now.
    pub took: Duration,
}

/// Who asked.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Address and port.
    pub address: SocketAddr,
    /// Subject of the client's certificate.
    pub certificate: Option<&'a str>,
    /// Fingerprint of the access token.
    pub token: Option<&'a str>,
    /// The project whose API key it came with.
    pub project: Option<&'a str>,
    /// What that API key is called.
    pub api_key: Option<&'a str>,
}

/// A cipher with a key.
#[derive(Debug, Clone)]
pub struct Key {
    /// The cipher's name.
    pub cipher: &'static str,
    /// The stream's commitment to the key, in hex.
    pub check: String,
}

impl Report<'_> {
    /// Writes it to the log: a failure as one line, at `info` where the client is at fault and at `warn`
    /// otherwise, everything else at `debug`.
    pub fn log(&self) {
        macro_rules! line {
            ($level:ident, $text:expr) => {
                tracing::$level!(
                    request_id = self.id.as_str(),
                    upstream_request_id = self.upstream_id.map(RequestId::as_str),
                    what = self.what,
                    operation = self.operation.as_str(),
                    encoding = self.encoding.as_str(),
                    basin = self.basin,
                    stream = self.stream,
                    client = %self.client.address,
                    project = self.client.project,
                    api_key = self.client.api_key,
                    status = self.status,
                    code = self.code,
                    fault = self.fault.map(Fault::as_str),
                    duration_ms = self.duration_ms(),
                    "{}",
                    $text
                )
            };
        }
        let cause = self.cause.unwrap_or("no reason known");
        match self.fault {
            None => line!(debug, "request"),
            Some(Fault::Client) => line!(info, cause),
            Some(Fault::Upstream | Fault::Proxy) => line!(warn, cause),
        }
    }

    /// How long it took, in milliseconds, to the microsecond.
    pub fn duration_ms(&self) -> f64 {
        self.took.as_micros() as f64 / 1000.0
    }
}
