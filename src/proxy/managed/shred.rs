//! Shredding: a stream's wrapped data keys are destroyed, and with them every record that they decrypt.
//!
//! ```text
//! all of a stream   the keys go first, so that nothing new begins; then what is on its way is waited for
//! before an epoch   what is on its way under those epochs is waited for; then their keys go
//! ```
//! The keys go in one commit, together with the time, and the store erases what it replaced. The entry of each
//! epoch stays, so that its records are known for what they are, and the same command finishes what broke off.

use std::{sync::Arc, time::Duration};

use super::{Authority, certificate::Certificate};
use crate::{
    clock,
    crypto::{Cipher, Digest},
    proxy::{
        Error, Proxy,
        call::Caller,
        gate::Principal,
        projects::{ProjectError, rules},
    },
    registry::{self, Questions as _},
    store::{self, Change, DataKeys, Holder, StreamEntry},
    stream::StreamPath,
    telemetry::label::Operation,
};

/// How long the upstream may take to say where the stream ends.
const TAIL: Duration = Duration::from_secs(3);

/// How often others may change the stream's entry meanwhile.
const MAX_ROUNDS: usize = 8;

/// Why nothing was shredded, or not for certain.
#[derive(Debug, thiserror::Error)]
pub enum ShredError {
    /// The API key does not allow it.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The config store fails, or somebody else is busy with the stream. What was shredded may still be on the
    /// disk: see [`store::Error::Unerased`].
    #[error(transparent)]
    Proxy(#[from] Error),
    /// Nothing is recorded of the stream, or its keys are not those that the authority may shred.
    #[error(
        "stream `{0}` has no keys of this project, or, without an API key, none that a key management service holds"
    )]
    NoKeys(StreamPath),
    /// There is no such epoch to keep.
    #[error(
        "before: stream `{path}` is at key epoch {current}, and epochs begin at 1: it must be from 2 to {current}"
    )]
    Epoch {
        /// The stream.
        path: StreamPath,
        /// The newest epoch.
        current: u32,
    },
    /// Appends under these keys do not come to an end.
    #[error(
        "appends to stream `{0}` under these keys are still on their way; nothing was shredded; try again"
    )]
    OnTheirWay(StreamPath),
}

/// A stream that is to be shredded.
struct Doomed<'a> {
    path: &'a StreamPath,
    /// Only the epochs before this one.
    before: Option<u32>,
    /// Whose keys they are.
    holder: Holder,
    /// Which life of the stream it is: the commitment of its first key.
    life: Option<Digest>,
}

impl Proxy {
    /// Shreds a stream with managed keys, or only its key epochs before one. Done already, it only says so again.
    /// `patience` is how long appends on their way under these keys are waited for.
    ///
    /// # Errors
    /// [`ShredError`].
    pub async fn shred(
        &self,
        path: &StreamPath,
        before: Option<u32>,
        by: impl Into<Authority<'_>>,
        patience: Duration,
    ) -> Result<Certificate, ShredError> {
        let by = by.into();
        let mut doomed = Doomed {
            path,
            before,
            holder: self.holder_of(by).await?,
            life: None,
        };
        let (keys, _) = self.keys_of(&doomed).await?;
        doomed.life = life(&keys);
        let newest = keys.current().or(keys.keys.last());
        let current = newest.map_or(0, |key| key.epoch);
        match before {
            Some(before) if !(2..=current).contains(&before) => {
                let path = path.clone();
                return Err(ShredError::Epoch { path, current });
            }
            Some(before) if !self.none_on_their_way(path, before, patience).await => {
                return Err(ShredError::OnTheirWay(path.clone()));
            }
            Some(_) | None => {}
        }
        let (keys, cipher) = self.destroy(&doomed).await?;
        let certificate = Certificate::new(path, before, cipher, &keys);
        if before.is_none() && !self.none_on_their_way(path, u32::MAX, patience).await {
            tracing::warn!(stream = %path, "appends under shredded keys are still on their way");
            return Ok(certificate.with_appends_under_way());
        }
        let tail = tokio::time::timeout(TAIL, self.tail_of(path, by)).await;
        Ok(certificate.with_tail(tail.unwrap_or_default()))
    }

