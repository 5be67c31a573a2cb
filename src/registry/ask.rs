//! What the registry asks of the upstream, in the name of one client. No answer makes a sealed stream plain.

use super::Error;
use crate::{store, stream::StreamPath};

/// Which auto-create setting of the basin applies to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `create_stream_on_append`
    Append,
    /// `create_stream_on_read`
    Read,
}

/// A stream as the upstream lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The time of its creation, as the upstream writes it.
    pub created_at: String,
    /// The stream is being deleted.
    pub is_going: bool,
}

/// What the upstream answers to the creation of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Creating {
    /// The stream is there.
    There {
        /// The time of its creation, as the upstream writes it.
        created_at: String,
        /// The upstream says that it created the stream just now.
        is_new: bool,
    },
    /// A stream of this name is there already, or another request is creating it.
    Taken,
    /// A refusal that promises that nothing happened.
    Refused,
    /// Anything may have happened.
    Unknown,
}

/// The outcome of a creation that the registry asked for.
#[derive(Debug)]
pub struct Created<S> {
    /// What the answer says.
    pub outcome: Creating,
    /// The client's answer, unless the stream is there.
    pub refusal: Option<S>,
}

/// The upstream's own words for a stream that is not there.
#[derive(Debug)]
pub struct Absence<S> {
    /// There is no such stream; otherwise it is being deleted, or the upstream refuses to say.
    pub is_not_found: bool,
    /// The client's answer.
    pub stop: S,
}

/// Asks the upstream about streams.
pub trait Questions: Sync {
    /// Why a request ends: the registry's refusal, or the upstream's.
    type Stop: From<Error> + From<store::Error> + Send;

    /// Asks whether the upstream lists a stream.
    fn stream(
        &self,
        path: &StreamPath,
    ) -> impl Future<Output = Result<Option<Listed>, Self::Stop>> + Send;

    /// Asks for the number that the next record of a stream gets; `None` when there is no such stream. May create
    /// the stream in a basin that creates streams on reads.
    fn tail(
        &self,
        path: &StreamPath,
    ) -> impl Future<Output = Result<Option<u64>, Self::Stop>> + Send;

    /// Asks whether the stream's first records are plain. False where the upstream does not tell.
    fn looks_plain(&self, path: &StreamPath) -> impl Future<Output = bool> + Send;

    /// Asks whether the stream's basin creates missing streams for this purpose.
    fn auto_creates(
        &self,
        path: &StreamPath,
        purpose: Purpose,
    ) -> impl Future<Output = Result<bool, Self::Stop>> + Send;

    /// Creates a stream. `config` is the client's `s2-stream-config`: JSON.
    fn create(
        &self,
        path: &StreamPath,
        config: Option<&str>,
    ) -> impl Future<Output = Result<Created<Self::Stop>, Self::Stop>> + Send;

    /// Asks for the upstream's own words for a stream that is not listed, or is listed as being deleted.
    fn absence(&self, path: &StreamPath) -> impl Future<Output = Absence<Self::Stop>> + Send;
}
