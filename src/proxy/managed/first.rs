//! A stream's first data key: made before anything is sealed, and only for a stream without records.

use std::sync::Arc;

use super::{Keyring, Managed, conflict, holder::Wrapping, kind};
use crate::{
    proxy::{
        Error,
        call::{Caller, Stop},
    },
    registry::{Access, Lookup, Questions as _, rules::KeySource},
    store::{self, DataKey, DataKeys, Sealing, StreamEntry, Versioned},
    stream::StreamPath,
};

impl Keyring {
    /// A stream was just created: makes its first key, so that it is there when records come. One that cannot be
    /// made now is made with the first append.
    ///
    /// A key management service is not waited for: whoever calls holds the basin.
    pub async fn created(self: &Arc<Self>, path: &StreamPath, caller: &Caller) {
        match self.registry.rules().key_source(path) {
            KeySource::Header | KeySource::File => {}
            KeySource::Managed => self.prepare(path, caller).await,
            KeySource::Kms => {
                let (this, path, caller) = (Arc::clone(self), path.clone(), caller.clone());
                tokio::spawn(async move { this.prepare(&path, &caller).await });
            }
        }
    }

    async fn prepare(self: &Arc<Self>, path: &StreamPath, caller: &Caller) {
        if let Err(stop) = self.make_first(path, caller).await {
            let cause = stop.told();
            tracing::warn!(stream = %path, cause, "first key not made yet");
        }
    }

    async fn make_first(self: &Arc<Self>, path: &StreamPath, caller: &Caller) -> Result<(), Stop> {
        if let Lookup::Found(Access::Sealed(stream)) = self.registry.lookup(path).await?
            && let Some(managed) = self.managed(&stream, &http::HeaderMap::new(), caller)?
        {
            self.supply(&managed, Sealing::default()).await?;
        }
        Ok(())
    }

    /// Makes and records the first key of a stream. What has records already has them under another key, or
    /// none: the upstream is asked for the tail.
    ///
    /// # Errors
    /// [`Error::KeyConflict`] for a stream with records; others as [`KeyHolder::make`](super::KeyHolder::make),
    /// the upstream's and the store's.
    pub(super) async fn first(
        &self,
        managed: &Managed,
        wrapping: &Wrapping,
        found: &Versioned<Arc<StreamEntry>>,
        reserved: Sealing,
    ) -> Result<DataKey, Stop> {
        let Managed {
            path,
            cipher,
            holder,
            ..
        } = managed;
        let tail = managed.caller.tail(path).await;
        if tail.map_err(Stop::before_sending)?.unwrap_or_default() > 0 {
            let recorded = "records that no managed key encrypted".to_owned();
            return Err(conflict(path, recorded, kind(&holder.recorded())).into());
        }
        let key = holder.make(wrapping, path, 1, reserved).await?;
        let keys = DataKeys {
            holder: holder.recorded(),
            keys: vec![key.clone()],
        };
        let registry = &self.registry;
        registry
            .record_data_keys(path, *cipher, found, (keys, wrapping.condition()))
            .await?;
        Ok(key)
    }
}

/// Whether somebody else changed the stream's entry first: what was decided on is to be looked at again.
pub(super) fn is_conflict(stop: &Stop) -> bool {
    matches!(stop, Stop::Error(Error::Store(store::Error::Conflict(_))))
}
