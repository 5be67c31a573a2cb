//! Where the first acked record of each key epoch is, for the certificate of its shredding.

use super::{Keyring, Lease};
use crate::{
    proxy::Error,
    registry,
    store::{self, DataKeys, StreamEntry},
    wire::record::AppendAck,
};

impl Keyring {
    /// Notes where the first record of an epoch is known to be stored. It is a hint: an ack that is lost, or that
    /// cannot be noted, leaves a later one's place, or none.
    pub async fn stored(&self, lease: &Lease, ack: &AppendAck) {
        match self.note(lease, ack.start.seq_num).await {
            Ok(())
            | Err(
                Error::Registry(registry::Error::OtherIncarnation(_))
                | Error::Store(store::Error::Conflict(_)),
            ) => {}
            Err(error) => {
                let (stream, error) = (lease.path(), error.told());
                tracing::warn!(%stream, error, "first record of a key epoch not noted");
            }
        }
    }

    async fn note(&self, lease: &Lease, at: u64) -> Result<(), Error> {
        let path = lease.path();
        let found = self.store.stream(path).await?;
        let news = |entry: &StreamEntry| news(entry, lease.epoch(), at);
        if found.entry.as_deref().and_then(news).is_none() {
            return Ok(());
        }
        let allowance = self.allowance(path);
        let _turn = allowance.turn.lock().await;
        let found = self.store.stream(path).await?;
        let entry = found.entry.as_deref();
        let Some((cipher, keys)) = entry.and_then(|entry| entry.state.cipher().zip(news(entry)))
        else {
            return Ok(());
        };
        let registry = &self.registry;
        let noted = registry.record_data_keys(path, cipher, &found, (keys, None));
        Ok(noted.await?)
    }
}

/// The stream's keys with an epoch that begins at this number, if it is not known to begin before.
fn news(entry: &StreamEntry, epoch: u32, at: u64) -> Option<DataKeys> {
    let keys = entry.data_keys.as_ref()?;
    if keys
        .of(epoch)?
        .first_seq_num
        .is_some_and(|first| first <= at)
    {
        return None;
    }
    let mut keys = keys.clone();
    let key = keys.keys.iter_mut().find(|key| key.epoch == epoch)?;
    key.first_seq_num = Some(at);
    Some(keys)
}
