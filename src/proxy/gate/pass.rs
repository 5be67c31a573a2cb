//! What a good API key gives to the request or session that brought it, and to nothing else.

use std::{fmt, sync::Arc};

use super::{Denied, Found, refusal::By};
use crate::{
    clock::Clock,
    crypto::{ApiKey, Digest, MasterKey},
    keys::{Project, Projects},
    project::{Scope, Scopes},
    proxy::Error,
    store::{ApiKeyEntry, ProjectEntry},
    upstream::Credential,
};

/// A good API key, for as long as the request or session that brought it runs.
pub struct Pass {
    /// Whose it is.
    pub project: Arc<Project>,
    /// What the API key is called. No secret.
    pub key_id: String,
    /// What it may be used for.
    pub scopes: Scopes,
    /// What finds its row.
    pub(super) lookup: Digest,
    /// What was recorded of the project then.
    pub(super) entry: Arc<ProjectEntry>,
    /// All projects, at the time that it came in: they say who owns what.
    pub(super) projects: Projects,
    /// What it was judged by.
    clock: Clock,
    master: Option<Master>,
}

/// A master key that was checked against its project's commitment.
#[derive(Debug, Clone)]
pub struct Master {
    /// The key.
    pub key: MasterKey,
    /// Its number.
    pub epoch: u32,
}

impl Pass {
    /// What a row that was found and judged good gives; nothing when the wrapped half of the API key is not as
    /// it was made.
    pub(super) fn new(
        key: &ApiKey,
        found: Found,
        projects: Projects,
        clock: Clock,
    ) -> Option<Self> {
        let (name, epoch) = (found.project.name.as_str(), found.row.mk_epoch);
        let master = key.master_key(found.project.pepper(), name, epoch)?;
        Some(Self {
            master: is_current(&master, name, epoch, &found.entry)
                .then_some(Master { key: master, epoch }),
            project: found.project,
            entry: found.entry,
            lookup: found.row.lookup,
            key_id: found.row.id,
            scopes: found.row.scopes,
            projects,
            clock,
        })
    }

    /// The same by what is recorded and configured now, to be judged by: it holds no master key.
    pub(super) fn renewed(
        &self,
        row: &ApiKeyEntry,
        now: &Arc<Project>,
        projects: &Projects,
    ) -> Self {
        Self {
            project: Arc::clone(now),
            key_id: self.key_id.clone(),
            scopes: row.scopes.clone(),
            lookup: self.lookup,
            entry: Arc::clone(&self.entry),
            projects: projects.clone(),
            clock: self.clock.clone(),
            master: None,
        }
    }

    /// The project's master key.
    ///
    /// # Errors
    /// [`Error::NoMasterKey`]: the API key is good, but the master key in it is not the project's. That is not
    /// "no encryption".
    pub fn master(&self) -> Result<&Master, Error> {
        self.master.as_ref().ok_or(Error::NoMasterKey)
    }

    /// How late it is, given what is recorded of its project now.
    pub fn now(&self, entry: &ProjectEntry) -> u64 {
        self.clock.since(entry.seen_at)
    }

    /// What goes upstream in its place, where the project has a token of its own.
    pub fn credential(&self) -> Option<Credential> {
        self.project.authorization().cloned().map(Credential::new)
    }

    /// Makes sure that it may be used for this.
    ///
    /// # Errors
    /// [`Denied::Scope`]
    pub fn allow(&self, scope: Scope) -> Result<(), Denied> {
        match self.scopes.allow(scope) {
            true => Ok(()),
            false => Err(Denied::Scope(By::ApiKey, scope)),
        }
    }
}

/// Whether a master key is one that the project has, by its commitments: its own, or the next one while it
/// goes there.
fn is_current(master: &MasterKey, project: &str, epoch: u32, entry: &ProjectEntry) -> bool {
    let next = entry.rotation.as_ref();
    let commit = match next.filter(|next| next.mk_epoch == epoch) {
        Some(next) => next.mk_commit,
        None if entry.mk_epoch == epoch => entry.mk_commit,
        None => return false,
    };
    master.commit(project, epoch) == commit
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pass({}, {})", self.project.name, self.key_id)
    }
}
