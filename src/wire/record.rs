//! Records, commands and batches as S2 defines them, apart from any encoding.

pub(super) mod append;
pub(super) mod command;
mod envelope;
mod read;
mod sealed;

use std::fmt;

use bytes::Bytes;

use super::DecodeError;
pub use append::{AppendAck, AppendInput, AppendRecord};
pub use command::{Command, FencingToken, TrimPoint};
pub use envelope::{Envelope, MalformedEnvelope};
pub use read::{Opening, ReadBatch, SequencedRecord, StoredBatch, StoredRecord, UnopenedRecord};
pub use sealed::{Fit, OversizeBatches, RecordCompression, SealError, SealedInput, SealedRecord};

/// Largest metered size of a batch, and so of a record: 1 MiB (S2's rule, `s2-common` caps).
pub const MAX_BATCH_BYTES: usize = 1_048_576;

/// Most records in a batch (S2's rule, `s2-common` caps).
pub const MAX_BATCH_RECORDS: usize = 1000;

/// Largest request body after decompression: 2 MiB (the default of S2's HTTP framework).
pub const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;

/// Metered bytes of a record before headers and body (S2's metering rule).
pub const RECORD_BASE_BYTES: usize = 8;

/// Metered bytes of a header besides its name and value (S2's metering rule).
const HEADER_BASE_BYTES: usize = 2;

/// Where a record is, or would be, in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Sequence number.
    pub seq_num: u64,
    /// Milliseconds, as the client or the service assigned them.
    pub timestamp: u64,
}

impl Position {
    /// The start of an empty stream.
    pub const ZERO: Self = Self {
        seq_num: 0,
        timestamp: 0,
    };
}

/// One header of a record: any bytes, in the order the client gave.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    /// Not empty, except in a command record.
    pub name: Bytes,
    /// May be empty.
    pub value: Bytes,
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value } = self;
        write!(f, "Header({} + {} bytes)", name.len(), value.len())
    }
}

/// A valid record in clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A command to the stream. Never sealed: the upstream acts on it.
    Command(Command),
    /// A record that carries data.
    Data(Envelope),
}

impl Record {
    /// The record that these headers and this body make.
    ///
    /// Exactly one header with an empty name makes a command.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] for an unknown or malformed command, or an invalid header.
    pub fn from_parts(headers: Vec<Header>, body: Bytes) -> Result<Self, DecodeError> {
        match headers.as_slice() {
            [header] if header.name.is_empty() => {
                Command::from_parts(&header.value, body).map(Self::Command)
            }
            _ => Envelope::new(headers, body).map(Self::Data),
        }
    }

    /// Its headers; a command has the one that names it.
    pub fn headers(&self) -> &[Header] {
        match self {
            Self::Command(command) => command.headers(),
            Self::Data(envelope) => envelope.headers(),
        }
    }

    /// Its body; for a command its payload.
    pub fn body(&self) -> &Bytes {
        match self {
            Self::Command(command) => command.payload(),
            Self::Data(envelope) => envelope.body(),
        }
    }

    /// What S2 meters it as: `8 + 2·headers + Σ(|name| + |value|) + |body|`.
    pub fn metered_size(&self) -> usize {
        match self {
            Self::Command(command) => command.metered_size(),
            Self::Data(envelope) => envelope.metered_size(),
        }
    }
}

#[cfg(test)]
mod tests;
