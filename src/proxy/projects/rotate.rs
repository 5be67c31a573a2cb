//! A new API key in place of another, which stays good for a while: an answer that is lost loses nothing.

use std::{ops::RangeInclusive, time::Duration};

use super::{Issued, Pass, ProjectError, Roster, issue, rules};
use crate::{
    clock,
    project::Scopes,
    proxy::gate::Master,
    store::{ApiKeyEntry, ProjectEntry},
};

/// How long the one before stays good, unless it is said.
pub const GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long it may stay good: at least as long as it takes to see that the answer was lost, at most 30 days.
const GRACES: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(30 * 24 * 60 * 60);

/// An API key in place of another.
pub struct Rotated {
    /// The new one.
    pub issued: Issued,
    /// The id of the one before.
    pub replaces: String,
    /// Until when that one is good, in milliseconds since the Unix epoch.
    pub until: u64,
}

impl Roster {
    /// Puts a new API key in place of the one of this id, or of the one that asks: with the same scopes and
    /// label, and good for as long. The one before is good for `grace` more, from a minute to 30 days.
    ///
    /// # Errors
    /// [`ProjectError`]; nothing has changed then.
    pub(super) async fn rotate(
        &self,
        by: &Pass,
        id: Option<&str>,
        grace: Duration,
    ) -> Result<Rotated, ProjectError> {
        if !GRACES.contains(&grace) {
            let why = "grace: from 1m to 30days; to end an API key at once, revoke it";
            return Err(ProjectError::Invalid(why.to_owned()));
        }
        let replaces = id.unwrap_or(&by.key_id);
        let Master { key, epoch } = by.master()?;
        let (fresh, api_key) = issue::row(&by.project, *epoch, key, Scopes::default(), 0)?;
        let decide = |entry: &mut ProjectEntry, now: u64| {
            if entry.newest_mk_epoch() != *epoch {
                return Err(ProjectError::Changing);
            }
            succeed(entry, replaces, &fresh, now, clock::in_ms(grace))
        };
        let (id, expires_at, until) = self.change(by, decide).await?;
        let (project, by) = (by.project.name.as_str(), &by.key_id);
        tracing::info!(project, by, api_key = id, replaces, "API key rotated");
        Ok(Rotated {
            issued: Issued {
                id,
                api_key,
                mk_epoch: *epoch,
                expires_at,
            },
            replaces: replaces.to_owned(),
            until,
        })
    }
}

/// Retires one API key and adds `fresh` in its place. The new one's id and end, and the end of the other.
fn succeed(
    entry: &mut ProjectEntry,
    replaces: &str,
    fresh: &ApiKeyEntry,
    now: u64,
    grace: u64,
) -> Result<(String, Option<u64>, u64), ProjectError> {
    let id = issue::fresh_id(&entry.api_keys);
    let until = now.saturating_add(grace);
    let before = rules::retire(entry, replaces, now, until, &id)?;
    let lifetime = before
        .expires_at
        .map(|end| end.saturating_sub(before.created_at));
    let expires_at = lifetime.map(|lifetime| now.saturating_add(lifetime));
    let successor = ApiKeyEntry {
        id: id.clone(),
        label: before.label,
        scopes: before.scopes,
        created_at: now,
        expires_at,
        ..fresh.clone()
    };
    rules::add(entry, successor)?;
    let until = before.expires_at.map_or(until, |end| end.min(until));
    Ok((id, expires_at, until))
}
