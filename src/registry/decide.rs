//! How the records of a stream are treated, as a pure function of rule, entry and basin.

use super::stream::PlainBy;
use crate::{
    crypto::Cipher,
    store::{StreamEntry, StreamState},
};

/// How the records of a stream are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// They may go up in clear.
    Plain(PlainBy),
    /// They are sealed with this cipher.
    Sealed(Cipher),
    /// They are sealed with this cipher, and nothing that exists upstream is known to be the stream: its
    /// first append must create it, or find it empty.
    FirstUse(Cipher),
    /// A deletion of the stream has no outcome yet.
    Ask,
    /// The rule and the entry contradict each other.
    Conflict {
        /// The cipher in the entry.
        recorded: Option<Cipher>,
        /// The cipher in the rule.
        declared: Option<Cipher>,
    },
}

/// Decides how records are treated. `rule` is what a `[[streams]]` rule declares: `Some(None)` is plain. `planned` is
/// the cipher that the stream gets if it is created now, by the rule or by its basin.
///
/// The first that speaks wins: rule, entry, basin. No argument comes from the upstream.
pub fn decide(
    rule: Option<Option<Cipher>>,
    entry: Option<&StreamEntry>,
    planned: Option<Cipher>,
) -> Decision {
    let recorded = entry.map(|entry| entry.state.cipher());
    match (rule, recorded) {
        (Some(declared), Some(Some(cipher))) if declared != Some(cipher) => {
            let recorded = Some(cipher);
            return Decision::Conflict { recorded, declared };
        }
        (Some(None), _) => return Decision::Plain(PlainBy::Rule),
        // Also a stream that was plain: from now on its records are sealed.
        (Some(Some(cipher)), None | Some(None)) => return Decision::Sealed(cipher),
        (Some(Some(_)) | None, _) => {}
    }
    match (entry.map(|entry| &entry.state), planned) {
        (None, None) => Decision::Plain(PlainBy::Basin),
        (None, Some(cipher)) => Decision::FirstUse(cipher),
        (Some(StreamState::Live(life)), _) => match life.cipher {
            None => Decision::Plain(PlainBy::Entry),
            Some(cipher) => Decision::Sealed(cipher),
        },
        // With another cipher than it would get now, it takes a look whether it was created.
        (
            Some(StreamState::Creating {
                cipher: Some(cipher),
                ..
            }),
            planned,
        ) if planned.is_none_or(|planned| planned == *cipher) => Decision::FirstUse(*cipher),
        (Some(StreamState::Creating { .. } | StreamState::Deleting(_)), _) => Decision::Ask,
    }
}
