//! The life of projects and their API keys.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::Proxy;
use crate::{
    clock,
    crypto::{ApiKey, MasterKey},
    project::{ProjectName, Scopes},
    store::{self, ApiKeyEntry, ApiKeyState, Change, ProjectEntry, Revision},
};

/// An API key that was just made. Nobody can be shown it again.
pub struct Issued {
    /// What it is called.
    pub id: String,
    /// The key itself.
    pub api_key: Zeroizing<String>,
    /// The number of the master key in it.
    pub mk_epoch: u32,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// The configuration has no such project.
    #[error("there is no project of this name in the configuration")]
    Unknown,
    /// It was made before.
    #[error("the project has a master key already")]
    Exists,
    /// The system has no randomness to give.
    #[error("no randomness: {0}")]
    Random(#[from] rand::rngs::SysError),
    /// The config store's.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Proxy {
    /// Makes a project's master key, and the first API key, which may be used for everything.
    ///
    /// # Errors
    /// [`ProjectError`]; nothing has changed then.
    pub async fn create_project(&self, name: &ProjectName) -> Result<Issued, ProjectError> {
        let rules = self.registry.rules();
        let project = rules.projects().named(name).ok_or(ProjectError::Unknown)?;
        let found = self.store.project(name).await?;
        if found.entry.is_some() {
            return Err(ProjectError::Exists);
        }
        let (mk_epoch, now) = (1, clock::now_ms());
        let master = MasterKey::generate()?;
        let (key, credentials) = ApiKey::issue(project.pepper(), name.as_str(), mk_epoch, &master)?;
        let id = fresh_id();
        let entry = ProjectEntry {
            mk_epoch,
            mk_commit: master.commit(name.as_str(), mk_epoch),
            rotation: None,
            api_keys: vec![ApiKeyEntry {
                id: id.clone(),
                label: String::new(),
                lookup: credentials.lookup,
                verify: credentials.verify,
                mk_epoch,
                scopes: Scopes::all(),
                created_at: now,
                expires_at: None,
                state: ApiKeyState::Active,
            }],
            seen_at: now,
        };
        let change = Change::Project {
            name: name.clone(),
            expected: Revision::NONE,
            entry: Some(entry),
        };
        let committed = Arc::clone(&self.store).commit(vec![change]).await;
        committed.map_err(|error| match error {
            store::Error::Conflict(_) => ProjectError::Exists,
            other => other.into(),
        })?;
        let api_key = key.to_text();
        Ok(Issued {
            id,
            api_key,
            mk_epoch,
        })
    }
}

/// What an API key is called: 48 random bits, so that no two of a project ever are alike.
pub(super) fn fresh_id() -> String {
    let random: [u8; 6] = rand::random();
    let digits = random.iter().map(|byte| format!("{byte:02x}"));
    format!("key-{}", digits.collect::<String>())
}
