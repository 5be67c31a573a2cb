//! What can go wrong with a request, and the S2 error code it becomes: clients decide retries from it.

use http::StatusCode;
use serde::Serialize;

use super::gate;
use crate::{
    keys::{self, kms},
    registry, store,
    stream::StreamPath,
    telemetry::{label::Fault, printable, with_causes},
    upstream,
    wire::{
        DecodeError,
        record::{SealError, UnopenedRecord},
    },
};

/// Why a request failed in the proxy. The upstream's own errors are not here: they pass untouched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable key.
    #[error(transparent)]
    Key(#[from] keys::Error),
    /// A stored record did not open. The cause is for the log: to the client every cause is the same.
    #[error(transparent)]
    Open(UnopenedRecord),
    /// There is no good API key where one is asked for. The cause is for the log: to the client every cause
    /// is the same.
    #[error("access token is not valid")]
    Unauthenticated(#[from] gate::Refusal),
    /// The API key is good, but does not allow this.
    #[error(transparent)]
    Denied(#[from] gate::Denied),
    /// The client may not do this; the text says what, and why.
    #[error("{0}")]
    NotAllowed(String),
    /// The API key is good, but the master key in it is not the project's.
    #[error("the API key holds no usable master key for this project")]
    NoMasterKey,
    /// The client's body does not decode.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The batch does not fit upstream once sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A header has a bad value; the text names it.
    #[error("{0}")]
    BadHeader(String),
    /// The upstream refused the stream configuration in a header; holds its words.
    #[error("Invalid header `s2-stream-config`: {0}")]
    RefusedConfig(String),
    /// The path names no valid basin or stream.
    #[error("{0}")]
    BadPath(String),
    /// The query string is not acceptable.
    #[error("{0}")]
    BadQuery(String),
    /// A parameter or body value breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// A control body is not the expected JSON.
    #[error("{0}")]
    BadJson(String),
    /// The config store could not answer. Nothing was sent upstream.
    #[error("config store unavailable")]
    Store(#[from] store::Error),
    /// The upstream did what was asked, but the config store could not record it. What was recorded
    /// before is settled before the stream's next use.
    #[error("config store unavailable; the request may have taken effect")]
    Unrecorded(#[source] store::Error),
    /// Nothing, or nothing that had an effect, was sent upstream.
    #[error("upstream unreachable")]
    Unreachable(#[source] upstream::Error),
    /// What had to be asked of the upstream before the request itself could be sent, could not.
    #[error("upstream could not be asked in preparation; nothing was appended or read")]
    Unprepared(#[source] Box<Error>),
    /// Too much is going on.
    #[error("too many requests at once; try again")]
    Busy,
    /// The proxy stops, and nothing of the request took effect.
    #[error("the proxy is stopping; try again")]
    Draining,
    /// The proxy stops before the upstream answered; the request may have taken effect.
    #[error("the proxy stopped before the upstream answered; the request may have taken effect")]
    Stopped,
    /// The client did not send its request in time.
    #[error("request body did not arrive in time")]
    SlowClient,
    /// Sent, but the exchange broke off; it may have taken effect.
    #[error("lost the connection to the upstream; the request may have taken effect")]
    Lost(#[source] upstream::Error),
    /// Some parts of a split batch were appended, then one was not. The cause is for the log.
    #[error("the batch had to be split to fit encrypted, and only its beginning was appended")]
    PartlyAppended(String),
    /// The upstream broke off in the middle of an answer to a read.
    #[error("lost the connection to the upstream in the middle of an answer")]
    Broken,
    /// Sent, but no answer came in time; it may have taken effect.
    #[error("upstream did not answer in time; the request may have taken effect")]
    Timeout,
    /// The upstream answered with something that is not S2's protocol.
    #[error("unusable answer from upstream: {0}")]
    Garbage(&'static str),
    /// The registry refuses to say how the stream's records are treated.
    #[error(transparent)]
    Registry(registry::Error),
    /// A plain stream, where the configuration lets only streams pass in clear that a rule calls plain.
    #[error(
        "stream `{0}` has no cipher, and `store.plain_streams` is \"refuse\": give it a `[[streams]]` or \
         `[[basins]]` rule; a rule with `cipher = \"none\"` makes it plain"
    )]
    PlainRefused(StreamPath),
    /// The upstream acknowledged records under two keys of one stream.
    #[error(
        "stream `{0}` holds records under another key, too: the upstream stored them out of turn"
    )]
    TwoKeys(StreamPath),
    /// A key for a plain stream.
    #[error(
        "stream `{0}` is not encrypted, but the request has an `s2-encryption-key` header: nothing was sent; give \
         the stream a cipher, send no key, or set `keys.on_plain = \"warn\"`"
    )]
    KeyOnPlain(StreamPath),
    /// The API tried to change what the configuration file declares.
    #[error(
        "the cipher of basin `{0}` is declared in the proxy's configuration and cannot be changed here"
    )]
    Declared(String),
    /// The configuration says another kind of key than the stream's records have.
    #[error(
        "stream `{path}` has {recorded}, but the configuration says {declared}: what is stored would not \
         decrypt; change the rule back, or make a new stream"
    )]
    KeyConflict {
        /// The stream.
        path: StreamPath,
        /// What its records have.
        recorded: String,
        /// What the rule says.
        declared: String,
    },
    /// Another request changed the stream's keys first.
    #[error("the keys of stream `{0}` were changed by another request meanwhile")]
    Raced(StreamPath),
    /// A data key does not unwrap, or another one came out.
    #[error("the data key of stream `{0}` does not decrypt with this master key")]
    DataKey(StreamPath),
    /// The key management service does not unwrap a data key, or wraps no new one. What it said is for the log.
    #[error(transparent)]
    Kms(#[from] kms::Error),
    /// The key of stored records is gone for ever.
    #[error("the key of these records was shredded: nobody can decrypt them any more")]
    KeyShredded,
    /// The key of a stored record was shredded.
    #[error(
        "the key of the record at seq_num {0} was shredded: the record cannot be decrypted any more"
    )]
    RecordShredded(u64),
    /// The operating system has no randomness for a new key.
    #[error("no randomness for a new key")]
    NoRandomness(#[source] rand::rngs::SysError),
    /// The stream's cipher allows no further record under its key.
    #[error("max assignable sequence number is {limit}; attempted {attempted}")]
    Exhausted {
        /// The last sequence number that a data record may take.
        limit: u64,
        /// The one this batch would reach.
        attempted: u64,
    },
}

