//! The config store's export as the body of an answer, at the pace of whoever reads it.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};

use crate::{
    store::{ExportError, Store},
    upstream::{Body, BoxError},
};

/// Bytes that go out at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that wait for the reader.
const CHUNKS_AHEAD: usize = 4;
/// Longest wait for the reader. The store keeps what it writes meanwhile apart for as long as it is read.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

type Chunk = Result<Frame<Bytes>, BoxError>;

/// Begins an export. Its body breaks off where the store fails, or when nobody reads on for 30 s. `turn`
/// is given back at its end.
///
/// # Errors
/// The store failed before there was a first byte.
pub(super) async fn begin(
    store: Arc<dyn Store>,
    turn: OwnedSemaphorePermit,
) -> Result<Body, String> {
    let (sender, mut receiver) = mpsc::channel::<Chunk>(CHUNKS_AHEAD);
    let out = Chunks {
        sender: sender.clone(),
        buffer: BytesMut::new(),
        runtime: Handle::current(),
    };
    tokio::spawn(async move {
        let _turn = turn;
        if let Err(error) = store.export(Box::new(out)).await {
            tracing::warn!(%error, "the export broke off");
            // Nobody reads it any more, or it is the last they read.
            let _gone = timeout(STALL_TIMEOUT, sender.send(Err(error.into()))).await;
        }
    });
    let first = match receiver.recv().await {
        Some(Ok(first)) => first,
        Some(Err(error)) => return Err(error.to_string()),
        None => return Err(ExportError::Write(io::ErrorKind::BrokenPipe.into()).to_string()),
    };
    let chunks = stream::unfold((Some(first), receiver), |(first, mut receiver)| async {
        let chunk = match first {
            Some(first) => Ok(first),
            None => receiver.recv().await?,
        };
        Some((chunk, (None, receiver)))
    });
    Ok(StreamBody::new(chunks).boxed_unsync())
}

/// Where the store writes its export.
struct Chunks {
    sender: mpsc::Sender<Chunk>,
    buffer: BytesMut,
    runtime: Handle,
}

impl Chunks {
    /// Hands the chunk on. Called on a thread that may wait.
    fn send(&mut self) -> io::Result<()> {
        let chunk = Frame::data(self.buffer.split().freeze());
        let sending = timeout(STALL_TIMEOUT, self.sender.send(Ok(chunk)));
        match self.runtime.block_on(sending) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl io::Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.buffer.is_empty() {
            true => Ok(()),
            false => self.send(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::store::{BasinEntry, Change, Config, Embedded, Revision};

    /// A store whose export is longer than what waits for a reader.
    async fn store(dir: &tempfile::TempDir) -> Embedded {
        let config = Config {
            path: dir.path().join("store.redb"),
            create: true,
            ..Config::default()
        };
        let store = Embedded::open(&config).unwrap();
        let changes = (0..10_000).map(|at| Change::Basin {
            name: format!("test-basin-{at}").parse().unwrap(),
            expected: Revision::NONE,
            entry: Some(BasinEntry::default()),
        });
        store.commit(changes.collect()).await.unwrap();
        store
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_export_keeps_its_turn_until_it_was_read_or_left() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let turns = Arc::new(Semaphore::new(1));
        let begin = async || {
            let turn = Arc::clone(&turns).acquire_owned().await.unwrap();
            begin(Arc::new(store.clone()), turn).await.unwrap()
        };
        let unread = begin().await;
        assert_eq!(turns.available_permits(), 0);
        drop(unread);
        // Has its turn only once the one before has ended.
        let read = begin().await.collect().await.unwrap().to_bytes();
        let mut whole = Vec::new();
        store.export(&mut whole).unwrap();
        assert!(
            whole.len() > CHUNK_BYTES * (CHUNKS_AHEAD + 2),
            "{}",
            whole.len()
        );
        assert_eq!(read, whole);
        let _turn = turns.acquire().await.unwrap();
    }
}
