//! The messages as prost decodes them. Their names appear in error texts, so they are S2's.

use bytes::Bytes;
use prost::Message;

use crate::wire::record;

/// Field of `AppendRecord` that holds its headers.
pub(super) const APPEND_RECORD_HEADERS: u64 = 2;

/// Field of `SequencedRecord` that holds its headers.
pub(super) const SEQUENCED_RECORD_HEADERS: u64 = 3;

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct StreamPosition {
    #[prost(uint64, tag = "1")]
    pub(super) seq_num: u64,
    #[prost(uint64, tag = "2")]
    pub(super) timestamp: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Header {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) name: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AppendRecord {
    #[prost(uint64, optional, tag = "1")]
    pub(super) timestamp: Option<u64>,
    #[prost(message, repeated, tag = "2")]
    pub(super) headers: Vec<Header>,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) body: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AppendInput {
    #[prost(message, repeated, tag = "1")]
    pub(super) records: Vec<AppendRecord>,
    #[prost(uint64, optional, tag = "2")]
    pub(super) match_seq_num: Option<u64>,
    #[prost(string, optional, tag = "3")]
    pub(super) fencing_token: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct AppendAck {
    #[prost(message, optional, tag = "1")]
    pub(super) start: Option<StreamPosition>,
    #[prost(message, optional, tag = "2")]
    pub(super) end: Option<StreamPosition>,
    #[prost(message, optional, tag = "3")]
    pub(super) tail: Option<StreamPosition>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SequencedRecord {
    #[prost(uint64, tag = "1")]
    pub(super) seq_num: u64,
    #[prost(uint64, tag = "2")]
    pub(super) timestamp: u64,
    #[prost(message, repeated, tag = "3")]
    pub(super) headers: Vec<Header>,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) body: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ReadBatch {
    #[prost(message, repeated, tag = "1")]
    pub(super) records: Vec<SequencedRecord>,
    #[prost(message, optional, tag = "2")]
    pub(super) tail: Option<StreamPosition>,
}

impl From<Header> for record::Header {
    fn from(Header { name, value }: Header) -> Self {
        Self { name, value }
    }
}