impl From<upstream::Error> for Error {
    fn from(error: upstream::Error) -> Self {
        match error {
            upstream::Error::Connect { .. }
            | upstream::Error::Target { .. }
            | upstream::Error::Request(_) => Self::Unreachable(error),
            upstream::Error::Lost { .. } => Self::Lost(error),
            upstream::Error::Redirect { .. } => Self::Garbage("a redirect"),
            upstream::Error::ContentType { .. } => {
                Self::Garbage("its content type is none of S2's")
            }
        }
    }
}

/// S2's error codes that the proxy itself gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// No good access token.
    Authn,
    /// A frame of a session does not decode.
    BadFrame,
    /// A header has a bad value.
    BadHeader,
    /// A JSON body does not decode.
    BadJson,
    /// The path names nothing valid.
    BadPath,
    /// A protobuf body does not decode.
    BadProto,
    /// The query string is not acceptable.
    BadQuery,
    /// A record did not open, or the key is another one.
    DecryptionFailed,
    /// A value breaks a rule.
    Invalid,
    /// Not allowed by configuration.
    PermissionDenied,
    /// Retryable, nothing happened.
    HotServer,
    /// Retryable, nothing happened.
    RateLimited,
    /// The request did not arrive in time.
    RequestTimeout,
    /// Retryable, nothing happened.
    ServerDraining,
    /// May have taken effect.
    UpstreamTimeout,
    /// May have taken effect.
    Other,
}

