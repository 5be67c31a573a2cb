//! What is shown of projects and their API keys: nothing of it is secret.

use serde::Serialize;

use super::{Pass, ProjectError, Roster, rules};
use crate::{
    clock,
    keys::Projects,
    project::{ProjectName, Scopes},
    store::{ApiKeyEntry, ApiKeyState, ProjectEntry},
};

/// A project, as it is configured and recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProjectView {
    /// Its name.
    pub project: String,
    /// Whether it is in the configuration. One that is not has API keys that open nothing.
    pub configured: bool,
    /// Its globs over `basin/stream`, in the configuration.
    pub r#match: Vec<String>,
    /// Whether it was created, and so has a master key.
    pub created: bool,
    /// The number of its master key.
    pub mk_epoch: Option<u32>,
    /// Whether its master key is being changed.
    pub changing: bool,
    /// API keys that are good now.
    pub api_keys: usize,
}

/// An API key, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiKeyView {
    /// What it is called.
    pub id: String,
    /// What it is for.
    pub label: String,
    /// What it may be used for.
    pub scopes: Scopes,
    /// The number of the master key in it.
    pub mk_epoch: u32,
    /// When it was made.
    pub created_at: String,
    /// When it stops being good, whatever else happens.
    pub expires_at: Option<String>,
    /// Whether it is good, or how it ended.
    pub state: KeyStanding,
    /// When its time is over after it was rotated, or when it ended.
    pub until: Option<String>,
    /// The id of the one that took its place.
    pub successor: Option<String>,
    /// Whether it is the one that asks.
    pub own: bool,
}

/// Whether an API key is good, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyStanding {
    /// It is good.
    Active,
    /// It is good for a while, and another took its place.
    Retiring,
    /// Its own time is over.
    Expired,
    /// It was revoked, or its time after a rotation is over.
    Revoked,
}

impl Roster {
    /// The API keys of the project of `by`, those included that ended not long ago.
    ///
    /// # Errors
    /// [`ProjectError::Refused`] when `by` is over meanwhile; the store's.
    pub(super) async fn api_keys(&self, by: &Pass) -> Result<Vec<ApiKeyView>, ProjectError> {
        let found = self.store.project(&by.project.name).await?;
        let entry = found.entry.ok_or(ProjectError::Unknown)?;
        let now = self.clock.since(entry.seen_at);
        rules::authorise(&entry, by, now)?;
        let views = entry.api_keys.iter().map(|key| ApiKeyView {
            own: key.id == by.key_id,
            ..view(key, now)
        });
        Ok(views.collect())
    }

    /// Every project of the configuration, and every other one that is recorded.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn projects(
        &self,
        configured: &Projects,
    ) -> Result<Vec<ProjectView>, ProjectError> {
        let recorded = self.store.projects().await?;
        let entry_of = |name: &ProjectName| {
            let mut recorded = recorded.iter();
            let found = recorded.find(|(recorded, _)| recorded == name);
            found.and_then(|(_, found)| found.entry.as_ref())
        };
        let configured_views = configured.iter().map(|project| ProjectView {
            configured: true,
            r#match: project.globs().map(str::to_owned).collect(),
            ..self.view(&project.name, entry_of(&project.name))
        });
        let others = recorded
            .iter()
            .filter(|(name, _)| configured.named(name).is_none());
        let others = others.map(|(name, found)| self.view(name, found.entry.as_ref()));
        Ok(configured_views.chain(others).collect())
    }

    fn view(&self, name: &ProjectName, entry: Option<&ProjectEntry>) -> ProjectView {
        let good = |entry: &ProjectEntry| {
            let now = self.clock.since(entry.seen_at);
            let keys = entry.api_keys.iter();
            keys.filter(|key| key.is_good(now)).count()
        };
        ProjectView {
            project: name.to_string(),
            configured: false,
            r#match: Vec::new(),
            created: entry.is_some(),
            mk_epoch: entry.map(|entry| entry.mk_epoch),
            changing: entry.is_some_and(|entry| entry.rotation.is_some()),
            api_keys: entry.map_or(0, good),
        }
    }
}

/// What is shown of an API key, at this time.
fn view(key: &ApiKeyEntry, now: u64) -> ApiKeyView {
    let unmarked = rules::over_unmarked(key, now);
    let (state, until, successor) = match &key.state {
        ApiKeyState::Revoked { at } if key.expires_at.is_some_and(|end| end <= *at) => {
            (KeyStanding::Expired, Some(*at), None)
        }
        ApiKeyState::Revoked { at } => (KeyStanding::Revoked, Some(*at), None),
        _ if unmarked.is_some() && unmarked == key.expires_at => {
            (KeyStanding::Expired, unmarked, None)
        }
        _ if unmarked.is_some() => (KeyStanding::Revoked, unmarked, None),
        ApiKeyState::Retiring { successor, .. } => (
            KeyStanding::Retiring,
            key.ends_at(),
            Some(successor.clone()),
        ),
        ApiKeyState::Active => (KeyStanding::Active, None, None),
    };
    ApiKeyView {
        id: key.id.clone(),
        label: key.label.clone(),
        scopes: key.scopes.clone(),
        mk_epoch: key.mk_epoch,
        created_at: clock::rfc3339(key.created_at),
        expires_at: key.expires_at.map(clock::rfc3339),
        state,
        until: until.map(clock::rfc3339),
        successor,
        own: false,
    }
}
