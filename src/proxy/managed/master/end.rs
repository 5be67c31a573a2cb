//! The end of a change of the master key: the old one is forgotten, and its API keys are revoked.

use std::sync::Arc;

use super::{MasterChange, Stopped, Tell};
use crate::{
    proxy::{
        gate::Pass,
        projects::{ProjectError, rules},
    },
    registry::Registry,
    store::{self, ApiKeyState, Change, ProjectEntry},
};

/// How often others may change the project's entry meanwhile.
const MAX_ROUNDS: usize = 8;

/// What is left of a change of the master key.
pub enum Left {
    /// It is under way.
    Change(Box<MasterChange>),
    /// Nothing: it ended before.
    Nothing(Stopped),
}

impl MasterChange {
    /// The change to master key `mk_epoch`, to be brought to its end with an API key of that master key. Never
    /// begins one.
    ///
    /// # Errors
    /// [`ProjectError`]; nothing has changed then.
    pub(in crate::proxy) async fn resume(
        registry: &Arc<Registry>,
        pass: &Arc<Pass>,
        mk_epoch: u32,
    ) -> Result<Left, ProjectError> {
        let found = registry.project(&pass.project.name).await?;
        let entry = found.entry.ok_or(ProjectError::Unknown)?;
        rules::authorise(&entry, pass, pass.now(&entry))?;
        if pass.master()?.epoch != mk_epoch {
            return Err(ProjectError::OldKey);
        }
        match &entry.rotation {
            Some(next) if next.mk_epoch == mk_epoch => {
                Ok(Left::Change(Box::new(Self::by(registry, pass, &entry)?)))
            }
            None if entry.mk_epoch == mk_epoch => {
                // If the disk failed when it ended, the old links may still be on it.
                registry.erase(Vec::new()).await?;
                Ok(Left::Nothing(ended(mk_epoch)))
            }
            Some(_) | None => Err(ProjectError::NotUnderWay(mk_epoch)),
        }
    }

    /// Wraps what is left, and when everything is, forgets the old master key. `None` when nobody reads the
    /// progress any more.
    ///
    /// # Errors
    /// The config store fails; the change may have ended or not, and asking again tells.
    pub async fn finish(&self, tell: &mut Tell<'_>) -> Result<Option<Stopped>, ProjectError> {
        match self.rewrap(tell).await? {
            Some(Stopped { done: true, .. }) => self.end().await.map(Some),
            stopped => Ok(stopped),
        }
    }

    /// Forgets the old master key. Every data key is wrapped in the next one, and the API key of whoever asks
    /// leads to that one.
    async fn end(&self) -> Result<Stopped, ProjectError> {
        let name = &self.by.project.name;
        let mk_epoch = self.next.epoch;
        for _ in 0..MAX_ROUNDS {
            let found = self.registry.project(name).await?;
            let Some(entry) = found.entry.as_deref() else {
                return Err(ProjectError::Unknown);
            };
            let Some(entry) = self.without_old(entry)? else {
                // Another request for the same was faster.
                return Ok(ended(mk_epoch));
            };
            let write = Change::Project {
                name: name.clone(),
                expected: found.revision,
                entry: Some(entry),
            };
            match self.registry.erase(vec![write]).await {
                Ok(()) => {
                    tracing::info!(project = %name, mk_epoch, "the master key has changed");
                    return Ok(ended(mk_epoch));
                }
                Err(store::Error::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ProjectError::Conflict)
    }

    /// The project's entry after the end; `None` when the change is not under way any more.
    fn without_old(&self, entry: &ProjectEntry) -> Result<Option<ProjectEntry>, ProjectError> {
        let next = entry.rotation.as_ref();
        let Some(next) = next.filter(|next| next.mk_epoch == self.next.epoch) else {
            return Ok(None);
        };
        let now = self.by.now(entry);
        // Or there might be none left that is good.
        rules::authorise(entry, &self.by, now)?;
        let mut api_keys = entry.api_keys.clone();
        for key in &mut api_keys {
            if key.mk_epoch != next.mk_epoch && !matches!(key.state, ApiKeyState::Revoked { .. }) {
                key.state = ApiKeyState::Revoked { at: now };
            }
        }
        Ok(Some(ProjectEntry {
            mk_epoch: next.mk_epoch,
            mk_commit: next.mk_commit,
            rotation: None,
            api_keys,
            replacing: false,
            seen_at: now,
        }))
    }
}

fn ended(mk_epoch: u32) -> Stopped {
    Stopped {
        done: true,
        ended: true,
        mk_epoch,
        stuck: Vec::new(),
    }
}
