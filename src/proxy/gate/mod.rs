//! Who comes in with an API key or a client certificate, and what each may be used for.

mod allow;
mod links;
mod pass;
mod presented;
mod principal;
mod refusal;
mod tenure;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use quick_cache::sync::Cache;
use tokio::{sync::Semaphore, time::timeout};

pub use self::{
    pass::{Master, Pass},
    presented::{holds_encoded, looks_like_api_key, stray},
    principal::{ClientAccess, Principal},
    refusal::{By, Denied, Refusal},
    tenure::{Judges, Tenure},
};
use super::Error;
use crate::{
    clock::Clock,
    crypto::{ApiKey, TokenFingerprint},
    keys::{Project, Projects},
    project::ProjectName,
    store::{self, ApiKeyEntry, ProjectEntry, Store},
};

/// API keys whose project is remembered. A hundred bytes each.
const KNOWN_KEYS: usize = 10_000;

/// Longest wait for the turn to search an API key among all projects. A search takes some microseconds for
/// each project.
const SEARCH_TURN: Duration = Duration::from_secs(5);

/// Checks API keys against what the config store records of them.
pub struct Gate {
    store: Arc<dyn Store>,
    clock: Clock,
    /// Whose API keys were that came in lately: those are looked for there first.
    known: Cache<TokenFingerprint, ProjectName>,
    /// One search among all projects at a time, so that a flood of made-up API keys takes no more than one
    /// core, and holds up nobody whose API key is known.
    searches: Semaphore,
}

/// An API key's row, whosoever and good or not.
struct Found {
    project: Arc<Project>,
    entry: Arc<ProjectEntry>,
    row: ApiKeyEntry,
    /// The row's verifier is that of the API key.
    verified: bool,
}

impl Gate {
    /// Checks API keys by what `store` says, and by this clock.
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self {
            store,
            clock,
            known: Cache::new(KNOWN_KEYS),
            searches: Semaphore::new(1),
        }
    }

    /// Lets the API key in `authorization` in.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for everything that is not one good API key of one of these projects,
    /// [`Error::Busy`], or the config store's.
    pub async fn admit(&self, projects: &Projects, headers: &HeaderMap) -> Result<Pass, Error> {
        let (key, fingerprint) = presented::api_key(headers)?;
        if let Some(name) = self.known.get(&fingerprint) {
            let found = match projects.named(&name) {
                Some(project) => self.find(&key, project).await?,
                None => None,
            };
            if let Some(Ok(pass)) = found.map(|found| self.judge(&key, found, projects)) {
                return Ok(pass);
            }
            self.known.remove(&fingerprint);
        }
        let found = self.search(&key, projects).await?.ok_or(Refusal::Unknown)?;
        let pass = self.judge(&key, found, projects)?;
        self.known.insert(fingerprint, pass.project.name.clone());
        Ok(pass)
    }

    /// Lets somebody in again who came in with `pass`, by what is recorded and configured now. The pass that comes
    /// of it is for judging alone.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when the API key is over, or the config store's.
    pub async fn readmit(&self, pass: &Pass, projects: &Projects) -> Result<Pass, Error> {
        let over = || {
            let (project, id) = (pass.project.name.clone(), pass.key_id.clone());
            Refusal::Over { project, id }
        };
        let project = projects.named(&pass.project.name);
        let project = project.filter(|project| project.pepper() == pass.project.pepper());
        let project = project.ok_or_else(over)?;
        let entry = self.store.project(&project.name).await?.entry;
        let entry = entry.ok_or_else(over)?;
        let mut rows = entry.api_keys.iter();
        let row = rows.find(|row| row.lookup == pass.lookup && self.is_good(&entry, row));
        Ok(pass.renewed(row.ok_or_else(over)?, project, projects))
    }

    /// Looks for the API key in every project, also after it was found: how long it takes tells nothing.
    async fn search(&self, key: &ApiKey, projects: &Projects) -> Result<Option<Found>, Error> {
        let turn = timeout(SEARCH_TURN, self.searches.acquire()).await;
        let _turn = turn.map_err(|_| Error::Busy)?;
        let mut first = None;
        let mut failed = None;
        for project in projects.iter() {
            match self.find(key, project).await {
                Ok(found) => first = first.or(found),
                // What one project's row is like is no matter of another's API keys.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match (first, failed) {
            (None, Some(error)) => Err(error.into()),
            (first, _) => Ok(first),
        }
    }

    async fn find(
        &self,
        key: &ApiKey,
        project: &Arc<Project>,
    ) -> Result<Option<Found>, store::Error> {
        let credentials = key.credentials(project.pepper());
        let Some(entry) = self.store.project(&project.name).await?.entry else {
            return Ok(None);
        };
        let mut rows = entry.api_keys.iter();
        let row = rows.find(|row| row.lookup == credentials.lookup).cloned();
        Ok(row.map(|row| Found {
            project: Arc::clone(project),
            entry,
            verified: row.verify == credentials.verify,
            row,
        }))
    }

    fn judge(&self, key: &ApiKey, found: Found, projects: &Projects) -> Result<Pass, Refusal> {
        if !found.verified {
            return Err(Refusal::Verifier);
        }
        if !self.is_good(&found.entry, &found.row) {
            return Err(Refusal::Over {
                project: found.project.name.clone(),
                id: found.row.id,
            });
        }
        Pass::new(key, found, projects.clone(), self.clock.clone()).ok_or(Refusal::Wrapping)
    }

    /// Whether an API key with this row is good now.
    fn is_good(&self, entry: &ProjectEntry, row: &ApiKeyEntry) -> bool {
        row.is_good(self.clock.since(entry.seen_at))
    }
}
