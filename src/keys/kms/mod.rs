//! Data keys that a key management service wraps: the proxy makes them, the service encrypts them under a key
//! that never leaves it, and unwrapped ones are held for a bounded time.
//!
//! A wrapped key is bound to its stream and epoch, so that it does not unwrap anywhere else.

mod aws;
mod cache;
mod config;
mod context;
mod error;
mod troubles;
mod vault;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;

use self::{
    aws::Aws,
    cache::{Bounds, Cache, Slot},
    context::Context,
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

/// Time to connect to a service.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a call, from its beginning to the end of its answer, repetitions included. A client waits for it.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
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
            metrics,
        });
        let held = Arc::downgrade(&shared);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(bounds.sweep).await;
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
    /// [`Error`], never [`Error::InvalidCiphertext`].
    pub async fn wrap(
        &self,
        dek: &Key,
        stream: &StreamPath,
        epoch: u32,
    ) -> Result<WrappedDek, Error> {
        let context = Context { stream, epoch };
        let provider = &self.0.provider;
        // Boxed: the type of AWS's call is too deep to be part of what waits for it.
        let wrapping: BoxFuture<'_, _> = Box::pin(async {
            let wrapped = match provider {
                Provider::Aws(aws) => aws.wrap(dek, context).await,
                Provider::Vault(vault) => vault.wrap(dek, context).await,
            }?;
            let fits = wrapped.blob.len() <= MAX_BLOB_BYTES
                && wrapped.key.len() <= MAX_KEY_NAME_BYTES
                && !wrapped.blob.is_empty();
            fits.then_some(wrapped)
                .ok_or_else(|| Error::Unreachable("its answer holds no wrapped key".into()))
        });
        self.0.called(KmsOperation::Wrap, wrapping).await
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
    /// until the configured time is over. A failure is remembered for a
    /// second, so that what cannot be unwrapped does not become a flood of calls.
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
            let unwrapped = self.called(KmsOperation::Unwrap, self.ask(&slot, stream));
            let unwrapped = unwrapped.await;
            self.troubles.note(&slot, stream, unwrapped.as_ref().err());
            unwrapped
        };
        self.cache.load(&slot, unwrapping).await
    }

    async fn ask(&self, slot: &Slot, stream: &StreamPath) -> Result<Key, Error> {
        let context = Context {
            stream,
            epoch: slot.epoch,
        };
        match &self.provider {
            Provider::Aws(aws) => aws.unwrap(&slot.key, &slot.blob, context).await,
            Provider::Vault(vault) => vault.unwrap(&slot.key, &slot.blob, context).await,
        }
    }

    /// Waits for a call, but not for ever, and counts it.
    async fn called<T>(
        &self,
        operation: KmsOperation,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let KmsCall { outcomes, duration } = self.metrics.kms.calls.of(operation);
        let began = Instant::now();
        let answer = tokio::time::timeout(CALL_TIMEOUT, call).await;
        let answer = answer.unwrap_or_else(|_| {
            let reason = format!("no answer within {CALL_TIMEOUT:?}");
            Err(Error::Unreachable(reason.into()))
        });
        duration.observe(began.elapsed().as_secs_f64());
        self.troubles.answered(answer.as_ref().err());
        let outcome = answer
            .as_ref()
            .map_or_else(Error::outcome, |_| KmsOutcome::Ok);
        outcomes.of(outcome).inc();
        answer
    }
}

impl fmt::Debug for Kms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kms")
    }
}

#[cfg(test)]
mod tests;
