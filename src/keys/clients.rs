//! The `[[clients]]` of the configuration: which streams a client certificate may use, and for what.
//!
//! A certificate has the rights of every rule that matches it, together. The scopes of a rule apply to the
//! globs of the same rule only. A certificate that no rule matches has no rights.

mod who;

use std::{fmt, sync::Arc};

use globset::GlobMatcher;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use self::who::Who;
use super::{reach::Reach, stream_glob};
use crate::{
    certificate::CertificateNames,
    project::{Scope, Scopes},
    stream::{BasinName, StreamPath},
};

/// Most rules. Each request compares its certificate with all of them.
const MAX_CLIENTS: usize = 1000;

/// Value of the key `clients` that gives every admitted certificate every right.
const ANY: &str = "any";

/// One `[[clients]]` table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientRule {
    /// The subject as logs show it, such as `O=Example, CN=billing`. `*` stands for any text within one value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// A subject alternative name: a URI such as a SPIFFE id, a DNS name, an e-mail address or an IP address.
    /// In a URI, `*` and `**` mean what they mean in `match`; in a DNS name, `*` stands for any text within
    /// one label.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub san: String,
    /// Globs over `basin/stream`.
    pub r#match: Vec<String>,
    /// What the client may do with the streams that match.
    pub scopes: Scopes,
}

/// The key `clients`: `[[clients]]` tables, or the word `"any"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientRules {
    /// Every admitted certificate may use every stream.
    Any,
    /// Every certificate has the rights of the rules that match it. Without a rule the key is not written.
    Rules(Vec<ClientRule>),
}

impl Default for ClientRules {
    fn default() -> Self {
        Self::Rules(Vec::new())
    }
}

impl ClientRules {
    /// Whether the key is not written.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Rules(rules) if rules.is_empty())
    }
}

impl Serialize for ClientRules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str(ANY),
            Self::Rules(rules) => rules.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ClientRules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ClientRulesVisitor)
    }
}

struct ClientRulesVisitor;

impl<'de> Visitor<'de> for ClientRulesVisitor {
    type Value = ClientRules;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[[clients]] tables or \"any\"")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ClientRules, E> {
        match text {
            ANY => Ok(ClientRules::Any),
            other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, rules: A) -> Result<ClientRules, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(rules)).map(ClientRules::Rules)
    }
}

/// The compiled rules. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Clients {
    /// Every certificate may use every stream.
    Any,
    /// Every certificate has the rights of the rules that match it.
    Rules(Arc<[Arc<ClientGrant>]>),
}

/// One compiled rule.
#[derive(Debug)]
pub struct ClientGrant {
    who: Who,
    globs: Vec<GlobMatcher>,
    /// The basins that each glob reaches into.
    reaches: Vec<Reach>,
    scopes: Scopes,
}

impl Clients {
    /// Compiles the rules. Without a rule every certificate may use every stream: the configuration check
    /// decides where that has to be written.
    ///
    /// # Errors
    /// Every mistake, each with the place of its rule.
    pub fn compile(rules: &ClientRules) -> Result<Self, Vec<String>> {
        let rules = match rules {
            ClientRules::Any => return Ok(Self::Any),
            ClientRules::Rules(rules) if rules.is_empty() => return Ok(Self::Any),
            ClientRules::Rules(rules) => rules,
        };
        let mut mistakes = Vec::new();
        if rules.len() > MAX_CLIENTS {
            mistakes.push(format!("clients: more than {MAX_CLIENTS}"));
        }
        let mut grants = Vec::new();
        for (at, rule) in rules.iter().enumerate() {
            match ClientGrant::compile(rule) {
                Ok(grant) => grants.push(Arc::new(grant)),
                Err(wrong) => {
                    mistakes.extend(wrong.iter().map(|wrong| format!("clients[{at}].{wrong}")));
                }
            }
        }
        match mistakes.is_empty() {
            true => Ok(Self::Rules(grants.into())),
            false => Err(mistakes),
        }
    }

    /// The rights of a certificate with these names.
    pub fn rights(&self, names: &CertificateNames) -> ClientRights {
        match self {
            Self::Any => ClientRights::Any,
            Self::Rules(grants) => {
                let grants = grants.iter().filter(|grant| grant.who.is(names));
                ClientRights::Granted(grants.cloned().collect())
            }
        }
    }
}

impl ClientGrant {
    fn compile(rule: &ClientRule) -> Result<Self, Vec<String>> {
        let mut mistakes = Vec::new();
        let who = Who::compile(&rule.subject, &rule.san).map_err(|wrong| mistakes.push(wrong));
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
        if rule.scopes.is_empty() {
            mistakes.push("scopes: needs at least one of append, read, manage".to_owned());
        }
        match who {
            Ok(who) if mistakes.is_empty() => Ok(Self {
                who,
                reaches: globs
                    .iter()
                    .map(|glob| Reach::of(glob.glob().glob()))
                    .collect(),
                globs,
                scopes: rule.scopes.clone(),
            }),
            _ => Err(mistakes),
        }
    }
}

/// The rights of one certificate.
#[derive(Debug, Clone)]
pub enum ClientRights {
    /// Every right on every stream.
    Any,
    /// The rules that match it; their rights add up.
    Granted(Vec<Arc<ClientGrant>>),
}

impl ClientRights {
    /// Whether the certificate has the scope on any stream at all.
    pub fn have(&self, scope: Scope) -> bool {
        self.some(scope, |_| true)
    }

    /// Whether the certificate has the scope on this stream.
    pub fn allow(&self, scope: Scope, path: &StreamPath) -> bool {
        if matches!(self, Self::Any) {
            return true;
        }
        let name = path.to_string();
        self.some(scope, |grant| {
            grant.globs.iter().any(|glob| glob.is_match(&name))
        })
    }

    /// Whether the certificate has the scope on every stream of this basin, whatever its name.
    pub fn cover(&self, scope: Scope, basin: &BasinName) -> bool {
        self.some(scope, |grant| {
            grant.reaches.iter().any(|reach| reach.covers(basin))
        })
    }

    /// Whether the certificate can have the scope on a stream of this basin.
    pub fn reach(&self, scope: Scope, basin: &BasinName) -> bool {
        self.some(scope, |grant| {
            grant.reaches.iter().any(|reach| reach.reaches(basin))
        })
    }

    fn some(&self, scope: Scope, matches: impl Fn(&ClientGrant) -> bool) -> bool {
        match self {
            Self::Any => true,
            Self::Granted(grants) => {
                let mut grants = grants.iter();
                grants.any(|grant| grant.scopes.allow(scope) && matches(grant))
            }
        }
    }
}

#[cfg(test)]
mod tests;
