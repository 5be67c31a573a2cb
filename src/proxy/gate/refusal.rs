//! Why an API key is refused, or does not allow something: the log says it all, the client hears less.

use std::fmt;

use crate::{
    project::{ProjectName, Scope},
    stream::{BasinName, StreamPath},
    telemetry::label::ApiKeyRefusal,
};

/// Why an API key is refused. Never carries the key. The client hears one and the same answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no `authorization` header.
    #[error("no API key")]
    Missing,
    /// There is more than one.
    #[error("more than one `authorization` header")]
    Several,
    /// It is not `Bearer` and an API key of the one form that there is.
    #[error("not an API key")]
    Form,
    /// No project knows it: another proxy's, another pepper's, made up, or long revoked.
    #[error("no project knows this API key")]
    Unknown,
    /// It was found, and its verifier does not match.
    #[error("the API key's verifier does not match")]
    Verifier,
    /// It was found, and the master key in it does not open: it was altered.
    #[error("the master key in the API key does not open")]
    Wrapping,
    /// It was good once.
    #[error("API key {id} of project {project} is expired, replaced or revoked")]
    Over {
        /// Whose it was.
        project: ProjectName,
        /// What it was called.
        id: String,
    },
    /// API keys are not what clients come in with here.
    #[error("an API key, but `listen.authenticate` is not \"api-key\"")]
    NotTaken,
}

/// The credential that does not allow something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// An API key.
    ApiKey,
    /// A client certificate.
    Certificate,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ApiKey => "API key",
            Self::Certificate => "client certificate",
        })
    }
}

/// What a good API key or client certificate does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It may not be used for this.
    #[error("this {0} does not allow `{1}`")]
    Scope(By, Scope),
    /// The stream is not its project's. Whether there is such a stream is not said.
    #[error("stream `{0}` does not belong to the project of this API key")]
    Stream(StreamPath),
    /// The basin is not its project's alone. Whether there is such a basin is not said.
    #[error("basin `{0}` does not belong to the project of this API key alone")]
    Basin(BasinName),
    /// No rule gives the certificate this scope on the stream. Whether there is such a stream is not said.
    #[error("this client certificate does not allow `{0}` on stream `{1}`")]
    StreamRight(Scope, StreamPath),
    /// No rule gives the certificate this scope on the basin. Whether there is such a basin is not said.
    #[error("this client certificate does not allow `{0}` on basin `{1}`")]
    BasinRight(Scope, BasinName),
    /// The certificate was accepted in its handshake, but a later reload revoked it or its authority.
    #[error("this client certificate is not accepted any more")]
    Certificate,
    /// It is nothing that a project or a rule can name.
    #[error("no {0} allows this path")]
    Path(By),
}

impl Refusal {
    /// What it counts as.
    pub fn label(&self) -> ApiKeyRefusal {
        match self {
            Self::Missing => ApiKeyRefusal::Missing,
            Self::Several => ApiKeyRefusal::Several,
            Self::Form => ApiKeyRefusal::Form,
            Self::Unknown => ApiKeyRefusal::Unknown,
            Self::Verifier => ApiKeyRefusal::Verifier,
            Self::Wrapping => ApiKeyRefusal::MasterKey,
            Self::Over { .. } => ApiKeyRefusal::Over,
            Self::NotTaken => ApiKeyRefusal::NotTaken,
        }
    }
}

impl Denied {
    /// What it counts as.
    pub fn label(&self) -> ApiKeyRefusal {
        match self {
            Self::Scope(..) => ApiKeyRefusal::Scope,
            Self::Certificate => ApiKeyRefusal::Over,
            Self::Stream(_)
            | Self::Basin(_)
            | Self::StreamRight(..)
            | Self::BasinRight(..)
            | Self::Path(_) => ApiKeyRefusal::Owner,
        }
    }
}
