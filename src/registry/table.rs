//! The states of a stream, and every way from one to another, as one pure function.
//!
//! ```text
//!                 IntendCreate            KeyConfirmed, Found
//!   (no entry) ───────────────▶ Creating ────────────────────▶ Live, sealed ◀──┐
//!       ▲  ▲                    cipher c                        cipher c         │ NewIncarnation: the former one
//!       │  │                       │                              │   ▲          │ is kept, the new one is sealed
//!       │  └──── Withdrawn ────────┘               DeleteIntended │   │ Found,   │
//!       │                                                         ▼   │ DeleteRefused
//!       └──────────────── Deleted (confirmed) ────────────── Deleting, sealed ────┘
//!
//!   (no entry) ── SeenPlain, Admitted ──▶ Live, plain ── NewIncarnation in a basin with a cipher ──▶ Live, sealed
//!
//!   the stream's own key:   none ── KeyClaimed ──▶ claimed ── KeyConfirmed ──▶ confirmed
//!                             ▲                     │   │ ClaimMoved: the tail is 0
//!                             └── Withdrawn, Unpinned ──┘
//! ```
//!
//! | event | no entry | creating | live, sealed | live, plain | deleting |
//! |---|---|---|---|---|---|
//! | `IntendCreate(c)` | creating `c` | same | same | same | same; plain: creating `c` |
//! | `Found` | same | live | same, learns `created_at`, or contradiction | same, learns `created_at` | live, or contradiction |
//! | `NewIncarnation` | live | live, sealed | live, sealed; key: none; former kept | live, by the basin | live, sealed; former kept |
//! | `Declared(c)` | live `c` | same | same | live, sealed; former kept | same |
//! | `KeyClaimed` | contradiction | claimed | claimed, or contradiction | contradiction | contradiction |
//! | `KeyConfirmed` | contradiction | live, confirmed | confirmed, or contradiction | contradiction | same |
//! | `SeenPlain`, `Admitted` | live, plain | contradiction | contradiction | same | contradiction; plain: same |
//! | `DeleteIntended` | same | same | deleting | deleting | same |
//! | `Deleted` | same | no entry | same | same | no entry |
//! | `DeleteRefused` | same | same | same | same | live |
//!
//! No answer of the upstream is an event that leads from sealed to plain. Only a deletion that a client asked
//! for and the upstream confirmed removes a sealed entry, and what comes then is decided by the basin. An
//! operator's command (`CipherSet`, `Unpinned`) may do what no client and no upstream may.

use crate::{
    crypto::{Cipher, KeyCheck},
    store::{
        DataKeys, FormerIncarnation, Incarnation, KeyKnown, MAX_FORMER, Origin, StreamEntry,
        StreamState,
    },
};

/// Something that happened to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A creation is about to be sent. The stream gets this cipher; `None` is a plain stream.
    IntendCreate {
        /// The planned cipher.
        cipher: Option<Cipher>,
        /// Who creates it.
        origin: Origin,
    },
    /// The intent or the claim of one request had no effect upstream: the entry is again what it was.
    Withdrawn {
        /// The entry before the request wrote its intent.
        before: Option<Box<StreamEntry>>,
    },
    /// The upstream shows the stream with this `created_at`.
    Found {
        /// The upstream's text.
        created_at: String,
        /// The upstream says that it created the stream just now.
        is_new: bool,
    },
    /// The upstream says that another incarnation stands in the stream's place, and that it is empty.
    NewIncarnation {
        /// The cipher that the basin or a rule gives to new streams now.
        cipher: Option<Cipher>,
        /// The upstream's text, if it is known.
        created_at: Option<String>,
        /// Who created it.
        origin: Origin,
    },
    /// A rule of the configuration gives the stream this cipher, and it is about to be used.
    Declared {
        /// The rule's cipher.
        cipher: Cipher,
    },
    /// An append under this key is about to be sent.
    KeyClaimed {
        /// The commitment to the key.
        check: KeyCheck,
    },
    /// The same, in place of another claim: the stream is empty, so no record is under the other key.
    ClaimMoved {
        /// The commitment to the key.
        check: KeyCheck,
    },
    /// A record is stored.
    KeyConfirmed {
        /// The commitment to the key it is under; `None` when keys are not checked.
        check: Option<KeyCheck>,
        /// How that is known.
        proof: Proof,
    },
    /// The proxy forwarded the creation of the plain stream, or an acknowledged append to it.
    SeenPlain {
        /// The upstream's text, if it is known.
        created_at: Option<String>,
    },
    /// The operator admits the stream as plain.
    Admitted {
        /// The upstream's text.
        created_at: String,
    },
    /// A deletion is about to be sent.
    DeleteIntended,
    /// The upstream confirmed a deletion that a client asked for.
    Deleted,
    /// The upstream refused the deletion.
    DeleteRefused,
    /// The operator lets go of the stream's own key.
    Unpinned,
    /// The operator sets the cipher; `None` makes the stream plain.
    CipherSet {
        /// The cipher.
        cipher: Option<Cipher>,
    },
    /// The managed keys change.
    KeysChanged {
        /// The cipher of a stream that has a rule and no entry yet.
        cipher: Cipher,
        /// All keys.
        keys: DataKeys,
    },
}

