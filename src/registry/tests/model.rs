//! A search through every small case: two requests at once, an upstream that chooses every answer, and a crash at
//! any moment.
//!
//! The world holds one stream. A step is one commit of the config store, one request on its way upstream, or one
//! answer that the adversary picks. The search visits every reachable world. It runs the rules of this release, by
//! the functions that the proxy runs, and the rules of the first release, written down again in `old`: there it must
//! find the ways to plaintext and to a second key that were seen.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
};

use super::check;
use crate::{
    crypto::Cipher,
    registry::{
        claim::{self, Step},
        decide::{Decision, decide},
        table::{Contradiction, Event, Proof, is_sealed, next},
        update::after_all,
    },
    store::{Incarnation, KeyKnown, Origin, StreamEntry, StreamState},
};

const AEGIS: Cipher = Cipher::Aegis256;
/// Times of creation that the upstream may tell.
const TIMES: [&str; 2] = ["2001", "2002"];

/// Whose rules the search follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Release {
    First,
    This,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Op {
    /// An append with the key of this number.
    Keyed(u8),
    /// An append without a key.
    Keyless,
    /// An explicit creation.
    Create,
    Delete,
    /// The basin's cipher is set.
    Seal,
    /// The basin's cipher is taken away.
    Unseal,
}

const OPS: [Op; 7] = [
    Op::Keyed(1),
    Op::Keyed(2),
    Op::Keyless,
    Op::Create,
    Op::Delete,
    Op::Seal,
    Op::Unseal,
];

/// How far a request is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum At {
    Start,
    /// A sealed append is on its way.
    Sealed {
        cipher: Cipher,
        first: bool,
        /// The entry before the claim and after it, if it wrote one.
        written: Option<(EntryId, EntryId)>,
    },
    /// A plain append is on its way.
    Plain,
    /// Something else is on its way.
    Sent,
    /// The upstream said that the stream was created at this time.
    Created {
        created_at: &'static str,
        is_new: bool,
    },
}

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    /// The entry: see [`Entries`].
    entry: EntryId,
    basin: Option<u8>,
    /// Clients were promised that the stream is sealed: an append with a key, or a creation, was acknowledged.
    promised: bool,
    /// Keys with acknowledged records in the present incarnation.
    acked: Vec<u8>,
    /// Keys whose acknowledged records must still open.
    readable: Vec<u8>,
    slots: [Option<(Op, At)>; 2],
    /// Requests and crashes that may still begin.
    left: (u8, u8),
}

/// What must never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Fault {
    /// A record of a client with a key went up in clear.
    KeyedInClear,
    /// A record went up in clear although clients were promised that the stream is sealed.
    PlainAfterPromise,
    /// Records under two keys are acknowledged in one incarnation.
    TwoKeys,
    /// Acknowledged records no longer open with their key.
    Lost,
    /// A sealed entry turned plain without a confirmed deletion.
    Unsealed,
}

impl World {
    fn start(basin: Option<u8>, requests: u8, crashes: u8) -> Self {
        Self {
            entry: written(None),
            basin,
            promised: false,
            acked: Vec::new(),
            readable: Vec::new(),
            slots: [None, None],
            left: (requests, crashes),
        }
    }

    fn entry(&self) -> Option<StreamEntry> {
        read(self.entry)
    }

    fn cipher(&self) -> Option<Cipher> {
        self.basin.map(|_| AEGIS)
    }

    fn with(&self, entry: Option<StreamEntry>) -> Self {
        let mut world = self.clone();
        world.entry = written(entry);
        world
    }

    fn at(&self, slot: usize, at: Option<At>) -> Self {
        let mut world = self.clone();
        let op = world.slots[slot].take().map(|(op, _)| op);
        world.slots[slot] = op.zip(at);
        world
    }

    /// What was acknowledged to a client that appended with this key.
    fn acknowledged(&self, key: u8) -> Self {
        let mut world = self.clone();
        world.promised = true;
        for keys in [&mut world.acked, &mut world.readable] {
            if !keys.contains(&key) {
                keys.push(key);
                keys.sort_unstable();
            }
        }
        world
    }

    fn fault(&self) -> Option<Fault> {
        let entry = self.entry();
        if self.acked.len() > 1 {
            return Some(Fault::TwoKeys);
        }
        let opens = |key: &u8| {
            let check = Some(check(*key));
            entry.as_ref().is_some_and(|entry| {
                let mut former = entry.former.iter();
                // Without a check every key is taken, and records under the old one fail under the new one.
                entry.key_check.is_none() && former.len() == 0
                    || entry.key_check == check
                    || former.any(|life| life.key_check == check && life.cipher.is_some())
            })
        };
        if !self.readable.iter().all(opens) {
            return Some(Fault::Lost);
        }
        None
    }
}

