//! Read, decide, commit, and again if another request was faster: the one way a stream's entry changes.

use std::sync::Arc;

use super::{
    Error, MAX_ROUNDS, Registry,
    table::{Contradiction, Event, next},
};
use crate::{
    store::{self, Change, Store, StreamEntry, Versioned},
    stream::StreamPath,
};

/// An entry after an update, and before it.
#[derive(Debug, Clone)]
pub(super) struct Updated {
    pub(super) before: Option<Arc<StreamEntry>>,
    pub(super) after: Option<Arc<StreamEntry>>,
    /// The entry was written, not just read.
    pub(super) is_written: bool,
}

/// Lets `decide` turn the entry of a stream into another, until no other request is faster.
///
/// # Errors
/// What `decide` says, or the store's.
pub(super) async fn update<E: From<store::Error>>(
    store: &dyn Store,
    path: &StreamPath,
    decide: impl Fn(&Versioned<Arc<StreamEntry>>) -> Result<Option<StreamEntry>, E>,
) -> Result<Updated, E> {
    let mut rounds = 0;
    loop {
        let found = store.stream(path).await?;
        let entry = decide(&found)?;
        let is_written = entry.as_ref() != found.entry.as_deref();
        if is_written {
            let change = Change::Stream {
                path: path.clone(),
                expected: found.revision,
                entry: entry.clone(),
            };
            rounds += 1;
            match store.commit(vec![change]).await {
                Err(store::Error::Conflict(_)) if rounds < MAX_ROUNDS => continue,
                committed => committed?,
            }
        }
        return Ok(Updated {
            before: found.entry,
            after: entry.map(Arc::new),
            is_written,
        });
    }
}

impl Registry {
    /// Lets events happen to a stream, in one commit. An event that does not fit changes nothing.
    ///
    /// # Errors
    /// [`Error::Contradiction`], or the store's.
    pub(super) async fn happen(
        &self,
        path: &StreamPath,
        events: &[Event],
    ) -> Result<Updated, Error> {
        let contradicts = |contradiction| Error::Contradiction {
            path: path.clone(),
            contradiction,
        };
        self.change(path, |entry| after_all(entry, events).map_err(contradicts))
            .await
    }

    /// Lets `decide` change the entry of a stream.
    ///
    /// # Errors
    /// What `decide` says, or the store's.
    pub(super) async fn change(
        &self,
        path: &StreamPath,
        decide: impl Fn(Option<StreamEntry>) -> Result<Option<StreamEntry>, Error>,
    ) -> Result<Updated, Error> {
        let decide = |found: &Versioned<Arc<StreamEntry>>| decide(found.entry.as_deref().cloned());
        let updated = update(&*self.store, path, decide).await;
        if !matches!(&updated, Ok(updated) if !updated.is_written) {
            self.advance();
        }
        updated
    }
}

/// Returns the entry after all these events.
pub(super) fn after_all(
    entry: Option<StreamEntry>,
    events: &[Event],
) -> Result<Option<StreamEntry>, Contradiction> {
    let mut events = events.iter().cloned();
    events.try_fold(entry, next)
}
