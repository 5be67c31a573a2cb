//! Managed keys: each stream has data keys that the proxy made, wrapped in what their holder alone has.
//!
//! A key has a number, its key epoch, which every record under it names. The last epoch seals; the others open
//! what was sealed under them. A key is recorded durably before anything is sealed under it.

mod allowance;
mod certificate;
mod first;
mod holder;
mod leases;
pub mod master;
mod opening;
mod outage;
mod policy;
mod rotate;
mod sealing;
mod shred;
mod stored;

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use quick_cache::sync::Cache;

pub use certificate::{Certificate, RecordRange, ShreddedEpoch};
pub use holder::{KeyHolder, Wrapping};
pub use leases::{Lease, Leases};
pub use rotate::{Authority, Rotated};
pub use sealing::{Sealer, Sealing};
pub use shred::ShredError;

use self::{allowance::Allowance, opening::Source};
use super::{Error, call::Caller};
use crate::{
    body::SessionKeys,
    crypto::{Cipher, Digest, Opener, StreamCipher},
    keys::{self, RotateAfter, kms::Kms},
    registry::{self, Registry, SealedStream, rules::KeySource},
    store::{DataKey, DataKeys, Holder, Store, StreamEntry, StreamState, Versioned},
    stream::StreamPath,
    telemetry::metrics::Metrics,
};

/// Streams whose allowance is remembered. One that is forgotten costs a block of the key's count.
const KNOWN_ALLOWANCES: usize = 100_000;

/// How long a session uses a key of the service's without asking the cache: that costs microseconds.
const RENEW_AFTER: Duration = Duration::from_secs(1);

/// Makes, rotates and hands out the managed keys of all streams.
pub struct Keyring {
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    rotate_after: RotateAfter,
    kms: Option<Kms>,
    allowances: Cache<StreamPath, Arc<Allowance>>,
    /// Who is appending under which key epoch.
    pub leases: Leases,
    metrics: Arc<Metrics>,
}

/// The keys of a stream as one request comes to them.
pub enum StreamKeys {
    /// The one key that the client sent, or that a file of the operator's holds.
    Own {
        /// The key with the stream's cipher.
        cipher: StreamCipher,
        /// The same key with the cipher of a former incarnation, for records of then.
        former: Option<StreamCipher>,
    },
    /// Those that the proxy made.
    Managed(Box<Managed>),
}

/// A stream whose keys the proxy makes, as one request comes to it.
#[derive(Clone)]
pub struct Managed {
    keyring: Arc<Keyring>,
    path: StreamPath,
    cipher: Cipher,
    /// Whether it has a rule and nothing was recorded of it.
    is_new: bool,
    holder: KeyHolder,
    caller: Caller,
    life: Life,
}

/// Which life of a stream a request is about: that of a stream's first key. It stays recorded when it is shredded.
#[derive(Debug, Clone, Copy, Default)]
struct Life(Option<Digest>);

impl Keyring {
    /// A keyring over what `registry` and `store` say.
    pub fn new(
        registry: Arc<Registry>,
        store: Arc<dyn Store>,
        rotate_after: RotateAfter,
        kms: Option<Kms>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            registry,
            store,
            rotate_after,
            kms,
            allowances: Cache::new(KNOWN_ALLOWANCES),
            leases: Leases::default(),
            metrics,
        }
    }

    /// The managed keys of a stream, for a request with these headers; `None` for a stream with a key of its
    /// own.
    ///
    /// # Errors
    /// The request's holder cannot unwrap them or is not theirs, it brings a key, or the configuration says
    /// another kind of key than the stream's records have.
    pub fn managed(
        self: &Arc<Self>,
        stream: &SealedStream,
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Result<Option<Managed>, Error> {
        let holder = match stream.key_source() {
            KeySource::Header | KeySource::File => {
                return match stream.data_keys() {
                    None => Ok(None),
                    Some(keys) => Err(conflict(&stream.path, kind(&keys.holder), OWN)),
                };
            }
            KeySource::Managed => KeyHolder::Project(owners_pass(stream, caller)?),
            KeySource::Kms => KeyHolder::Kms(self.kms(&stream.path)?),
        };
        // Whoever sends a key believes that it is used.
        if headers.contains_key(keys::KEY_HEADER) {
            return Err(keys::Error::Unwanted(stream.cipher).into());
        }
        let declared = kind(&holder.recorded());
        if let Some(keys) = stream.data_keys()
            && keys.holder != holder.recorded()
        {
            return Err(conflict(&stream.path, kind(&keys.holder), declared));
        }
        if stream.key_check().is_some() {
            return Err(conflict(&stream.path, OWN.into(), &declared));
        }
        holder.check()?;
        Ok(Some(Managed {
            keyring: Arc::clone(self),
            path: stream.path.clone(),
            cipher: stream.cipher,
            is_new: !stream.is_recorded(),
            holder,
            caller: caller.clone(),
            life: Life::of(stream.data_keys()),
        }))
    }

    /// Drops the unwrapped keys of a stream, which are its no more. Those that sessions hold go with the change of
    /// its entry.
    pub async fn forget(&self, path: &StreamPath) {
        if let Some(kms) = &self.kms {
            kms.forget(path).await;
        }
    }

    fn kms(&self, path: &StreamPath) -> Result<Kms, Error> {
        self.kms.clone().ok_or_else(|| {
            Error::NotAllowed(format!(
                "stream `{path}` needs a key management service, and none is configured"
            ))
        })
    }

    /// What is recorded of a stream now. It lives, has the cipher that it had, and its keys are those that it
    /// had.
    async fn look(&self, managed: &Managed) -> Result<Versioned<Arc<StreamEntry>>, Error> {
        let found = self.store.stream(&managed.path).await?;
        match managed.is_same(found.entry.as_deref()) {
            true => Ok(found),
            false => Err(registry::Error::OtherIncarnation(managed.path.clone()).into()),
        }
    }

    /// What seals and opens the records of one of the stream's keys.
    async fn unwrap(&self, managed: &Managed, key: &DataKey) -> Result<StreamCipher, Error> {
        let Managed {
            path,
            cipher,
            holder,
            ..
        } = managed;
        holder.unwrap(&*self.store, path, *cipher, key).await
    }

    fn allowance(&self, path: &StreamPath) -> Arc<Allowance> {
        let made = self
            .allowances
            .get_or_insert_with(path, || Ok::<_, std::convert::Infallible>(Arc::default()));
        match made {
            Ok(allowance) => allowance,
            Err(never) => match never {},
        }
    }
}

