//! What the config store records of a project: commitments and what finds and checks its API keys, from
//! which neither an API key nor the master key can be computed.

use serde::{Deserialize, Serialize};

use crate::{
    crypto::{Digest, Wrapped},
    project::Scopes,
};

/// What is recorded of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectEntry {
    /// The number of its master key; the first is 1.
    pub mk_epoch: u32,
    /// The commitment to its master key.
    pub mk_commit: Digest,
    /// The change to the next master key, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<MasterRotation>,
    /// Its API keys.
    pub api_keys: Vec<ApiKeyEntry>,
    /// Whether somebody looks whether the master key is in use, to put another in its place. Whoever records a
    /// stream's first data key in it takes this off in the same commit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replacing: bool,
    /// The latest time that was ever seen here, in milliseconds since the Unix epoch: a clock that is set back
    /// revives nothing, and time runs on from here.
    pub seen_at: u64,
}

/// A change of the master key that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MasterRotation {
    /// The number of the next master key.
    pub mk_epoch: u32,
    /// The commitment to it.
    pub mk_commit: Digest,
    /// The next master key, wrapped in the one before: whoever has an API key of before reads on, and can
    /// bring the change to its end.
    pub forward: Wrapped,
    /// The master key before, wrapped in the next one, likewise.
    pub backward: Wrapped,
    /// When it began, in milliseconds since the Unix epoch.
    pub began_at: u64,
}

/// What is recorded of an API key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyEntry {
    /// What people and commands call it by. No secret.
    pub id: String,
    /// What its maker says that it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Finds the row of a key that is presented.
    pub lookup: Digest,
    /// SHA-256 of the verifier of the key.
    pub verify: Digest,
    /// The number of the master key in it.
    pub mk_epoch: u32,
    /// What it may be used for.
    pub scopes: Scopes,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_at: u64,
    /// When it stops being good, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// Whether it is good.
    pub state: ApiKeyState,
}

/// Whether an API key is good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ApiKeyState {
    /// It is.
    Active,
    /// Another took its place; it is good for a while.
    Retiring {
        /// Until then, in milliseconds since the Unix epoch.
        until: u64,
        /// The id of the other.
        successor: String,
    },
    /// It is not, for ever.
    Revoked {
        /// Since then, in milliseconds since the Unix epoch.
        at: u64,
    },
}

impl ApiKeyEntry {
    /// Whether it is good at this time, in milliseconds since the Unix epoch.
    pub fn is_good(&self, now: u64) -> bool {
        self.ends_at().is_none_or(|end| now < end)
    }

    /// When it stops, or stopped, being good, if that is known.
    pub fn ends_at(&self) -> Option<u64> {
        let end = match self.state {
            ApiKeyState::Active => None,
            ApiKeyState::Retiring { until, .. } => Some(until),
            ApiKeyState::Revoked { .. } => Some(0),
        };
        match (end, self.expires_at) {
            (Some(end), Some(expiry)) => Some(end.min(expiry)),
            (end, expiry) => end.or(expiry),
        }
    }
}

impl ProjectEntry {
    /// The number of the master key that new data keys are wrapped in.
    pub fn newest_mk_epoch(&self) -> u32 {
        let next = self.rotation.as_ref().map(|next| next.mk_epoch);
        next.unwrap_or(self.mk_epoch)
    }

    /// The API key of this id.
    pub fn api_key(&self, id: &str) -> Option<&ApiKeyEntry> {
        self.api_keys.iter().find(|key| key.id == id)
    }
}
