//! Claims: the right to append under one key, taken before anything is sent and confirmed by the first ack.
//!
//! A stream's first append writes its intent and its claim in one commit, and is sent with `match_seq_num = 0`: the
//! upstream creates what is already recorded as sealed, or refuses because the stream has records. While such an
//! append is in flight, other first appends to the stream wait for its outcome.
//!
//! A claim that had no effect is given back, unless another append under it is in flight. A claim whose outcome is
//! unknown stands until a record is acknowledged or opens under it, or the tail is known to be 0.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex as SyncMutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{
    Decision, Error, LOCK_TIMEOUT, MAX_ROUNDS, Questions, Registry, SealedStream,
    table::{Contradiction, Event, Proof, is_sealed, next},
    update::after_all,
};
use crate::{
    crypto::{Cipher, KeyCheck},
    store::{Change, Error as StoreError, KeyKnown, Origin, StreamEntry, StreamState},
    stream::StreamPath,
};

/// Appends in flight under keys that no record proves yet, by stream.
#[derive(Default)]
pub(super) struct Flights(SyncMutex<HashMap<StreamPath, Arc<Flight>>>);

/// The appends in flight to one stream.
#[derive(Default)]
struct Flight {
    /// Held while a claim is taken or given back, and by a first append until its outcome.
    turn: Arc<Mutex<()>>,
    /// Claims that have no outcome yet.
    pending: AtomicUsize,
    /// The outcome of one is unknown.
    is_unknown: AtomicBool,
}

impl Flights {
    fn of(&self, path: &StreamPath) -> Arc<Flight> {
        Arc::clone(self.lock().entry(path.clone()).or_default())
    }

    /// Whether an append to the stream has no outcome yet.
    pub(super) fn is_pending(&self, path: &StreamPath) -> bool {
        let flights = self.lock();
        flights
            .get(path)
            .is_some_and(|flight| flight.pending.load(SeqCst) > 0)
    }

    /// Drops a flight that no request is part of.
    fn land(&self, path: &StreamPath) {
        let mut flights = self.lock();
        // One is the map's, one that of the request that leaves.
        if flights
            .get(path)
            .is_some_and(|flight| Arc::strong_count(flight) <= 2)
        {
            flights.remove(path);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamPath, Arc<Flight>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to send one append, or the first input of a session. Dropped without an outcome, it counts as an
/// append that may have taken effect.
pub struct Claim {
    registry: Arc<Registry>,
    path: StreamPath,
    /// The commitment to the key; `None` when no key is claimed.
    check: Option<KeyCheck>,
    /// `None` for a stream whose key was confirmed before.
    open: Option<Open>,
    is_settled: Arc<AtomicBool>,
}

/// What a claim without an outcome holds.
struct Open {
    flight: Arc<Flight>,
    /// The entry before this claim and after it, if this claim wrote one.
    written: Option<(Option<Box<StreamEntry>>, Option<StreamEntry>)>,
    /// The append must carry `match_seq_num = 0`.
    must_be_first: bool,
    /// Held until the outcome of a first append.
    turn: Option<Turn>,
}

/// What is to be done before an append may be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: the key is confirmed, or no key is claimed.
    Ready {
        /// The stream's cipher.
        cipher: Cipher,
    },
    /// These events are to be recorded.
    Record {
        /// The stream's cipher.
        cipher: Cipher,
        /// In this order, in one commit.
        events: Vec<Event>,
        /// The append must carry `match_seq_num = 0`.
        must_be_first: bool,
    },
    /// Another key is claimed: the claim counts as long as the stream may hold records. Once it is known to be empty,
    /// it moves to this key.
    OtherClaim {
        /// The stream's cipher.
        cipher: Cipher,
        /// The commitment to this key.
        check: KeyCheck,
    },
    /// Another key is confirmed.
    WrongKey,
}

impl Step {
    fn is_with(&self, wanted: Cipher) -> bool {
        match self {
            Self::Ready { cipher }
            | Self::Record { cipher, .. }
            | Self::OtherClaim { cipher, .. } => *cipher == wanted,
            Self::WrongKey => true,
        }
    }
}

/// Keeps first appends and creations of one stream waiting.
pub struct Turn {
    registry: Arc<Registry>,
    path: StreamPath,
    flight: Arc<Flight>,
    held: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.held = None;
        self.registry.flights.land(&self.path);
    }
}

impl Registry {
    /// Waits until no first append to a stream is in flight, and keeps others waiting.
    ///
    /// # Errors
    /// [`Error::Busy`] after 30 s.
    pub async fn turn(self: &Arc<Self>, path: &StreamPath) -> Result<Turn, Error> {
        let mut turn = Turn {
            registry: Arc::clone(self),
            path: path.clone(),
            flight: self.flights.of(path),
            held: None,
        };
        let held = Arc::clone(&turn.flight.turn).lock_owned();
        let held = tokio::time::timeout(LOCK_TIMEOUT, held).await;
        turn.held = Some(held.map_err(|_| Error::Busy)?);
        Ok(turn)
    }

