//! Settling a stream whose treatment the config store alone cannot tell: unknown, being created,
//! being deleted, or plain and due for another look.

use std::{sync::Arc, time::Instant};

use http::StatusCode;

use super::{
    Access, Asked, Basin, Lookup, MAX_ROUNDS, Outcome, PlainStream, Purpose, Registry, access,
    create::{NewStream, Planned},
    probe::{self, Listed},
};
use crate::{
    crypto::Cipher,
    proxy::{
        Error,
        call::{Caller, Stop},
    },
    store::{
        Error as StoreError, Incarnation, StreamEntry, StreamState, UnknownStreams, Versioned,
    },
    stream::StreamPath,
};

/// One step of settling.
enum Step {
    /// It is known how to treat the records.
    Done(Access),
    /// Something was recorded; look again.
    Again,
    /// The stream does not exist; this is what its creation replaces.
    Missing(Option<Incarnation>),
}

impl Registry {
    /// Finds out how to treat a stream that [`Registry::lookup`] left open, creating it where its basin
    /// creates streams on demand. `stream_config` is the client's `s2-stream-config`.
    ///
    /// # Errors
    /// Refusals, the upstream's own error as [`Stop::Relay`](crate::proxy::call::Stop), store failures.
    pub async fn settle(
        &self,
        path: &StreamPath,
        purpose: Purpose,
        stream_config: Option<&str>,
        caller: &Caller,
    ) -> Outcome<Access> {
        let asked = Asked { path, caller };
        if let Some(access) = self.verify(&asked).await? {
            return Ok(access);
        }
        let _lock = self.lock(&path.basin).await?;
        for _ in 0..MAX_ROUNDS {
            if let Lookup::Found(access) = self.lookup(path).await? {
                return Ok(access);
            }
            // Recorded as plain since: by an adoption just now, or by whoever held the lock.
            if let Some(access) = self.verify(&asked).await? {
                return Ok(access);
            }
            let missing = match self.step(&asked).await? {
                Step::Done(access) => return Ok(access),
                Step::Again => continue,
                Step::Missing(replaces) => replaces,
            };
            if !probe::auto_creates(&asked, purpose).await? {
                return Err(probe::absence(&asked).await);
            }
            let new = NewStream {
                planned: Planned {
                    cipher: self.planned_cipher(path).await?,
                    replaces: missing,
                },
                stream_config,
            };
            self.create_on_demand(&asked, new).await?;
        }
        Err(Error::Garbage("a stream that keeps changing").into())
    }

    /// Looks again at a plain stream of a basin with a cipher, without holding anybody up. `None` for
    /// every other stream, and for one that is not what it was.
    async fn verify(&self, asked: &Asked<'_>) -> Outcome<Option<Access>> {
        let epoch = self.epoch();
        let rules = self.rules();
        let found = self.store.stream(asked.path).await?;
        let Some(StreamState::Live(life)) = found.entry.as_deref().map(|entry| &entry.state) else {
            return Ok(None);
        };
        if life.cipher.is_some() || rules.stream(asked.path).is_some() {
            return Ok(None);
        }
        let listed = probe::stream(asked).await?;
        if !listed.is_some_and(|listed| is_same(life, &listed) && listed.deleted_at.is_none()) {
            return Ok(None);
        }
        self.verified.insert(asked.path.clone(), Instant::now());
        Ok(Some(access(asked.path, None, found, epoch, &rules)))
    }

