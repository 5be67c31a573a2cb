//! Remembering and forgetting which key a stream is written with, and that a rule's stream is in use.

use super::{Registry, SealedStream};
use crate::{
    crypto::{Key, KeyCheck},
    proxy::Error,
    store::{self, Error as StoreError, Incarnation, Origin, StreamEntry, StreamState, Unpinned},
    stream::StreamPath,
};

impl Registry {
    /// Remembers that records of a stream are known to be stored, and with `check` under which key.
    /// That somebody else was first, or that the stream is another one by now, is no error.
    ///
    /// # Errors
    /// The store cannot write.
    pub async fn pin(&self, stream: &SealedStream, check: Option<KeyCheck>) -> Result<(), Error> {
        let found = self.store.stream(&stream.path).await?;
        let then = stream.entry.entry.as_deref();
        let entry = match (found.entry.as_deref(), then) {
            (None, None) => StreamEntry {
                state: StreamState::Live(Incarnation {
                    cipher: Some(stream.cipher),
                    created_at: None,
                }),
                origin: Origin::Declared,
                key_check: check,
                data_keys: None,
            },
            (Some(now), Some(then))
                if now.state == then.state
                    && now.key_check.is_none()
                    && now.data_keys.is_none() =>
            {
                StreamEntry {
                    key_check: check,
                    ..now.clone()
                }
            }
            _ => return Ok(()),
        };
        if found.entry.as_deref() == Some(&entry) {
            return Ok(());
        }
        match self.record(&stream.path, found.revision, Some(entry)).await {
            Err(Error::Store(StoreError::Conflict(_))) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Forgets which key a stream is written with.
    ///
    /// # Errors
    /// The store cannot write.
    pub async fn unpin(&self, path: &StreamPath) -> Result<Unpinned, StoreError> {
        let unpinned = store::unpin(&*self.store, path).await;
        self.advance();
        unpinned
    }
}

impl SealedStream {
    /// Whether everything is recorded that its records can tell.
    pub fn is_pinned(&self, checks_keys: bool) -> bool {
        self.entry.entry.is_some() && (!checks_keys || self.key_check().is_some())
    }

    /// The operator's key for it, unless a header that the client sent wins over it.
    pub fn file_key(&self, has_header: bool) -> Option<&Key> {
        self.rules.stream(&self.path)?.key(has_header)
    }

    /// The commitment to the stream's key, if one is recorded.
    pub fn key_check(&self) -> Option<KeyCheck> {
        self.entry.entry.as_ref().and_then(|entry| entry.key_check)
    }
}