/// The number of an entry.
type EntryId = usize;

/// Every entry that was met, so that a world holds only its number.
#[derive(Default)]
struct Entries {
    ids: HashMap<String, EntryId>,
    entries: Vec<Option<StreamEntry>>,
}

thread_local! {
    static ENTRIES: RefCell<Entries> = RefCell::default();
}

fn written(entry: Option<StreamEntry>) -> EntryId {
    ENTRIES.with_borrow_mut(|known| {
        let text = format!("{entry:?}");
        if let Some(id) = known.ids.get(&text) {
            return *id;
        }
        known.entries.push(entry);
        known.ids.insert(text, known.entries.len() - 1);
        known.entries.len() - 1
    })
}

fn read(id: EntryId) -> Option<StreamEntry> {
    ENTRIES.with_borrow(|known| known.entries[id].clone())
}

/// Another world, or what went wrong on the way to it.
type Next = Result<World, Fault>;

/// Rules, and how they answer.
struct Search {
    release: Release,
    nexts: Vec<Next>,
}

impl Search {
    /// Every world that one step leads to.
    fn steps(&mut self, world: &World) -> Vec<Next> {
        self.nexts.clear();
        for slot in 0..2 {
            match world.slots[slot].clone() {
                None => self.begin(world, slot),
                Some((op, At::Start)) => self.send(world, slot, op),
                Some((op, at)) => self.answer(world, slot, op, at),
            }
        }
        if world.left.1 > 0 {
            let mut crashed = world.clone();
            crashed.slots = [None, None];
            crashed.left.1 -= 1;
            self.go(crashed);
        }
        std::mem::take(&mut self.nexts)
    }

    fn go(&mut self, world: World) {
        self.nexts.push(match world.fault() {
            Some(fault) => Err(fault),
            None => Ok(world),
        });
    }

    fn begin(&mut self, world: &World, slot: usize) {
        if world.left.0 == 0 {
            return;
        }
        for op in OPS {
            let mut world = world.clone();
            world.left.0 -= 1;
            world.slots[slot] = Some((op, At::Start));
            self.go(world);
        }
    }

    /// Looks up, records the intent, and sends.
    fn send(&mut self, world: &World, slot: usize, op: Op) {
        match op {
            Op::Keyed(_) | Op::Keyless => self.send_append(world, slot, op),
            Op::Create => {
                let planned = world.cipher();
                let intend = Event::IntendCreate {
                    cipher: planned,
                    origin: Origin::Created,
                };
                let entry = next(world.entry(), intend).unwrap();
                self.go(world.with(entry).at(slot, Some(At::Sent)));
            }
            Op::Delete => {
                let entry = next(world.entry(), Event::DeleteIntended).unwrap();
                self.go(world.with(entry).at(slot, Some(At::Sent)));
            }
            Op::Seal if self.release == Release::First && world.basin.is_none() => {
                // The list is believed: it may or may not have the stream.
                for listed in [None, Some(TIMES[0])] {
                    let entry = old::baseline(world.entry(), listed);
                    self.go(world.with(entry).at(slot, Some(At::Sent)));
                }
            }
            Op::Seal | Op::Unseal => self.go(world.at(slot, Some(At::Sent))),
        }
    }

