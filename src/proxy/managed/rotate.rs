//! A new data key for a stream, in place: from the next append on, records name the next key epoch.

use std::sync::Arc;

use http::{HeaderMap, header};

use super::{
    KeyHolder, Keyring, Managed, data_keys, first::is_conflict, holder::Wrapping, sealing::newest,
};
use crate::{
    project::Scope,
    proxy::{
        Error, Proxy,
        call::{Caller, Stop},
        gate::{Pass, Principal},
        projects::{ProjectError, rules},
    },
    registry::{self, Access, Lookup},
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

/// Who has a stream's key rotated.
#[derive(Clone, Copy)]
pub enum Authority<'a> {
    /// An API key with `manage`: of a stream with managed keys.
    Key(&'a Arc<Pass>),
    /// Whoever operates this proxy: of a stream whose keys the key management service holds.
    Operator,
}

impl<'a> From<&'a Arc<Pass>> for Authority<'a> {
    fn from(pass: &'a Arc<Pass>) -> Self {
        Self::Key(pass)
    }
}

impl Proxy {
    /// Gives a stream a new data key; one that has none yet gets its first. Records of before keep opening under
    /// theirs.
    ///
    /// # Errors
    /// [`Error::Raced`] when another rotation was faster, [`Error::NotAllowed`], [`Error::NoMasterKey`] and
    /// [`Error::Unauthenticated`] for an authority that may not, or not any more, [`Error::Invalid`] for a stream
    /// that has no managed keys, is not there, or had as many keys as a stream may have, [`Error::Kms`].
    pub async fn rotate_key(
        &self,
        path: &StreamPath,
        by: impl Into<Authority<'_>>,
    ) -> Result<Rotated, Error> {
        let rotated = self.rotate_key_of(path, by.into()).await;
        rotated.map_err(|stop| match stop {
            Stop::Error(error) => error,
            Stop::Relay(_) => Error::Unprepared(Box::new(Error::Garbage("no tail"))),
        })
    }

    async fn rotate_key_of(&self, path: &StreamPath, by: Authority<'_>) -> Result<Rotated, Stop> {
        let mut headers = HeaderMap::new();
        let mut pass = None;
        if let Authority::Key(key) = by {
            if !key.scopes.allow(Scope::Manage) {
                let text = format!("the API key lacks the scope `{}`", Scope::Manage);
                return Err(Error::NotAllowed(text).into());
            }
            if let Some(token) = key.project.authorization() {
                headers.insert(header::AUTHORIZATION, token.clone());
            }
            pass = Some(Arc::clone(key));
        }
        let caller = Caller::new(
            &self.upstream,
            &headers,
            Operation::Stream,
            Principal::new(pass, None),
        );
        let stream = match self.registry.lookup(path).await? {
            Lookup::Found(Access::Sealed(stream)) => stream,
            Lookup::Unsettled | Lookup::FirstUse(_) => {
                return Err(registry::Error::OtherIncarnation(path.clone()).into());
            }
            Lookup::Found(Access::Plain(_)) => return Err(not_managed(path)),
        };
        let managed = self.keyring.managed(&stream, &HeaderMap::new(), &caller)?;
        let managed = managed.ok_or_else(|| not_managed(path))?;
        // An API key of one project says nothing of a stream whose keys no project holds.
        if let (Authority::Key(_), KeyHolder::Kms(_)) = (by, &managed.holder) {
            let text = format!("rotating the key of stream `{path}` is up to the proxy's operator");
            return Err(Error::NotAllowed(text).into());
        }
        self.keyring.rotate(&managed, stream.data_keys(), by).await
    }
}

impl Keyring {
    /// Rotates the key of a stream whose keys were these when the request came.
    async fn rotate(
        &self,
        managed: &Managed,
        before: Option<&DataKeys>,
        by: Authority<'_>,
    ) -> Result<Rotated, Stop> {
        let from = before.and_then(DataKeys::current).map(|key| key.epoch);
        let allowance = self.allowance(&managed.path);
        let _turn = allowance.turn.lock().await;
        for _ in 0..MAX_ROUNDS {
            let wrapping = managed.holder.wrapping(&*self.store).await?;
            if let Authority::Key(pass) = by {
                self.authorise(&wrapping, pass).await?;
            }
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

    /// Makes sure that the API key may still do it: it came in before this. Where its project wraps the key, that
    /// is recorded only if the project has not changed since.
    async fn authorise(&self, wrapping: &Wrapping, by: &Pass) -> Result<(), Error> {
        let row = match wrapping.project() {
            Some(row) => Some(Arc::clone(row)),
            None => self.store.project(&by.project.name).await?.entry,
        };
        let row = row.ok_or(Error::NoMasterKey)?;
        match rules::authorise(&row, by, by.now(&row)) {
            Ok(()) => Ok(()),
            Err(ProjectError::Refused(error)) => Err(error),
            Err(other) => Err(Error::NotAllowed(other.to_string())),
        }
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
            .record_data_keys(path, *cipher, found, (keys, wrapping.condition()))
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