    async fn step(&self, asked: &Asked<'_>) -> Outcome<Step> {
        let basin = &asked.path.basin;
        if let Basin::Unadopted(cipher) = self.basin(basin).await? {
            self.adopt(basin, cipher, asked.caller).await?;
            return Ok(Step::Again);
        }
        let epoch = self.epoch();
        let found = self.store.stream(asked.path).await?;
        let state = found.entry.as_deref().map(|entry| entry.state.clone());
        let Some(listed) = probe::stream(asked).await? else {
            return Ok(Step::Missing(state.and_then(replaced)));
        };
        match state {
            Some(StreamState::Creating { cipher, replaces }) => {
                let state = created_or_not(cipher, replaces, listed);
                self.move_to(asked, &found, state).await
            }
            // Going: the upstream says so in its own words.
            None | Some(StreamState::Live(_) | StreamState::Deleting(_))
                if listed.deleted_at.is_some() =>
            {
                match probe::absence(asked).await {
                    // Gone meanwhile: it can be made again.
                    Stop::Relay(refusal) if refusal.parts().0 == StatusCode::NOT_FOUND => {
                        Ok(Step::Again)
                    }
                    stop => Err(stop),
                }
            }
            // The deletion did not happen.
            Some(StreamState::Deleting(life)) if is_same(&life, &listed) => {
                self.move_to(asked, &found, StreamState::Live(life)).await
            }
            // Made again around this proxy. What was sealed stays sealed.
            Some(StreamState::Deleting(life)) if life.cipher.is_some() => {
                let life = Incarnation {
                    cipher: life.cipher,
                    created_at: Some(listed.created_at),
                };
                self.move_to(asked, &found, StreamState::Live(life)).await
            }
            None | Some(StreamState::Live(_) | StreamState::Deleting(_)) => match self.unknown {
                UnknownStreams::Refuse => Err(Error::UnknownStream(asked.path.clone()).into()),
                // A rule that a reload brought since.
                UnknownStreams::Plain if self.rules().stream(asked.path).is_some() => {
                    Ok(Step::Again)
                }
                UnknownStreams::Plain => Ok(Step::Done(Access::Plain(PlainStream::unknown(
                    found.revision,
                    epoch,
                )))),
            },
        }
    }

    /// Settles a creation whose outcome is not known, if the stream is there.
    pub(super) async fn settle_creation(&self, asked: &Asked<'_>) -> Outcome<()> {
        let found = self.store.stream(asked.path).await?;
        let state = found.entry.as_deref().map(|entry| entry.state.clone());
        if let Some(StreamState::Creating { cipher, replaces }) = state
            && let Some(listed) = probe::stream(asked).await?
        {
            let state = created_or_not(cipher, replaces, listed);
            self.move_to(asked, &found, state).await?;
        }
        Ok(())
    }

    /// Records a new state. Another incarnation than before may have another key, but keys that the proxy made
    /// stay.
    async fn move_to(
        &self,
        asked: &Asked<'_>,
        found: &Versioned<Arc<StreamEntry>>,
        state: StreamState,
    ) -> Outcome<Step> {
        let entry = found.entry.as_deref().map(|entry| StreamEntry {
            key_check: entry
                .key_check
                .filter(|_| is_same_life(&entry.state, &state)),
            data_keys: match is_same_life(&entry.state, &state) {
                true => entry.data_keys.clone(),
                false => entry.inherited(),
            },
            origin: entry.origin,
            state,
        });
        match self.record(asked.path, found.revision, entry).await {
            Ok(()) | Err(Error::Store(StoreError::Conflict(_))) => Ok(Step::Again),
            Err(error) => Err(error.into()),
        }
    }
}

/// What the creation of a missing stream comes after.
fn replaced(state: StreamState) -> Option<Incarnation> {
    match state {
        StreamState::Live(life) | StreamState::Deleting(life) => Some(life),
        StreamState::Creating { replaces, .. } => replaces,
    }
}

/// What became of a creation, given the stream that is there now.
fn created_or_not(
    cipher: Option<Cipher>,
    replaces: Option<Incarnation>,
    listed: Listed,
) -> StreamState {
    match replaces {
        Some(old) if is_same(&old, &listed) => StreamState::Deleting(old),
        Some(_) | None => {
            let life = Incarnation {
                cipher,
                created_at: Some(listed.created_at),
            };
            // Made and deleted since, or one of before: what comes next is another life.
            match listed.deleted_at {
                Some(_) => StreamState::Deleting(life),
                None => StreamState::Live(life),
            }
        }
    }
}

/// Whether the listed stream is this incarnation, as far as anybody can tell. One that would be plain
/// has to be the very same; one that is sealed is given the benefit of the doubt.
fn is_same(life: &Incarnation, listed: &Listed) -> bool {
    match &life.created_at {
        Some(created_at) => *created_at == listed.created_at,
        None => life.cipher.is_some(),
    }
}

fn is_same_life(before: &StreamState, after: &StreamState) -> bool {
    let life = |state: &StreamState| match state {
        StreamState::Live(life) | StreamState::Deleting(life) => Some(life.clone()),
        StreamState::Creating { .. } => None,
    };
    life(before).is_some() && life(before) == life(after)
}