impl StreamKeys {
    /// What opens the stream's records.
    pub fn session(self) -> SessionKeys {
        match self {
            Self::Own { cipher, former } => SessionKeys::own(Opener::one(cipher).or_former(former)),
            Self::Managed(managed) => {
                let opener = Opener::managed(managed.cipher);
                SessionKeys::managed(opener, Box::new(Source::new(*managed)))
            }
        }
    }

    /// What seals records for the stream.
    pub fn sealer(self) -> Sealer {
        match self {
            Self::Own { cipher, .. } => Sealer::own(cipher),
            Self::Managed(managed) => Sealer::managed(*managed),
        }
    }
}

impl Managed {
    fn is_same(&self, entry: Option<&StreamEntry>) -> bool {
        let Some(entry) = entry else {
            return self.is_new && self.life.0.is_none();
        };
        let StreamState::Live(life) = &entry.state else {
            return false;
        };
        let keys = entry.data_keys.as_ref();
        let is_held = keys.is_none_or(|keys| keys.holder == self.holder.recorded());
        let has_no_key = entry.key_check.is_none();
        let is_life = self.life.0.is_none() || self.life.0 == Life::of(keys).0;
        life.cipher == Some(self.cipher) && is_held && has_no_key && is_life
    }

    /// From now on it is about the life that these keys are of, and no other.
    fn stays_with(&mut self, keys: &DataKeys) {
        if self.life.0.is_none() {
            self.life = Life::of(Some(keys));
        }
    }
}

impl Life {
    fn of(keys: Option<&DataKeys>) -> Self {
        Self(
            keys.and_then(|keys| keys.keys.first())
                .map(|key| key.commit),
        )
    }
}

/// The API key that a request came in with, if it is of the project that the stream belongs to.
fn owners_pass(stream: &SealedStream, caller: &Caller) -> Result<Arc<super::gate::Pass>, Error> {
    let pass = caller.pass();
    let owned = pass.zip(stream.owner());
    match owned.filter(|(pass, owner)| pass.project.name == owner.name) {
        Some((pass, _)) => Ok(Arc::clone(pass)),
        None => Err(Error::NotAllowed(format!(
            "stream `{}` has managed keys and needs an API key of its project",
            stream.path
        ))),
    }
}

fn data_keys(found: &Versioned<Arc<StreamEntry>>) -> Option<&DataKeys> {
    found.entry.as_ref()?.data_keys.as_ref()
}

/// How keys are called that clients send or files hold.
const OWN: &str = "a key that clients send or a file holds";

fn kind(holder: &Holder) -> String {
    match holder {
        Holder::Project(name) => format!("managed keys of project `{name}`"),
        Holder::Kms => "keys of the key management service".to_owned(),
    }
}

fn conflict(path: &StreamPath, recorded: String, declared: impl Into<String>) -> Error {
    Error::KeyConflict {
        path: path.clone(),
        recorded,
        declared: declared.into(),
    }
}
