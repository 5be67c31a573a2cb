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
        Self::own(Opener::one(cipher))
    }

    /// Keys that are all at hand.
    pub fn own(opener: Opener) -> Self {
        Self::new(opener, None)
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

    /// Fetches what the records to come need, in their order, and lets go of what a session at rest does not.
    ///
    /// # Errors
    /// A key cannot be had now. Records before the first that needs it can be opened.
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

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    };

    use bytes::{BufMut as _, Bytes, BytesMut};

    use super::*;
    use crate::{
        crypto::{Cipher, Key, OpenError, Text},
        stream::StreamPath,
        wire::record::{StoredBatch, StoredRecord},
    };

    #[derive(Default)]
    struct Told {
        asked: Mutex<Vec<u32>>,
        outdated: AtomicBool,
    }

    struct Source(Arc<Told>);

    impl EpochKeys for Source {
        fn key(&mut self, epoch: u32) -> BoxFuture<'_, Result<EpochKey, BoxError>> {
            self.0.asked.lock().unwrap().push(epoch);
            let key = match epoch {
                8 => EpochKey::Shredded,
                9 => EpochKey::Unknown,
                _ => EpochKey::Here(cipher(epoch)),
            };
            Box::pin(std::future::ready(Ok(key)))
        }

        fn is_outdated(&mut self) -> bool {
            self.0.outdated.swap(false, SeqCst)
        }
    }

    fn cipher(epoch: u32) -> StreamCipher {
        let path: StreamPath = "test-basin/s".parse().unwrap();
        let key = Key::from_bytes([u8::try_from(epoch).unwrap(); 32]);
        StreamCipher::of_epoch(Cipher::Aegis256, &key, path.id(), epoch)
    }

    /// A batch of records under these epochs.
    fn batch(epochs: &[u32]) -> Opening {
        let record = |(at, epoch): (usize, &u32)| {
            // An encoded record without headers.
            let sealed = cipher(*epoch).seal(Text::Encoded, &mut BytesMut::new(), |out| {
                out.put_slice(&[0, b'x']);
            });
            StoredRecord {
                seq_num: at as u64,
                timestamp: 1,
                headers: Vec::new(),
                body: Bytes::clone(sealed.unwrap().as_bytes()),
            }
        };
        let records = epochs.iter().enumerate().map(record).collect();
        let tail = None;
        StoredBatch { records, tail }.opening()
    }

    fn session() -> (SessionKeys, Arc<Told>) {
        let told = Arc::<Told>::default();
        let opener = Opener::managed(Cipher::Aegis256);
        let source = Box::new(Source(Arc::clone(&told)));
        (SessionKeys::managed(opener, source), told)
    }

    fn asked(told: &Told) -> Vec<u32> {
        std::mem::take(&mut told.asked.lock().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_fetched_as_records_name_them_and_let_go_of_after() {
        let (mut keys, told) = session();
        let mut both = batch(&[1, 2, 1]);
        keys.prepare(&both).await.unwrap();
        assert_eq!(asked(&told), [1, 2]);
        let opened = both.next(keys.opener()).unwrap().unwrap();
        assert_eq!(opened.records.len(), 3);
        keys.prepare(&batch(&[2, 3])).await.unwrap();
        assert_eq!(asked(&told), [3]);
        keys.prepare(&batch(&[1])).await.unwrap();
        assert_eq!(asked(&told), [1], "the key of another epoch was kept");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_shredded_or_unknown_does_not_open() {
        let (mut keys, _) = session();
        for (epoch, error) in [(8, OpenError::Shredded), (9, OpenError::Epoch)] {
            let mut opening = batch(&[epoch]);
            keys.prepare(&opening).await.unwrap();
            let record = opening.next(keys.opener()).unwrap_err();
            assert_eq!((record.seq_num, record.cause), (0, error));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outdated_key_is_fetched_again() {
        let (mut keys, told) = session();
        keys.prepare(&batch(&[1])).await.unwrap();
        keys.prepare(&batch(&[1])).await.unwrap();
        assert_eq!(asked(&told), [1]);
        told.outdated.store(true, SeqCst);
        keys.prepare(&batch(&[1])).await.unwrap();
        assert_eq!(asked(&told), [1]);
        // A heartbeat is enough to let go of it.
        told.outdated.store(true, SeqCst);
        keys.prepare(&batch(&[])).await.unwrap();
        assert!(keys.opener().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_at_rest_lets_go_of_its_keys_after_a_minute() {
        let (mut keys, told) = session();
        keys.prepare(&batch(&[1])).await.unwrap();
        let began = Instant::now();
        tokio::time::sleep(MAX_UNUSED / 2).await;
        // What brings no records does not keep them.
        keys.prepare(&batch(&[])).await.unwrap();
        keys.rest().await;
        assert_eq!(began.elapsed(), MAX_UNUSED);
        assert!(keys.opener().is_empty());
        // Nothing to let go of, nothing to wake up for.
        let forever = tokio::time::timeout(MAX_UNUSED * 100, keys.rest()).await;
        assert!(forever.is_err());
        asked(&told);
        keys.prepare(&batch(&[1])).await.unwrap();
        assert_eq!(asked(&told), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_key_for_all_stays() {
        let mut keys = SessionKeys::one(cipher(1));
        let forever = tokio::time::timeout(MAX_UNUSED * 100, keys.rest()).await;
        assert!(forever.is_err());
        assert!(!keys.opener().is_empty());
    }
}
