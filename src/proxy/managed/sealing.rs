//! Keys for appends: the newest of the stream, for a whole input, and counted before anything is sealed.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    KeyHolder, Keyring, Lease, Life, Managed, RENEW_AFTER, data_keys,
    first::is_conflict,
    holder::Wrapping,
    outage::{Outage, beyond_policy},
    policy::{Limits, Next, amount},
};
use crate::{
    clock,
    crypto::{Digest, StreamCipher},
    proxy::{Error, call::Stop},
    store::{self, DataKey, DataKeys, StreamEntry, Versioned},
    stream::StreamPath,
    wire::record::{AppendAck, AppendInput},
};

/// How often the keys of a stream may be changed by others before an append gives up.
const MAX_ROUNDS: usize = 16;

/// Keys for the inputs of one append, or of one session.
pub struct Sealer(Kind);

enum Kind {
    Own(Own),
    Managed(Box<Latest>),
}

/// A key that a client sent or a file holds.
struct Own {
    cipher: StreamCipher,
    keyring: Arc<Keyring>,
    path: StreamPath,
    /// The changes of the config store that it was last looked at as of.
    as_of: u64,
}

/// The managed key that was handed out last.
struct Latest {
    managed: Managed,
    /// With the commitment of the data key that it is of.
    cipher: Option<(Digest, StreamCipher)>,
    /// When it was unwrapped.
    unwrapped: Instant,
}

/// The key for all parts of one input.
pub struct Sealing {
    /// What seals them.
    pub cipher: StreamCipher,
    /// To be held until the last part is acked, or failed; none for a key that is never shredded.
    pub lease: Option<Arc<Lease>>,
}

impl Sealer {
    pub(super) fn own(cipher: StreamCipher, keyring: &Arc<Keyring>, path: &StreamPath) -> Self {
        Self(Kind::Own(Own {
            cipher,
            keyring: Arc::clone(keyring),
            path: path.clone(),
            as_of: keyring.registry.changes(),
        }))
    }

    pub(super) fn managed(managed: Managed) -> Self {
        Self(Kind::Managed(Box::new(Latest {
            managed,
            cipher: None,
            unwrapped: Instant::now(),
        })))
    }

    /// Whether the stream's records are under one key for ever.
    pub fn is_own(&self) -> bool {
        matches!(self.0, Kind::Own(_))
    }

    /// Makes sure that there is a key, before a session is opened.
    ///
    /// # Errors
    /// As [`Sealer::take`].
    pub async fn begin(&mut self) -> Result<(), Stop> {
        if let Kind::Managed(latest) = &mut self.0 {
            latest.take(store::Sealing::default()).await?;
        }
        Ok(())
    }

    /// The key for an input: that of the newest epoch, under which so much more may be sealed.
    ///
    /// # Errors
    /// There is none: [`Error::OtherLife`] when the stream is not the one that the request began with,
    /// [`Error::NotAllowed`] when its keys were shredded, and whatever keeps a new one from being made.
    pub async fn take(&mut self, input: &AppendInput) -> Result<Sealing, Stop> {
        match &mut self.0 {
            Kind::Own(own) => Ok(Sealing {
                cipher: own.take().await?,
                lease: None,
            }),
            Kind::Managed(latest) => latest.take(amount(input)).await,
        }
    }

    /// Whether it holds a key that it can get again.
    pub fn can_rest(&self) -> bool {
        matches!(&self.0, Kind::Managed(latest) if latest.cipher.is_some())
    }

    /// Lets go of such a key.
    pub fn rest(&mut self) {
        if let Kind::Managed(latest) = &mut self.0 {
            latest.cipher = None;
        }
    }
}

impl Own {
    /// The key, unless the stream got managed keys since: a rule that was changed while the stream was empty.
    async fn take(&mut self) -> Result<StreamCipher, Error> {
        let now = self.keyring.registry.changes();
        if self.as_of != now {
            // A store that fails has no news: what it said before still stands.
            if let Ok(found) = self.keyring.store.stream(&self.path).await {
                if data_keys(&found).is_some() {
                    return Err(Error::OtherLife(self.path.clone()));
                }
                self.as_of = now;
            }
        }
        Ok(self.cipher.clone())
    }
}

