//! Why an API key is refused: the log says it, the client hears one and the same answer.

/// Why an API key is refused. Never carries the key.
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
    /// It was good once; holds its id.
    #[error("API key {0} is expired, replaced or revoked")]
    Over(String),
}