/// How it is known that a record under a key is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The upstream acknowledged an append. The upstream may lie.
    Acked,
    /// A stored record opened under the key. Only the holder of the key can have made it.
    Opened,
}

/// An event that does not fit the state. The entry stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// Another key is the stream's.
    #[error("another key is the stream's")]
    OtherKey,
    /// The upstream shows another incarnation than the recorded one.
    #[error("the upstream shows another incarnation than the recorded one")]
    OtherIncarnation,
    /// Something plain was said of a sealed stream.
    #[error("the stream is encrypted")]
    IsSealed,
    /// Something about keys was said of a plain stream.
    #[error("the stream is plain")]
    IsPlain,
    /// The stream is being deleted, or nothing is recorded of it.
    #[error("the stream does not exist, or is being deleted")]
    NotLiving,
}

type Next = Result<Option<StreamEntry>, Contradiction>;

/// Returns the entry after an event. The module draws the table.
///
/// # Errors
/// [`Contradiction`] when the event does not fit the entry, which then stays as it is.
pub fn next(entry: Option<StreamEntry>, event: Event) -> Next {
    let entry = entry.and_then(normal);
    match event {
        Event::IntendCreate { cipher, origin } => Ok(intend(entry, cipher, origin)),
        Event::Withdrawn { before } => Ok(withdrawn(entry, before)),
        Event::Found { created_at, is_new } => found(entry, created_at, is_new),
        Event::NewIncarnation {
            cipher,
            created_at,
            origin,
        } => Ok(Some(reborn(
            entry,
            Incarnation { cipher, created_at },
            origin,
        ))),
        Event::Declared { cipher } => Ok(Some(declared(entry, cipher))),
        Event::KeyClaimed { check } => claimed(entry, check, false),
        Event::ClaimMoved { check } => claimed(entry, check, true),
        Event::KeyConfirmed { check, proof } => confirmed(entry, check, proof),
        Event::SeenPlain { created_at } => plain(entry, created_at, Origin::Seen),
        Event::Admitted { created_at } => plain(entry, Some(created_at), Origin::Admitted),
        Event::DeleteIntended => Ok(entry.map(|entry| match &entry.state {
            StreamState::Live(life) => to(&entry, StreamState::Deleting(life.clone())),
            StreamState::Creating { .. } | StreamState::Deleting(_) => entry,
        })),
        Event::Deleted => Ok(entry.filter(|entry| matches!(entry.state, StreamState::Live(_)))),
        Event::DeleteRefused => Ok(entry.map(|entry| match &entry.state {
            StreamState::Deleting(life) => to(&entry, StreamState::Live(life.clone())),
            StreamState::Creating { .. } | StreamState::Live(_) => entry,
        })),
        Event::Unpinned => Ok(entry.map(|entry| entry.with_key(KeyKnown::No))),
        Event::CipherSet { cipher } => Ok(Some(set(entry, cipher))),
        Event::KeysChanged { cipher, keys } => {
            let entry = declared(entry, cipher);
            match entry.state {
                StreamState::Live(_) => Ok(Some(StreamEntry {
                    data_keys: Some(keys),
                    ..entry
                })),
                StreamState::Creating { .. } | StreamState::Deleting(_) => {
                    Err(Contradiction::NotLiving)
                }
            }
        }
    }
}

/// Whether the entry says that the stream is encrypted. `None` says nothing.
pub fn is_sealed(entry: Option<&StreamEntry>) -> bool {
    entry.is_some_and(|entry| entry.state.cipher().is_some())
}

