//! Where keys come from: the client's header, a file of the operator's, the projects that API keys are of, or a
//! key management service.

mod clients;
mod file;
mod glob;
mod header;
pub mod kms;
mod language;
mod projects;
mod reach;
mod rotation;

use serde::{Deserialize, Serialize};

pub use clients::{ClientGrant, ClientRights, ClientRule, ClientRules, Clients};
pub use file::{FileKey, FileKeyError};
pub use glob::{basin_glob, glob, stream_glob};
pub use header::{KEY_HEADER, check_length, from_header};
pub use language::{Language, Over, Unclear, find, may_meet};
pub use projects::{Project, ProjectRule, Projects};
pub use reach::may_reach;
pub use rotation::{MAX_GCM_RECORDS, RotateAfter};

use crate::crypto::{Cipher, KeyError};

/// The `[keys]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether a key other than the stream's is refused before anything is written.
    pub check: Check,
    /// What is done with a key that a client sends for a plain stream.
    pub on_plain: OnPlain,
    /// When a managed key gets a successor.
    pub rotate_after: RotateAfter,
}

/// What to do with a key that is not the one a stream was written with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Refuse it before anything goes upstream.
    #[default]
    Enforce,
    /// Let it through, as S2 does: the stream then holds records that the other key cannot open.
    Off,
}

/// What to do with a request that carries a key and is for a plain stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnPlain {
    /// Refuse it: the client takes the stream for encrypted.
    #[default]
    Refuse,
    /// Log it, count it, and forward it in clear: for clients that always send a key.
    Warn,
}

/// Why a request has no usable key. Never carries the key's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The stream is encrypted and the request has no key header.
    #[error(
        "missing encryption key for stream cipher '{0}': send it in the `s2-encryption-key` header"
    )]
    Missing(Cipher),
    /// The request has more than one key header.
    #[error(
        "more than one encryption key for stream cipher '{0}': send one `s2-encryption-key` header"
    )]
    Several(Cipher),
    /// The header's value is not base64 of 32 bytes.
    #[error(
        "invalid encryption key for stream cipher '{0}' in the `s2-encryption-key` header: {1}"
    )]
    Invalid(Cipher, KeyError),
    /// The request has a key header, and the proxy makes the stream's keys.
    #[error(
        "the keys of this stream with cipher '{0}' are managed: send no `s2-encryption-key` header"
    )]
    Unwanted(Cipher),
    /// The header's value cannot be a key for any cipher.
    #[error("invalid encryption key in the `s2-encryption-key` header: {0}")]
    Malformed(KeyError),
}

#[cfg(test)]
mod tests;
