//! Keys for appends: the newest of the stream, for a whole input, and counted before anything is sealed.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    KeyHolder, Keyring, Lease, Life, Managed, RENEW_AFTER,
    allowance::Allowance,
    data_keys,
    first::is_conflict,
    holder::Wrapping,
    outage::{Outage, beyond_policy},
    policy::{Limits, Next, amount},
    rotate::following,
};
use crate::{
    clock,
    crypto::{Digest, StreamCipher},
    proxy::{Error, call::Stop},
    store::{self, DataKey, DataKeys, StreamEntry, Versioned},
    wire::record::AppendInput,
};

/// How often the keys of a stream may be changed by others before an append gives up.
const MAX_ROUNDS: usize = 16;

/// Keys for the inputs of one append, or of one session.
pub struct Sealer(Kind);

enum Kind {
    /// A key that a client sent or a file holds.
    Own(StreamCipher),
    Managed(Box<Latest>),
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
    pub(super) fn own(cipher: StreamCipher) -> Self {
        Self(Kind::Own(cipher))
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
    /// There is none: `registry::Error::OtherIncarnation` when the stream is not the one that the request began with,
    /// [`Error::NotAllowed`] when its keys were shredded, and whatever keeps a new one from being made.
    pub async fn take(&mut self, input: &AppendInput) -> Result<Sealing, Stop> {
        match &mut self.0 {
            Kind::Own(cipher) => Ok(Sealing {
                cipher: cipher.clone(),
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
        let allowance = self.allowance(&managed.path);
        let found = self.look(managed).await?;
        if let Some(keys) = data_keys(&found)
            && let Some(key) = ready(
                managed,
                keys,
                (&self.limits(managed, keys), &allowance),
                wanted,
            )?
        {
            return Ok((key, Life::of(Some(keys))));
        }
        let _turn = allowance.turn.lock().await;
        for _ in 0..MAX_ROUNDS {
            let supplied = self.change(managed, &allowance, wanted).await;
            match supplied {
                Err(stop) if is_conflict(&stop) => {}
                supplied => return supplied,
            }
        }
        Err(Error::Busy.into())
    }

    /// The same, changing the stream's keys if that is what it takes. The caller holds the stream's turn.
    async fn change(
        &self,
        managed: &Managed,
        allowance: &Allowance,
        wanted: store::Sealing,
    ) -> Result<(DataKey, Life), Stop> {
        let wrapping = managed.holder.wrapping(&*self.store).await?;
        let found = self.look(managed).await?;
        let Some(keys) = data_keys(&found) else {
            allowance.outage.pause().map_err(Error::from)?;
            let limits = Limits::new(&self.rotate_after, managed.cipher);
            let reserved = limits.block(store::Sealing::default(), wanted);
            let made = self.first(managed, &wrapping, &found, reserved).await;
            if let Err(Stop::Error(Error::Kms(error))) = &made {
                allowance.outage.failed(error);
            }
            let key = made?;
            allowance.add(&key, reserved, wanted);
            let life = Life(Some(key.commit));
            return Ok((key, life));
        };
        let life = Life::of(Some(keys));
        let limits = self.limits(managed, keys);
        if let Some(key) = ready(managed, keys, (&limits, allowance), wanted)? {
            return Ok((key, life));
        }
        let found = (&found, keys);
        let limits = (&limits, &allowance.outage);
        let (key, reserved) = self.more(managed, limits, &wrapping, found, wanted).await?;
        allowance.add(&key, reserved, wanted);
        Ok((key, life))
    }

    /// What the newest of these keys may seal. After the last epoch that there is room for, it goes on as long as
    /// it is safe.
    fn limits(&self, managed: &Managed, keys: &DataKeys) -> Limits {
        match following(keys) {
            Some(_) => Limits::new(&self.rotate_after, managed.cipher),
            None => Limits::hard(managed.cipher),
        }
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
        let policy = Limits::new(&self.rotate_after, managed.cipher);
        if *limits != policy && matches!(policy.next(key, wanted, now), Next::Rotate(_)) {
            let (stream, epoch) = (&managed.path, key.epoch);
            tracing::warn!(%stream, epoch, "key epochs are used up: sealing goes on under the last one");
        }
        let beyond = match managed.holder {
            KeyHolder::Kms(_) => beyond_policy(managed.cipher, key, wanted, now),
            KeyHolder::Project(_) => None,
        };
        if let Some(block) = beyond.filter(|_| outage.goes_on(key)) {
            return self.reserve(managed, (found, keys), block).await;
        }
        match limits.next(key, wanted, now) {
            Next::Reserve(block) => self.reserve(managed, (found, keys), block).await,
            Next::Rotate(reason) => {
                match beyond {
                    Some(_) => outage.tries(key),
                    None => outage.pause().map_err(Error::from)?,
                }
                let reserved = limits.block(store::Sealing::default(), wanted);
                let next = self.next_key(managed, wrapping, (found, keys), reserved, reason);
                match next.await {
                    Err(Stop::Error(Error::Kms(error))) => {
                        outage.failed(&error);
                        let error = Error::Kms(error);
                        self.go_on(managed, (found, keys), beyond, error).await
                    }
                    next => {
                        outage.ended();
                        next.map(|next| (next, reserved))
                    }
                }
            }
        }
    }

    /// Goes on under a key that is due, as far as that is safe: no new one can be had now.
    async fn go_on(
        &self,
        managed: &Managed,
        found: (&Versioned<Arc<StreamEntry>>, &DataKeys),
        room: Option<store::Sealing>,
        error: Error,
    ) -> Result<(DataKey, store::Sealing), Stop> {
        let Some(block) = room else {
            return Err(error.into());
        };
        let cause = error.told();
        tracing::warn!(stream = %managed.path, cause, "no new key now: the one that is due goes on");
        self.reserve(managed, found, block).await
    }

    /// Writes down that so much is about to be sealed under the newest key.
    async fn reserve(
        &self,
        managed: &Managed,
        (found, keys): (&Versioned<Arc<StreamEntry>>, &DataKeys),
        block: store::Sealing,
    ) -> Result<(DataKey, store::Sealing), Stop> {
        let mut keys = keys.clone();
        let counted = keys.current_mut().ok_or(Error::KeyShredded)?;
        counted.sealed.records = counted.sealed.records.saturating_add(block.records);
        counted.sealed.bytes = counted.sealed.bytes.saturating_add(block.bytes);
        let key = counted.clone();
        let Managed { path, cipher, .. } = managed;
        let registry = &self.registry;
        registry
            .record_data_keys(path, *cipher, found, (keys, None))
            .await?;
        Ok((key, block))
    }
}

/// The key that seals, if it may seal so much more without another word to the config store.
fn ready(
    managed: &Managed,
    keys: &DataKeys,
    (limits, allowance): (&Limits, &Allowance),
    wanted: store::Sealing,
) -> Result<Option<DataKey>, Error> {
    let key = newest(managed, keys)?;
    let outage = &allowance.outage;
    let is_due = match outage.is_overdue(key) {
        true => !outage.goes_on(key),
        false => limits.is_old(key, clock::now_ms()),
    };
    let is_ready = wanted == store::Sealing::default() || !is_due && allowance.take(key, wanted);
    Ok(is_ready.then(|| key.clone()))
}

/// The key that seals.
pub(super) fn newest<'a>(managed: &Managed, keys: &'a DataKeys) -> Result<&'a DataKey, Error> {
    keys.current().ok_or_else(|| {
        Error::NotAllowed(format!(
            "the keys of stream `{}` were shredded: it takes no more records",
            managed.path
        ))
    })
}