    fn send_append(&mut self, world: &World, slot: usize, op: Op) {
        let entry = world.entry();
        let decision = decide(None, entry.as_ref(), world.cipher());
        if let Decision::Plain(_) = decision {
            match (op, self.release) {
                // Refused: the client believes that the stream is sealed.
                (Op::Keyed(_), Release::This) => self.go(world.at(slot, None)),
                (Op::Keyed(_), Release::First) if world.promised || world.basin.is_some() => {
                    self.nexts.push(Err(Fault::KeyedInClear));
                }
                _ if world.promised => self.nexts.push(Err(Fault::PlainAfterPromise)),
                _ => self.go(world.at(slot, Some(At::Plain))),
            }
            return;
        }
        let Op::Keyed(key) = op else {
            // A sealed stream needs a key.
            return self.go(world.at(slot, None));
        };
        if self.release == Release::First {
            return old::send(self, world, slot, key, decision);
        }
        let in_flight = world.slots.iter().enumerate().any(|(other, run)| {
            other != slot
                && matches!(
                    run,
                    Some((
                        _,
                        At::Sealed {
                            written: Some(_),
                            ..
                        }
                    ))
                )
        });
        let holds_turn = world.slots.iter().enumerate().any(|(other, run)| {
            other != slot && matches!(run, Some((_, At::Sealed { first: true, .. })))
        });
        match claim::step(decision, entry.as_ref(), Some(check(key))) {
            // Being deleted: settled by asking; whatever the answer, it stays sealed.
            None => self.settle(world, slot),
            Some(Step::WrongKey) => {
                self.go(world.at(slot, None));
                self.replaced(world);
            }
            Some(Step::Ready { cipher }) => self.sent(world, slot, (cipher, false), None),
            // The first append of another request has no outcome yet: it is waited for.
            Some(_) if holds_turn => {}
            Some(Step::OtherClaim { .. }) if in_flight => self.go(world.at(slot, None)),
            Some(Step::OtherClaim { cipher, check }) => {
                self.go(world.at(slot, None));
                // The upstream says that the tail is 0.
                let event = Event::ClaimMoved { check };
                self.claimed(world, slot, (cipher, true), &[event]);
            }
            Some(Step::Record {
                cipher,
                events,
                must_be_first,
            }) => self.claimed(world, slot, (cipher, must_be_first), &events),
        }
    }

    fn claimed(&mut self, world: &World, slot: usize, how: (Cipher, bool), events: &[Event]) {
        let before = world.entry;
        match after_all(world.entry(), events) {
            Ok(after) => {
                let world = world.with(after);
                let wrote = (world.entry != before).then_some((before, world.entry));
                self.sent(&world, slot, how, wrote);
            }
            Err(_) => self.go(world.at(slot, None)),
        }
    }

    fn sent(
        &mut self,
        world: &World,
        slot: usize,
        (cipher, first): (Cipher, bool),
        written: Option<(EntryId, EntryId)>,
    ) {
        let at = At::Sealed {
            cipher,
            first,
            written,
        };
        self.go(world.at(slot, Some(at)));
    }

    /// Every answer that the adversary may give.
    fn answer(&mut self, world: &World, slot: usize, op: Op, at: At) {
        match (op, at) {
            (
                Op::Keyed(key),
                At::Sealed {
                    cipher, written, ..
                },
            ) => {
                // No answer: the claim stands.
                self.go(world.at(slot, None));
                self.acked(world, slot, (key, cipher));
                self.withdrawn(world, slot, written);
            }
            (_, At::Plain) => {
                self.go(world.at(slot, None));
                // Acknowledged, and noted if nothing else is recorded.
                let seen = Event::SeenPlain { created_at: None };
                let entry = match (world.entry(), self.release, world.basin) {
                    (None, Release::This, None) => next(None, seen).unwrap(),
                    (entry, ..) => entry,
                };
                self.go(world.with(entry).at(slot, None));
            }
            (Op::Create, At::Sent) => {
                self.go(world.at(slot, None));
                for created_at in TIMES {
                    for is_new in [false, true] {
                        self.created(world, slot, created_at, is_new);
                    }
                }
            }
            (Op::Create, At::Created { created_at, .. }) => self.tail(world, slot, created_at),
            (Op::Delete, _) => {
                self.go(world.at(slot, None));
                for event in [Event::Deleted, Event::DeleteRefused] {
                    let gone = event == Event::Deleted;
                    let mut world = world.with(next(world.entry(), event).unwrap());
                    if gone && world.entry().is_none() {
                        world.promised = false;
                        world.acked.clear();
                        world.readable.clear();
                    }
                    self.go(world.at(slot, None));
                }
            }
            (Op::Seal | Op::Unseal, _) => {
                self.go(world.at(slot, None));
                let mut changed = world.clone();
                changed.basin = (op == Op::Seal).then_some(0);
                self.go(changed.at(slot, None));
            }
            (op, at) => unreachable!("{op:?} at {at:?}"),
        }
    }

