//! Why nothing was done about a project or its API keys.

use crate::{proxy::Error, store};

/// Why nothing was done about a project or its API keys. Never carries a secret.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// Clients come in another way.
    #[error("this proxy takes no API keys: `listen.authenticate` is not \"api-key\"")]
    Off,
    /// The configuration has no such project.
    #[error("there is no project of this name in the configuration")]
    Unknown,
    /// It was made before.
    #[error("the project exists already, and whoever has an API key of it can make more")]
    Exists,
    /// It was made before and is in use; holds one of its streams.
    #[error(
        "stream `{0}` is encrypted with keys of this project, and a new master key would make it unreadable \
         for ever; shred or delete its streams first, or find an API key of it"
    )]
    InUse(String),
    /// The project has no API key of this id.
    #[error("the project has no API key of this id")]
    NoSuchKey,
    /// Another API key took its place already.
    #[error("API key {0} has a successor already; rotate that, or revoke it")]
    Retiring(String),
    /// It is expired or revoked.
    #[error("API key {0} is expired or revoked; make a new one")]
    Over(String),
    /// Without it the project's data would be lost, at once or soon.
    #[error(
        "API key {0} is the last with scope `manage` that lasts: make another first; losing every API key of \
         a project loses its data, and there is no recovery (\"force\": true revokes it all the same)"
    )]
    Last(String),
    /// There are too many good ones.
    #[error("a project has at most {0} API keys; revoke one first")]
    Full(usize),
    /// A change of the master key is under way, and this API key is one of before.
    #[error(
        "the project's master key is being changed, and this API key ends with the change: use the one that \
         came with it"
    )]
    Changing,
    /// The last number of a master key is taken.
    #[error("the project had as many master keys as it can have")]
    Exhausted,
    /// The end of a change of the master key was asked for with an API key of the one before.
    #[error(
        "the change of the master key ends only with an API key of the next one: it proves that somebody has \
         one when those of before stop"
    )]
    OldKey,
    /// The end of a change of the master key was asked for that is not under way; holds its number.
    #[error("no change to master key {0} is under way")]
    NotUnderWay(u32),
    /// Others change the project all the time.
    #[error("the project was changed by others at the same time; look at it and try again")]
    Conflict,
    /// What is asked for breaks a rule; the text says which.
    #[error("{0}")]
    Invalid(String),
    /// The API key that came with the call is not good for it.
    #[error(transparent)]
    Refused(#[from] Error),
    /// The system has no randomness to give.
    #[error("no randomness: {0}")]
    Random(#[from] rand::rngs::SysError),
    /// The change could not be carried to its end; it may have been made.
    #[error("the change broke off; look whether it was made")]
    Broken,
    /// The config store's.
    #[error(transparent)]
    Store(#[from] store::Error),
}
