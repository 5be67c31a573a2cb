//! What one record is to whoever reads it.

use bytes::Bytes;
use s2_sdk::types::SequencedRecord;

use crate::{
    crypto::{Cipher, Key, OpenError, StreamCipher},
    stream::StreamPath,
    wire::record::{Header, StoredBatch, StoredRecord},
};

/// Where the records come from.
pub(super) enum View {
    /// From an endpoint that opens them.
    Clear,
    /// From the store itself: they are opened here.
    Opened(Vec<StreamCipher>),
    /// From the store itself: they are only looked at.
    Stored,
}

/// What a record turned out to be.
pub(super) enum Kind {
    /// A command to the stream.
    Command,
    /// A record in clear, which it should be, as it came from where records are opened.
    Clear {
        /// Whether it looks as encrypted records do in the store.
        looks_sealed: bool,
    },
    /// A sealed record in this layout; what was sealed, if it was opened.
    Sealed(Layout, Option<Open>),
    /// A record in the store that is not sealed.
    Plain,
    /// A sealed record in this layout that does not open, and why.
    Closed(Layout, &'static str),
}

/// How a record is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(super) struct Layout {
    /// Spelled as in the configuration.
    cipher: &'static str,
}

/// What was sealed in a record.
pub(super) struct Open {
    pub(super) headers: Vec<s2_sdk::types::Header>,
    pub(super) body: Bytes,
}

impl View {
    /// Opens records here, with this key.
    pub(super) fn opening(key: &Key, path: &StreamPath) -> Self {
        let bind = |cipher| StreamCipher::new(cipher, key, path.id());
        Self::Opened(Cipher::ALL.into_iter().map(bind).collect())
    }

    /// Judges one record.
    pub(super) fn judge(&self, record: &SequencedRecord) -> Kind {
        let stored = stored(record);
        if stored.is_command() {
            return Kind::Command;
        }
        let cipher = stored.looks_sealed();
        match (self, cipher) {
            (Self::Clear, cipher) => Kind::Clear {
                looks_sealed: cipher.is_some(),
            },
            (_, None) => Kind::Plain,
            (Self::Stored, Some(cipher)) => Kind::Sealed(layout(cipher), None),
            (Self::Opened(ciphers), Some(cipher)) => {
                let ours = ciphers.iter().find(|ours| ours.cipher() == cipher);
                match ours.map(|ours| open(stored, ours)) {
                    Some(Ok(open)) => Kind::Sealed(layout(cipher), Some(open)),
                    Some(Err(error)) => Kind::Closed(layout(cipher), reason(error)),
                    None => Kind::Closed(layout(cipher), reason(OpenError::Format)),
                }
            }
        }
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.cipher)
    }
}

fn layout(cipher: Cipher) -> Layout {
    Layout {
        cipher: match cipher {
            Cipher::Aegis256 => "aegis-256",
            Cipher::Aes256Gcm => "aes-256-gcm",
        },
    }
}

fn stored(record: &SequencedRecord) -> StoredRecord {
    let headers = record.headers.iter().map(|header| Header {
        name: header.name.clone(),
        value: header.value.clone(),
    });
    StoredRecord {
        seq_num: record.seq_num,
        timestamp: record.timestamp,
        headers: headers.collect(),
        body: record.body.clone(),
    }
}

fn open(stored: StoredRecord, cipher: &StreamCipher) -> Result<Open, OpenError> {
    let batch = StoredBatch {
        records: vec![stored],
        tail: None,
    };
    let opened = batch.open(cipher)?.records.pop();
    let record = opened.ok_or(OpenError::Truncated)?.record;
    let headers = record
        .headers()
        .iter()
        .map(|header| s2_sdk::types::Header::new(header.name.clone(), header.value.clone()));
    Ok(Open {
        headers: headers.collect(),
        body: record.body().clone(),
    })
}

/// Why a record does not open, for people.
fn reason(error: OpenError) -> &'static str {
    match error {
        OpenError::Authentication => "another key, or damaged",
        OpenError::Format => "of another format",
        OpenError::Truncated => "truncated",
        OpenError::HeadersInClear => "headers in clear",
        OpenError::Malformed => "malformed",
    }
}