impl Latest {
    async fn take(&mut self, wanted: store::Sealing) -> Result<Sealing, Stop> {
        let keyring = Arc::clone(&self.managed.keyring);
        if let KeyHolder::Kms(_) = self.managed.holder {
            self.renew(&keyring).await?;
        }
        // Before the look-up: see `Leases::take`.
        let mut lease = keyring.leases.take(&self.managed.path);
        let (mut key, life) = keyring.supply(&self.managed, wanted).await?;
        self.managed.life = life;
        lease.is_of(key.epoch);
        let known = self.cipher.as_ref();
        let known = known.filter(|(commit, _)| *commit == key.commit);
        let cipher = match known {
            Some((_, cipher)) => cipher.clone(),
            None => {
                let cipher = match keyring.unwrap(&self.managed, &key).await {
                    // The master key was changed just now, and the data key is wrapped anew.
                    Err(Error::NoMasterKey) => {
                        let found = keyring.look(&self.managed).await?;
                        let again = data_keys(&found).and_then(|keys| keys.of(key.epoch));
                        key = again.cloned().ok_or(Error::NoMasterKey)?;
                        keyring.unwrap(&self.managed, &key).await?
                    }
                    unwrapped => unwrapped?,
                };
                self.cipher = Some((key.commit, cipher.clone()));
                cipher
            }
        };
        Ok(Sealing {
            cipher,
            lease: Some(Arc::new(lease)),
        })
    }

    /// Has the service's key before anything is counted under it, for one that cannot be had seals nothing; and
    /// has it again from time to time, so that a session does not outlast what the cache allows.
    async fn renew(&mut self, keyring: &Keyring) -> Result<(), Stop> {
        if self.cipher.is_some() && self.unwrapped.elapsed() < RENEW_AFTER {
            return Ok(());
        }
        let (key, life) = keyring
            .supply(&self.managed, store::Sealing::default())
            .await?;
        self.managed.life = life;
        let cipher = keyring.unwrap(&self.managed, &key).await?;
        self.cipher = Some((key.commit, cipher));
        self.unwrapped = Instant::now();
        Ok(())
    }
}

impl Keyring {
    /// The newest key of a stream with room for so much more, which is counted durably: the first one where
    /// there is none, the next one where it is due.
    pub(super) async fn supply(
        &self,
        managed: &Managed,
        wanted: store::Sealing,
    ) -> Result<(DataKey, Life), Stop> {
        let limits = Limits::new(&self.rotate_after, managed.cipher);
        let allowance = self.allowance(&managed.path);
        let ready = |keys: &DataKeys| {
            let key = newest(managed, keys)?;
            let outage = &allowance.outage;
            let is_due = match outage.is_overdue(key) {
                true => !outage.goes_on(key),
                false => limits.is_old(key, clock::now_ms()),
            };
            let is_ready =
                wanted == store::Sealing::default() || !is_due && allowance.take(key, wanted);
            let key = is_ready.then(|| (key.clone(), Life::of(Some(keys))));
            Ok::<_, Error>(key)
        };
        let found = self.look(managed).await?;
        if let Some(keys) = data_keys(&found)
            && let Some(ready) = ready(keys)?
        {
            return Ok(ready);
        }
        let _turn = allowance.turn.lock().await;
        for _ in 0..MAX_ROUNDS {
            let wrapping = managed.holder.wrapping(&*self.store).await?;
            let found = self.look(managed).await?;
            let keys = data_keys(&found);
            let supplied = match keys {
                Some(keys) => {
                    if let Some(ready) = ready(keys)? {
                        return Ok(ready);
                    }
                    let outage = &allowance.outage;
                    self.more(
                        managed,
                        (&limits, outage),
                        &wrapping,
                        (&found, keys),
                        wanted,
                    )
                    .await
                }
                None => {
                    allowance.outage.pause().map_err(Error::from)?;
                    let reserved = limits.block(store::Sealing::default(), wanted);
                    let made = self.first(managed, &wrapping, &found, reserved).await;
                    if let Err(Stop::Error(Error::Kms(error))) = &made {
                        allowance.outage.failed(error);
                    }
                    made.map(|key| (key, reserved))
                }
            };
            match supplied {
                Ok((key, reserved)) => {
                    allowance.add(&key, reserved, wanted);
                    let life = keys.map_or(Life(Some(key.commit)), |keys| Life::of(Some(keys)));
                    return Ok((key, life));
                }
                Err(stop) if is_conflict(&stop) => {}
                Err(stop) => return Err(stop),
            }
        }
        Err(Error::Busy.into())
    }

