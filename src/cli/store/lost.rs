//! What a rebuild records of managed keys that only the lost config store held: that there were some.
//!
//! Without a word of them such a stream would pass for one that never had a key, and get a first one. Recorded
//! as gone, the stream's records answer that their key is gone, and it takes no others.

use super::{
    plan::{Known, Plan},
    upstream::Found,
};
use crate::{
    crypto::Digest,
    proxy::rules::{KeySource, Rules},
    store::{
        Change, DataKey, DataKeys, Holder, Incarnation, Origin, Revision, Sealing, StreamEntry,
        StreamState,
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
    let of_epoch = |epoch: u32| entry.data_keys.as_ref().and_then(|keys| keys.of(epoch));
    let lost = found
        .epochs
        .iter()
        .filter(|epoch| of_epoch(**epoch).is_none());
    let lost: Vec<u32> = lost.copied().collect();
    if lost.is_empty() || entry.state.cipher().is_none() {
        return;
    }
    let keys = entry.data_keys.get_or_insert_with(|| DataKeys {
        holder: holder(rules, found),
        keys: Vec::new(),
    });
    keys.keys.extend(lost.iter().map(|epoch| gone(*epoch)));
    keys.keys.sort_by_key(|key| key.epoch);
    plan.say(format!(
        "stream {path}: has records under managed keys that were only in the lost config store (key epochs \
         {lost:?}): they cannot be opened, and it takes no more records; only an export of that store has these keys"
    ));
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
