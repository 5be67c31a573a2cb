//! The rules of an API key's life, on what is recorded of its project.

use std::cmp::Ordering;

use super::{Pass, ProjectError};
use crate::{
    project::Scope,
    proxy::{Error, gate::Refusal},
    store::{ApiKeyEntry, ApiKeyState, ProjectEntry},
};

/// Most API keys of a project, those included that are over but still listed. The row is read whole, and a
/// quarter of a megabyte is no trouble.
pub const MAX_API_KEYS: usize = 256;

/// How long a key that is over stays listed, in milliseconds: 30 days, unless room is needed before.
const LISTED_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// How far the recorded time may fall behind, in milliseconds: an hour.
const TIME_LAG_MS: u64 = 60 * 60 * 1000;

/// The same while the system's clock is behind the recorded time: a minute. Only so much of the time that passed
/// is forgotten when the process ends, and only what is recorded is left of it then.
const TIME_LAG_AHEAD_MS: u64 = 60 * 1000;

/// How well a project is kept from losing its data: by the most lasting API key with scope `manage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Hold {
    /// There is none.
    None,
    /// It ends by itself.
    ForAWhile,
    /// It lasts until it is revoked.
    Lasting,
}

/// Brings a row up to this time: the time never goes back from here, what is over is over for ever, and what
/// has been over for long is gone.
pub(super) fn settle(entry: &mut ProjectEntry, now: u64) {
    entry.seen_at = entry.seen_at.max(now);
    entry.replacing = false;
    for key in &mut entry.api_keys {
        if let Some(at) = over_unmarked(key, now) {
            key.state = ApiKeyState::Revoked { at };
        }
    }
    let is_listed = |at: u64| now.saturating_sub(at) < LISTED_MS;
    entry.api_keys.retain(|key| match key.state {
        ApiKeyState::Revoked { at } => is_listed(at),
        ApiKeyState::Active | ApiKeyState::Retiring { .. } => true,
    });
}

/// Whether a row has to be written again because of the time alone. `is_ahead` says that only the row tells how
/// late it is.
pub(super) fn is_due(entry: &ProjectEntry, now: u64, is_ahead: bool) -> bool {
    let lag = match is_ahead {
        true => TIME_LAG_AHEAD_MS,
        false => TIME_LAG_MS,
    };
    let is_over = |key: &ApiKeyEntry| over_unmarked(key, now).is_some();
    now.saturating_sub(entry.seen_at) >= lag || entry.api_keys.iter().any(is_over)
}

/// When a key ended that is not marked so yet.
pub(super) fn over_unmarked(key: &ApiKeyEntry, now: u64) -> Option<u64> {
    let is_marked = matches!(key.state, ApiKeyState::Revoked { .. });
    key.ends_at().filter(|end| !is_marked && *end <= now)
}

/// Whether whoever asked may still do so: the API key may be over since it was let in.
pub(in crate::proxy) fn authorise(
    entry: &ProjectEntry,
    by: &Pass,
    now: u64,
) -> Result<(), ProjectError> {
    let key = entry.api_key(&by.key_id).filter(|key| key.is_good(now));
    match key {
        Some(key) if key.scopes.allow(Scope::Manage) => Ok(()),
        Some(_) | None => {
            let (project, id) = (by.project.name.clone(), by.key_id.clone());
            Err(Error::from(Refusal::Over { project, id }).into())
        }
    }
}

/// Adds an API key, if there is room or can be made.
pub(super) fn add(entry: &mut ProjectEntry, key: ApiKeyEntry) -> Result<(), ProjectError> {
    let keys = &mut entry.api_keys;
    while keys.len() >= MAX_API_KEYS {
        let over = keys
            .iter()
            .enumerate()
            .filter_map(|(at, key)| match key.state {
                ApiKeyState::Revoked { at: since } => Some((since, at)),
                ApiKeyState::Active | ApiKeyState::Retiring { .. } => None,
            });
        let (_, oldest) = over.min().ok_or(ProjectError::Full(MAX_API_KEYS))?;
        keys.remove(oldest);
    }
    keys.push(key);
    Ok(())
}

/// The API key of this id, to be changed.
pub(super) fn of_id<'a>(
    entry: &'a mut ProjectEntry,
    id: &str,
) -> Result<&'a mut ApiKeyEntry, ProjectError> {
    let mut keys = entry.api_keys.iter_mut();
    keys.find(|key| key.id == id).ok_or(ProjectError::NoSuchKey)
}

/// Lets `successor` take the place of an API key that is good until `until` all the same.
pub(super) fn retire(
    entry: &mut ProjectEntry,
    id: &str,
    now: u64,
    until: u64,
    successor: &str,
) -> Result<ApiKeyEntry, ProjectError> {
    let key = of_id(entry, id)?;
    if !key.is_good(now) {
        return Err(ProjectError::Over(id.to_owned()));
    }
    let before = key.clone();
    match key.state {
        ApiKeyState::Active => {
            let successor = successor.to_owned();
            key.state = ApiKeyState::Retiring { until, successor };
            Ok(before)
        }
        ApiKeyState::Retiring { .. } => Err(ProjectError::Retiring(id.to_owned())),
        ApiKeyState::Revoked { .. } => Err(ProjectError::Over(id.to_owned())),
    }
}

/// Ends an API key for ever. `false` when it had ended before.
pub(super) fn revoke(
    entry: &mut ProjectEntry,
    id: &str,
    now: u64,
    force: bool,
) -> Result<bool, ProjectError> {
    let before = hold(entry, now);
    let key = of_id(entry, id)?;
    if matches!(key.state, ApiKeyState::Revoked { .. }) {
        return Ok(false);
    }
    let was_good = key.is_good(now);
    key.state = ApiKeyState::Revoked { at: now };
    match hold(entry, now).cmp(&before) {
        Ordering::Less if !force => Err(ProjectError::Last(id.to_owned())),
        Ordering::Less | Ordering::Equal | Ordering::Greater => Ok(was_good),
    }
}

/// How well the project is kept. API keys of a master key that is on its way out do not keep it.
fn hold(entry: &ProjectEntry, now: u64) -> Hold {
    let newest = entry.newest_mk_epoch();
    let keeps = |key: &&ApiKeyEntry| {
        key.mk_epoch == newest && key.scopes.allow(Scope::Manage) && key.is_good(now)
    };
    let holds = entry.api_keys.iter().filter(keeps);
    let holds = holds.map(|key| match key.ends_at() {
        None => Hold::Lasting,
        Some(_) => Hold::ForAWhile,
    });
    holds.max().unwrap_or(Hold::None)
}
