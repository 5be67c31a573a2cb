//! Projects: their names, and what an API key of one may be used for.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest name of a project, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// A text that cannot be the name of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a project name must be 1 to {MAX_NAME_BYTES} bytes long, without white space or control characters"
)]
pub struct BadName;

/// The name of a project. Its bytes go into every key that is derived for the project, so it cannot be
/// changed.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectName(Arc<str>);

impl ProjectName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProjectName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let is_good = |character: char| !character.is_whitespace() && !character.is_control();
        match (1..=MAX_NAME_BYTES).contains(&text.len()) && text.chars().all(is_good) {
            true => Ok(Self(text.into())),
            false => Err(BadName),
        }
    }
}

impl TryFrom<String> for ProjectName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<ProjectName> for String {
    fn from(name: ProjectName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// One thing that an API key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Append records.
    Append,
    /// Read records and what describes basins and streams.
    Read,
    /// Make, rotate and revoke keys; create, change and delete basins and streams; rotate data keys; shred.
    Manage,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::Append, Self::Read, Self::Manage];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Read => "read",
            Self::Manage => "manage",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = BadScope;

    fn from_str(text: &str) -> Result<Self, BadScope> {
        let mut all = Self::ALL.into_iter();
        all.find(|scope| scope.as_str() == text).ok_or(BadScope)
    }
}

/// A text that is no scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a scope is one of append, read, manage")]
pub struct BadScope;

/// What an API key may be used for. One scope does not include another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// Every scope.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Whether this one is among them.
    pub fn allow(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The scopes, in order.
    pub fn iter(&self) -> impl Iterator<Item = Scope> {
        self.0.iter().copied()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let mut scopes: Vec<_> = scopes.into_iter().collect();
        scopes.sort_unstable();
        scopes.dedup();
        Self(scopes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_visible() {
        for good in ["p", "project-a", "projekt-ü", "a/b", &"x".repeat(64)] {
            assert_eq!(good.parse::<ProjectName>().unwrap().as_str(), good);
        }
        for bad in ["", " ", "a b", "a\n", "\u{0}", "a\u{a0}", &"x".repeat(65)] {
            assert_eq!(bad.parse::<ProjectName>(), Err(BadName), "{bad:?}");
        }
    }

    #[test]
    fn one_scope_does_not_include_another() {
        let scopes: Scopes = [Scope::Manage, Scope::Append, Scope::Append]
            .into_iter()
            .collect();
        assert_eq!(
            scopes.iter().collect::<Vec<_>>(),
            [Scope::Append, Scope::Manage]
        );
        assert!(scopes.allow(Scope::Manage) && !scopes.allow(Scope::Read));
        assert_eq!(
            serde_json::to_string(&scopes).unwrap(),
            r#"["append","manage"]"#
        );
        assert_eq!("read".parse(), Ok(Scope::Read));
        assert_eq!("Read".parse::<Scope>(), Err(BadScope));
    }
}
