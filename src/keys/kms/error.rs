//! Why a key management service did not do as asked.

use std::{fmt, time::Duration};

use crate::telemetry::{bounded, label::KmsOutcome, printable};

/// Longest text of a service that is kept. Theirs name an action and a resource or two; a hostile one could
/// be of any length.
const MAX_REASON_BYTES: usize = 256;

/// Why a data key was not wrapped or unwrapped. `Display` is for clients and says nothing of the operator's
/// account; [`Error::reason`] is for logs and the admin listener.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The service cannot be reached, takes too long, is overloaded, sealed or broken. Later it may work.
    #[error("the key management service does not answer now")]
    Unreachable(Reason),
    /// The service does not accept the proxy's credentials, or does not let it use the key. Clients have no
    /// part in that: they come with no credentials for the service.
    #[error("the key management service does not let the proxy in now")]
    Unauthorized(Reason),
    /// The stream's key is disabled or gone, or this version of it.
    #[error("the key management service does not allow the use of the stream's key")]
    Denied(Reason),
    /// The wrapped key is damaged, or not one of this stream and epoch.
    #[error("the stream's wrapped key does not open in the key management service")]
    InvalidCiphertext(Reason),
    /// The service cannot be used as it is configured: an operator has to look at it.
    #[error("the key management service is misconfigured")]
    Misconfigured(Reason),
}

impl Error {
    /// What the service or the system said, short and printable. Holds no key, but it may name accounts and
    /// addresses.
    pub fn reason(&self) -> &str {
        match self {
            Self::Unreachable(reason)
            | Self::Unauthorized(reason)
            | Self::Denied(reason)
            | Self::InvalidCiphertext(reason)
            | Self::Misconfigured(reason) => &reason.0,
        }
    }

    /// Time for which it answers the same question again, without another call. Clients try again what they
    /// are told to retry within a second, so that it stands for less.
    pub fn stands_for(&self) -> Duration {
        match self {
            Self::Unreachable(_) | Self::Unauthorized(_) | Self::Misconfigured(_) => {
                Duration::from_millis(100)
            }
            Self::Denied(_) | Self::InvalidCiphertext(_) => Duration::from_secs(1),
        }
    }

    pub(super) fn outcome(&self) -> KmsOutcome {
        match self {
            Self::Unreachable(_) => KmsOutcome::Unreachable,
            Self::Unauthorized(_) => KmsOutcome::Unauthorized,
            Self::Denied(_) => KmsOutcome::Denied,
            Self::InvalidCiphertext(_) => KmsOutcome::InvalidCiphertext,
            Self::Misconfigured(_) => KmsOutcome::Misconfigured,
        }
    }
}

/// A text of bounded length without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason(Box<str>);

impl<T: AsRef<str>> From<T> for Reason {
    fn from(text: T) -> Self {
        Self(bounded(&printable(text.as_ref()), MAX_REASON_BYTES).into())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
