//! A project's first API key, and with it its master key.

use super::{Issued, ProjectError, Roster, issue};
use crate::{
    crypto::MasterKey,
    keys::Project,
    project::{ProjectName, Scopes},
    store::{Holder, Page, ProjectEntry, Revision},
};

/// Rows of streams that are looked at at a time.
const STREAMS_AT_A_TIME: usize = 1000;

impl Roster {
    /// Makes a project's master key, and the first API key, which may be used for everything. `again` makes
    /// them anew for when the answer was lost, as long as the project holds no stream's data keys.
    ///
    /// # Errors
    /// [`ProjectError`]; nothing has changed then.
    pub(super) async fn create(
        &self,
        project: &Project,
        again: bool,
    ) -> Result<Issued, ProjectError> {
        let found = self.store.project(&project.name).await?;
        match found.entry {
            Some(_) if !again => Err(ProjectError::Exists),
            Some(before) => {
                // Nothing is written for most that are refused.
                self.must_be_unused(&project.name).await?;
                let marked = self.unused(&project.name, found.revision, &before).await?;
                self.put(project, Some(&before), marked, again).await
            }
            None => self.put(project, None, found.revision, again).await,
        }
    }

    /// Makes sure that no stream has a data key under the master key of a project, nor gets one as long as the
    /// project's row stays at the revision that is returned.
    ///
    /// A data key is recorded only together with a condition on the revision of the row that its master key was
    /// read from. First the row is marked, which gives it revision M; then all streams are looked at. A data key
    /// that is recorded
    ///
    /// - before M is seen in the look at the streams;
    /// - at M or later, but decided on by an earlier row, fails by its condition;
    /// - at M, and decided on by the row of M, was decided on by a marked row, and so takes the mark off: the row is
    ///   not at M any more.
    ///
    /// So a commit on the condition that the row is still at M replaces a master key that nothing hangs on. A
    /// crash on the way leaves a mark, and a mark alone does nothing.
    pub(super) async fn unused(
        &self,
        name: &ProjectName,
        revision: Revision,
        before: &ProjectEntry,
    ) -> Result<Revision, ProjectError> {
        let marked = ProjectEntry {
            replacing: true,
            ..before.clone()
        };
        self.commit(name, revision, marked).await?;
        let found = self.store.project(name).await?;
        if !found.entry.is_some_and(|entry| entry.replacing) {
            return Err(ProjectError::Conflict);
        }
        self.must_be_unused(name).await?;
        Ok(found.revision)
    }

    /// Records a fresh master key and one API key in place of a row of this revision.
    pub(super) async fn put(
        &self,
        project: &Project,
        before: Option<&ProjectEntry>,
        expected: Revision,
        again: bool,
    ) -> Result<Issued, ProjectError> {
        let name = &project.name;
        let seen = before.map_or(0, |before| before.seen_at);
        let (entry, issued) = first(project, before, self.clock.since(seen))?;
        let committed = self.commit(name, expected, entry).await;
        committed.map_err(|error| match error {
            ProjectError::Conflict if !again => ProjectError::Exists,
            other => other,
        })?;
        let (by, api_key) = ("operator", &issued.id);
        tracing::info!(
            project = name.as_str(),
            by,
            api_key,
            again,
            "project created"
        );
        Ok(issued)
    }

    /// Looks at every stream for data keys that only this project's master key opens.
    async fn must_be_unused(&self, name: &ProjectName) -> Result<(), ProjectError> {
        let mut after = String::new();
        loop {
            let page = Page {
                after,
                filter: String::new(),
                limit: STREAMS_AT_A_TIME,
            };
            let listed = self.store.streams_page(None, page).await?;
            for (path, found) in listed.found {
                let keys = found.entry.and_then(|entry| entry.data_keys);
                let is_ours = |holder: &Holder| matches!(holder, Holder::Project(of) if of == name);
                if keys.is_some_and(|keys| is_ours(&keys.holder) && !keys.is_shredded()) {
                    return Err(ProjectError::InUse(path.to_string()));
                }
            }
            match listed.next {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }
}

/// The row of a project with a fresh master key and one API key.
fn first(
    project: &Project,
    before: Option<&ProjectEntry>,
    now: u64,
) -> Result<(ProjectEntry, Issued), ProjectError> {
    let name = project.name.as_str();
    // Never the number of another master key of this project.
    let mk_epoch = before.map_or(0, |before| {
        let next = before.rotation.as_ref();
        next.map_or(before.mk_epoch, |next| next.mk_epoch)
    });
    let mk_epoch = mk_epoch.checked_add(1).ok_or(ProjectError::Exists)?;
    let master = MasterKey::generate()?;
    let (mut row, api_key) = issue::row(project, mk_epoch, &master, Scopes::all(), now)?;
    row.id = issue::fresh_id(&[]);
    let issued = Issued {
        id: row.id.clone(),
        api_key,
        mk_epoch,
        expires_at: None,
    };
    let entry = ProjectEntry {
        mk_epoch,
        mk_commit: master.commit(name, mk_epoch),
        rotation: None,
        api_keys: vec![row],
        replacing: false,
        seen_at: now,
    };
    Ok((entry, issued))
}
