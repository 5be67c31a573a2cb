//! The whole configuration: the sections that the components own, read from one file and the environment.

mod environment;

use std::{
    env,
    ffi::OsString,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format, Serialized, Toml},
    value::{Dict, Map, Value},
};
use serde::{Deserialize, Serialize};

use crate::{
    keys::{self, ClientRules, Clients, ProjectRule, Projects, kms},
    process,
    registry::rules::{BasinRule, KeySource, Rules, StreamRule},
    server::{self, Authenticate, admin},
    store,
    telemetry::{audit, traces},
    upstream,
};

/// The mistake of a gateway that does not say which of its clients may do what.
const CLIENTS_MISSING: &str = "clients: with listen.authenticate = \"mtls\" and upstream.access_token_file every \
     admitted client would act with our token on every stream. Give each client its rights:\n  \
     [[clients]]\n  subject = \"O=Example, CN=billing\"\n  match = [\"billing-*/**\"]\n  \
     scopes = [\"append\", \"read\"]\nor let every client use every stream, at the top of the file:\n  \
     clients = \"any\"";

/// The configuration of the process. Holds no secrets, only the paths of the files they are in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which streams client certificates may use, and for what.
    #[serde(skip_serializing_if = "ClientRules::is_empty")]
    pub clients: ClientRules,
    /// Where clients connect, and who may.
    pub listen: server::Config,
    /// Where health, metrics, the admin API and the status page are.
    pub admin: admin::Config,
    /// Where the upstream store is and how to talk to it.
    pub upstream: upstream::Config,
    /// Where the proxy keeps which stream has which cipher.
    pub store: store::Config,
    /// What is done about the keys that clients send.
    pub keys: keys::Config,
    /// Which service wraps data keys.
    pub kms: kms::Config,
    /// How much of the proxy clients may use.
    pub limits: server::Limits,
    /// Who used what.
    pub audit: audit::Config,
    /// Spans of requests, for a collector.
    pub traces: traces::Config,
    /// What the process keeps from its host.
    pub process: process::Config,
    /// Whose API keys may use which streams.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub projects: Vec<ProjectRule>,
    /// Ciphers of basins by name; the first match wins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub basins: Vec<BasinRule>,
    /// Ciphers and keys of streams by name; the first match wins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<StreamRule>,
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration cannot be parsed: {0}")]
    Syntax(Box<figment::Error>),
    /// Keys or values that do not exist or do not make sense: one sentence each, starting with the key.
    #[error("mistakes in the configuration: {}\n{}", .0.len(), .0.join("\n"))]
    Mistakes(Vec<String>),
    /// The configuration cannot be written out, for a path in it that is not UTF-8.
    #[error("the configuration cannot be shown: {0}")]
    Render(#[from] toml::ser::Error),
}

impl Config {
    /// Reads the configuration: defaults, then the file, then the environment. Checks only the shape;
    /// see [`Config::check`] for the sense.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or parsed, else every key, value and environment variable that does not exist.
    pub fn load(path: Option<&Path>) -> Result<Self, Error> {
        Self::load_from(path, env::vars_os())
    }

