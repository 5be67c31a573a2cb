//! The one moment at which the upstream is believed: when a basin gets its first cipher, the streams
//! it already has are recorded as plain.

use super::{Outcome, Registry, probe::Streams};
use crate::{
    crypto::Cipher,
    proxy::call::Caller,
    store::{BasinEntry, Change, Incarnation, Origin, StreamEntry, StreamState},
    stream::{BasinName, StreamPath},
};

impl Registry {
    /// Records every stream of `basin` that has no entry as plain, durably, page by page. The caller
    /// holds the basin's lock and sets the cipher afterwards.
    ///
    /// # Errors
    /// The upstream's list cannot be had whole, or the store cannot write.
    pub async fn baseline(&self, basin: &BasinName, caller: &Caller) -> Outcome<()> {
        let mut streams = Streams::of(basin, caller);
        while let Some(page) = streams.page().await? {
            let mut changes = Vec::new();
            for (stream, listed) in page {
                let path = StreamPath {
                    basin: basin.clone(),
                    stream,
                };
                let found = self.store.stream(&path).await?;
                if !may_be_baseline(found.entry.as_deref()) {
                    continue;
                }
                let life = Incarnation {
                    cipher: None,
                    created_at: Some(listed.created_at),
                };
                changes.push(Change::Stream {
                    path,
                    expected: found.revision,
                    entry: Some(StreamEntry {
                        state: StreamState::Live(life),
                        origin: Origin::Baseline,
                        key_check: None,
                    }),
                });
            }
            if !changes.is_empty() {
                self.store.commit(changes).await?;
            }
        }
        Ok(())
    }

    /// Takes over a basin that the configuration file declares. The caller holds the basin's lock.
    pub(super) async fn adopt(
        &self,
        basin: &BasinName,
        cipher: Cipher,
        caller: &Caller,
    ) -> Outcome<()> {
        let found = self.store.basin(basin).await?;
        let had_cipher = found
            .entry
            .as_deref()
            .is_some_and(|entry| entry.stream_cipher.is_some());
        if !had_cipher {
            self.baseline(basin, caller).await?;
        }
        let entry = BasinEntry {
            stream_cipher: Some(cipher),
            declared: true,
            deleted: false,
        };
        self.record_basin(basin, found.revision, Some(entry))
            .await?;
        tracing::info!(%basin, %cipher, "basin adopted from the configuration file");
        Ok(())
    }
}

/// Nothing recorded, or recorded as plain before: whatever was ever sealed stays what it is.
fn may_be_baseline(entry: Option<&StreamEntry>) -> bool {
    match entry.map(|entry| &entry.state) {
        None => true,
        Some(StreamState::Live(life)) => life.cipher.is_none(),
        Some(StreamState::Creating { .. } | StreamState::Deleting(_)) => false,
    }
}
