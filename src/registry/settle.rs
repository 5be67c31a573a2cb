//! Settling a stream whose treatment the config store alone cannot tell, by asking the upstream: the stream is
//! unknown, being created, or being deleted.

use std::sync::Arc;

use super::{
    Access, Error, Lookup, MAX_ROUNDS, PlainBy, Purpose, Questions, Registry,
    table::{Event, next},
};
use crate::{
    store::{KeyKnown, StreamEntry, StreamState, UnknownStreams},
    stream::StreamPath,
};

/// What one look came to.
enum Step {
    Done(Access),
    /// Something was recorded; look again.
    Again,
    /// The stream does not exist upstream.
    Missing,
}

impl Registry {
    /// Finds out how to treat a stream that [`Registry::lookup`] left open, and creates it where its basin creates
    /// streams on demand. `config` is the client's `s2-stream-config`.
    ///
    /// # Errors
    /// The registry's refusals, the upstream's own error, store failures.
    pub async fn settle<Q: Questions>(
        self: &Arc<Self>,
        path: &StreamPath,
        (purpose, config): (Purpose, Option<&str>),
        ask: &Q,
    ) -> Result<Access, Q::Stop> {
        let _lock = self.lock(&path.basin).await?;
        // A first append in flight has its outcome first: its intent is not to be judged without it.
        let _turn = self.turn(path).await?;
        for _ in 0..MAX_ROUNDS {
            if let Lookup::Found(access) = self.lookup(path).await? {
                return Ok(access);
            }
            match self.look(path, ask).await? {
                Step::Done(access) => return Ok(access),
                Step::Again => {}
                Step::Missing if !ask.auto_creates(path, purpose).await? => {
                    return Err(ask.absence(path).await.stop);
                }
                Step::Missing => self.create_on_demand(path, config, ask).await?,
            }
        }
        Err(Error::Unsettled.into())
    }

    /// Why a stream's first append found records there: the stream was created around this proxy, and the intent to
    /// create it is removed; or it is ours by now, and the request may come again.
    pub async fn not_first(&self, path: &StreamPath) -> Error {
        let entry = match self.stream(path).await {
            Ok(found) => found.entry,
            Err(error) => return error.into(),
        };
        match entry.as_deref().map(|entry| (&entry.state, entry.key())) {
            None => Error::UnknownStream(path.clone()),
            Some((StreamState::Creating { .. }, KeyKnown::No)) => {
                match self.withdraw_intent(path, entry.as_deref()).await {
                    Ok(()) => Error::UnknownStream(path.clone()),
                    Err(error) => error,
                }
            }
            Some(_) => Error::OtherIncarnation(path.clone()),
        }
    }

    /// Removes the intent to create a stream, unless something happened since.
    async fn withdraw_intent(
        &self,
        path: &StreamPath,
        intent: Option<&StreamEntry>,
    ) -> Result<(), Error> {
        let withdrawn = self.change(path, |now| match now.as_ref() == intent {
            true => Ok(next(now.clone(), Event::Withdrawn { before: None }).unwrap_or(now)),
            false => Ok(now),
        });
        withdrawn.await.map(|_| ())
    }

    async fn look<Q: Questions>(&self, path: &StreamPath, ask: &Q) -> Result<Step, Q::Stop> {
        let changes = self.changes();
        let entry = self.stream(path).await?.entry;
        let state = entry.as_deref().map(|entry| &entry.state);
        let listed = ask.stream(path).await?;
        match (state, listed) {
            (Some(StreamState::Deleting(life)), None) if life.cipher.is_none() => {
                // What is recorded of a plain stream ends with it.
                self.happen(path, &[Event::Deleted]).await?;
                Ok(Step::Again)
            }
            (Some(StreamState::Creating { .. }), None) => {
                // It was not created, or is gone: it can be created with the cipher of now.
                let planned = self.planned_cipher(path).await?;
                if planned.is_none() || planned == entry.as_deref().and_then(|e| e.state.cipher()) {
                    return Ok(Step::Missing);
                }
                self.withdraw_intent(path, entry.as_deref()).await?;
                Ok(Step::Again)
            }
            (_, None) => Ok(Step::Missing),
            (_, Some(listed)) if listed.is_going => {
                // The upstream says so in its own words, unless it is gone by now: then it can be made again.
                let absence = ask.absence(path).await;
                match absence.is_not_found {
                    true => Ok(Step::Again),
                    false => Err(absence.stop),
                }
            }
            (None, Some(_)) => match self.settings.unknown_streams {
                UnknownStreams::Refuse => Err(Error::UnknownStream(path.clone()).into()),
                // A rule that a reload brought since.
                UnknownStreams::Plain if self.rules().stream(path).is_some() => Ok(Step::Again),
                UnknownStreams::Plain => {
                    let proof = self.proof(path, PlainBy::Unknown, changes);
                    Ok(Step::Done(Access::Plain(proof)))
                }
            },
            (Some(StreamState::Creating { .. }), Some(listed)) => {
                // After a crash nothing says whose records there are. Plain ones are not ours.
                if !self.flights.is_pending(path) && ask.looks_plain(path).await {
                    self.withdraw_intent(path, entry.as_deref()).await?;
                    return Ok(Step::Again);
                }
                self.found(path, (listed.created_at, false), ask).await?;
                Ok(Step::Again)
            }
            (Some(StreamState::Live(_) | StreamState::Deleting(_)), Some(listed)) => {
                self.found(path, (listed.created_at, false), ask).await?;
                Ok(Step::Again)
            }
        }
    }
}
