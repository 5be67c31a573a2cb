//! The next master key of a project, and an API key of it.

use super::{Issued, Pass, ProjectError, Roster, issue, rules};
use crate::{
    crypto::MasterKey,
    store::{ApiKeyEntry, MasterRotation, ProjectEntry},
};

impl Roster {
    /// Begins a change of the master key, unless one is under way, and makes an API key of the next master
    /// key, with the scopes of the one that asks. Returns the project's row after it, too.
    ///
    /// # Errors
    /// [`ProjectError`]; nothing has changed then, but for [`ProjectError::Broken`].
    pub(in crate::proxy) async fn next_master(
        &self,
        by: &Pass,
    ) -> Result<(ProjectEntry, Issued), ProjectError> {
        let decide = |entry: &mut ProjectEntry, now: u64| {
            if entry.rotation.is_none() {
                entry.rotation = Some(next(entry, by, now)?);
            }
            let issued = issue_of_next(entry, by, now)?;
            Ok((entry.clone(), issued))
        };
        let (entry, issued) = self.change(by, decide).await?;
        let (project, mk_epoch) = (by.project.name.as_str(), issued.mk_epoch);
        let (by, api_key) = (&by.key_id, &issued.id);
        tracing::info!(
            project,
            by,
            api_key,
            mk_epoch,
            "master key is being changed"
        );
        Ok((entry, issued))
    }
}

/// A fresh master key, wrapped in the one that is, and that one in it.
fn next(entry: &ProjectEntry, by: &Pass, now: u64) -> Result<MasterRotation, ProjectError> {
    let old = by.master_at(entry.mk_epoch, entry)?;
    let epoch = old.epoch.checked_add(1).ok_or(ProjectError::Exhausted)?;
    let key = MasterKey::generate()?;
    let name = by.project.name.as_str();
    Ok(MasterRotation {
        mk_epoch: epoch,
        mk_commit: key.commit(name, epoch),
        forward: old.key.link(name, old.epoch, &key, epoch),
        backward: key.link(name, epoch, &old.key, old.epoch),
        began_at: now,
    })
}

/// Adds an API key of the next master key. It does not expire: at the end of the change it may be the only
/// one that there is.
fn issue_of_next(entry: &mut ProjectEntry, by: &Pass, now: u64) -> Result<Issued, ProjectError> {
    let next = by.newest(entry)?;
    let scopes = by.scopes.clone();
    let (row, api_key) = issue::row(&by.project, next.epoch, &next.key, scopes, now)?;
    let row = ApiKeyEntry {
        id: issue::fresh_id(&entry.api_keys),
        label: format!("master key {}", next.epoch),
        ..row
    };
    let issued = Issued {
        id: row.id.clone(),
        api_key,
        mk_epoch: next.epoch,
        expires_at: None,
    };
    rules::add(entry, row)?;
    Ok(issued)
}
