//! Where the API keys of projects are changed: one commit decides between any two who want to.

use std::sync::Arc;

use super::{Pass, ProjectError, rules};
use crate::{
    clock::Clock,
    project::ProjectName,
    store::{self, Change, ProjectEntry, Revision, Store},
};

/// How often a project may change under a call before it gives up.
const MAX_ROUNDS: usize = 8;

/// The projects and their API keys, as they are recorded. Cheap to clone.
#[derive(Clone)]
pub struct Roster {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
}

impl Roster {
    /// What `store` records of projects, by this clock.
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self { store, clock }
    }

    /// Changes a project's row as `decide` says, which is asked again when somebody else was quicker, and
    /// works on the row as it is at the time that comes with it.
    ///
    /// # Errors
    /// `decide`'s; [`ProjectError::Refused`] when `by` is over meanwhile; the store's. Nothing is changed then.
    pub(super) async fn change<T>(
        &self,
        by: &Pass,
        decide: impl Fn(&mut ProjectEntry, u64) -> Result<T, ProjectError>,
    ) -> Result<T, ProjectError> {
        let name = &by.project.name;
        for _ in 0..MAX_ROUNDS {
            let found = self.store.project(name).await?;
            let entry = found.entry.ok_or(ProjectError::Unknown)?;
            let now = self.clock.since(entry.seen_at);
            let mut entry = ProjectEntry::clone(&entry);
            rules::authorise(&entry, by, now)?;
            rules::settle(&mut entry, now);
            let decided = decide(&mut entry, now)?;
            match self.commit(name, found.revision, entry).await {
                Ok(()) => return Ok(decided),
                Err(ProjectError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ProjectError::Conflict)
    }

    /// Puts another row in place of the one of this revision: every change of a project goes through here.
    /// Carried to its end whether or not the caller waits for it.
    ///
    /// # Errors
    /// [`ProjectError::Conflict`] when somebody else was quicker, or the store's.
    pub(super) async fn commit(
        &self,
        name: &ProjectName,
        expected: Revision,
        entry: ProjectEntry,
    ) -> Result<(), ProjectError> {
        let change = Change::Project {
            name: name.clone(),
            expected,
            entry: Some(entry),
        };
        let store = Arc::clone(&self.store);
        let committing = tokio::spawn(async move { store.commit(vec![change]).await });
        let committed = committing.await.map_err(|_| ProjectError::Broken)?;
        committed.map_err(|error| match error {
            store::Error::Conflict(_) => ProjectError::Conflict,
            other => other.into(),
        })
    }
}
