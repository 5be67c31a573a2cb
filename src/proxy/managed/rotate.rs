//! A new data key for a stream, in place: from the next append on, records name the next key epoch.

use std::sync::Arc;

use http::{HeaderMap, header};

use super::{Keyring, Managed, data_keys, first::is_conflict, holder::Wrapping, sealing::newest};
use crate::{
    project::Scope,
    proxy::{
        Error, Proxy,
        call::{Caller, Stop},
        gate::Pass,
        registry::{Access, Lookup},
    },
    store::{DataKey, DataKeys, MAX_KEY_EPOCHS, Sealing, StreamEntry, Versioned},
    stream::StreamPath,
    telemetry::label::{KeyRotation, Operation},
};

/// How often something else may change a stream's entry while its key is rotated.
const MAX_ROUNDS: usize = 8;

/// What became of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    /// The epoch before; none where this is the stream's first key.
    pub from: Option<u32>,
    /// The epoch from now on.
    pub to: u32,
}

impl Proxy {
    /// Gives a stream a new data key; one that has none yet gets its first. Records of before keep opening under
    /// theirs.
    ///
    /// # Errors
    /// [`Error::Raced`] when another rotation was faster, [`Error::NotAllowed`] and
    /// [`Error::NoMasterKey`] for an API key that may not, [`Error::Invalid`] for a stream that has no managed
    /// keys or is not there, or had as many as a stream may have.
    pub async fn rotate_key(&self, path: &StreamPath, pass: &Arc<Pass>) -> Result<Rotated, Error> {
        let rotated = self.rotate_key_of(path, pass).await;
        rotated.map_err(|stop| match stop {
            Stop::Error(error) => error,
            Stop::Relay(_) => Error::Unprepared(Box::new(Error::Garbage("no tail"))),
        })
    }

    async fn rotate_key_of(&self, path: &StreamPath, pass: &Arc<Pass>) -> Result<Rotated, Stop> {
        if !pass.scopes.allow(Scope::Manage) {
            let text = format!("the API key lacks the scope `{}`", Scope::Manage);
            return Err(Error::NotAllowed(text).into());
        }
        let mut headers = HeaderMap::new();
        if let Some(token) = pass.project.authorization() {
            headers.insert(header::AUTHORIZATION, token.clone());
        }
        let pass = Some(Arc::clone(pass));
        let caller = Caller::new(&self.upstream, &headers, Operation::Stream, pass);
        let stream = match self.registry.lookup(path).await? {
            Lookup::Found(Access::Sealed(stream)) => stream,
            Lookup::Unsettled => return Err(Error::OtherLife(path.clone()).into()),
            Lookup::Found(Access::Plain(_)) => return Err(not_managed(path)),
        };
        let managed = self.keyring.managed(&stream, &HeaderMap::new(), &caller)?;
        let managed = managed.ok_or_else(|| not_managed(path))?;
        self.keyring.rotate(&managed, stream.data_keys()).await
    }
}

impl Keyring {
    /// Rotates the key of a stream whose keys were these when the request came.
    async fn rotate(&self, managed: &Managed, before: Option<&DataKeys>) -> Result<Rotated, Stop> {
        let from = before.and_then(DataKeys::current).map(|key| key.epoch);
        let allowance = self.allowance(&managed.path);
        let _turn = allowance.turn.lock().await;
        for _ in 0..MAX_ROUNDS {
            let wrapping = managed.holder.wrapping(&*self.store).await?;
            let found = self.look(managed).await?;
            let keys = data_keys(&found);
            let now = keys.and_then(DataKeys::current).map(|key| key.epoch);
            // Shredded meanwhile is no rotation, and said below.
            if now != from && (keys.is_none() || now.is_some()) {
                return Err(Error::Raced(managed.path.clone()).into());
            }
            let made = match keys {
                Some(keys) => {
                    let (reserved, reason) = (Sealing::default(), KeyRotation::Request);
                    self.next_key(managed, &wrapping, (&found, keys), reserved, reason)
                        .await
                }
                None => self.first_of_existing(managed, &wrapping, &found).await,
            };
            match made {
                Ok(key) => {
                    let to = key.epoch;
                    return Ok(Rotated { from, to });
                }
                // The count of the key, or the place of its first record: not another key, or that is seen.
                Err(stop) if is_conflict(&stop) => {}
                Err(stop) => return Err(stop),
            }
        }
        Err(Error::Raced(managed.path.clone()).into())
    }

    async fn first_of_existing(
        &self,
        managed: &Managed,
        wrapping: &Wrapping,
        found: &Versioned<Arc<StreamEntry>>,
    ) -> Result<DataKey, Stop> {
        // A look at the tail would make it in a basin that creates streams on reads.
        let exists = self.registry.exists(&managed.path, &managed.caller).await;
        match exists.map_err(Stop::before_sending)? {
            true => {
                self.first(managed, wrapping, found, Sealing::default())
                    .await
            }
            false => {
                let text = format!("stream `{}` does not exist", managed.path);
                Err(Error::Invalid(text).into())
            }
        }
    }

    /// Makes and records the key that comes after these. The caller holds the stream's turn.
    pub(super) async fn next_key(
        &self,
        managed: &Managed,
        wrapping: &Wrapping,
        (found, keys): (&Versioned<Arc<StreamEntry>>, &DataKeys),
        reserved: Sealing,
        reason: KeyRotation,
    ) -> Result<DataKey, Stop> {
        let Managed {
            path,
            cipher,
            holder,
            ..
        } = managed;
        newest(managed, keys)?;
        let epoch = following(keys).ok_or_else(|| {
            Error::Invalid(format!(
                "stream `{path}` has used up its key epochs; `streamseal stream migrate` copies it to a new one"
            ))
        })?;
        let key = holder.make(wrapping, path, epoch, reserved).await?;
        let mut keys = keys.clone();
        keys.keys.push(key.clone());
        let registry = &self.registry;
        registry
            .record_data_keys(path, *cipher, found, keys, wrapping.condition())
            .await?;
        self.metrics.records.key_rotations.of(reason).inc();
        tracing::info!(stream = %path, epoch, reason = ?reason, "new key epoch");
        Ok(key)
    }
}

/// The number of the next key: after every one that there was. None once there were as many as are recorded of
/// one stream.
pub(super) fn following(keys: &DataKeys) -> Option<u32> {
    let has_room = keys.keys.len() < MAX_KEY_EPOCHS as usize;
    let last = keys.keys.last().filter(|_| has_room)?;
    last.epoch.checked_add(1)
}

fn not_managed(path: &StreamPath) -> Stop {
    Error::Invalid(format!("stream `{path}` has no managed keys")).into()
}