    /// Takes the right to append to a stream: under a key with this commitment if the append has data records.
    /// `None` is for commands alone, and for keys that are not checked.
    ///
    /// # Errors
    /// [`Error::WrongKey`], [`Error::OtherIncarnation`] when the stream is not what it was at the look-up,
    /// [`Error::Busy`], the store's, and the upstream's when it has to be asked for the tail.
    pub async fn claim<Q: Questions>(
        self: &Arc<Self>,
        stream: &SealedStream,
        check: Option<KeyCheck>,
        ask: &Q,
    ) -> Result<Claim, Q::Stop> {
        let path = &stream.path;
        let claim = |open: Option<Open>| Claim {
            registry: Arc::clone(self),
            path: path.clone(),
            check,
            is_settled: Arc::new(AtomicBool::new(open.is_none())),
            open,
        };
        if stream.is_ready(check) {
            return Ok(claim(None));
        }
        let turn = self.turn(path).await?;
        let taken = self.take(stream, check, &turn.flight, ask).await?;
        let Some((written, must_be_first)) = taken else {
            return Ok(claim(None));
        };
        let flight = Arc::clone(&turn.flight);
        flight.pending.fetch_add(1, SeqCst);
        // The append may create the stream: others wait, for two that do it at once hinder each other upstream.
        let creates = matches!(written, Some((None, _)));
        Ok(claim(Some(Open {
            flight,
            written,
            must_be_first,
            turn: (must_be_first || creates).then_some(turn),
        })))
    }

    /// Records the claim. The caller holds the stream's turn. `None` when there is nothing to claim.
    async fn take<Q: Questions>(
        &self,
        stream: &SealedStream,
        check: Option<KeyCheck>,
        flight: &Flight,
        ask: &Q,
    ) -> Result<Option<Taken>, Q::Stop> {
        let path = &stream.path;
        for _ in 0..MAX_ROUNDS {
            let found = self.stream(path).await?;
            let decision = self.decision(&self.rules(), path, &found).await?;
            let entry = found.entry.as_deref();
            let step = step(decision, entry, check).filter(|step| step.is_with(stream.cipher));
            let step = step.ok_or_else(|| Error::OtherIncarnation(path.clone()))?;
            let (events, must_be_first) = match step {
                Step::WrongKey => return Err(Error::WrongKey.into()),
                Step::Ready { .. } => return Ok(None),
                Step::Record {
                    events,
                    must_be_first,
                    ..
                } => (events, must_be_first),
                Step::OtherClaim { check, .. } => {
                    let in_flight = flight.pending.load(SeqCst) > 0;
                    if in_flight || ask.tail(path).await?.unwrap_or_default() > 0 {
                        return Err(Error::WrongKey.into());
                    }
                    (vec![Event::ClaimMoved { check }], true)
                }
            };
            let before = found.entry.as_deref().cloned();
            let after = after_all(before.clone(), &events).map_err(|error| refusal(path, error))?;
            if after == before {
                return Ok(Some((None, must_be_first)));
            }
            let change = Change::Stream {
                path: path.clone(),
                expected: found.revision,
                entry: after.clone(),
            };
            match self.commit(vec![change]).await {
                Err(StoreError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => return Ok(Some((Some((before.map(Box::new), after)), must_be_first))),
            }
        }
        Err(Error::Busy.into())
    }

    /// Records that a stored record opened under a key, or with `None` under a key that is not checked. That the
    /// stream is another one now is no error.
    ///
    /// # Errors
    /// The store cannot write.
    pub async fn opened(
        &self,
        stream: &SealedStream,
        check: Option<KeyCheck>,
    ) -> Result<(), Error> {
        let then = stream
            .entry
            .entry
            .as_deref()
            .map(|entry| entry.state.clone());
        let (cipher, proof) = (stream.cipher, Proof::Opened);
        let opened = self.change(&stream.path, |entry| {
            let is_same = entry.as_ref().map(|entry| &entry.state) == then.as_ref();
            if !is_same {
                return Ok(entry);
            }
            let events = [
                Event::Declared { cipher },
                Event::KeyConfirmed { check, proof },
            ];
            Ok(after_all(entry.clone(), &events).unwrap_or(entry))
        });
        opened.await.map(|_| ())
    }
}

/// What is to be done before an append under this key may be sent. `None` when the stream is not sealed, or is being
/// deleted.
pub(super) fn step(
    decision: Decision,
    entry: Option<&StreamEntry>,
    check: Option<KeyCheck>,
) -> Option<Step> {
    let (cipher, must_be_first) = match decision {
        Decision::Sealed(cipher) => (cipher, false),
        Decision::FirstUse(cipher) => (cipher, true),
        Decision::Plain(_) | Decision::Ask | Decision::Conflict { .. } => return None,
    };
    let mut events = vec![match must_be_first {
        false => Event::Declared { cipher },
        true => Event::IntendCreate {
            cipher: Some(cipher),
            origin: Origin::AutoCreated,
        },
    }];
    let known = entry.map_or(KeyKnown::No, StreamEntry::key);
    Some(match (known, check) {
        (KeyKnown::Confirmed(known), Some(check)) if known != check => Step::WrongKey,
        (KeyKnown::Claimed(known), Some(check)) if known != check => {
            Step::OtherClaim { cipher, check }
        }
        (KeyKnown::Confirmed(_), _) if !must_be_first => Step::Ready { cipher },
        (_, None) if is_sealed(entry) && !must_be_first => Step::Ready { cipher },
        (_, check) => {
            events.extend(check.map(|check| Event::KeyClaimed { check }));
            Step::Record {
                cipher,
                events,
                must_be_first,
            }
        }
    })
}

/// What a claim wrote, and whether the append must be the stream's first.
type Taken = (
    Option<(Option<Box<StreamEntry>>, Option<StreamEntry>)>,
    bool,
);

fn refusal(path: &StreamPath, contradiction: Contradiction) -> Error {
    match contradiction {
        Contradiction::OtherKey => Error::WrongKey,
        _ => Error::OtherIncarnation(path.clone()),
    }
}

impl SealedStream {
    /// Whether nothing is to be recorded before an append under this key.
    pub fn is_ready(&self, check: Option<KeyCheck>) -> bool {
        let Some(entry) = self.entry.entry.as_deref() else {
            return false;
        };
        let is_living = matches!(entry.state, StreamState::Live(_));
        let is_living = is_living && entry.state.cipher() == Some(self.cipher);
        is_living && check.is_none_or(|check| entry.key() == KeyKnown::Confirmed(check))
    }
}

impl Claim {
    /// Whether the append must carry `match_seq_num = 0`: nothing that exists upstream is known to be the stream.
    pub fn must_be_first(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.must_be_first)
    }

