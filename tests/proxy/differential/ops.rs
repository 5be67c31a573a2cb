//! What a client may do, as plain data: a failing sequence can be read, shrunk, kept as JSON and replayed.

use serde::{Deserialize, Serialize};

use crate::harness::{Encoding, Packed};

/// The basins. The last one is only there once an operation makes it.
pub const BASINS: [&str; 3] = ["basin-one", "basin-two", "basin-new"];

/// The streams: one inside another's prefix, one with a slash, one that needs escapes, one in Unicode.
pub const STREAMS: [&str; 5] = ["s", "s2", "a/b", "100% &?#+", "strøm"];

/// One request and what it says of itself, whatever it asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Op {
    /// Over HTTP/1.1 instead of HTTP/2.
    pub http1: bool,
    /// Whether it comes from a web page.
    pub origin: bool,
    pub accept_encoding: Option<String>,
    pub call: Call,
}

impl Op {
    /// All of it on one line: a failing run shows its last lines only.
    pub fn line(&self) -> String {
        serde_json::to_string(self).unwrap()
    }

    /// Whether a browser asks what a page may do.
    pub fn is_preflight(&self) -> bool {
        matches!(&self.call, Call::Odd(odd) if odd.method == "OPTIONS")
    }

    /// Whether the headers that browsers look for matter.
    pub fn is_from_page(&self) -> bool {
        self.origin || self.is_preflight()
    }
}

/// What is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Call {
    CreateBasin {
        basin: usize,
        config: Field<BasinConfig>,
        token: Option<u8>,
    },
    EnsureBasin {
        basin: usize,
        /// `None`: no body at all.
        config: Option<Field<BasinConfig>>,
    },
    ReconfigureBasin {
        basin: usize,
        change: BasinConfig,
    },
    ShowBasin {
        basin: usize,
        head: bool,
    },
    DeleteBasin(usize),
    ListBasins(Page),
    CreateStream {
        at: Place,
        config: Field<StreamConfig>,
        token: Option<u8>,
    },
    EnsureStream {
        at: Place,
        /// `None`: no body at all.
        config: Option<StreamConfig>,
    },
    ReconfigureStream {
        at: Place,
        change: StreamConfig,
    },
    ShowStream {
        at: Place,
        head: bool,
    },
    DeleteStream(Place),
    ListStreams {
        basin: usize,
        page: Page,
    },
    Tail {
        at: Place,
        head: bool,
        key: Key,
    },
    Append(Append),
    Read(Read),
    Odd(Odd),
}

/// A field of JSON that may be left out, `null`, or set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Field<T> {
    Absent,
    Null,
    Set(T),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BasinConfig {
    pub stream_cipher: Field<String>,
    pub on_append: Field<bool>,
    pub on_read: Field<bool>,
    pub stream: Field<StreamConfig>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StreamConfig {
    pub storage_class: Field<String>,
    pub retention_age: Field<u64>,
    pub timestamping: Field<(Option<String>, Option<bool>)>,
    pub delete_on_empty: Field<u64>,
}

/// What part of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Page {
    pub prefix: Option<String>,
    pub start_after: Option<String>,
    pub limit: Option<String>,
}

/// A stream, and how its name is spelled in the path.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Place {
    pub basin: usize,
    pub stream: usize,
    pub spelling: Spelling,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Spelling {
    /// `%2F`
    Upper,
    /// `%2f`
    Lower,
    /// Every byte is escaped.
    Escaped,
}

/// The key that goes with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Key {
    /// The one that the stream's records are encrypted with, or the usual one.
    Right,
    /// Well-formed, but another one than [`Key::Right`].
    Other,
    Absent,
    Half,
    NotBase64,
    Long,
    Empty,
}

/// One append: one input unless it is a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Append {
    pub at: Place,
    pub key: Key,
    pub inputs: Vec<Input>,
    pub encoding: Encoding,
    pub packed: Packed,
    pub accept: Option<String>,
    /// The configuration of a stream that it may create.
    pub config: Option<StreamConfig>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Input {
    pub records: Vec<Rec>,
    /// How often the records are repeated.
    pub times: usize,
    pub match_seq_num: Option<Pos>,
    pub fencing_token: Option<Fence>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rec {
    pub timestamp: Option<u64>,
    pub what: What,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum What {
    Data {
        headers: Vec<(String, Bytes)>,
        body: Bytes,
    },
    Fence(String),
    Trim(Pos),
    /// A trim point of a wrong size.
    BadTrim,
    UnknownCommand,
    /// A header without a name beside another one.
    EmptyName,
}

/// So many bytes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Bytes {
    pub len: usize,
    /// Not compressible, and no text where the encoding has room for that.
    pub noise: bool,
}

/// A sequence number.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Pos {
    At(u64),
    /// Relative to the tail.
    Tail(i64),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Fence {
    /// The stream's fencing token.
    Right,
    Other(String),
}

/// One read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Read {
    pub at: Place,
    pub key: Key,
    pub head: bool,
    pub encoding: Encoding,
    pub start: Option<Start>,
    pub count: Option<u64>,
    pub bytes: Option<u64>,
    pub until: Option<u64>,
    pub wait: Option<u32>,
    pub clamp: Option<bool>,
    /// More of the query, as it is.
    pub more: Option<String>,
    /// Last sequence number, and the count and bytes so far.
    pub last_event_id: Option<(Pos, u64, u64)>,
    /// The configuration of a stream that it may create.
    pub config: Option<StreamConfig>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Start {
    SeqNum(Pos),
    Timestamp(u64),
    TailOffset(u64),
}

/// A request that is no ordinary call, word for word. Without a basin, `s2-basin` is not sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Odd {
    pub method: String,
    pub path: String,
    pub basin: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: String,
}
