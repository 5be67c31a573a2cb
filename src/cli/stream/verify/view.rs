//! What one record is to whoever reads it.

use bytes::Bytes;
use s2_sdk::types::SequencedRecord;

use crate::{
    crypto::{self, Cipher, Key, OpenError, Opener, StreamCipher, layout_of},
    stream::StreamPath,
    wire::record::{Header, StoredBatch, StoredRecord},
};

/// Where the records come from.
pub(super) enum View {
    /// From an endpoint that opens them.
    Clear,
    /// From the store itself: they are opened here, whichever cipher they say.
    Opened(Vec<Opener>),
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
    /// The number of the stream's managed key; none for a key that clients or files bring.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_epoch: Option<u32>,
}

/// What was sealed in a record.
pub(super) struct Open {
    pub(super) headers: Vec<s2_sdk::types::Header>,
    pub(super) body: Bytes,
}

impl View {
    /// Opens records here, with this key.
    pub(super) fn opening(key: &Key, path: &StreamPath) -> Self {
        let bind = |cipher| Opener::one(StreamCipher::new(cipher, key, path.id()));
        Self::Opened(Cipher::ALL.into_iter().map(bind).collect())
    }

    /// Judges one record.
    pub(super) fn judge(&self, record: &SequencedRecord) -> Kind {
        let stored = stored(record);
        if stored.is_command() {
            return Kind::Command;
        }
        let layout = match stored.headers.as_slice() {
            [] => layout_of(&stored.body),
            _ => None,
        };
        match (self, layout) {
            (Self::Clear, layout) => Kind::Clear {
                looks_sealed: layout.is_some(),
            },
            (_, None) => Kind::Plain,
            (Self::Stored, Some(layout)) => Kind::Sealed(layout.into(), None),
            (Self::Opened(openers), Some(layout)) => {
                let ours = openers.iter().find(|ours| ours.cipher() == layout.cipher);
                match ours
                    .ok_or(OpenError::Format)
                    .and_then(|ours| open(stored, ours))
                {
                    Ok(open) => Kind::Sealed(layout.into(), Some(open)),
                    Err(error) => Kind::Closed(layout.into(), reason(error)),
                }
            }
        }
    }
}

impl From<crypto::Layout> for Layout {
    fn from(layout: crypto::Layout) -> Self {
        Self {
            cipher: layout.cipher.as_str(),
            key_epoch: layout.epoch,
        }
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.cipher)?;
        match self.key_epoch {
            Some(epoch) => write!(f, ", key epoch {epoch}"),
            None => Ok(()),
        }
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

fn open(stored: StoredRecord, opener: &Opener) -> Result<Open, OpenError> {
    let batch = StoredBatch {
        records: vec![stored],
        tail: None,
    };
    let opened = batch.open(opener)?.records.pop();
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
        OpenError::Epoch => "under a managed key, which only the proxy has",
        OpenError::Shredded => "its key was shredded",
        OpenError::Truncated => "truncated",
        OpenError::HeadersInClear => "headers in clear",
        OpenError::Malformed => "malformed",
    }
}
