//! A project's first API key, and with it its master key.

use super::{Issued, ProjectError, Roster, issue};
use crate::{
    crypto::MasterKey,
    keys::Project,
    project::{ProjectName, Scopes},
    store::{Holder, Page, ProjectEntry},
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
        let name = &project.name;
        let found = self.store.project(name).await?;
        let before = found.entry;
        match &before {
            Some(_) if !again => return Err(ProjectError::Exists),
            Some(_) => self.must_be_unused(name).await?,
            None => {}
        }
        let seen = before.as_ref().map_or(0, |before| before.seen_at);
        let now = self.clock.since(seen);
        let (entry, issued) = first(project, before.as_deref(), now)?;
        let committed = self.commit(name, found.revision, entry).await;
        committed.map_err(|error| match error {
            ProjectError::Conflict if !again => ProjectError::Exists,
            other => other,
        })?;
        if let Some(before) = before {
            self.or_back(name, &issued, &before).await?;
        }
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

    /// Puts the row of before back if a stream got a data key under the old master key while it was replaced.
    pub(super) async fn or_back(
        &self,
        name: &ProjectName,
        issued: &Issued,
        before: &ProjectEntry,
    ) -> Result<(), ProjectError> {
        let Err(used) = self.must_be_unused(name).await else {
            return Ok(());
        };
        let found = self.store.project(name).await?;
        let now = found.entry.filter(|now| now.api_key(&issued.id).is_some());
        if now.is_some() {
            self.commit(name, found.revision, before.clone()).await?;
        }
        Err(used)
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
        seen_at: now,
    };
    Ok((entry, issued))
}
