//! Whether new rules seal less than those that were in force last, and do not say so.
//!
//! A rule that sealed is answered for when the new rules say `none` for its very glob, or when no stream that it
//! can match loses its rule, and not all of them are plain by the new ones. So a narrower `none` in front of it is
//! the operator's word for those names, and one that covers it is not.

use globset::GlobMatcher;

use super::Rules;
use crate::{
    crypto::Cipher,
    keys::{Language, Over, Unclear, find, glob, may_meet},
    store::{PlainStreams, RuleKind, RulesEntry, SealingRule},
};

/// What a list of rules says of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Sealed,
    Plain,
    Nothing,
}

impl Rules {
    /// What these rules seal, to be remembered while they are in force. A rule that can seal nothing, for others
    /// before it, is not among it.
    pub fn in_force(&self) -> RulesEntry {
        let sealing = |(kind, glob, cipher): (RuleKind, &GlobMatcher, Option<Cipher>)| {
            Some(SealingRule {
                kind,
                r#match: glob.glob().glob().to_owned(),
                cipher: cipher?,
            })
        };
        let rules = self.declared().filter_map(sealing);
        RulesEntry {
            sealing: rules.filter(|rule| self.loses(rule).is_none()).collect(),
            refuses_plain: self.plain_streams == Some(PlainStreams::Refuse),
        }
    }

    /// What was sealed or refused by `last` and is not by these rules, without a word: a sentence for each, with
    /// the line that would say it.
    pub fn unsaid(&self, last: &RulesEntry) -> Vec<String> {
        let mut unsaid: Vec<_> = last
            .sealing
            .iter()
            .filter_map(|rule| self.loses(rule))
            .collect();
        let allows = self.plain_streams.is_none() && self.plain_streams() == PlainStreams::Allow;
        if last.refuses_plain && allows {
            unsaid.push(
                "store.plain_streams was \"refuse\" and is gone; to let streams without a rule be plain, write \
                 plain_streams = \"allow\" in [store]"
                    .to_owned(),
            );
        }
        unsaid
    }

    /// What is wrong when these rules take the place of a rule that sealed.
    fn loses(&self, rule: &SealingRule) -> Option<String> {
        let mut same = self.declared().filter(|(kind, glob, _)| {
            (*kind, glob.glob().glob()) == (rule.kind, rule.r#match.as_str())
        });
        let (list, key) = match rule.kind {
            RuleKind::Basin => ("basins", "stream_cipher"),
            RuleKind::Stream => ("streams", "cipher"),
        };
        let glob = &rule.r#match;
        let table = format!(
            "[[{list}]]\nmatch = \"{}\"\n{key} = \"none\"",
            glob.escape_default()
        );
        match same.next() {
            Some((.., None)) => None,
            Some((.., Some(_))) if !self.has_plain(rule.kind) => None,
            Some((.., Some(_))) => match self.find(rule, |says| says != Says::Plain) {
                // Where it cannot be told, the rule is there after all.
                Ok(Some(_)) | Err(Unclear) => None,
                Ok(None) => Some(format!(
                    "[[{list}]] match = \"{glob}\" sealed, and rules with \"none\" before it now take every stream that it \
                     matches; put it before them, or say in it\n{key} = \"none\""
                )),
            },
            None => match self.find(rule, |says| says == Says::Nothing) {
                Ok(None) if self.find(rule, |says| says == Says::Sealed) != Ok(None) => None,
                found => Some(format!(
                    "[[{list}]] match = \"{glob}\" sealed with {}, and is gone{}; bring it back, or say once\n{table}",
                    rule.cipher,
                    example(found)
                )),
            },
        }
    }

    /// A stream that the rule matches and of which the lists say what is wanted.
    fn find(
        &self,
        rule: &SealingRule,
        wanted: impl Fn(Says) -> bool,
    ) -> Result<Option<String>, Unclear> {
        let glob = glob(&rule.r#match).map_err(|_| Unclear)?;
        let of = |kind| match kind {
            RuleKind::Basin => Over::Basin,
            RuleKind::Stream => Over::Stream,
        };
        let within = Language::new(&glob, of(rule.kind))?;
        let (ciphers, languages): (Vec<_>, Vec<_>) = self
            .asked_with(rule.kind)
            .filter(|(_, other, _)| may_meet(&glob, other))
            .map(|(kind, glob, cipher)| (cipher, Language::new(glob, of(kind))))
            .unzip();
        let languages = languages.into_iter().collect::<Result<Vec<_>, _>>()?;
        find(&within, &languages, |matches| {
            let mut said = matches.iter().zip(&ciphers);
            wanted(match said.find(|(is_match, _)| **is_match) {
                Some((_, Some(_))) => Says::Sealed,
                Some((_, None)) => Says::Plain,
                None => Says::Nothing,
            })
        })
    }

    /// The rules that may take something from one of this kind: a rule for streams does its work whatever their
    /// basins are.
    fn asked_with(
        &self,
        kind: RuleKind,
    ) -> impl Iterator<Item = (RuleKind, &GlobMatcher, Option<Cipher>)> {
        let asked = move |other| kind == RuleKind::Basin || other == RuleKind::Stream;
        self.declared().filter(move |(other, ..)| asked(*other))
    }

    fn has_plain(&self, kind: RuleKind) -> bool {
        self.asked_with(kind).any(|(.., cipher)| cipher.is_none())
    }

    /// Every rule, in the order in which a stream asks them.
    fn declared(&self) -> impl Iterator<Item = (RuleKind, &GlobMatcher, Option<Cipher>)> {
        let streams = self.streams.iter();
        let streams = streams.map(|(glob, rule)| (RuleKind::Stream, glob, rule.cipher));
        let basins = self.basins.iter();
        streams.chain(basins.map(|(glob, cipher)| (RuleKind::Basin, glob, *cipher)))
    }
}

fn example(found: Result<Option<String>, Unclear>) -> String {
    match found {
        Ok(Some(path)) => format!(" (say for {path:?})"),
        Ok(None) | Err(Unclear) => String::new(),
    }
}

#[cfg(test)]
mod tests;
