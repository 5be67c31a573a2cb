//! What errors count as: records that did not open, and keys that were of no use.

use super::Error;
use crate::{
    crypto::OpenError,
    keys::{self, kms},
    registry,
    telemetry::{
        label::{ApiKeyRefusal, KeyFailure, OpenFailure},
        metrics::Records,
    },
};

impl Error {
    /// Counts what it says of keys and records. Once for each request that fails with it.
    pub fn count(&self, records: &Records) {
        match self {
            Self::Key(error) => records.key_errors.of(key_failure(*error)).inc(),
            Self::Registry(registry::Error::WrongKey) => records.key_errors.of(KeyFailure::WrongKey).inc(),
            Self::Open(record) => records.decryption_failures.of(open_failure(record.cause)).inc(),
            Self::KeyShredded | Self::RecordShredded(_) => records.decryption_failures.of(OpenFailure::Shredded).inc(),
            Self::DataKey(_) | Self::Kms(kms::Error::InvalidCiphertext(_)) => {
                records.key_errors.of(KeyFailure::DataKey).inc();
            }
            Self::Unprepared(cause) => cause.count(records),
            Self::Unauthenticated(refusal) => {
                records.api_key_refusals.of(refusal.label()).inc();
            }
            Self::Denied(denied) => records.api_key_refusals.of(denied.label()).inc(),
            Self::NoMasterKey => records.api_key_refusals.of(ApiKeyRefusal::MasterKey).inc(),
            Self::NotAllowed(_)
            | Self::Decode(_)
            | Self::Seal(_)
            | Self::BadHeader(_)
            | Self::RefusedConfig(_)
            | Self::BadPath(_)
            | Self::BadQuery(_)
            | Self::Invalid(_)
            | Self::BadJson(_)
            | Self::Store(_)
            | Self::Unrecorded(_)
            | Self::Unreachable(_)
            | Self::Busy
            | Self::SlowClient
            | Self::Lost(_)
            | Self::PartlyAppended(_)
            | Self::Broken
            | Self::Draining
            | Self::Stopped
            | Self::Timeout
            | Self::Garbage(_)
            | Self::Registry(_)
            | Self::PlainRefused(_)
            | Self::TwoKeys(_)
            | Self::KeyOnPlain(_)
            | Self::Declared(_)
            | Self::KeyConflict { .. }
            | Self::Raced(_)
            // The calls to the service are counted.
            | Self::Kms(
                kms::Error::Unreachable(_)
                | kms::Error::Unauthorized(_)
                | kms::Error::Denied(_)
                | kms::Error::Misconfigured(_),
            )
            | Self::NoRandomness(_)
            | Self::Exhausted { .. } => {}
        }
    }
}

fn key_failure(error: keys::Error) -> KeyFailure {
    match error {
        keys::Error::Missing(_) => KeyFailure::Missing,
        keys::Error::Several(_) => KeyFailure::Several,
        keys::Error::Invalid(..) => KeyFailure::Invalid,
        keys::Error::Malformed(_) => KeyFailure::Malformed,
        keys::Error::Unwanted(_) => KeyFailure::Unwanted,
    }
}

fn open_failure(error: OpenError) -> OpenFailure {
    match error {
        OpenError::Truncated => OpenFailure::Truncated,
        OpenError::Format => OpenFailure::Format,
        OpenError::Epoch => OpenFailure::Epoch,
        OpenError::Shredded => OpenFailure::Shredded,
        OpenError::Authentication => OpenFailure::Authentication,
        OpenError::HeadersInClear => OpenFailure::HeadersInClear,
        OpenError::Malformed => OpenFailure::Malformed,
    }
}