/// Reads what earlier releases wrote for the creation of a plain stream: nothing, or the sealed stream before it.
fn normal(entry: StreamEntry) -> Option<StreamEntry> {
    match &entry.state {
        StreamState::Creating {
            cipher: None,
            replaces,
        } => {
            let before = replaces.clone().filter(|life| life.cipher.is_some())?;
            Some(to(&entry, StreamState::Deleting(before)))
        }
        _ => Some(entry),
    }
}

fn to(entry: &StreamEntry, state: StreamState) -> StreamEntry {
    StreamEntry {
        state,
        ..entry.clone()
    }
}

fn intend(
    entry: Option<StreamEntry>,
    cipher: Option<Cipher>,
    origin: Origin,
) -> Option<StreamEntry> {
    let creating = || {
        let state = StreamState::Creating {
            cipher,
            replaces: None,
        };
        cipher.map(|_| StreamEntry::new(state, origin))
    };
    match entry {
        None => creating(),
        Some(entry) => match &entry.state {
            StreamState::Deleting(Incarnation { cipher: None, .. }) => creating(),
            _ => Some(entry),
        },
    }
}

/// A confirmed key or a living stream is never withdrawn: something else happened since.
fn withdrawn(entry: Option<StreamEntry>, before: Option<Box<StreamEntry>>) -> Option<StreamEntry> {
    let now = entry?;
    let is_intent = match (&now.state, now.key()) {
        (_, KeyKnown::Confirmed(_)) | (StreamState::Deleting(_), _) => false,
        (StreamState::Creating { .. }, _) | (_, KeyKnown::Claimed(_)) => true,
        (StreamState::Live(_), KeyKnown::No) => now.origin == Origin::Declared && before.is_none(),
    };
    match is_intent {
        true => before.map(|before| *before),
        false => Some(now),
    }
}

fn found(entry: Option<StreamEntry>, created_at: String, is_new: bool) -> Next {
    let Some(entry) = entry else { return Ok(None) };
    let live = |cipher| {
        let created_at = Some(created_at.clone());
        Ok(Some(to(
            &entry,
            StreamState::Live(Incarnation { cipher, created_at }),
        )))
    };
    match &entry.state {
        StreamState::Creating { cipher, .. } => live(*cipher),
        StreamState::Live(life) | StreamState::Deleting(life) => {
            let is_same = life.created_at.as_ref() == Some(&created_at);
            let may_be_same = life.created_at.is_none()
                && (!is_new || matches!(entry.key(), KeyKnown::No | KeyKnown::Claimed(_)));
            match life.cipher {
                _ if is_same => live(life.cipher),
                Some(_) if may_be_same => live(life.cipher),
                Some(_) => Err(Contradiction::OtherIncarnation),
                None if is_new => Err(Contradiction::OtherIncarnation),
                // Which plain stream it is stays as it was first known.
                None if matches!(entry.state, StreamState::Live(_)) => match may_be_same {
                    true => live(None),
                    false => Ok(Some(entry)),
                },
                // What is recorded of a plain stream ends with its deletion.
                None => Ok(None),
            }
        }
    }
}

/// The new incarnation of what `entry` says. What was sealed stays sealed.
fn reborn(entry: Option<StreamEntry>, life: Incarnation, origin: Origin) -> StreamEntry {
    let Some(before) = entry else {
        return StreamEntry::new(StreamState::Live(life), origin);
    };
    let cipher = life.cipher.or(before.state.cipher());
    let life = Incarnation { cipher, ..life };
    StreamEntry {
        data_keys: before.inherited(),
        former: with_former(&before),
        ..StreamEntry::new(StreamState::Live(life), origin)
    }
}

fn with_former(before: &StreamEntry) -> Vec<FormerIncarnation> {
    let mut former = before.former.clone();
    let created_at = match &before.state {
        StreamState::Live(life) | StreamState::Deleting(life) => life.created_at.clone(),
        StreamState::Creating { .. } => None,
    };
    former.push(FormerIncarnation {
        cipher: before.state.cipher(),
        key_check: before.key_check,
        created_at,
    });
    let surplus = former.len().saturating_sub(MAX_FORMER);
    former.drain(..surplus);
    former
}

