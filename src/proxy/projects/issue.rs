//! Another API key of a project, for the same master key.

use std::{ops::RangeInclusive, time::Duration};

use zeroize::Zeroizing;

use super::{Issued, Pass, ProjectError, Roster, rules};
use crate::{
    clock,
    crypto::{ApiKey, MasterKey},
    keys::Project,
    project::Scopes,
    proxy::gate::Master,
    store::{ApiKeyEntry, ApiKeyState, ProjectEntry},
};

/// Longest label, in bytes.
const MAX_LABEL_BYTES: usize = 128;

/// How long an API key may be good for, if not for ever: up to ten years.
const LIFETIMES: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3650 * 24 * 60 * 60);

/// An API key that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What it may be used for. At least one.
    pub scopes: Scopes,
    /// What it is for, for people: at most 128 bytes, without control characters.
    pub label: String,
    /// How long it is good for, from a second to ten years; for ever if left out.
    pub lifetime: Option<Duration>,
}

impl Wanted {
    fn check(&self) -> Result<(), ProjectError> {
        let wrong = |why: &str| Err(ProjectError::Invalid(why.to_owned()));
        if self.scopes.is_empty() {
            return wrong("scopes: at least one of append, read, manage");
        }
        if self.label.len() > MAX_LABEL_BYTES || !self.label.chars().all(is_visible) {
            return wrong("label: at most 128 bytes of text, on one line");
        }
        match &self.lifetime {
            Some(lifetime) if !LIFETIMES.contains(lifetime) => {
                wrong("expires_in: from 1s to 3650days")
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Whether a character shows as itself where it stands: no control character, no other space than the one,
/// and none that turns the direction of what follows.
fn is_visible(character: char) -> bool {
    let turns = matches!(character,
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !character.is_control() && !turns && (character == ' ' || !character.is_whitespace())
}

impl Roster {
    /// Makes another API key for the project of `by`.
    ///
    /// # Errors
    /// [`ProjectError`]; nothing has changed then.
    pub(super) async fn issue(&self, by: &Pass, wanted: &Wanted) -> Result<Issued, ProjectError> {
        wanted.check()?;
        let Master { key, epoch } = by.master()?;
        let (row, api_key) = row(&by.project, *epoch, key, wanted.scopes.clone(), 0)?;
        let decide = |entry: &mut ProjectEntry, now: u64| {
            if entry.newest_mk_epoch() != *epoch {
                return Err(ProjectError::Changing);
            }
            let lifetime = wanted.lifetime.map(clock::in_ms);
            let row = ApiKeyEntry {
                id: fresh_id(&entry.api_keys),
                label: wanted.label.clone(),
                created_at: now,
                expires_at: lifetime.map(|lifetime| now.saturating_add(lifetime)),
                ..row.clone()
            };
            let made = (row.id.clone(), row.expires_at);
            rules::add(entry, row)?;
            Ok(made)
        };
        let (id, expires_at) = self.change(by, decide).await?;
        let (project, by) = (by.project.name.as_str(), &by.key_id);
        tracing::info!(project, by, api_key = id, "API key issued");
        Ok(Issued {
            id,
            api_key,
            mk_epoch: *epoch,
            expires_at,
        })
    }
}

/// A fresh API key with these scopes, and its row, which has no id yet.
pub(super) fn row(
    project: &Project,
    mk_epoch: u32,
    master: &MasterKey,
    scopes: Scopes,
    now: u64,
) -> Result<(ApiKeyEntry, Zeroizing<String>), ProjectError> {
    let name = project.name.as_str();
    let (key, credentials) = ApiKey::issue(project.pepper(), name, mk_epoch, master)?;
    let row = ApiKeyEntry {
        id: String::new(),
        label: String::new(),
        lookup: credentials.lookup,
        verify: credentials.verify,
        mk_epoch,
        scopes,
        created_at: now,
        expires_at: None,
        state: ApiKeyState::Active,
    };
    Ok((row, key.to_text()))
}

/// What an API key is called: 48 random bits, and none of these.
pub(super) fn fresh_id(taken: &[ApiKeyEntry]) -> String {
    loop {
        let random: [u8; 6] = rand::random();
        let digits = random.iter().map(|byte| format!("{byte:02x}"));
        let id = format!("key-{}", digits.collect::<String>());
        if taken.iter().all(|key| key.id != id) {
            return id;
        }
    }
}