    /// The stream.
    pub fn path(&self) -> &StreamPath {
        &self.path
    }

    /// Becomes true once the outcome is known, or cannot be known any more.
    pub fn settled(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_settled)
    }

    /// Records that the upstream acknowledged the append.
    ///
    /// # Errors
    /// [`Error::WrongKey`] when records under another key are stored, too: the upstream broke its promise.
    /// The store's.
    pub async fn acked(&mut self) -> Result<(), Error> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let (check, proof) = (self.check, Proof::Acked);
        let events = [Event::KeyConfirmed { check, proof }];
        let confirmed = self.registry.happen(&self.path, &events).await;
        let is_first = open.must_be_first;
        self.close(open);
        if is_first {
            self.registry.confirm_basin(&self.path.basin).await?;
        }
        match confirmed {
            Err(Error::Contradiction {
                contradiction: Contradiction::OtherKey,
                ..
            }) => Err(Error::WrongKey),
            // The stream was deleted: its records go with it.
            Err(Error::Contradiction { .. }) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives the claim back: the append certainly had no effect. Where the store fails, the claim stands.
    pub async fn refused(mut self) {
        let Some(mut open) = self.open.take() else {
            return;
        };
        if open.turn.is_none() {
            // Without the turn nothing can be taken back: the claim stands.
            open.turn = self.registry.turn(&self.path).await.ok();
        }
        let others = open.flight.pending.load(SeqCst) > 1;
        if let Some((before, after)) = open.written.take()
            && open.turn.is_some()
            && !others
            && !open.flight.is_unknown.load(SeqCst)
        {
            let withdrawn = self
                .registry
                .change(&self.path, |entry| match entry == after {
                    true => {
                        let before = before.clone();
                        Ok(next(entry.clone(), Event::Withdrawn { before }).unwrap_or(entry))
                    }
                    false => Ok(entry),
                });
            if let Err(error) = withdrawn.await {
                tracing::warn!(stream = %self.path, %error, "claim of a key not given back");
            }
        }
        self.close(open);
    }

    fn close(&self, mut open: Open) {
        open.flight.pending.fetch_sub(1, SeqCst);
        open.turn = None;
        self.registry.flights.land(&self.path);
        self.is_settled.store(true, SeqCst);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.flight.is_unknown.store(true, SeqCst);
            self.close(open);
        }
    }
}
