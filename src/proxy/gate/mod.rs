//! Who comes in with an API key: what the key is of, and what it may be used for.

mod links;
mod refusal;

use std::{fmt, sync::Arc};

use http::{HeaderMap, header};

pub use refusal::Refusal;

use super::Error;
use crate::{
    clock,
    crypto::{ApiKey, MasterKey},
    keys::{Project, Projects},
    project::Scopes,
    store::{ApiKeyEntry, ProjectEntry, Store},
};

/// Checks API keys against what the config store records of them.
pub struct Gate {
    store: Arc<dyn Store>,
}

/// A good API key, for as long as the request or session that brought it runs.
pub struct Pass {
    /// Whose it is.
    pub project: Arc<Project>,
    /// What the API key is called. No secret.
    pub key_id: String,
    /// What it may be used for.
    pub scopes: Scopes,
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

impl Gate {
    /// Checks API keys by what `store` says.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Lets the API key in `authorization` in.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for everything that is not one good API key of one of these projects, or
    /// the config store's.
    pub async fn admit(&self, projects: &Projects, headers: &HeaderMap) -> Result<Pass, Error> {
        let key = presented(headers)?;
        for project in projects.iter() {
            let credentials = key.credentials(project.pepper());
            let found = self.store.project(&project.name).await?;
            let Some(entry) = found.entry else { continue };
            let mut rows = entry.api_keys.iter();
            let Some(row) = rows.find(|row| row.lookup == credentials.lookup) else {
                continue;
            };
            if row.verify != credentials.verify {
                return Err(Refusal::Verifier.into());
            }
            if !row.is_good(entry.now(clock::now_ms())) {
                return Err(Refusal::Over(row.id.clone()).into());
            }
            return Ok(Pass {
                master: master(&key, project, &entry, row),
                project: Arc::clone(project),
                key_id: row.id.clone(),
                scopes: row.scopes.clone(),
            });
        }
        Err(Refusal::Unknown.into())
    }
}

/// The one API key that a request carries.
fn presented(headers: &HeaderMap) -> Result<ApiKey, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::Missing)?;
    if values.next().is_some() {
        return Err(Refusal::Several);
    }
    let text = value.as_bytes();
    let (scheme, token) = text
        .split_at_checked(b"Bearer ".len())
        .ok_or(Refusal::Form)?;
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return Err(Refusal::Form);
    }
    ApiKey::parse(token).ok_or(Refusal::Form)
}

/// The master key in an API key; `None` when it is not the project's, whatever the rest of the API key is.
fn master(
    key: &ApiKey,
    project: &Project,
    entry: &ProjectEntry,
    row: &ApiKeyEntry,
) -> Option<Master> {
    let name = project.name.as_str();
    let epoch = row.mk_epoch;
    let next = entry.rotation.as_ref();
    let commit = match next.filter(|next| next.mk_epoch == epoch) {
        Some(next) => next.mk_commit,
        None if entry.mk_epoch == epoch => entry.mk_commit,
        None => return None,
    };
    let master = key.master_key(project.pepper(), name, epoch)?;
    (master.commit(name, epoch) == commit).then_some(Master { key: master, epoch })
}

impl Pass {
    /// The project's master key.
    ///
    /// # Errors
    /// [`Error::NoMasterKey`]: the API key is good, but the master key in it is not the project's. That is not
    /// "no encryption".
    pub fn master(&self) -> Result<&Master, Error> {
        self.master.as_ref().ok_or(Error::NoMasterKey)
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pass({}, {})", self.project.name, self.key_id)
    }
}
