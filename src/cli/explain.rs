//! `streamseal check-config --explain basin/stream`: what decides how the records of a stream are treated.

use super::{Failure, print};
use crate::{
    config::Config,
    crypto::Cipher,
    registry::{
        decide::{Decision, decide},
        rules::{RuleCipher, Rules},
    },
    store::{BasinEntry, Embedded, PlainStreams, Store as _, StreamEntry, UnknownStreams},
    stream::StreamPath,
};

/// What decides, each as far as it is known.
struct Facts<'a> {
    config: &'a Config,
    rules: Rules,
    path: &'a StreamPath,
    /// What the config store records; `None` when it cannot be asked.
    recorded: Option<(Option<StreamEntry>, Option<BasinEntry>)>,
}

/// Prints what decides, one fact per line, and what comes of it.
///
/// # Errors
/// The config store fails.
pub(super) async fn run(
    config: &Config,
    store: Option<&Embedded>,
    path: &StreamPath,
) -> Result<(), Failure> {
    let failed = |error: crate::store::Error| Failure::Other(error.to_string());
    let recorded = match store {
        Some(store) => {
            let stream = store.stream(path).await.map_err(failed)?.entry;
            let basin = store.basin(&path.basin).await.map_err(failed)?.entry;
            Some((stream.as_deref().cloned(), basin.as_deref().cloned()))
        }
        None => None,
    };
    let rules = config
        .rules()
        .map_err(|mistakes| Failure::Config(mistakes.join("\n")))?;
    let facts = Facts {
        config,
        rules,
        path,
        recorded,
    };
    print(&facts.lines()?)
}

impl Facts<'_> {
    fn lines(&self) -> Result<String, Failure> {
        let lines = [
            format!("stream: {}", self.path),
            format!("rule for the stream: {}", self.stream_rule()),
            format!("config store, stream: {}", self.entry()?),
            format!("rule for the basin: {}", self.basin_rule()),
            format!("config store, basin: {}", self.basin_entry()?),
            format!("outcome: {}", self.outcome()),
        ];
        Ok(lines.join("\n") + "\n")
    }

    fn stream_rule(&self) -> String {
        let Some(at) = self.rules.stream_at(self.path) else {
            return "none of [[streams]] matches".to_owned();
        };
        let rule = self.config.streams.get(at);
        rule.map_or_else(String::new, |rule| {
            let key = serde_json::to_value(rule.key).unwrap_or_default();
            let key = match rule.cipher {
                RuleCipher::None => String::new(),
                RuleCipher::Aegis256 | RuleCipher::Aes256Gcm => format!(", key = {key}"),
            };
            format!(
                "streams[{at}], match = \"{}\", cipher = \"{}\"{key}",
                rule.r#match,
                name(rule.cipher.cipher())
            )
        })
    }

    fn basin_rule(&self) -> String {
        let Some(at) = self.rules.basin_at(&self.path.basin) else {
            return "none of [[basins]] matches".to_owned();
        };
        let rule = self.config.basins.get(at);
        rule.map_or_else(String::new, |rule| {
            let cipher = name(rule.stream_cipher.cipher());
            format!(
                "basins[{at}], match = \"{}\", stream_cipher = \"{cipher}\"",
                rule.r#match
            )
        })
    }

    fn entry(&self) -> Result<String, Failure> {
        self.shown(self.recorded.as_ref().map(|(stream, _)| stream))
    }

    fn basin_entry(&self) -> Result<String, Failure> {
        self.shown(self.recorded.as_ref().map(|(_, basin)| basin))
    }

    /// An entry as exports have it: no secret is in it.
    fn shown(&self, entry: Option<&Option<impl serde::Serialize>>) -> Result<String, Failure> {
        match entry {
            None => Ok("not asked".to_owned()),
            Some(None) => Ok("nothing is recorded".to_owned()),
            Some(Some(entry)) => {
                serde_json::to_string(entry).map_err(|error| Failure::Other(error.to_string()))
            }
        }
    }

    /// What comes of it, by the decision that the proxy itself makes.
    fn outcome(&self) -> String {
        let (entry, basin) = self.recorded.clone().unwrap_or_default();
        let declared = self.rules.stream(self.path).map(|rule| rule.cipher);
        let of_basin = self.rules.basin(&self.path.basin);
        let of_basin = of_basin.unwrap_or_else(|| basin.and_then(|basin| basin.stream_cipher));
        let decision = decide(declared, entry.as_ref(), declared.unwrap_or(of_basin));
        match (decision, declared) {
            (Decision::Conflict { recorded, declared }, _) => format!(
                "refused: the rule for the stream says {}, and it is recorded with {}",
                name(declared),
                name(recorded)
            ),
            (_, Some(Some(cipher))) => {
                format!("sealed with {cipher}: the rule for the stream says so")
            }
            (_, Some(None)) => "plain: the rule for the stream says \"none\"".to_owned(),
            (Decision::Sealed(cipher), None) => format!("sealed with {cipher}: it is recorded so"),
            (Decision::Plain(_), None) => self.by_basin(entry.is_some(), of_basin),
            (Decision::FirstUse(_), None) if entry.is_none() => self.by_basin(false, of_basin),
            (Decision::FirstUse(_) | Decision::Ask, None) => {
                "settled at the next use: a creation or deletion of it has no known outcome"
                    .to_owned()
            }
        }
    }

    /// What comes of it where neither a rule for the stream nor its entry seals it.
    fn by_basin(&self, is_recorded_plain: bool, basin: Option<Cipher>) -> String {
        let is_known = match self.recorded {
            Some(_) => "",
            None => ", unless the config store says otherwise",
        };
        match basin {
            Some(cipher) if !is_recorded_plain => {
                let unknown = match self.config.store.unknown_streams {
                    UnknownStreams::Refuse => "refused",
                    UnknownStreams::Plain => "plain, by store.unknown_streams",
                };
                format!(
                    "sealed with {cipher} if it is made through the proxy: its basin says so; {unknown} if it was made \
                     around it{is_known}"
                )
            }
            _ if self.rules.plain_streams() == PlainStreams::Refuse => format!(
                "refused: nothing seals it, and store.plain_streams is \"refuse\"{is_known}"
            ),
            _ if is_recorded_plain => format!("plain: it is recorded so{is_known}"),
            _ => format!("plain: nothing seals it{is_known}"),
        }
    }
}

fn name(cipher: Option<Cipher>) -> String {
    cipher.map_or_else(|| "none".to_owned(), |cipher| cipher.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Incarnation, Origin, StreamState};

    #[test]
    fn a_rule_seals_a_stream_that_is_recorded_plain() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let rule = "[[streams]]\nmatch = \"orders-*/**\"\ncipher = \"aegis-256\"\n";
        std::fs::write(file.path(), rule).unwrap();
        let config = Config::load(Some(file.path())).unwrap();
        let path = StreamPath {
            basin: "orders-basin".parse().unwrap(),
            stream: "seen".parse().unwrap(),
        };
        let life = Incarnation {
            cipher: None,
            created_at: None,
        };
        let plain = StreamEntry::new(StreamState::Live(life), Origin::Seen);
        let facts = Facts {
            rules: config.rules().unwrap(),
            config: &config,
            path: &path,
            recorded: Some((Some(plain), None)),
        };
        assert_eq!(
            facts.outcome(),
            "sealed with aegis-256: the rule for the stream says so"
        );
    }
}
