//! What a rebuild records of managed keys that only the lost config store held: that there were some.
//!
//! Without a word of them such a stream would pass for one that never had a key, and get a first one. Recorded
//! as gone, the stream's records answer that their key is gone, and it takes no others.
//!
//! Records are no proof: whoever can write to the upstream can forge one that names any key epoch. So they never
//! keep a stream from the keys that it has: one with a key of its own stays so, and of managed keys the newest
//! that is there goes on.

use super::{
    plan::{Known, Plan},
    upstream::Found,
};
use crate::{
    crypto::Digest,
    registry::rules::{KeySource, Rules},
    store::{
        Change, DataKey, DataKeys, Holder, Incarnation, MAX_KEY_EPOCHS, Origin, Revision, Sealing,
        StreamEntry, StreamState,
    },
};

/// Records the key epochs that a stream's records name, and no key is recorded for.
pub(super) fn keys(plan: &mut Plan, known: &Known, rules: &Rules, found: &Found) {
    let path = &found.path;
    let planned = plan.changes.iter().rposition(|change| is_of(change, found));
    let recorded = known.streams.get(path);
    let entry = match planned.and_then(|at| plan.changes.get(at)) {
        Some(Change::Stream { entry, .. }) => entry.clone(),
        Some(_) | None => recorded.and_then(|found| found.entry.clone()),
    };
    let Some(mut entry) = entry.or_else(|| declared(rules, found)) else {
        return;
    };
    if found.epochs.is_empty() || entry.state.cipher().is_none() {
        return;
    }
    if has_own_key(rules, found, &entry) {
        let epochs = &found.epochs;
        plan.say(format!(
            "stream {path}: has a key that clients send or a file holds, and records that name managed keys \
             (key epochs {epochs:?}): those cannot be opened"
        ));
        return;
    }
    let keys = entry.data_keys.get_or_insert_with(|| DataKeys {
        holder: holder(rules, found),
        keys: Vec::new(),
    });
    let lost = lost(plan, keys, found);
    if lost.is_empty() {
        return;
    }
    add(plan, keys, found, &lost);
    let change = Change::Stream {
        path: path.clone(),
        expected: recorded.map_or(Revision::NONE, |found| found.revision),
        entry: Some(entry),
    };
    match planned.and_then(|at| plan.changes.get_mut(at)) {
        Some(planned) => *planned = change,
        None => plan.changes.push(change),
    }
}

/// Whether clients or files bring the stream's key, as far as anything tells.
fn has_own_key(rules: &Rules, found: &Found, entry: &StreamEntry) -> bool {
    let source = rules.stream(&found.path).map(|rule| rule.key_source());
    let is_own = match source {
        Some(KeySource::Header | KeySource::File) => true,
        Some(KeySource::Managed | KeySource::Kms) => false,
        None => found.has_own && entry.data_keys.is_none(),
    };
    is_own || entry.key_check.is_some()
}

/// The key epochs that records name and nothing is recorded of. Where a key is left, numbers that no stream can
/// have come to are left out: one forged record would use up all there are.
fn lost(plan: &mut Plan, keys: &DataKeys, found: &Found) -> Vec<u32> {
    let lost = found.epochs.iter().copied();
    let lost = lost.filter(|epoch| keys.of(*epoch).is_none());
    let newest = keys.keys.last().map_or(0, |key| key.epoch);
    let most = match keys.current() {
        Some(_) => newest.saturating_add(MAX_KEY_EPOCHS),
        None => u32::MAX,
    };
    let (lost, forged): (Vec<u32>, Vec<u32>) = lost.partition(|epoch| *epoch <= most);
    if !forged.is_empty() {
        let path = &found.path;
        plan.say(format!(
            "stream {path}: has records of key epochs {forged:?}, far beyond the newest known, {newest}: they \
             look forged, and are taken for no keys of the stream"
        ));
    }
    lost
}

/// Adds these epochs to the keys of a stream, as lost.
fn add(plan: &mut Plan, keys: &mut DataKeys, found: &Found, lost: &[u32]) {
    let path = &found.path;
    let then = match keys.current_mut() {
        Some(current) => {
            let epoch = current.epoch;
            if lost.iter().any(|lost| *lost > epoch) {
                // This is an older copy. Nobody knows how much the key sealed since.
                current.sealed = Sealing {
                    records: u64::MAX,
                    bytes: u64::MAX,
                };
            }
            format!("it goes on with key epoch {epoch}, or the next one that is made")
        }
        None => "it takes no more records".to_owned(),
    };
    keys.keys.extend(lost.iter().map(|epoch| gone(*epoch)));
    keys.keys.sort_by_key(|key| key.epoch);
    plan.say(format!(
        "stream {path}: has records under managed keys that were only in the lost config store (key epochs \
         {lost:?}): they cannot be opened; {then}; only an export of that store has these keys"
    ));
}

fn is_of(change: &Change, found: &Found) -> bool {
    matches!(change, Change::Stream { path, .. } if *path == found.path)
}

/// The entry of a stream of which only the configuration speaks.
fn declared(rules: &Rules, found: &Found) -> Option<StreamEntry> {
    rules.stream(&found.path)?.cipher?;
    let cipher = found.looks.iter().rev().find_map(|cipher| *cipher)?;
    Some(StreamEntry {
        state: StreamState::Live(Incarnation {
            cipher: Some(cipher),
            created_at: Some(found.created_at.clone()),
        }),
        origin: Origin::Rebuilt,
        key_check: None,
        key_unconfirmed: false,
        former: Vec::new(),
        data_keys: None,
    })
}

/// Who had the keys, as far as the configuration tells.
fn holder(rules: &Rules, found: &Found) -> Holder {
    let source = rules.stream(&found.path).map(|rule| rule.key_source());
    let owner = rules.projects().owner(&found.path);
    match owner.filter(|_| source != Some(KeySource::Kms)) {
        Some(project) => Holder::Project(project.name.clone()),
        None => Holder::Kms,
    }
}

/// A key of which nothing but its number is known.
fn gone(epoch: u32) -> DataKey {
    DataKey {
        epoch,
        commit: Digest::ZERO,
        wrapped: None,
        created_at: 0,
        shredded_at: None,
        sealed: Sealing::default(),
        first_seq_num: None,
    }
}
