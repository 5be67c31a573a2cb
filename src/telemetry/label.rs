//! What requests are called in metrics, logs and traces: few words, however many requests there are.

/// A label whose values are all known.
pub trait Label: Copy + 'static {
    /// Every value, in the order of [`Label::index`].
    const VALUES: &'static [Self];

    /// Place among the values.
    fn index(self) -> usize;

    /// The word for it.
    fn word(self) -> &'static str;
}

/// An enum that is a [`Label`].
macro_rules! label {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $value:ident = $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $value,)*
        }

        impl Label for $name {
            const VALUES: &'static [Self] = &[$(Self::$value),*];

            fn index(self) -> usize {
                self as usize
            }

            fn word(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)*
                }
            }
        }
    };
}

label! {
    /// A cipher.
    CipherName {
        /// AEGIS-256.
        Aegis256 = "aegis-256",
        /// AES-256-GCM.
        Aes256Gcm = "aes-256-gcm",
    }
}

label! {
    /// What records go through.
    Direction {
        /// They were sealed.
        Sealed = "sealed",
        /// They were opened.
        Opened = "opened",
    }
}

label! {
    /// Why a record did not open.
    OpenFailure {
        /// Too short to be a sealed record.
        Truncated = "truncated",
        /// Not in the format of the stream's cipher.
        Format = "format",
        /// The tag does not match: another key, altered bytes, or another stream's record.
        Authentication = "authentication",
        /// Of a key epoch that the stream does not have.
        Epoch = "epoch",
        /// Of a key epoch that was shredded.
        Shredded = "shredded",
        /// Headers in clear, which no sealed record has.
        HeadersInClear = "headers_in_clear",
        /// What was sealed is no record.
        Malformed = "malformed",
    }
}

label! {
    /// Why a request has no usable key.
    KeyFailure {
        /// It has none.
        Missing = "missing",
        /// It has more than one.
        Several = "several",
        /// It is not base64 of 32 bytes.
        Invalid = "invalid",
        /// It cannot be a key for any cipher.
        Malformed = "malformed",
        /// It is not the stream's.
        WrongKey = "wrong_key",
        /// It has one, and the proxy makes the stream's keys.
        Unwanted = "unwanted",
        /// The stream's data key does not unwrap.
        DataKey = "data_key",
    }
}

label! {
    /// Why a stream got a new data key.
    KeyRotation {
        /// Somebody asked for it.
        Request = "request",
        /// The one before was too old.
        Age = "age",
        /// It had sealed enough records.
        Records = "records",
        /// It had sealed enough bytes.
        Bytes = "bytes",
    }
}

label! {
    /// Why an API key is refused, or an API key or a client certificate does not allow something.
    ApiKeyRefusal {
        /// There is none.
        Missing = "missing",
        /// There is more than one.
        Several = "several",
        /// It is no API key.
        Form = "form",
        /// No project knows it.
        Unknown = "unknown",
        /// Its verifier does not match.
        Verifier = "verifier",
        /// It was good once.
        Over = "over",
        /// API keys are not what clients come in with.
        NotTaken = "not_taken",
        /// It may not be used for this.
        Scope = "scope",
        /// The stream or basin is not its project's, or no rule gives it to the certificate.
        Owner = "owner",
        /// The master key in it does not open, or is not its project's.
        MasterKey = "master_key",
    }
}

label! {
    /// How a TLS handshake with a client came to nothing.
    HandshakeFailure {
        /// It failed.
        Tls = "tls",
        /// It took too long.
        Timeout = "timeout",
        /// A balancer sent no valid PROXY header.
        ProxyHeader = "proxy_header",
    }
}

label! {
    /// How an exchange with the upstream failed.
    UpstreamFailure {
        /// There was no connection, or nothing of the request was sent on it.
        Connect = "connect",
        /// It broke off.
        Lost = "lost",
        /// It was answered with a redirect.
        Redirect = "redirect",
        /// It was answered with a page, a script, or a body of no type.
        ContentType = "content_type",
        /// Endpoint and basin make no host name.
        Target = "target",
        /// The request has no form that can be sent.
        Request = "request",
        /// It was given up after a time.
        Timeout = "timeout",
    }
}