    fn load_from(
        path: Option<&Path>,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Error> {
        let mut written = Figment::new();
        if let Some(path) = path {
            // The provider takes a missing file for an empty one.
            File::open(path).map_err(|source| Error::Unreadable {
                path: path.to_owned(),
                source,
            })?;
            written = written.merge(Toml::file_exact(path));
        }
        let (leaves, mut wrong) = match environment::leaves(variables) {
            Ok(leaves) => (leaves, Vec::new()),
            Err(wrong) => (Vec::new(), wrong),
        };
        let written = leaves.into_iter().fold(written, Figment::merge);
        let values = written
            .data()
            .map_err(|error| Error::Syntax(error.into()))?;
        let config = defaults().merge(written.clone()).extract();
        if let Err(error) = &config {
            wrong.extend(mistakes(&written, values));
            if wrong.is_empty() {
                wrong.push(error.to_string());
            }
        }
        match config {
            Ok(config) if wrong.is_empty() => Ok(config),
            _ => Err(Error::Mistakes(wrong)),
        }
    }

    /// Everything about the configuration that makes no sense, each with its key, including every file
    /// it names that cannot be used. Opens no connection and changes nothing.
    pub fn check(&self) -> Vec<String> {
        let mut problems = server::problems(&self.listen);
        problems.extend(self.limits.problems());
        problems.extend(self.admin.problems());
        problems.extend(self.store.problems());
        problems.extend(self.kms.problems());
        problems.extend(self.without_kms());
        problems.extend(self.audit.problems());
        problems.extend(self.traces.problems());
        problems.extend(upstream::problems(&self.upstream));
        let has_own_token = self.upstream.access_token_file.is_set();
        if has_own_token && self.listen.authenticate == Authenticate::Upstream {
            problems.push(
                "upstream.access_token_file: with listen.authenticate = \"upstream\" every caller would \
                 act with our token"
                    .to_owned(),
            );
        }
        let takes_api_keys = self.listen.authenticate == Authenticate::ApiKey;
        match self.projects.is_empty() {
            true if takes_api_keys => problems.push(
                "listen.authenticate: \"api-key\" needs at least one of [[projects]]".to_owned(),
            ),
            false if !takes_api_keys => problems.push(
                "projects: need listen.authenticate = \"api-key\", or nobody checks their API keys"
                    .to_owned(),
            ),
            true | false => {}
        }
        problems.extend(self.rights_of_clients());
        if let Err(mistakes) = self.rules() {
            problems.extend(mistakes);
        }
        if let Err(mistakes) = self.clients() {
            problems.extend(mistakes);
        }
        problems
    }

    /// A certificate gives rights only where one is asked for. With a token of ours every client would act as we
    /// do: the operator has to say which may.
    fn rights_of_clients(&self) -> Option<String> {
        let asks_certificates = self.listen.authenticate == Authenticate::Mtls;
        let has_own_token = self.upstream.access_token_file.is_set();
        match self.clients.is_empty() {
            true if asks_certificates && has_own_token => Some(CLIENTS_MISSING.to_owned()),
            false if !asks_certificates => Some(
                "clients: need listen.authenticate = \"mtls\", or no certificate proves who a client is"
                    .to_owned(),
            ),
            true | false => None,
        }
    }

    /// Rules that need a key management service where there is none.
    fn without_kms(&self) -> Vec<String> {
        let needs = |rule: &StreamRule| {
            rule.key == KeySource::Kms && self.kms.provider == kms::ProviderName::None
        };
        let rules = self.streams.iter().enumerate();
        rules
            .filter(|(_, rule)| needs(rule))
            .map(|(at, _)| format!("streams[{at}].key: \"kms\" needs kms.provider"))
            .collect()
    }

    /// The rules for basins and streams and the projects, with the files that they name read.
    ///
    /// # Errors
    ///
    /// Every mistake, each with its place; never the content of a file.
    pub fn rules(&self) -> Result<Rules, Vec<String>> {
        let projects = Projects::compile(&self.projects);
        let rules = Rules::compile(&self.basins, &self.streams);
        let rules = rules.map(|rules| rules.with_plain_streams(self.store.plain_streams));
        match (rules, projects) {
            (Ok(rules), Ok(projects)) => rules.with_projects(projects),
            (rules, projects) => {
                let mistakes = [rules.err(), projects.err()];
                Err(mistakes.into_iter().flatten().flatten().collect())
            }
        }
    }

    /// The rights of client certificates.
    ///
    /// # Errors
    ///
    /// Every mistake, each with its place.
    pub fn clients(&self) -> Result<Clients, Vec<String>> {
        Clients::compile(&self.clients)
    }

    /// The configuration in effect, every key written out.
    ///
    /// # Errors
    ///
    /// When a path in it is not UTF-8.
    pub fn to_toml(&self) -> Result<String, Error> {
        Ok(toml::to_string(self)?)
    }
}

fn defaults() -> Figment {
    Figment::from(Serialized::defaults(Config::default()))
}

/// Every key and value of `written` that does not fit, found by trying each alone: reading all of them
/// stops at the first.
fn mistakes(written: &Figment, values: Map<Profile, Dict>) -> Vec<String> {
    let mut leaves = Vec::new();
    for value in values.into_values() {
        collect_leaves(&mut Vec::new(), &Value::from(value), &mut leaves);
    }
    let mut mistakes = Vec::new();
    for leaf in leaves {
        let source = leaf.source(written);
        let name = leaf.name.clone();
        if let Err(error) = defaults().merge(leaf).extract::<Config>() {
            mistakes.extend(
                error
                    .into_iter()
                    .map(|error| format!("{name}: {}{source}", without_value(error.kind))),
            );
        }
    }
    mistakes
}

/// What is wrong, without the value that is: somebody may have written a secret where its path belongs.
fn without_value(kind: figment::error::Kind) -> String {
    use figment::error::Kind;
    match kind {
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
            format!("expected {expected}")
        }
        Kind::UnknownVariant(_, expected) => format!("expected one of {}", expected.join(", ")),
        // serde's own words quote values only in these.
        Kind::Message(text) if text.contains("invalid ") || text.contains("unknown variant") => {
            let expected = text
                .rsplit_once("expected ")
                .map_or("another value", |(_, rest)| rest);
            format!("expected {expected}")
        }
        other => other.to_string(),
    }
}

/// One value of the configuration, as a provider of nothing else. The name is for people.
struct Leaf {
    path: Vec<String>,
    name: String,
    value: Value,
}

impl Leaf {
    fn source(&self, written: &Figment) -> String {
        match written.get_metadata(self.value.tag()) {
            Some(Metadata {
                source: Some(source),
                ..
            }) => format!(", in {source}"),
            Some(metadata) => format!(", in {}", metadata.name),
            None => String::new(),
        }
    }
}

impl Provider for Leaf {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nest = |inner, key: &String| Value::from(Dict::from([(key.clone(), inner)]));
        let nested = self.path.iter().rev().fold(self.value.clone(), nest);
        let root = nested.into_dict().unwrap_or_default();
        Ok(Map::from([(Profile::Default, root)]))
    }
}

fn collect_leaves(path: &mut Vec<String>, value: &Value, leaves: &mut Vec<Leaf>) {
    let leaf = |name, value| Leaf {
        path: path.clone(),
        name,
        value,
    };
    match value {
        Value::Dict(_, entries) => {
            for (key, value) in entries {
                path.push(key.clone());
                collect_leaves(path, value, leaves);
                path.pop();
            }
        }
        Value::Array(_, elements) => {
            let key = path.join(".");
            leaves.extend(elements.iter().enumerate().map(|(at, element)| {
                leaf(format!("{key}[{at}]"), Value::from(vec![element.clone()]))
            }));
        }
        other => leaves.push(leaf(path.join("."), other.clone())),
    }
}

#[cfg(test)]
mod tests;
