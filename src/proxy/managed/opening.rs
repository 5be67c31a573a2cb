//! Keys for reads: those of the epochs that records name, as they come.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{KeyHolder, Managed, RENEW_AFTER, data_keys};
use crate::{
    body::{EpochKey, EpochKeys},
    proxy::Error,
    upstream::BoxError,
};

/// Fetches the keys of one stream for one read.
pub(super) struct Source {
    managed: Managed,
    /// The changes of the config store that the keys at hand are as of.
    as_of: u64,
    /// When the first of them was asked for.
    since: Instant,
}

impl Source {
    pub(super) fn new(managed: Managed) -> Self {
        let as_of = managed.keyring.registry.changes();
        Self {
            managed,
            as_of,
            since: Instant::now(),
        }
    }

    /// The key as it is recorded now, so that one of a rotation just now is found, too.
    async fn fetch(&mut self, epoch: u32) -> Result<EpochKey, Error> {
        let keyring = Arc::clone(&self.managed.keyring);
        let found = keyring.look(&self.managed).await?;
        let Some(keys) = data_keys(&found) else {
            return Ok(EpochKey::Unknown);
        };
        self.managed.stays_with(keys);
        let Some(key) = keys.of(epoch) else {
            return Ok(EpochKey::Unknown);
        };
        match keyring.unwrap(&self.managed, key).await {
            Ok(cipher) => Ok(EpochKey::Here(cipher)),
            Err(Error::KeyShredded) => Ok(EpochKey::Shredded),
            Err(error) => Err(error),
        }
    }
}

impl EpochKeys for Source {
    fn key(&mut self, epoch: u32) -> BoxFuture<'_, Result<EpochKey, BoxError>> {
        Box::pin(async move {
            let fetched = match self.fetch(epoch).await {
                // The master key was changed just now, and the data key is wrapped anew.
                Err(Error::NoMasterKey) => self.fetch(epoch).await,
                fetched => fetched,
            };
            fetched.map_err(BoxError::from)
        })
    }

    fn is_outdated(&mut self) -> bool {
        let now = self.managed.keyring.registry.changes();
        let is_changed = std::mem::replace(&mut self.as_of, now) != now;
        // A session must not outlast what the cache of the service's keys allows.
        let is_held = matches!(self.managed.holder, KeyHolder::Kms(_));
        let is_stale = is_held && self.since.elapsed() >= RENEW_AFTER;
        if is_stale {
            self.since = Instant::now();
        }
        is_changed || is_stale
    }
}
