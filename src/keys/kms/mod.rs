//! Data keys that a key management service wraps: the proxy makes them, the service encrypts them under a key
//! that never leaves it, and unwrapped ones are held for a bounded time.
//!
//! A wrapped key is bound to its stream and epoch, so that it does not unwrap anywhere else.

mod aws;
mod cache;
mod config;
mod context;
mod error;
mod retry;
mod troubles;
mod vault;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout_at},
};

use self::{
    aws::Aws,
    cache::{Bounds, Cache, Slot},
    context::Context,
    retry::{Connection, Failed, pauses},
    troubles::Troubles,
    vault::Vault,
};
pub use self::{
    config::{AwsConfig, Config, ProviderName, VaultConfig},
    error::{Error, Reason},
    troubles::{Away, Trouble},
};
use crate::{
    crypto::Key,
    stream::StreamPath,
    telemetry::{
        label::{KmsOperation, KmsOutcome},
        metrics::{KmsCall, Metrics},
    },
};

/// Time to connect to a service: less than that of an attempt, which may need a second address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for a call: its turn, all its attempts and the pauses between them. A client waits for it.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the first attempt of a call. Each attempt has twice the time of the one before.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(2500);
/// Most calls under way at once. Others wait for their turn, in order.
const MAX_CALLS: usize = 32;
/// Idle timeout of connections, which the pools look for at this interval: one is kept for up to twice as long.
/// Its buffers hold until then what crossed it last, data keys included.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of an answer. One with a wrapped key has less than 10 KiB.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Most bytes of a wrapped key: AWS allows itself 6144, the others take about 100.
const MAX_BLOB_BYTES: usize = 8 * 1024;
/// Most bytes of the name of a key: AWS allows itself 2048.
const MAX_KEY_NAME_BYTES: usize = 2048;

/// A key management service and the data keys that it unwrapped. Clones are one and the same.
#[derive(Clone)]
pub struct Kms(Arc<Shared>);

/// A data key as the service wrapped it. Not secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedDek {
    /// The service's key that it is wrapped under. Unwrapping asks for this one, so that the configuration
    /// may name another one later.
    pub key: String,
    /// The wrapped key.
    pub blob: Vec<u8>,
}

struct Shared {
    provider: Provider,
    cache: Cache,
    troubles: Troubles,
    turns: Semaphore,
    metrics: Arc<Metrics>,
}

/// The services that there are.
enum Provider {
    Aws(Box<Aws>),
    Vault(Box<Vault>),
}

