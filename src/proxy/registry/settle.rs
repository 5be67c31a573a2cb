//! Settling a stream whose treatment the config store alone cannot tell: unknown, being created,
//! being deleted, or plain and due for another look.

use std::{sync::Arc, time::Instant};

use super::{
    Access, Asked, Basin, Lookup, MAX_ROUNDS, NewStream, Outcome, PlainStream, Planned, Purpose,
    Registry, access,
    probe::{self, Listed},
};
use crate::{
    proxy::{Error, call::Caller},
    store::{
        Error as StoreError, Incarnation, Origin, StreamEntry, StreamState, UnknownStreams,
        Versioned,
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
        let _lock = self.lock(&path.basin).await;
        for _ in 0..MAX_ROUNDS {
            if let Lookup::Found(access) = self.lookup(path).await? {
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
            let cipher = self.basin(&path.basin).await?.cipher();
            let new = NewStream {
                planned: Planned {
                    cipher,
                    replaces: missing,
                },
                stream_config,
            };
            self.create_on_demand(&asked, new).await?;
        }
        Err(Error::Garbage("a stream that keeps changing").into())
    }

    async fn step(&self, asked: &Asked<'_>) -> Outcome<Step> {
        let basin = &asked.path.basin;
        if let Basin::Unadopted(cipher) = self.basin(basin).await? {
            self.adopt(basin, cipher, asked.caller).await?;
            return Ok(Step::Again);
        }
        let found = self.store.stream(asked.path).await?;
        let state = found.entry.as_deref().map(|entry| entry.state.clone());
        if self.rules.stream(asked.path).is_some() {
            return self.step_declared(asked, found, state).await;
        }
        match state {
            None => match probe::stream(asked).await? {
                None => Ok(Step::Missing(None)),
                Some(listed) => self.unknown(asked, &listed).await.map(Step::Done),
            },
            Some(StreamState::Live(life)) => self.step_plain(asked, life).await,
            Some(StreamState::Creating { cipher, replaces }) => match probe::stream(asked).await? {
                None => Ok(Step::Missing(replaces)),
                Some(listed) => {
                    let state = created_or_not(cipher, replaces, listed);
                    self.move_to(asked, &found, state).await
                }
            },
            Some(StreamState::Deleting(life)) => self.step_deleting(asked, &found, life).await,
        }
    }

    /// A stream with a rule and no living entry: the rule becomes its entry.
    async fn step_declared(
        &self,
        asked: &Asked<'_>,
        found: Versioned<Arc<StreamEntry>>,
        state: Option<StreamState>,
    ) -> Outcome<Step> {
        if let Some(StreamState::Deleting(life)) = &state
            && let Some(listed) = probe::stream(asked).await?
            && is_same(life, &listed)
        {
            return self.step_deleting(asked, &found, life.clone()).await;
        }
        if let Some(StreamState::Creating { cipher, replaces }) = state
            && let Some(listed) = probe::stream(asked).await?
        {
            let state = created_or_not(cipher, replaces, listed);
            return self.move_to(asked, &found, state).await;
        }
        let Some(rule) = self.rules.stream(asked.path) else {
            return Ok(Step::Again);
        };
        let entry = StreamEntry {
            state: StreamState::Live(Incarnation {
                cipher: rule.cipher,
                created_at: None,
            }),
            origin: Origin::Declared,
            key_check: None,
        };
        self.record(asked.path, found.revision, Some(entry)).await?;
        Ok(Step::Again)
    }

    /// A plain stream of a basin with a cipher: is it still the one that was plain?
    async fn step_plain(&self, asked: &Asked<'_>, life: Incarnation) -> Outcome<Step> {
        match probe::stream(asked).await? {
            None => Ok(Step::Missing(Some(life))),
            Some(listed) if is_same(&life, &listed) => {
                if listed.deleted_at.is_none() {
                    self.verified.insert(asked.path.clone(), Instant::now());
                }
                Ok(Step::Done(Access::Plain(PlainStream(()))))
            }
            Some(listed) => self.unknown(asked, &listed).await.map(Step::Done),
        }
    }

    async fn step_deleting(
        &self,
        asked: &Asked<'_>,
        found: &Versioned<Arc<StreamEntry>>,
        life: Incarnation,
    ) -> Outcome<Step> {
        match probe::stream(asked).await? {
            None => Ok(Step::Missing(Some(life))),
            // Still being deleted: the upstream says so itself, to sealed records or plain ones.
            Some(listed) if is_same(&life, &listed) && listed.deleted_at.is_some() => {
                let access = access(asked.path, life.cipher, found.clone());
                Ok(Step::Done(access))
            }
            Some(listed) if is_same(&life, &listed) => {
                self.move_to(asked, found, StreamState::Live(life)).await
            }
            Some(listed) if life.cipher.is_none() && listed.deleted_at.is_none() => {
                match self.basin(&asked.path.basin).await? {
                    Basin::Plain => Ok(Step::Done(Access::Plain(PlainStream(())))),
                    Basin::Sealing(_) | Basin::Unadopted(_) => {
                        self.unknown(asked, &listed).await.map(Step::Done)
                    }
                }
            }
            Some(listed) => self.unknown(asked, &listed).await.map(Step::Done),
        }
    }

    /// A stream that exists and that this proxy did not make.
    async fn unknown(&self, asked: &Asked<'_>, listed: &Listed) -> Outcome<Access> {
        if listed.deleted_at.is_some() {
            return Err(probe::absence(asked).await);
        }
        match self.unknown {
            UnknownStreams::Refuse => Err(Error::UnknownStream(asked.path.clone()).into()),
            UnknownStreams::Plain => Ok(Access::Plain(PlainStream(()))),
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

    async fn move_to(
        &self,
        asked: &Asked<'_>,
        found: &Versioned<Arc<StreamEntry>>,
        state: StreamState,
    ) -> Outcome<Step> {
        let entry = found.entry.as_deref().map(|entry| StreamEntry {
            state,
            ..entry.clone()
        });
        match self.record(asked.path, found.revision, entry).await {
            Ok(()) | Err(Error::Store(StoreError::Conflict(_))) => Ok(Step::Again),
            Err(error) => Err(error.into()),
        }
    }
}

/// What became of a creation, given the stream that is there now.
fn created_or_not(
    cipher: Option<crate::crypto::Cipher>,
    replaces: Option<Incarnation>,
    listed: Listed,
) -> StreamState {
    match replaces {
        Some(old) if is_same(&old, &listed) => StreamState::Deleting(old),
        _ => StreamState::Live(Incarnation {
            cipher,
            created_at: Some(listed.created_at),
        }),
    }
}

/// Whether the listed stream is this incarnation, as far as anybody can tell.
fn is_same(life: &Incarnation, listed: &Listed) -> bool {
    life.created_at
        .as_ref()
        .is_none_or(|created_at| *created_at == listed.created_at)
}
