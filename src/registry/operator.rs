//! What an operator may do to the entry of a stream, and no client and no upstream may.

use super::{
    Registry,
    table::{Contradiction, Event, next},
    update::update,
};
use crate::{
    store::{self, Store, StreamEntry},
    stream::StreamPath,
};

/// What became of an operator's command on one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The entry before, and the entry now.
    Changed {
        /// Before the command.
        before: Option<StreamEntry>,
        /// After it.
        after: Option<StreamEntry>,
    },
    /// The entry was like that already; `None` when nothing is recorded of the stream.
    Unchanged(Option<StreamEntry>),
    /// The entry contradicts the command.
    Contradicted(Contradiction),
}

/// Why an update of the store by an operator stops.
enum Stopped {
    Store(store::Error),
    Contradicted(Contradiction),
}

impl From<store::Error> for Stopped {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

/// Applies an operator's event ([`Event::Unpinned`], [`Event::Admitted`], [`Event::CipherSet`]) to a stream of a
/// store that no proxy has open.
///
/// # Errors
/// The store fails, or other requests change the entry all the time.
pub async fn apply(
    store: &dyn Store,
    path: &StreamPath,
    event: &Event,
) -> Result<Applied, store::Error> {
    let updated = update(store, path, |found| {
        let entry = found.entry.as_deref().cloned();
        next(entry, event.clone()).map_err(Stopped::Contradicted)
    });
    match updated.await {
        Ok(updated) if updated.is_written => Ok(Applied::Changed {
            before: updated.before.as_deref().cloned(),
            after: updated.after.as_deref().cloned(),
        }),
        Ok(updated) => Ok(Applied::Unchanged(updated.after.as_deref().cloned())),
        Err(Stopped::Contradicted(contradiction)) => Ok(Applied::Contradicted(contradiction)),
        Err(Stopped::Store(error)) => Err(error),
    }
}

impl Registry {
    /// The same through the running proxy.
    ///
    /// # Errors
    /// As [`apply`].
    pub async fn apply(&self, path: &StreamPath, event: &Event) -> Result<Applied, store::Error> {
        let applied = apply(&*self.store, path, event).await;
        self.advance();
        applied
    }
}