impl Kms {
    /// Gets ready to use the service that the configuration names; `None` when it names none. Opens no
    /// connection to it, only to the sources of AWS credentials where they are on the network.
    ///
    /// # Errors
    ///
    /// [`Error::Misconfigured`], with what [`Config::problems`] says, or without a region for AWS.
    pub async fn start(config: &Config, metrics: Arc<Metrics>) -> Result<Option<Self>, Error> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(Error::Misconfigured(problems.join("; ").into()));
        }
        let provider = match config.provider {
            ProviderName::None => return Ok(None),
            ProviderName::Aws => Provider::Aws(Box::new(Aws::load(&config.aws).await?)),
            ProviderName::Vault => Provider::Vault(Box::new(Vault::new(&config.vault)?)),
        };
        Ok(Some(Self::with(provider, Bounds::new(config), metrics)))
    }

    fn with(provider: Provider, bounds: Bounds, metrics: Arc<Metrics>) -> Self {
        let shared = Arc::new(Shared {
            provider,
            cache: Cache::new(&bounds, &metrics.kms.cached_keys),
            troubles: Troubles::default(),
            turns: Semaphore::new(MAX_CALLS),
            metrics,
        });
        let held = Arc::downgrade(&shared);
        tokio::spawn(async move {
            loop {
                sleep(bounds.sweep).await;
                let Some(shared) = held.upgrade() else { return };
                shared.cache.sweep().await;
                shared.troubles.sweep();
            }
        });
        Self(shared)
    }

    /// Has a data key wrapped for one epoch of a stream, under the key that the configuration names. Does not
    /// put it into the cache: whoever unwraps it next learns whether it can be.
    ///
    /// # Errors
    ///
    /// [`Error`], never [`Error::InvalidCiphertext`] or [`Error::Denied`].
    pub async fn wrap(
        &self,
        dek: &Key,
        stream: &StreamPath,
        epoch: u32,
    ) -> Result<WrappedDek, Error> {
        let context = Context { stream, epoch };
        let wrapped = self.0.called(KmsOperation::Wrap, |connection| {
            // Boxed: the type of AWS's call is too deep to be part of what waits for it.
            Box::pin(async move {
                let wrapped = match &self.0.provider {
                    Provider::Aws(aws) => aws.wrap(dek, context).await,
                    Provider::Vault(vault) => vault.wrap(dek, context, connection).await,
                };
                wrapped.map_err(Failed::of_wrapping)
            })
        });
        let wrapped = wrapped.await?;
        let fits = wrapped.blob.len() <= MAX_BLOB_BYTES
            && wrapped.key.len() <= MAX_KEY_NAME_BYTES
            && !wrapped.blob.is_empty();
        fits.then_some(wrapped)
            .ok_or_else(|| Error::Unreachable("its answer holds no wrapped key".into()))
    }

    /// The same, and unwraps it again: a key that nobody may decrypt is found out before anything is under it.
    /// It is in the cache then.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn make(
        &self,
        dek: &Key,
        stream: &StreamPath,
        epoch: u32,
    ) -> Result<WrappedDek, Error> {
        let wrapped = self.wrap(dek, stream, epoch).await?;
        let WrappedDek { key, blob } = &wrapped;
        match self.unwrap(key, blob, stream, epoch).await {
            Ok(again) if again == *dek => Ok(wrapped),
            Ok(_) => {
                let reason = "it unwrapped another key than it had wrapped";
                Err(Error::Misconfigured(reason.into()))
            }
            Err(error) => {
                // Nobody will ask for this one again.
                let slot = Slot::new(stream.id(), epoch, key, blob);
                self.0.troubles.note(&slot, stream, None);
                Err(error)
            }
        }
    }

    /// The data key of one epoch of a stream: `blob`, which was wrapped under the service's key `key`.
    ///
    /// Callers that want the same one at a time share one call. Once it is unwrapped it comes from memory,
    /// until the configured time is over. A failure is remembered for [`Error::stands_for`], so that a key that
    /// cannot be unwrapped does not become a flood of calls.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn unwrap(
        &self,
        key: &str,
        blob: &[u8],
        stream: &StreamPath,
        epoch: u32,
    ) -> Result<Key, Error> {
        if blob.len() > MAX_BLOB_BYTES || key.len() > MAX_KEY_NAME_BYTES {
            return Err(Error::InvalidCiphertext("no service makes such".into()));
        }
        let slot = Slot::new(stream.id(), epoch, key, blob);
        if let Some(key) = self.0.cache.held(&slot).await {
            return Ok(key);
        }
        if let Some(error) = self.0.troubles.just_now(&slot) {
            return Err(error);
        }
        let (shared, stream) = (Arc::clone(&self.0), stream.clone());
        // In a task of its own: a caller that leaves takes nothing from the others, and keys that were
        // forgotten in the meantime are dropped in any case.
        let loading = tokio::spawn(async move { shared.load(slot, &stream).await });
        let stopping = |_| Err(Error::Unreachable("the proxy is stopping".into()));
        loading.await.unwrap_or_else(stopping)
    }

    /// Drops every data key of a stream, and what is being unwrapped for it once that is done.
    pub async fn forget(&self, stream: &StreamPath) {
        self.0.cache.forget(Some(stream.id())).await;
        self.0.troubles.forget(stream);
    }

    /// Drops every data key.
    pub async fn forget_all(&self) {
        self.0.cache.forget(None).await;
    }

    /// Streams whose keys could not be unwrapped when they were last asked for, at most a thousand. Those
    /// that nobody asked for in ten minutes are left out.
    pub fn troubles(&self) -> Vec<Trouble> {
        self.0.troubles.list()
    }

    /// Why the service did no work at the last call, if it did none. Forgotten when nobody called in ten
    /// minutes.
    pub fn away(&self) -> Option<Away> {
        self.0.troubles.away()
    }
}

