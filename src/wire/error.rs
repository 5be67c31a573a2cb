//! Why bytes from a client or the upstream are not what S2's formats allow.

/// A body, frame or record that does not decode.
///
/// The message is meant for the client and never carries a value from the body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON of the expected shape.
    #[error("{0}")]
    Json(String),
    /// Not the expected protobuf message.
    #[error("{0}")]
    Proto(String),
    /// Not a valid S2S frame.
    #[error("{0}")]
    Frame(String),
    /// Decodes, but breaks a rule for records or batches.
    #[error("{0}")]
    Invalid(String),
}

impl DecodeError {
    /// The same error for a body that came in an S2S frame, where S2 reports a bad protobuf
    /// message as a bad frame.
    #[must_use]
    pub fn in_frame(self) -> Self {
        match self {
            Self::Proto(message) => Self::Frame(message),
            other @ (Self::Json(_) | Self::Frame(_) | Self::Invalid(_)) => other,
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    pub(super) fn frame(message: impl Into<String>) -> Self {
        Self::Frame(message.into())
    }
}