impl Code {
    /// As S2 spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authn => "authn",
            Self::BadFrame => "bad_frame",
            Self::BadHeader => "bad_header",
            Self::BadJson => "bad_json",
            Self::BadPath => "bad_path",
            Self::BadProto => "bad_proto",
            Self::BadQuery => "bad_query",
            Self::DecryptionFailed => "decryption_failed",
            Self::Invalid => "invalid",
            Self::PermissionDenied => "permission_denied",
            Self::HotServer => "hot_server",
            Self::RateLimited => "rate_limited",
            Self::RequestTimeout => "request_timeout",
            Self::ServerDraining => "server_draining",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::Other => "other",
        }
    }

    /// The HTTP status S2 pairs with the code. SDKs trust a code only together with its status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadFrame
            | Self::BadHeader
            | Self::BadJson
            | Self::BadPath
            | Self::BadProto
            | Self::BadQuery
            | Self::DecryptionFailed => StatusCode::BAD_REQUEST,
            Self::Authn => StatusCode::UNAUTHORIZED,
            Self::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::HotServer => StatusCode::BAD_GATEWAY,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::ServerDraining => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Other => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Error {
    /// An append to a stream whose keys were all shredded.
    pub(super) fn shredded_stream(path: &StreamPath) -> Self {
        Self::NotAllowed(format!(
            "the keys of stream `{path}` were shredded: it takes no more records"
        ))
    }

    /// The same error, had after the upstream was asked to act: it can no longer promise that nothing
    /// happened.
    #[must_use]
    pub fn after_acting(self) -> Self {
        match self {
            Self::Store(error) => Self::Unrecorded(error),
            other => other,
        }
    }

    /// The code that tells the client what to do.
    pub fn code(&self) -> Code {
        match self {
            Self::Key(_)
            | Self::Seal(_)
            | Self::Invalid(_)
            | Self::KeyOnPlain(_)
            | Self::KeyConflict { .. }
            | Self::Exhausted { .. }
            | Self::Decode(DecodeError::Invalid(_)) => Code::Invalid,
            Self::Unauthenticated(_) => Code::Authn,
            Self::Kms(error) => match error {
                kms::Error::Unreachable(_)
                | kms::Error::Unauthorized(_)
                | kms::Error::Misconfigured(_) => Code::HotServer,
                kms::Error::Denied(_) => Code::PermissionDenied,
                kms::Error::InvalidCiphertext(_) => Code::DecryptionFailed,
            },
            Self::Open(_) | Self::DataKey(_) | Self::KeyShredded | Self::RecordShredded(_) => {
                Code::DecryptionFailed
            }
            Self::Registry(error) => registry_row(error).0,
            Self::Decode(DecodeError::Json(_)) | Self::BadJson(_) => Code::BadJson,
            Self::Decode(DecodeError::Proto(_)) => Code::BadProto,
            Self::Decode(DecodeError::Frame(_)) => Code::BadFrame,
            Self::BadHeader(_) | Self::RefusedConfig(_) => Code::BadHeader,
            Self::BadPath(_) => Code::BadPath,
            Self::BadQuery(_) => Code::BadQuery,
            Self::Store(_)
            | Self::Unreachable(_)
            | Self::Unprepared(_)
            | Self::Raced(_)
            | Self::NoRandomness(_) => Code::HotServer,
            Self::Busy => Code::RateLimited,
            Self::SlowClient => Code::RequestTimeout,
            Self::Draining => Code::ServerDraining,
            Self::Lost(_)
            | Self::Broken
            | Self::PartlyAppended(_)
            | Self::Unrecorded(_)
            | Self::TwoKeys(_)
            | Self::Garbage(_) => Code::Other,
            Self::Timeout | Self::Stopped => Code::UpstreamTimeout,
            Self::PlainRefused(_)
            | Self::Declared(_)
            | Self::Denied(_)
            | Self::NotAllowed(_)
            | Self::NoMasterKey => Code::PermissionDenied,
        }
    }

    /// Who has to change something for the request to succeed.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Key(_)
            | Self::KeyOnPlain(_)
            | Self::PlainRefused(_)
            | Self::Unauthenticated(_)
            | Self::Denied(_)
            | Self::NotAllowed(_)
            | Self::NoMasterKey
            | Self::Decode(_)
            | Self::Seal(_)
            | Self::BadHeader(_)
            | Self::RefusedConfig(_)
            | Self::BadPath(_)
            | Self::BadQuery(_)
            | Self::Invalid(_)
            | Self::BadJson(_)
            | Self::SlowClient
            | Self::Declared(_)
            | Self::Raced(_)
            | Self::KeyShredded
            | Self::RecordShredded(_)
            | Self::Exhausted { .. } => Fault::Client,
            Self::Open(_)
            | Self::Unreachable(_)
            | Self::Lost(_)
            | Self::PartlyAppended(_)
            | Self::Broken
            | Self::Timeout
            | Self::TwoKeys(_)
            | Self::Garbage(_) => Fault::Upstream,
            Self::Unprepared(cause) => cause.fault(),
            Self::Registry(error) => registry_row(error).1,
            Self::Store(_)
            | Self::Unrecorded(_)
            | Self::Busy
            | Self::Draining
            | Self::Stopped
            | Self::KeyConflict { .. }
            | Self::DataKey(_)
            | Self::Kms(_)
            | Self::NoRandomness(_) => Fault::Proxy,
        }
    }

    /// The error as S2 writes it in JSON: in an HTTP body, an SSE `error` event, a terminal frame.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Info {
            code: Code,
            message: String,
        }
        let info = Info {
            code: self.code(),
            message: self.to_string(),
        };
        serde_json::to_string(&info).unwrap_or_default()
    }

    /// The error with its causes, as it may stand in a log.
    pub fn told(&self) -> String {
        match self {
            // May quote what the client wrote.
            Self::BadJson(_) => "request body is not the expected JSON".to_owned(),
            // The upstream may repeat what it was sent, tokens included.
            Self::RefusedConfig(_) => "the upstream refused `s2-stream-config`".to_owned(),
            // To clients it says nothing of the operator's account.
            Self::Kms(error) => format!("{error}: {}", error.reason()),
            other => told(other),
        }
    }
}