impl Shared {
    async fn load(&self, slot: Slot, stream: &StreamPath) -> Result<Key, Error> {
        let unwrapping = async {
            let unwrapped = self.called(KmsOperation::Unwrap, |connection| {
                Box::pin(self.ask(&slot, stream, connection))
            });
            let unwrapped = unwrapped.await;
            self.troubles.note(&slot, stream, unwrapped.as_ref().err());
            unwrapped
        };
        self.cache.load(&slot, unwrapping).await
    }

    async fn ask(
        &self,
        slot: &Slot,
        stream: &StreamPath,
        connection: Connection,
    ) -> Result<Key, Failed> {
        let (key, epoch) = (&slot.key, slot.epoch);
        let context = Context { stream, epoch };
        match &self.provider {
            Provider::Aws(aws) => aws.unwrap(key, &slot.blob, context).await,
            Provider::Vault(vault) => vault.unwrap(key, &slot.blob, context, connection).await,
        }
    }

    /// Makes a call within [`CALL_TIMEOUT`], and counts it.
    async fn called<'a, T>(
        &self,
        operation: KmsOperation,
        attempt: impl Fn(Connection) -> Attempt<'a, T>,
    ) -> Result<T, Error> {
        let KmsCall { outcomes, duration } = self.metrics.kms.calls.of(operation);
        let began = Instant::now();
        let deadline = began + CALL_TIMEOUT;
        let answer = self.repeated(deadline, attempt).await;
        duration.observe(began.elapsed().as_secs_f64());
        let outcome = answer
            .as_ref()
            .map_or_else(Error::outcome, |_| KmsOutcome::Ok);
        outcomes.of(outcome).inc();
        answer
    }

    /// Repeats a call while its failure may pass, the next attempt begins before the deadline, and the
    /// service does work for other calls.
    async fn repeated<'a, T>(
        &self,
        deadline: Instant,
        attempt: impl Fn(Connection) -> Attempt<'a, T>,
    ) -> Result<T, Error> {
        let (mut limit, mut connection) = (ATTEMPT_TIMEOUT, Connection::Kept);
        let mut pauses = pauses();
        loop {
            // Of one attempt: during the pauses others have their turn.
            let Ok(turn) = timeout_at(deadline, self.turns.acquire()).await else {
                let reason =
                    format!("{MAX_CALLS} calls are under way: no turn in {CALL_TIMEOUT:?}");
                return Err(Error::Unreachable(reason.into()));
            };
            let end = deadline.min(Instant::now() + limit);
            let answer = timeout_at(end, attempt(connection)).await;
            drop(turn);
            let answer = answer.unwrap_or_else(|_| Err(Failed::lost("no answer in time".into())));
            let error = answer.as_ref().err().map(|failed| &failed.error);
            self.troubles.answered(error);
            let failed = match answer {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let pause = pauses.next().and_then(|pause| failed.pause(pause));
            match pause.filter(|pause| deadline.saturating_duration_since(Instant::now()) > *pause)
            {
                Some(pause) if !self.troubles.is_down() => sleep(pause).await,
                _ => return Err(failed.error),
            }
            self.metrics.kms.retries.inc();
            connection = failed.next_connection();
            limit *= 2;
        }
    }
}

/// One attempt of a call.
type Attempt<'a, T> = BoxFuture<'a, Result<T, Failed>>;

impl fmt::Debug for Kms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kms")
    }
}

#[cfg(test)]
mod tests;
