//! The beginning of a change of the master key, or going on with one that has begun.

use std::sync::Arc;

use super::{Begun, MasterChange, MasterError};
use crate::{
    clock,
    crypto::{ApiKey, MasterKey},
    project::Scope,
    proxy::{
        Error,
        gate::{Master, Pass, Refusal},
        projects::{Issued, fresh_id},
        registry::Registry,
    },
    store::{self, ApiKeyEntry, ApiKeyState, Change, MasterRotation, ProjectEntry},
};

/// How often others may change the project's entry meanwhile.
const MAX_ROUNDS: usize = 8;

impl MasterChange {
    /// Begins a change of the master key of the project of `pass`, or joins the one that is under way, and
    /// makes an API key of the next master key, with the scopes of the one that was presented.
    ///
    /// # Errors
    /// [`MasterError`]; nothing has changed then.
    pub(in crate::proxy) async fn begin(
        registry: &Arc<Registry>,
        pass: &Pass,
    ) -> Result<Begun, MasterError> {
        may_manage(pass)?;
        let name = &pass.project.name;
        for _ in 0..MAX_ROUNDS {
            let found = registry.project(name).await?;
            let entry = found.entry.ok_or(MasterError::NoProject)?;
            let mut entry = (*entry).clone();
            let now = entry.now(clock::now_ms());
            is_still_good(&entry, &pass.key_id, now)?;
            if entry.rotation.is_none() {
                begin(&mut entry, pass, now)?;
            }
            let change = Self::by(registry, pass, &entry)?;
            let issued = issue(&mut entry, pass, &change.next, now)?;
            let write = Change::Project {
                name: name.clone(),
                expected: found.revision,
                entry: Some(entry),
            };
            match registry.commit(vec![write]).await {
                Ok(()) => {
                    let mk_epoch = change.next.epoch;
                    tracing::info!(project = %name, mk_epoch, key = issued.id, "the master key changes");
                    return Ok(Begun { change, issued });
                }
                Err(Error::Store(store::Error::Conflict(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Busy.into())
    }
}

/// Whether the API key may manage keys.
pub(super) fn may_manage(pass: &Pass) -> Result<(), Error> {
    match pass.scopes.allow(Scope::Manage) {
        true => Ok(()),
        false => Err(Error::NotAllowed(
            "the API key does not allow to manage keys".to_owned(),
        )),
    }
}

/// Whether an API key is good by the entry that is about to be changed, and not only by that of a moment ago.
pub(super) fn is_still_good(entry: &ProjectEntry, key_id: &str, now: u64) -> Result<(), Error> {
    match entry.api_key(key_id).is_some_and(|key| key.is_good(now)) {
        true => Ok(()),
        false => Err(Refusal::Over(key_id.to_owned()).into()),
    }
}

/// Writes the next master key into the entry, wrapped in the one that is, and that one in it.
fn begin(entry: &mut ProjectEntry, pass: &Pass, now: u64) -> Result<(), MasterError> {
    let old = pass.master_at(entry.mk_epoch, entry)?;
    let epoch = old.epoch.checked_add(1).ok_or(MasterError::Exhausted)?;
    let key = MasterKey::generate()?;
    let name = pass.project.name.as_str();
    entry.rotation = Some(MasterRotation {
        mk_epoch: epoch,
        mk_commit: key.commit(name, epoch),
        forward: old.key.link(name, old.epoch, &key, epoch),
        backward: key.link(name, epoch, &old.key, old.epoch),
        began_at: now,
    });
    Ok(())
}

/// Adds an API key of the next master key. It does not expire: at the end of the change it may be the only
/// one that there is.
fn issue(
    entry: &mut ProjectEntry,
    pass: &Pass,
    next: &Master,
    now: u64,
) -> Result<Issued, MasterError> {
    let project = Arc::clone(&pass.project);
    let mk_epoch = next.epoch;
    let (key, credentials) =
        ApiKey::issue(project.pepper(), project.name.as_str(), mk_epoch, &next.key)?;
    let id = fresh_id();
    entry.seen_at = now;
    entry.api_keys.push(ApiKeyEntry {
        id: id.clone(),
        label: format!("master key {mk_epoch}"),
        lookup: credentials.lookup,
        verify: credentials.verify,
        mk_epoch,
        scopes: pass.scopes.clone(),
        created_at: now,
        expires_at: None,
        state: ApiKeyState::Active,
    });
    Ok(Issued {
        id,
        api_key: key.to_text(),
        mk_epoch,
    })
}
