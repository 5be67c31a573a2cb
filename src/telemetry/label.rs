//! What requests are called in metrics, logs and traces: few words, however many requests there are.

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
