//! The keys of a read session: all at hand, or fetched when a record of another key epoch comes.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::{
    crypto::{Opener, StreamCipher},
    upstream::BoxError,
    wire::record::Opening,
};

/// How long a session keeps a managed key that it does not use.
pub const MAX_UNUSED: Duration = Duration::from_secs(60);

/// What a key epoch's key is.
pub enum EpochKey {
    /// It opens the epoch's records.
    Here(StreamCipher),
    /// It is gone for ever.
    Shredded,
    /// The stream has no such epoch.
    Unknown,
}

/// Fetches the keys of a stream's key epochs.
pub trait EpochKeys: Send {
    /// The key of one epoch. May be asked again when it was dropped before it was done.
    ///
    /// # Errors
    /// Why it cannot be had now, in the terms of whoever made the fetcher.
    fn key(&mut self, epoch: u32) -> BoxFuture<'_, Result<EpochKey, BoxError>>;

    /// Whether a key that was fetched before may be another by now, or gone. Costs no I/O.
    fn is_outdated(&mut self) -> bool;
}

/// The keys of one read session.
pub struct SessionKeys {
    opener: Opener,
    source: Option<Box<dyn EpochKeys>>,
    used: Instant,
}

impl SessionKeys {
    /// One key for all records.
    pub fn one(cipher: StreamCipher) -> Self {
        Self::new(Opener::one(cipher), None)
    }

    /// Managed keys, from `source` as they are needed.
    pub fn managed(opener: Opener, source: Box<dyn EpochKeys>) -> Self {
        Self::new(opener, Some(source))
    }

    fn new(opener: Opener, source: Option<Box<dyn EpochKeys>>) -> Self {
        Self {
            opener,
            source,
            used: Instant::now(),
        }
    }

    /// What opens the records now.
    pub(super) fn opener(&self) -> &Opener {
        &self.opener
    }

    /// Waits until the keys at hand were not used for long, and lets go of them.
    pub(super) async fn rest(&mut self) {
        if self.source.is_none() || self.opener.is_empty() {
            return std::future::pending().await;
        }
        tokio::time::sleep_until(self.used + MAX_UNUSED).await;
        self.opener.keep_only(&[]);
    }

    /// Fetches what the records to come need, and lets go of what a session at rest does not.
    ///
    /// # Errors
    /// A key cannot be had now.
    pub(super) async fn prepare(&mut self, opening: &Opening) -> Result<(), BoxError> {
        let Some(source) = &mut self.source else {
            return Ok(());
        };
        if source.is_outdated() {
            self.opener.keep_only(&[]);
        }
        if opening.is_heartbeat() {
            return Ok(());
        }
        self.used = Instant::now();
        self.opener.keep_only(&opening.epochs());
        for epoch in opening.wants(&self.opener) {
            match source.key(epoch).await? {
                EpochKey::Here(cipher) => self.opener.learn(cipher),
                EpochKey::Shredded => self.opener.learn_shredded(epoch),
                // It does not open, and says so.
                EpochKey::Unknown => {}
            }
        }
        Ok(())
    }
}