label! {
    /// The HTTP version of a connection.
    Protocol {
        /// HTTP/1.1.
        Http1 = "h1",
        /// HTTP/2.
        Http2 = "h2",
    }
}

label! {
    /// A call to the config store.
    StoreOperation {
        /// What is recorded of a basin.
        Basin = "basin",
        /// What is recorded of a stream.
        Stream = "stream",
        /// What is recorded of a project.
        Project = "project",
        /// Every stream of a basin.
        StreamsOf = "streams_of",
        /// A change.
        Commit = "commit",
        /// A change that leaves nothing of what was before.
        Erase = "erase",
    }
}

label! {
    /// How a call to the config store ended.
    StoreOutcome {
        /// As it should.
        Ok = "ok",
        /// Somebody else changed the entry first.
        Conflict = "conflict",
        /// It failed.
        Error = "error",
    }
}

label! {
    /// A call to the key management service.
    KmsOperation {
        /// A data key is wrapped.
        Wrap = "wrap",
        /// A data key is unwrapped.
        Unwrap = "unwrap",
    }
}

label! {
    /// How a call to the key management service ended.
    KmsOutcome {
        /// As it should.
        Ok = "ok",
        /// No answer, or none for now.
        Unreachable = "unreachable",
        /// The proxy's credentials are not accepted, or do not allow the use of the key.
        Unauthorized = "unauthorized",
        /// The key is disabled or gone.
        Denied = "denied",
        /// The wrapped key does not open.
        InvalidCiphertext = "invalid_ciphertext",
        /// It cannot be used as it is configured.
        Misconfigured = "misconfigured",
    }
}

label! {
    /// What an entry of the config store is about.
    EntryKind {
        /// A basin.
        Basin = "basin",
        /// A stream.
        Stream = "stream",
        /// A project.
        Project = "project",
    }
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Operation {
    /// A unary append.
    Append,
    /// An append session.
    AppendSession,
    /// A unary read.
    Read,
    /// A read session, in frames or as server-sent events.
    ReadSession,
    /// A check of the tail.
    Tail,
    /// A call about streams.
    Stream,
    /// A call about basins.
    Basin,
    /// Any other call: passed on as it is.
    Forward,
    /// Nothing that S2 has, or refused before it was known what it is.
    #[default]
    Unrouted,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 9] = [
        Self::Append,
        Self::AppendSession,
        Self::Read,
        Self::ReadSession,
        Self::Tail,
        Self::Stream,
        Self::Basin,
        Self::Forward,
        Self::Unrouted,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::AppendSession => "append_session",
            Self::Read => "read",
            Self::ReadSession => "read_session",
            Self::Tail => "tail",
            Self::Stream => "stream",
            Self::Basin => "basin",
            Self::Forward => "forward",
            Self::Unrouted => "unrouted",
        }
    }

    /// Whether it lasts as long as its two sides keep it.
    pub const fn is_session(self) -> bool {
        matches!(self, Self::AppendSession | Self::ReadSession)
    }
}

impl Label for Operation {
    const VALUES: &'static [Self] = &Self::ALL;

    fn index(self) -> usize {
        self as usize
    }

    fn word(self) -> &'static str {
        self.as_str()
    }
}

/// In which of S2's formats a client's records travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// JSON.
    Json,
    /// Protobuf.
    Proto,
    /// S2S frames.
    S2s,
    /// Server-sent events.
    Sse,
    /// No records in it.
    #[default]
    Other,
}

impl Encoding {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Proto => "proto",
            Self::S2s => "s2s",
            Self::Sse => "sse",
            Self::Other => "other",
        }
    }
}

/// Who has to change something for a failed request to succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Whoever sent the request.
    Client,
    /// The store behind the proxy, or the way to it.
    Upstream,
    /// The proxy, its config store or its limits.
    Proxy,
}

impl Fault {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Proxy => "proxy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_sound<L: Label>() {
        for (at, value) in L::VALUES.iter().enumerate() {
            assert_eq!(value.index(), at, "{}", value.word());
        }
    }

    #[test]
    fn values_stand_where_they_say() {
        is_sound::<Operation>();
        is_sound::<OpenFailure>();
        is_sound::<KmsOutcome>();
    }
}
