//! The life of projects and their API keys: made, listed, rotated and revoked, each by one commit of the
//! project's row, so that of two at once one is told that the other was quicker.

mod create;
mod error;
mod issue;
mod list;
mod next_master;
mod revoke;
mod roster;
mod rotate;
pub(super) mod rules;
mod sweep;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::{HeaderMap, header};
use zeroize::Zeroizing;

pub use self::{
    error::ProjectError,
    issue::Wanted,
    list::{ApiKeyView, KeyStanding, ProjectView},
    roster::Roster,
    rotate::{GRACE, Rotated},
    rules::MAX_API_KEYS,
};
use super::{Error, Proxy, gate::Pass};
use crate::project::{ProjectName, Scope};

/// An API key that was just made. Nobody can be shown it again.
pub struct Issued {
    /// What it is called.
    pub id: String,
    /// The key itself.
    pub api_key: Zeroizing<String>,
    /// The number of the master key in it.
    pub mk_epoch: u32,
    /// When it stops being good, in milliseconds since the Unix epoch, if it does.
    pub expires_at: Option<u64>,
}

impl Proxy {
    /// Lets in whoever administers a project, by the API key in `authorization`, which it takes out.
    ///
    /// # Errors
    /// [`ProjectError::Off`], or [`ProjectError::Refused`] when it is no good API key with scope `manage`.
    pub async fn manager(&self, headers: &mut HeaderMap) -> Result<Pass, ProjectError> {
        let gate = self.gate.as_ref().ok_or(ProjectError::Off)?;
        let rules = self.registry.rules();
        let admitted = gate.admit(rules.projects(), headers).await;
        headers.remove(header::AUTHORIZATION);
        let pass = admitted?;
        match pass.scopes.allow(Scope::Manage) {
            true => Ok(pass),
            false => {
                let message = "this takes an API key with scope `manage`".to_owned();
                Err(Error::NotAllowed(message).into())
            }
        }
    }

    /// Makes a project's master key, and the first API key, which may be used for everything.
    ///
    /// # Errors
    /// [`ProjectError`]; nothing has changed then, but for [`ProjectError::Broken`].
    pub async fn create_project(&self, name: &ProjectName) -> Result<Issued, ProjectError> {
        self.create(name, false).await
    }

    /// The same for when the answer was lost: a project that was made before gets another master key, and its
    /// API keys of before end. Refused once a stream is encrypted with keys of the project.
    ///
    /// # Errors
    /// [`ProjectError`]; nothing has changed then, but for [`ProjectError::Broken`].
    pub async fn create_project_again(&self, name: &ProjectName) -> Result<Issued, ProjectError> {
        self.create(name, true).await
    }

    /// Every project of the configuration, and every other one that is recorded.
    ///
    /// # Errors
    /// [`ProjectError::Off`], or the config store's.
    pub async fn projects(&self) -> Result<Vec<ProjectView>, ProjectError> {
        self.takes_api_keys()?;
        let rules = self.registry.rules();
        self.roster.projects(rules.projects()).await
    }

    /// The API keys of the project of `by`, those included that ended not long ago.
    ///
    /// # Errors
    /// [`ProjectError`].
    pub async fn api_keys(&self, by: &Pass) -> Result<Vec<ApiKeyView>, ProjectError> {
        self.roster.api_keys(by).await
    }

    /// Makes another API key for the project of `by`.
    ///
    /// # Errors
    /// [`ProjectError`]; nothing has changed then, but for [`ProjectError::Broken`].
    pub async fn issue_api_key(&self, by: &Pass, wanted: &Wanted) -> Result<Issued, ProjectError> {
        self.roster.issue(by, wanted).await
    }

    /// Puts a new API key in place of the one of this id, or of the one that asks. The one before is good for
    /// `grace` more, from a minute to 30 days.
    ///
    /// # Errors
    /// [`ProjectError`]; nothing has changed then, but for [`ProjectError::Broken`].
    pub async fn rotate_api_key(
        &self,
        by: &Pass,
        id: Option<&str>,
        grace: Duration,
    ) -> Result<Rotated, ProjectError> {
        self.roster.rotate(by, id, grace).await
    }

    /// Revokes the API key of this id at once and for ever; `false` when it was over before. The last one that
    /// keeps the project from losing its data is revoked only by `force`.
    ///
    /// # Errors
    /// [`ProjectError`]; nothing has changed then, but for [`ProjectError::Broken`].
    pub async fn revoke_api_key(
        &self,
        by: &Pass,
        id: &str,
        force: bool,
    ) -> Result<bool, ProjectError> {
        self.roster.revoke(by, id, force).await
    }

    async fn create(&self, name: &ProjectName, again: bool) -> Result<Issued, ProjectError> {
        self.takes_api_keys()?;
        let rules = self.registry.rules();
        let project = rules.projects().named(name).ok_or(ProjectError::Unknown)?;
        self.roster.create(project, again).await
    }

    fn takes_api_keys(&self) -> Result<(), ProjectError> {
        match &self.gate {
            Some(_) => Ok(()),
            None => Err(ProjectError::Off),
        }
    }
}