    fn acked(&mut self, world: &World, slot: usize, (key, cipher): (u8, Cipher)) {
        if self.release == Release::First {
            let entry = old::pinned(world.entry(), cipher, key);
            return self.go(world.with(entry).acknowledged(key).at(slot, None));
        }
        let event = Event::KeyConfirmed {
            check: Some(check(key)),
            proof: Proof::Acked,
        };
        match next(world.entry(), event) {
            Ok(entry) => {
                let is_gone = !entry.as_ref().is_some_and(is_living);
                let world = world.with(entry);
                let world = match is_gone {
                    // It is being deleted: nothing is promised of its records.
                    true => world,
                    false => world.acknowledged(key),
                };
                self.go(world.at(slot, None));
            }
            // The client gets an error, not an ack; or the stream is gone, and its records with it.
            Err(_) => self.go(world.at(slot, None)),
        }
    }

    fn withdrawn(&mut self, world: &World, slot: usize, wrote: Option<(EntryId, EntryId)>) {
        let others = world
            .slots
            .iter()
            .enumerate()
            .any(|(other, run)| other != slot && matches!(run, Some((_, At::Sealed { .. }))));
        let world = match wrote {
            Some((before, after)) if after == world.entry && !others => {
                let before = read(before).map(Box::new);
                world.with(next(world.entry(), Event::Withdrawn { before }).unwrap())
            }
            _ => world.clone(),
        };
        self.go(world.at(slot, None));
    }

    fn created(&mut self, world: &World, slot: usize, created_at: &'static str, is_new: bool) {
        if self.release == Release::First {
            let entry = old::created(world.entry(), world.cipher(), created_at, is_new);
            let mut world = world.with(entry);
            world.promised |= is_sealed(world.entry().as_ref());
            return self.go(world.at(slot, None));
        }
        let event = Event::Found {
            created_at: created_at.into(),
            is_new,
        };
        match next(world.entry(), event) {
            Ok(entry) => {
                let mut world = world.with(entry);
                world.promised |= is_sealed(world.entry().as_ref());
                self.go(world.at(slot, None));
            }
            Err(Contradiction::OtherIncarnation) => {
                let at = At::Created { created_at, is_new };
                self.go(world.at(slot, Some(at)));
            }
            Err(_) => self.go(world.at(slot, None)),
        }
    }

    /// The upstream is asked for the tail of what it says is another stream.
    fn tail(&mut self, world: &World, slot: usize, created_at: &'static str) {
        let kept = next(world.entry(), Event::DeleteRefused).unwrap();
        self.go(world.with(kept).at(slot, None));
        let world = self.reborn(world, Some(created_at));
        self.go(world.at(slot, None));
    }

    /// A new incarnation on the upstream's word.
    fn reborn(&self, world: &World, created_at: Option<&str>) -> World {
        let event = Event::NewIncarnation {
            cipher: world.cipher(),
            created_at: created_at.map(Into::into),
            origin: Origin::Created,
        };
        let mut world = world.with(next(world.entry(), event).unwrap());
        world.acked.clear();
        world.promised |= is_sealed(world.entry().as_ref());
        world
    }

    /// A key was not the stream's, and the upstream says that another, empty stream stands in its place.
    fn replaced(&mut self, world: &World) {
        if world.entry().is_some_and(|entry| entry.former.len() < 2) {
            let world = self.reborn(world, Some(TIMES[1]));
            self.go(world);
        }
    }

    /// A stream that is being deleted is settled by asking.
    fn settle(&mut self, world: &World, slot: usize) {
        let back = next(world.entry(), Event::DeleteRefused).unwrap();
        self.go(world.with(back).at(slot, None));
        match is_sealed(world.entry().as_ref()) {
            true => {
                let world = self.reborn(world, Some(TIMES[1]));
                self.go(world.at(slot, None));
            }
            false => self.go(world.with(None).at(slot, None)),
        }
    }
}

fn is_living(entry: &StreamEntry) -> bool {
    matches!(entry.state, StreamState::Live(_))
}

/// What the first release did, as far as the search needs it.
mod old {
    use super::*;

    /// The upstream's list was believed when the basin got its first cipher.
    pub(super) fn baseline(
        entry: Option<StreamEntry>,
        listed: Option<&str>,
    ) -> Option<StreamEntry> {
        match (entry, listed) {
            (None, Some(created_at)) => {
                let life = Incarnation {
                    cipher: None,
                    created_at: Some(created_at.into()),
                };
                let state = StreamState::Live(life);
                Some(StreamEntry::new(state, Origin::Admitted))
            }
            (entry, _) => entry,
        }
    }

