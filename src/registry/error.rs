//! Why the registry refuses to say how a stream's records are treated.

use super::table::Contradiction;
use crate::{crypto::Cipher, store, stream::StreamPath};

/// Why there is no decision about a stream. In every case nothing goes upstream in clear.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The config store could not answer or write.
    #[error("config store unavailable")]
    Store(#[from] store::Error),
    /// Other requests hold the basin or the stream for too long.
    #[error("too many requests at once; try again")]
    Busy,
    /// The request's key is not the stream's.
    #[error("encryption key is not the one this stream was written with")]
    WrongKey,
    /// The stream exists upstream, was not created through this proxy, and its basin encrypts new streams.
    #[error(
        "stream `{0}` was not created through this proxy and its basin encrypts new streams; an operator can \
         admit it as a plain stream with `streamseal store admit s2://{0}`"
    )]
    UnknownStream(StreamPath),
    /// The configuration declares another cipher than the stream has.
    #[error("stream `{path}` is recorded with cipher {}, but the configuration declares {}",
        name(*recorded), name(*declared))]
    RuleConflict {
        /// The stream.
        path: StreamPath,
        /// The cipher of the stream.
        recorded: Option<Cipher>,
        /// The cipher of the rule.
        declared: Option<Cipher>,
    },
    /// The stream was deleted or created again while the request ran.
    #[error(
        "stream `{0}` was deleted or created again while the request ran; nothing more was appended or read"
    )]
    OtherIncarnation(StreamPath),
    /// An event does not fit what is recorded of the stream.
    #[error("stream `{path}`: {contradiction}")]
    Contradiction {
        /// The stream.
        path: StreamPath,
        /// What does not fit.
        contradiction: Contradiction,
    },
    /// The upstream's answers about the stream fit no state of it.
    #[error("unusable answer from upstream: a stream that keeps changing")]
    Unsettled,
}

fn name(cipher: Option<Cipher>) -> &'static str {
    cipher.map_or("none", Cipher::as_str)
}