    /// Whose keys an authority may shred: those of its project, or those that the key management service holds.
    async fn holder_of(&self, by: Authority<'_>) -> Result<Holder, ShredError> {
        let pass = match by {
            Authority::Key(pass) => pass,
            Authority::Operator => return Ok(Holder::Kms),
        };
        let name = &pass.project.name;
        let row = self.registry.project(name).await?;
        let row = row.entry.ok_or(ProjectError::Unknown)?;
        rules::authorise(&row, pass, pass.now(&row))?;
        Ok(Holder::Project(name.clone()))
    }

    /// Nobody appends under an epoch before this one any more. New appends look up the newest epoch.
    async fn none_on_their_way(&self, path: &StreamPath, epoch: u32, patience: Duration) -> bool {
        let leases = &self.keyring.leases;
        leases.wait_until_none_below(path, epoch, patience).await
    }

    /// Takes the keys out of the store, for good.
    async fn destroy(&self, doomed: &Doomed<'_>) -> Result<(DataKeys, Option<Cipher>), ShredError> {
        for _ in 0..MAX_ROUNDS {
            // Nobody deletes and makes the stream anew meanwhile: the same revision might be another life's.
            let _lock = self.registry.lock(&doomed.path.basin).await?;
            let found = self.registry.stream(doomed.path).await?;
            let (keys, cipher) = doomed.keys(found.entry.as_deref())?;
            let shredded = doomed.without_keys(&keys, clock::now_ms());
            let changes = match (found.entry.as_deref(), shredded == keys) {
                (Some(entry), false) => vec![Change::Stream {
                    path: doomed.path.clone(),
                    expected: found.revision,
                    entry: Some(StreamEntry {
                        data_keys: Some(shredded.clone()),
                        ..entry.clone()
                    }),
                }],
                // Shredded before: whatever that left undone is brought to its end.
                (None, _) | (_, true) => Vec::new(),
            };
            match self.registry.erase(changes).await {
                Ok(()) => {
                    self.keyring.forget(doomed.path).await;
                    tracing::info!(stream = %doomed.path, before = ?doomed.before, "stream shredded");
                    return Ok((shredded, cipher));
                }
                Err(store::Error::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Busy.into())
    }

    async fn keys_of(&self, doomed: &Doomed<'_>) -> Result<(DataKeys, Option<Cipher>), ShredError> {
        let found = self.registry.stream(doomed.path).await?;
        doomed.keys(found.entry.as_deref())
    }

    /// Where the stream ends now, if the upstream says so.
    async fn tail_of(&self, path: &StreamPath, by: Authority<'_>) -> Option<u64> {
        let mut headers = http::HeaderMap::new();
        let pass = match by {
            Authority::Key(pass) => Some(Arc::clone(pass)),
            Authority::Operator => None,
        };
        let token = pass.as_ref().and_then(|pass| pass.project.authorization());
        if let Some(token) = token {
            headers.insert(http::header::AUTHORIZATION, token.clone());
        }
        let caller = Caller::new(
            &self.upstream,
            &headers,
            Operation::Stream,
            Principal::new(pass, None),
        );
        caller.tail(path).await.ok().flatten()
    }
}

impl From<store::Error> for ShredError {
    fn from(error: store::Error) -> Self {
        Self::Proxy(error.into())
    }
}

impl From<registry::Error> for ShredError {
    fn from(error: registry::Error) -> Self {
        Self::Proxy(error.into())
    }
}

impl Doomed<'_> {
    /// The stream's keys, if they are those that are to be shredded.
    fn keys(&self, entry: Option<&StreamEntry>) -> Result<(DataKeys, Option<Cipher>), ShredError> {
        let none = || ShredError::NoKeys(self.path.clone());
        let entry = entry.ok_or_else(none)?;
        let keys = entry.data_keys.clone().ok_or_else(none)?;
        if keys.holder != self.holder {
            return Err(none());
        }
        if self.life.is_some() && self.life != life(&keys) {
            return Err(registry::Error::OtherIncarnation(self.path.clone()).into());
        }
        Ok((keys, entry.state.cipher()))
    }

    /// The same keys without those that are shredded.
    fn without_keys(&self, keys: &DataKeys, now: u64) -> DataKeys {
        let mut keys = keys.clone();
        for key in &mut keys.keys {
            let is_doomed = self.before.is_none_or(|before| key.epoch < before);
            if is_doomed && key.wrapped.take().is_some() {
                key.shredded_at = Some(now);
            }
        }
        keys
    }
}

fn life(keys: &DataKeys) -> Option<Digest> {
    keys.keys.first().map(|key| key.commit)
}
