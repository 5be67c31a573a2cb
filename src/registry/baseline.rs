//! The one moment at which the upstream is believed: when a basin gets its first cipher, the streams
//! it already has are recorded as plain.

use std::time::Duration;

use super::{
    Outcome, Registry,
    probe::{Listed, Streams},
};
use crate::{
    crypto::Cipher,
    proxy::{Error, call::Caller},
    store::{BasinEntry, Change, Incarnation, Origin, StreamEntry, StreamState},
    stream::{BasinName, StreamName, StreamPath},
};

/// Longest time for listing a basin: some hundred thousand streams at a thousand a page.
const LISTING_TIMEOUT: Duration = Duration::from_secs(120);

impl Registry {
    /// Records every stream of `basin` that the upstream lists as plain, durably, page by page, unless it
    /// is recorded as sealed or has a rule. The caller holds the basin's lock and a mark that the basin is
    /// [`changing`](Registry::changing), and sets the cipher afterwards.
    ///
    /// # Errors
    /// The upstream's list cannot be had whole in time, or the store cannot write.
    pub async fn baseline(&self, basin: &BasinName, caller: &Caller) -> Outcome<()> {
        let listing = async {
            self.forget_plain(basin).await?;
            let mut streams = Streams::of(basin, caller);
            while let Some(page) = streams.page().await? {
                self.record_page(basin, page).await?;
            }
            Ok(())
        };
        tokio::time::timeout(LISTING_TIMEOUT, listing)
            .await
            .unwrap_or(Err(Error::Timeout.into()))
    }

    async fn record_page(&self, basin: &BasinName, page: Vec<(StreamName, Listed)>) -> Outcome<()> {
        let mut changes = Vec::new();
        for (stream, listed) in page {
            let path = StreamPath {
                basin: basin.clone(),
                stream,
            };
            let found = self.store.stream(&path).await?;
            if found.entry.is_some() || self.rules().stream(&path).is_some() {
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
                    data_keys: None,
                }),
            });
        }
        Ok(self.commit(changes).await?)
    }

    /// Drops what earlier times left of plain streams: in a basin without a cipher it says nothing, and
    /// in one with a cipher nothing but the baseline may say "plain".
    async fn forget_plain(&self, basin: &BasinName) -> Result<(), Error> {
        let mut changes = Vec::new();
        for (path, found) in self.store.streams_of(basin).await? {
            let Some(entry) = found.entry else { continue };
            let kept = match entry.state {
                StreamState::Live(life) | StreamState::Deleting(life) if life.cipher.is_none() => {
                    None
                }
                StreamState::Live(_) | StreamState::Deleting(_) => continue,
                StreamState::Creating {
                    cipher: Some(_), ..
                } => continue,
                // The plain creation is forgotten, what it was to replace is not.
                StreamState::Creating {
                    cipher: None,
                    replaces,
                } => replaces
                    .filter(|life| life.cipher.is_some())
                    .map(|life| StreamEntry {
                        state: StreamState::Deleting(life),
                        origin: entry.origin,
                        key_check: None,
                        data_keys: entry.data_keys,
                    }),
            };
            changes.push(Change::Stream {
                path,
                expected: found.revision,
                entry: kept,
            });
        }
        self.commit(changes).await
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
        let _changing = self.changing(basin);
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
