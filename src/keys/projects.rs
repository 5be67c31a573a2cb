//! The `[[projects]]` of the configuration: which streams are whose, the pepper that API keys are checked
//! with, and the token that goes upstream in their place.

use std::sync::Arc;

use globset::GlobMatcher;
use http::HeaderValue;
use serde::{Deserialize, Serialize};

use super::{reach::Reach, stream_glob};
use crate::{
    crypto::{Key, Pepper},
    file::{self, OptionalFile},
    project::ProjectName,
    stream::{BasinName, StreamPath},
};

/// Most projects of one proxy. An API key that is none takes a few microseconds for each.
const MAX_PROJECTS: usize = 256;

/// One `[[projects]]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectRule {
    /// The project's name. It goes into every key that is derived for the project: never change it.
    pub name: ProjectName,
    /// Globs over `basin/stream`. A stream belongs to the first project that matches it.
    pub r#match: Vec<String>,
    /// The file with the access token that goes upstream in place of the client's API key; left out, it is
    /// `upstream.access_token_file`'s.
    #[serde(default, skip_serializing_if = "not_set")]
    pub access_token_file: OptionalFile,
    /// The file with the pepper: 32 random bytes in base64. Without it no API key of the project is known
    /// any more.
    pub pepper_file: OptionalFile,
}

/// A project, ready for use.
#[derive(Debug)]
pub struct Project {
    /// Its name.
    pub name: ProjectName,
    globs: Vec<GlobMatcher>,
    /// Which basins each glob reaches into.
    reaches: Vec<Reach>,
    pepper: Pepper,
    access_token: Option<HeaderValue>,
}

impl Project {
    /// The pepper that its API keys are checked with.
    pub fn pepper(&self) -> &Pepper {
        &self.pepper
    }

    /// What goes upstream as `authorization`, if the project has a token of its own.
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.access_token.as_ref()
    }

    /// Whether one of its globs matches. Another project before it may, too: see [`Projects::owner`].
    pub fn matches(&self, path: &StreamPath) -> bool {
        let name = path.to_string();
        self.globs.iter().any(|glob| glob.is_match(&name))
    }

    /// Whether every stream of this basin matches, whatever its name.
    fn covers(&self, basin: &BasinName) -> bool {
        self.reaches.iter().any(|reach| reach.covers(basin))
    }

    /// Its globs, as they are written.
    pub fn globs(&self) -> impl Iterator<Item = &str> {
        self.globs.iter().map(|glob| glob.glob().glob())
    }

    fn read(rule: &ProjectRule) -> Result<Self, Vec<String>> {
        let mut mistakes = Vec::new();
        if rule.r#match.is_empty() {
            mistakes.push("match: needs at least one glob".to_owned());
        }
        let mut globs = Vec::new();
        for text in &rule.r#match {
            match stream_glob(text) {
                Ok(glob) => globs.push(glob),
                Err(mistake) => mistakes.push(format!("match: {mistake}")),
            }
        }
        let pepper = pepper(&rule.pepper_file).map_err(|mistake| mistakes.push(mistake));
        let token = access_token(&rule.access_token_file).map_err(|mistake| mistakes.push(mistake));
        match (pepper, token) {
            (Ok(pepper), Ok(access_token)) if mistakes.is_empty() => Ok(Self {
                name: rule.name.clone(),
                reaches: globs
                    .iter()
                    .map(|glob| Reach::of(glob.glob().glob()))
                    .collect(),
                globs,
                pepper,
                access_token,
            }),
            _ => Err(mistakes),
        }
    }
}

/// All projects, in order. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Projects(Arc<[Arc<Project>]>);

impl Projects {
    /// Reads the peppers and tokens of the projects.
    ///
    /// # Errors
    /// Every mistake, each with the place of its project; never the content of a file.
    pub fn compile(rules: &[ProjectRule]) -> Result<Self, Vec<String>> {
        let mut projects = Vec::new();
        let mut mistakes = Vec::new();
        if rules.len() > MAX_PROJECTS {
            mistakes.push(format!("projects: more than {MAX_PROJECTS}"));
        }
        for (at, rule) in rules.iter().enumerate() {
            if rules.iter().take(at).any(|other| other.name == rule.name) {
                mistakes.push(format!("projects[{at}].name: the same name twice"));
            }
            match Project::read(rule) {
                Ok(project) => projects.push(Arc::new(project)),
                Err(wrong) => {
                    mistakes.extend(wrong.iter().map(|wrong| format!("projects[{at}].{wrong}")));
                }
            }
        }
        match mistakes.is_empty() {
            true => Ok(Self(projects.into())),
            false => Err(mistakes),
        }
    }

    /// The project that a stream belongs to: the first that matches.
    pub fn owner(&self, path: &StreamPath) -> Option<&Arc<Project>> {
        self.0.iter().find(|project| project.matches(path))
    }

    /// The project that a basin belongs to as a whole: one glob of it ends with `/**` and takes every stream of
    /// the basin, and no project before it could take any.
    pub fn owner_of(&self, basin: &BasinName) -> Option<&Arc<Project>> {
        let may_reach = |project: &&Arc<Project>| {
            let mut reaches = project.reaches.iter();
            reaches.any(|reach| reach.may_reach(basin))
        };
        let first = self.0.iter().find(may_reach)?;
        first.covers(basin).then_some(first)
    }

    /// Whether a project can own streams in a basin.
    pub fn reaches(&self, project: &ProjectName, basin: &BasinName) -> bool {
        for candidate in self.0.iter() {
            if candidate.name == *project {
                return candidate.reaches.iter().any(|reach| reach.reaches(basin));
            }
            if candidate.covers(basin) {
                return false;
            }
        }
        false
    }

    /// The project of this name.
    pub fn named(&self, name: &ProjectName) -> Option<&Arc<Project>> {
        self.0.iter().find(|project| project.name == *name)
    }

    /// Every project.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Project>> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn pepper(path: &OptionalFile) -> Result<Pepper, String> {
    const KEY: &str = "pepper_file";
    let path = path.path().ok_or_else(|| format!("{KEY}: is missing"))?;
    let text = file::read(KEY, path)?;
    let key = Key::from_base64(&text)
        .map_err(|error| format!("{KEY}: {}: {}", path.display(), file::no_key(&text, error)))?;
    Ok(Pepper::new(key))
}

fn access_token(path: &OptionalFile) -> Result<Option<HeaderValue>, String> {
    let path = path.path();
    path.map(|path| file::read_bearer("access_token_file", path))
        .transpose()
}

fn not_set(file: &OptionalFile) -> bool {
    !file.is_set()
}