    /// Writes down that more is about to be sealed, under a new key if the newest had enough.
    async fn more(
        &self,
        managed: &Managed,
        (limits, outage): (&Limits, &Outage),
        wrapping: &Wrapping,
        (found, keys): (&Versioned<Arc<StreamEntry>>, &DataKeys),
        wanted: store::Sealing,
    ) -> Result<(DataKey, store::Sealing), Stop> {
        let key = newest(managed, keys)?;
        let now = clock::now_ms();
        let beyond = match managed.holder {
            KeyHolder::Kms(_) => beyond_policy(managed.cipher, key, wanted, now),
            KeyHolder::Project(_) => None,
        };
        if let Some(block) = beyond.filter(|_| outage.goes_on(key)) {
            return self.reserve(managed, (found, keys), block).await;
        }
        let reason = match limits.next(key, wanted, now) {
            Next::Reserve(block) => return self.reserve(managed, (found, keys), block).await,
            Next::Rotate(reason) => reason,
        };
        outage.pause().map_err(Error::from)?;
        if beyond.is_some() {
            outage.tries(key);
        }
        let reserved = limits.block(store::Sealing::default(), wanted);
        let next = self.next_key(managed, wrapping, (found, keys), reserved, reason);
        match next.await {
            Ok(next) => {
                outage.ended();
                Ok((next, reserved))
            }
            Err(Stop::Error(Error::Kms(error))) => {
                outage.failed(&error);
                let Some(block) = beyond else {
                    return Err(Error::Kms(error).into());
                };
                let (stream, epoch) = (&managed.path, key.epoch);
                let cause = Error::Kms(error).told();
                tracing::warn!(%stream, epoch, cause, "key is due, but goes on: no new one can be had now");
                self.reserve(managed, (found, keys), block).await
            }
            Err(stop) => {
                outage.ended();
                Err(stop)
            }
        }
    }

    /// Writes down that so much is about to be sealed under the newest key.
    async fn reserve(
        &self,
        managed: &Managed,
        (found, keys): (&Versioned<Arc<StreamEntry>>, &DataKeys),
        block: store::Sealing,
    ) -> Result<(DataKey, store::Sealing), Stop> {
        let mut keys = keys.clone();
        let counted = keys.keys.last_mut().ok_or(Error::KeyShredded)?;
        counted.sealed.records = counted.sealed.records.saturating_add(block.records);
        counted.sealed.bytes = counted.sealed.bytes.saturating_add(block.bytes);
        let key = counted.clone();
        let Managed { path, cipher, .. } = managed;
        let registry = &self.registry;
        registry
            .record_data_keys(path, *cipher, found, keys, None)
            .await?;
        Ok((key, block))
    }

    /// Notes where the first record of an epoch is known to be stored. That it cannot be noted costs a
    /// certificate its exactness, and nothing else.
    pub async fn stored(&self, lease: &Lease, ack: &AppendAck) {
        let (path, at) = (lease.path(), ack.start.seq_num);
        let noted = |entry: &StreamEntry| {
            let keys = entry.data_keys.as_ref()?;
            let key = keys.of(lease.epoch())?;
            let is_news = key.first_seq_num.is_none_or(|first| at < first);
            is_news.then(|| keys.clone())
        };
        let news = async {
            let found = self.store.stream(path).await?;
            if found.entry.as_deref().and_then(noted).is_none() {
                return Ok(());
            }
            let allowance = self.allowance(path);
            let _turn = allowance.turn.lock().await;
            let found = self.store.stream(path).await?;
            let entry = found.entry.as_deref();
            let Some((entry, mut keys)) = entry.and_then(|entry| Some((entry, noted(entry)?)))
            else {
                return Ok(());
            };
            if let Some(key) = keys.keys.iter_mut().find(|key| key.epoch == lease.epoch()) {
                key.first_seq_num = Some(at);
            }
            match entry.state.cipher() {
                Some(cipher) => {
                    let registry = &self.registry;
                    registry
                        .record_data_keys(path, cipher, &found, keys, None)
                        .await
                }
                None => Ok(()),
            }
        };
        match news.await {
            Ok(()) | Err(Error::OtherLife(_) | Error::Store(store::Error::Conflict(_))) => {}
            Err(error) => {
                tracing::warn!(stream = %path, error = error.told(), "first record of a key epoch not noted");
            }
        }
    }
}

/// The key that seals.
pub(super) fn newest<'a>(managed: &Managed, keys: &'a DataKeys) -> Result<&'a DataKey, Error> {
    keys.current()
        .ok_or_else(|| Error::shredded_stream(&managed.path))
}