    /// Nothing was claimed before an append was sent: a key was refused only once another was known.
    pub(super) fn send(
        search: &mut Search,
        world: &World,
        slot: usize,
        key: u8,
        decision: Decision,
    ) {
        let entry = world.entry();
        let known = entry.as_ref().map_or(KeyKnown::No, StreamEntry::key);
        match (decision, known) {
            (_, KeyKnown::Confirmed(known)) if known != check(key) => {
                search.go(world.at(slot, None));
            }
            (Decision::Sealed(cipher) | Decision::FirstUse(cipher), _) => {
                let world = match entry {
                    // The stream was created first.
                    None => world.with(created(None, Some(cipher), TIMES[0], true)),
                    Some(_) => world.clone(),
                };
                search.sent(&world, slot, (cipher, false), None);
            }
            _ => search.go(world.at(slot, None)),
        }
    }

    /// The key was recorded after the ack, by the first that came.
    pub(super) fn pinned(
        entry: Option<StreamEntry>,
        cipher: Cipher,
        key: u8,
    ) -> Option<StreamEntry> {
        let entry = entry?;
        match (entry.state.cipher() == Some(cipher), entry.key()) {
            (true, KeyKnown::No) => Some(entry.with_key(KeyKnown::Confirmed(check(key)))),
            _ => Some(entry),
        }
    }

    /// "Created" replaced the incarnation, whatever it held.
    pub(super) fn created(
        entry: Option<StreamEntry>,
        planned: Option<Cipher>,
        created_at: &str,
        is_new: bool,
    ) -> Option<StreamEntry> {
        let live = |cipher| {
            let life = Incarnation {
                cipher,
                created_at: Some(created_at.into()),
            };
            Some(StreamEntry::new(StreamState::Live(life), Origin::Created))
        };
        match entry {
            None => planned
                .filter(|_| is_new)
                .and_then(|cipher| live(Some(cipher))),
            Some(entry) => match &entry.state {
                StreamState::Live(life) | StreamState::Deleting(life)
                    if is_new && life.created_at.as_deref() != Some(created_at) =>
                {
                    live(planned.or(life.cipher))
                }
                StreamState::Creating { cipher, .. } => live(*cipher),
                _ => Some(entry),
            },
        }
    }
}

/// Visits every world that can be reached, and returns the shortest way to each fault.
fn search(release: Release, starts: &[World]) -> (usize, HashMap<Fault, Vec<World>>) {
    let mut search = Search {
        release,
        nexts: Vec::new(),
    };
    let mut from: HashMap<World, Option<World>> = HashMap::new();
    let mut faults = HashMap::new();
    let mut queue: VecDeque<World> = starts.iter().cloned().collect();
    from.extend(starts.iter().map(|world| (world.clone(), None)));
    while let Some(world) = queue.pop_front() {
        for step in search.steps(&world) {
            let turned_plain = |next: &World| {
                let (before, now) = (world.entry(), next.entry());
                is_sealed(before.as_ref()) && now.is_some() && !is_sealed(now.as_ref())
            };
            match step {
                Ok(next) if turned_plain(&next) => {
                    faults
                        .entry(Fault::Unsealed)
                        .or_insert_with(|| vec![world.clone()]);
                }
                Ok(next) => {
                    if !from.contains_key(&next) {
                        from.insert(next.clone(), Some(world.clone()));
                        queue.push_back(next);
                    }
                }
                Err(fault) => {
                    faults.entry(fault).or_insert_with(|| way(&from, &world));
                }
            }
        }
    }
    (from.len(), faults)
}

fn way(from: &HashMap<World, Option<World>>, to: &World) -> Vec<World> {
    let mut way = vec![to.clone()];
    while let Some(Some(before)) = way.last().and_then(|world| from.get(world)) {
        way.push(before.clone());
    }
    way.reverse();
    way
}

fn starts() -> Vec<World> {
    let worlds = [None, Some(0)].map(|basin| World::start(basin, 4, 1));
    worlds.to_vec()
}

#[test]
fn no_answer_and_no_crash_leads_to_plaintext_or_a_second_key() {
    let (visited, faults) = search(Release::This, &starts());
    println!("{visited} worlds");
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(
        visited > 10_000,
        "only {visited} worlds: what was searched?"
    );
}

#[test]
fn search_finds_what_was_wrong_in_the_first_release() {
    let (visited, faults) = search(Release::First, &starts());
    println!("{visited} worlds, {:?}", faults.keys());
    for fault in [Fault::KeyedInClear, Fault::TwoKeys, Fault::Lost] {
        assert!(faults.contains_key(&fault), "{fault:?} not found");
    }
}