fn declared(entry: Option<StreamEntry>, cipher: Cipher) -> StreamEntry {
    match entry {
        None => {
            let life = Incarnation {
                cipher: Some(cipher),
                created_at: None,
            };
            StreamEntry::new(StreamState::Live(life), Origin::Declared)
        }
        Some(entry) if is_sealed(Some(&entry)) => entry,
        // The operator's word: what it holds stays plain, and everything from now on is sealed.
        Some(entry) => {
            let created_at = match &entry.state {
                StreamState::Live(life) => life.created_at.clone(),
                StreamState::Creating { .. } | StreamState::Deleting(_) => None,
            };
            let life = Incarnation {
                cipher: Some(cipher),
                created_at,
            };
            StreamEntry {
                former: with_former(&entry),
                ..StreamEntry::new(StreamState::Live(life), Origin::Declared)
            }
        }
    }
}

fn claimed(entry: Option<StreamEntry>, check: KeyCheck, moves: bool) -> Next {
    let entry = entry.ok_or(Contradiction::NotLiving)?;
    match &entry.state {
        StreamState::Deleting(_) => return Err(Contradiction::NotLiving),
        state if state.cipher().is_none() => return Err(Contradiction::IsPlain),
        StreamState::Creating { .. } | StreamState::Live(_) => {}
    }
    if entry.data_keys.is_some() {
        return Err(Contradiction::OtherKey);
    }
    match entry.key() {
        KeyKnown::No => Ok(Some(entry.with_key(KeyKnown::Claimed(check)))),
        KeyKnown::Claimed(other) if moves || other == check => {
            Ok(Some(entry.with_key(KeyKnown::Claimed(check))))
        }
        KeyKnown::Confirmed(known) if known == check => Ok(Some(entry)),
        KeyKnown::Claimed(_) | KeyKnown::Confirmed(_) => Err(Contradiction::OtherKey),
    }
}

fn confirmed(entry: Option<StreamEntry>, check: Option<KeyCheck>, proof: Proof) -> Next {
    let entry = entry.ok_or(Contradiction::NotLiving)?;
    let entry = match &entry.state {
        StreamState::Deleting(_) => return Ok(Some(entry)),
        state if state.cipher().is_none() => return Err(Contradiction::IsPlain),
        StreamState::Live(_) => entry,
        StreamState::Creating { cipher, .. } => {
            let life = Incarnation {
                cipher: *cipher,
                created_at: None,
            };
            to(&entry, StreamState::Live(life))
        }
    };
    let Some(check) = check else {
        return Ok(Some(entry));
    };
    if entry.data_keys.is_some() {
        return Err(Contradiction::OtherKey);
    }
    match entry.key() {
        KeyKnown::Confirmed(known) if known != check => Err(Contradiction::OtherKey),
        KeyKnown::Claimed(known) if known != check && proof == Proof::Acked => {
            Err(Contradiction::OtherKey)
        }
        KeyKnown::No | KeyKnown::Claimed(_) | KeyKnown::Confirmed(_) => {
            Ok(Some(entry.with_key(KeyKnown::Confirmed(check))))
        }
    }
}

fn plain(entry: Option<StreamEntry>, created_at: Option<String>, origin: Origin) -> Next {
    match entry {
        None => {
            let life = Incarnation {
                cipher: None,
                created_at,
            };
            Ok(Some(StreamEntry::new(StreamState::Live(life), origin)))
        }
        Some(entry) if is_sealed(Some(&entry)) => Err(Contradiction::IsSealed),
        Some(entry) => Ok(Some(entry)),
    }
}

fn set(entry: Option<StreamEntry>, cipher: Option<Cipher>) -> StreamEntry {
    if let Some(entry) = &entry
        && entry.state.cipher() == cipher
        && matches!(entry.state, StreamState::Live(_))
    {
        return entry.clone();
    }
    let created_at = match entry.as_ref().map(|entry| &entry.state) {
        Some(StreamState::Live(life) | StreamState::Deleting(life)) => life.created_at.clone(),
        Some(StreamState::Creating { .. }) | None => None,
    };
    let state = StreamState::Live(Incarnation { cipher, created_at });
    let former = entry.as_ref().map(with_former).unwrap_or_default();
    StreamEntry {
        former,
        data_keys: entry
            .and_then(|entry| entry.data_keys)
            .filter(|_| cipher.is_some()),
        ..StreamEntry::new(state, Origin::Admitted)
    }
}
