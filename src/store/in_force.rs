//! The sealing rules that were in force last, so that a later configuration does not seal less by accident.

use serde::{Deserialize, Serialize};

use crate::crypto::Cipher;

/// What the configuration in force sealed and refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesEntry {
    /// The rules that seal, in their order.
    pub sealing: Vec<SealingRule>,
    /// Whether it said `store.plain_streams = "refuse"`.
    pub refuses_plain: bool,
}

/// A rule that seals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealingRule {
    /// In which list it is.
    pub kind: RuleKind,
    /// Its glob, as it is written.
    pub r#match: String,
    /// The cipher that it declares.
    pub cipher: Cipher,
}

impl SealingRule {
    /// Whether the other one is the same rule, whatever its cipher.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.kind, &self.r#match) == (other.kind, &other.r#match)
    }
}

/// A list of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleKind {
    /// `[[basins]]`
    Basin,
    /// `[[streams]]`
    Stream,
}