/// An error with its causes, control characters escaped.
pub(super) fn told(error: &dyn std::error::Error) -> String {
    printable(&with_causes(error))
}

/// The code and the fault of a refusal of the registry. [`From`] takes the store's errors out of it.
fn registry_row(error: &registry::Error) -> (Code, Fault) {
    use registry::Error as Refusal;
    match error {
        Refusal::WrongKey => (Code::DecryptionFailed, Fault::Client),
        Refusal::UnknownStream(_) => (Code::PermissionDenied, Fault::Client),
        Refusal::OtherIncarnation(_) | Refusal::Contradiction { .. } => {
            (Code::HotServer, Fault::Client)
        }
        Refusal::RuleConflict { .. } => (Code::Invalid, Fault::Proxy),
        Refusal::Busy => (Code::RateLimited, Fault::Proxy),
        Refusal::Store(_) => (Code::HotServer, Fault::Proxy),
        Refusal::Unsettled => (Code::Other, Fault::Upstream),
    }
}

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Self {
        match error {
            registry::Error::Store(error) => Self::Store(error),
            registry::Error::Busy => Self::Busy,
            other => Self::Registry(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Cipher;

    #[test]
    fn what_is_told_is_one_line_and_quotes_no_body() {
        let stream = "basin-name/a\nb\u{1b}[31m".parse().unwrap();
        let told = Error::PlainRefused(stream).told();
        assert!(told.contains("a\\nb\\u{1b}[31m"), "{told}");
        assert!(!told.contains(char::is_control), "{told}");
        let told = Error::BadJson("expected `,` at \"secret\"".into()).told();
        assert!(!told.contains("secret"), "{told}");
    }

    #[test]
    fn codes_are_spelled_and_paired_as_in_s2() {
        for (error, json, status) in [
            (
                registry::Error::WrongKey.into(),
                r#"{"code":"decryption_failed","#,
                400,
            ),
            (Error::Timeout, r#"{"code":"upstream_timeout","#, 504),
            (
                Error::Store(store::Error::Closed),
                r#"{"code":"hot_server","#,
                502,
            ),
            (Error::Garbage("x"), r#"{"code":"other","#, 500),
            (
                Error::Key(keys::Error::Missing(Cipher::Aegis256)),
                r#"{"code":"invalid","message":"missing encryption key for stream cipher 'aegis-256'"#,
                422,
            ),
            (
                Error::Decode(DecodeError::Frame("empty frame payload".into())),
                r#"{"code":"bad_frame","message":"empty frame payload"}"#,
                400,
            ),
        ] {
            assert!(error.to_json().starts_with(json), "{}", error.to_json());
            assert_eq!(error.code().status().as_u16(), status);
            assert!(json.contains(&format!("\"{}\"", error.code().as_str())));
        }
    }
}
