//! What the upstream says of a stream's existence, held against what is recorded of it.

use super::{
    Error, Questions, Registry,
    table::{Contradiction, Event, is_sealed},
};
use crate::{
    store::{KeyKnown, Origin, StreamEntry, StreamState},
    stream::StreamPath,
};

impl Registry {
    /// Takes in that the upstream shows a stream, and returns the entry afterwards. Another incarnation is believed
    /// when it is empty, and is sealed if the recorded one was.
    ///
    /// # Errors
    /// The upstream's when it has to be asked for the tail, the store's.
    pub(super) async fn found<Q: Questions>(
        &self,
        path: &StreamPath,
        (created_at, is_new): (String, bool),
        ask: &Q,
    ) -> Result<Option<StreamEntry>, Q::Stop> {
        let shown = Event::Found {
            created_at: created_at.clone(),
            is_new,
        };
        match self.happen(path, &[shown]).await {
            Ok(updated) => Ok(updated.after.as_deref().cloned()),
            Err(Error::Contradiction {
                contradiction: Contradiction::OtherIncarnation,
                ..
            }) => {
                let entry = self.stream(path).await?.entry;
                let is_believed = match is_sealed(entry.as_deref()) {
                    true => self.is_empty(path, ask).await?,
                    // A new stream gets the basin's cipher; sealing is never wrong.
                    false => true,
                };
                match is_believed {
                    true => self.begin_incarnation(path, Some(created_at)).await,
                    false => self.keep_incarnation(path).await,
                }
                .map_err(Into::into)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Looks whether S2 removed a stream by itself, so that its name is free for a new one with another key. Then
    /// records the new incarnation and returns true. Asked when a key is not the recorded one.
    ///
    /// # Errors
    /// The upstream's, the store's.
    pub async fn is_replaced<Q: Questions>(
        &self,
        path: &StreamPath,
        ask: &Q,
    ) -> Result<bool, Q::Stop> {
        let found = self.stream(path).await?;
        let Some(StreamState::Live(life)) = found.entry.as_deref().map(|entry| &entry.state) else {
            return Ok(false);
        };
        let life = life.clone();
        let stays_plain = life.cipher.is_none() && self.planned_cipher(path).await?.is_none();
        if !self.settings.trust_expiry || stays_plain {
            return Ok(false);
        }
        let listed = ask.stream(path).await?;
        let is_same = |created_at: &String| life.created_at.as_ref() == Some(created_at);
        let is_gone = match &listed {
            None => true,
            Some(listed) if listed.is_going || is_same(&listed.created_at) => false,
            Some(listed) if life.created_at.is_none() && !self.is_empty(path, ask).await? => {
                // The same stream: the next question is cheaper.
                let created_at = listed.created_at.clone();
                self.found(path, (created_at, false), ask).await?;
                false
            }
            Some(_) => life.created_at.is_none() || self.is_empty(path, ask).await?,
        };
        if !is_gone || self.stream(path).await?.revision != found.revision {
            return Ok(false);
        }
        let created_at = listed.map(|listed| listed.created_at);
        self.begin_incarnation(path, created_at).await?;
        Ok(true)
    }

    /// Whether the upstream holds records of a stream that this proxy never sent an append to: nothing but the
    /// intent to create it is recorded.
    pub(super) async fn is_foreign<Q: Questions>(
        &self,
        path: &StreamPath,
        ask: &Q,
    ) -> Result<bool, Q::Stop> {
        if !self.is_bare_intent(path).await? || ask.tail(path).await?.unwrap_or_default() == 0 {
            return Ok(false);
        }
        // An append is recorded, or in flight, before it is sent: what was sent by then shows now.
        Ok(!self.flights.is_pending(path) && self.is_bare_intent(path).await?)
    }

    async fn is_bare_intent(&self, path: &StreamPath) -> Result<bool, Error> {
        let entry = self.stream(path).await?.entry;
        Ok(entry.is_some_and(|entry| {
            let is_intent = matches!(entry.state, StreamState::Creating { .. });
            is_intent && entry.key() == KeyKnown::No
        }))
    }

    async fn is_empty<Q: Questions>(&self, path: &StreamPath, ask: &Q) -> Result<bool, Q::Stop> {
        Ok(self.settings.trust_expiry && ask.tail(path).await? == Some(0))
    }

    async fn begin_incarnation(
        &self,
        path: &StreamPath,
        created_at: Option<String>,
    ) -> Result<Option<StreamEntry>, Error> {
        let event = Event::NewIncarnation {
            cipher: self.planned_cipher(path).await?,
            created_at,
            origin: Origin::Created,
        };
        let updated = self.happen(path, &[event]).await?;
        tracing::warn!(
            stream = %path,
            "the upstream says that this stream was removed and created again: it is taken for a new one, and \
             records of the former one still open with their key"
        );
        Ok(updated.after.as_deref().cloned())
    }

    /// The upstream says that the stream is another one, and it has records: nothing changes.
    async fn keep_incarnation(&self, path: &StreamPath) -> Result<Option<StreamEntry>, Error> {
        tracing::warn!(
            stream = %path,
            "the upstream says that this stream was created again, but it has records: cipher and key stay; if it \
             was created again around the proxy, use `streamseal store unpin` or `streamseal store set-cipher`"
        );
        let updated = self.happen(path, &[Event::DeleteRefused]).await?;
        Ok(updated.after.as_deref().cloned())
    }
}
