//! The `[[basins]]` and `[[streams]]` rules of the configuration file, compiled for look-up.

mod less;
mod succession;

use std::str::FromStr;

use globset::GlobMatcher;
use serde::{Deserialize, Serialize};

pub use succession::{Refused, Succession};

use crate::{
    crypto::{Cipher, Key},
    file::OptionalFile,
    keys::{FileKey, Projects, basin_glob, may_reach, stream_glob},
    store::PlainStreams,
    stream::{BasinName, StreamPath},
};

/// One `[[basins]]` table: declares the cipher of new streams in the basins it matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasinRule {
    /// Glob over the basin name.
    pub r#match: String,
    /// Cipher of new streams, or `none`. Either way the API cannot change it.
    pub stream_cipher: RuleCipher,
}

/// One `[[streams]]` table: declares the cipher and the key source of the streams it matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamRule {
    /// Glob over `basin/stream`. `*` stays within one path segment, `**` crosses them.
    pub r#match: String,
    /// The cipher, or `none`.
    pub cipher: RuleCipher,
    /// Where the key comes from.
    #[serde(default)]
    pub key: KeySource,
    /// For `key = "file"`: the file that holds 32 bytes in base64.
    #[serde(default, skip_serializing_if = "not_set")]
    pub key_file: OptionalFile,
    /// For `key = "file"`: whether a client's own header wins over the file.
    #[serde(default)]
    pub header_overrides: bool,
}

/// A cipher as a rule writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuleCipher {
    /// AEGIS-256.
    #[serde(rename = "aegis-256")]
    Aegis256,
    /// AES-256-GCM.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// Plain.
    #[serde(rename = "none")]
    None,
}

impl FromStr for RuleCipher {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "aegis-256" => Ok(Self::Aegis256),
            "aes-256-gcm" => Ok(Self::Aes256Gcm),
            "none" => Ok(Self::None),
            _ => Err("a cipher is one of aegis-256, aes-256-gcm, none".to_owned()),
        }
    }
}

impl RuleCipher {
    /// The cipher; `None` for a plain stream.
    pub fn cipher(self) -> Option<Cipher> {
        match self {
            Self::Aegis256 => Some(Cipher::Aegis256),
            Self::Aes256Gcm => Some(Cipher::Aes256Gcm),
            Self::None => None,
        }
    }
}

/// Where a stream's key comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeySource {
    /// The client sends it with every request.
    #[default]
    Header,
    /// The proxy reads it from `key_file` at start.
    File,
    /// The proxy makes it, wrapped in the master key that API keys of the stream's project hold.
    Managed,
    /// The proxy makes it, wrapped by a key management service.
    Kms,
}

/// What a rule says of one stream.
#[derive(Debug)]
pub struct StreamPolicy {
    /// The declared cipher; `None` is declared plain.
    pub cipher: Option<Cipher>,
    source: Source,
    header_overrides: bool,
}

/// Where the key comes from, with the key that is at hand.
#[derive(Debug)]
enum Source {
    Header,
    File(FileKey),
    Managed,
    Kms,
}

impl StreamPolicy {
    /// Where the key comes from.
    pub fn key_source(&self) -> KeySource {
        match self.source {
            Source::Header => KeySource::Header,
            Source::File(_) => KeySource::File,
            Source::Managed => KeySource::Managed,
            Source::Kms => KeySource::Kms,
        }
    }

    /// Whether a client's own header wins over the operator's key.
    pub fn header_overrides(&self) -> bool {
        self.header_overrides
    }

    /// The operator's key for a request, unless a header that the client sent wins over it.
    pub fn key(&self, has_header: bool) -> Option<&Key> {
        let Source::File(file_key) = &self.source else {
            return None;
        };
        (!(has_header && self.header_overrides)).then(|| file_key.key())
    }
}

/// All rules. The first that matches wins.
#[derive(Debug, Default)]
pub struct Rules {
    basins: Vec<(GlobMatcher, Option<Cipher>)>,
    streams: Vec<(GlobMatcher, StreamPolicy)>,
    projects: Projects,
    plain_streams: Option<PlainStreams>,
}

impl Rules {
    /// Compiles the rules and reads their key files.
    ///
    /// # Errors
    /// Every mistake, each with the place of its rule; never the content of a key file.
    pub fn compile(basins: &[BasinRule], streams: &[StreamRule]) -> Result<Self, Vec<String>> {
        let mut rules = Self::default();
        let mut mistakes = Vec::new();
        for (at, rule) in basins.iter().enumerate() {
            match basin_glob(&rule.r#match) {
                Ok(glob) => rules.basins.push((glob, rule.stream_cipher.cipher())),
                Err(mistake) => mistakes.push(format!("basins[{at}].match: {mistake}")),
            }
            if basins.iter().take(at).any(|b| b.r#match == rule.r#match) {
                mistakes.push(format!("basins[{at}].match: the same glob twice"));
            }
        }
        for (at, rule) in streams.iter().enumerate() {
            match stream_glob(&rule.r#match) {
                Ok(glob) => match policy(rule) {
                    Ok(policy) => rules.streams.push((glob, policy)),
                    Err(mistake) => mistakes.push(format!("streams[{at}].{mistake}")),
                },
                Err(mistake) => mistakes.push(format!("streams[{at}].match: {mistake}")),
            }
            if streams.iter().take(at).any(|s| s.r#match == rule.r#match) {
                mistakes.push(format!("streams[{at}].match: the same glob twice"));
            }
        }
        if mistakes.is_empty() {
            Ok(rules)
        } else {
            Err(mistakes)
        }
    }

    /// The same with the projects that streams belong to.
    ///
    /// # Errors
    /// Rules that need projects where there are none.
    pub fn with_projects(self, projects: Projects) -> Result<Self, Vec<String>> {
        let is_managed =
            |(_, policy): &(_, StreamPolicy)| policy.key_source() == KeySource::Managed;
        let mut rules = self.streams.iter().enumerate();
        match rules.find(|(_, rule)| is_managed(rule)) {
            Some((at, _)) if projects.is_empty() => Err(vec![format!(
                "streams[{at}].key: \"managed\" needs one of [[projects]] and their API keys"
            )]),
            Some(_) | None => Ok(Self { projects, ..self }),
        }
    }

    /// The same with what `store.plain_streams` says.
    pub fn with_plain_streams(self, plain_streams: Option<PlainStreams>) -> Self {
        Self {
            plain_streams,
            ..self
        }
    }

    /// What is done with records of a stream that no rule calls plain. Where the configuration does not say, they
    /// are refused as soon as a rule supplies a key: clients that send none would notice nothing.
    pub fn plain_streams(&self) -> PlainStreams {
        let mut rules = self.streams.iter();
        let supplies_key = rules.any(|(_, rule)| rule.key_source() != KeySource::Header);
        self.plain_streams.unwrap_or(match supplies_key {
            true => PlainStreams::Refuse,
            false => PlainStreams::Allow,
        })
    }

    /// The projects that streams belong to.
    pub fn projects(&self) -> &Projects {
        &self.projects
    }

    /// What is declared for new streams of a basin: `None` without a rule, `Some(None)` is plain.
    pub fn basin(&self, name: &BasinName) -> Option<Option<Cipher>> {
        let rule = self.basins.get(self.basin_at(name)?);
        rule.map(|(_, cipher)| *cipher)
    }

    /// The place of the rule for new streams of a basin.
    pub fn basin_at(&self, name: &BasinName) -> Option<usize> {
        let mut rules = self.basins.iter();
        rules.position(|(glob, _)| glob.is_match(name.as_str()))
    }

    /// The rule for a stream, if there is one.
    pub fn stream(&self, path: &StreamPath) -> Option<&StreamPolicy> {
        let rule = self.streams.get(self.stream_at(path)?);
        rule.map(|(_, policy)| policy)
    }

    /// The place of the rule for a stream.
    pub fn stream_at(&self, path: &StreamPath) -> Option<usize> {
        if self.streams.is_empty() {
            return None;
        }
        let name = path.to_string();
        let mut rules = self.streams.iter();
        rules.position(|(glob, _)| glob.is_match(&name))
    }

    /// Returns true if a rule seals new streams of a basin, or has a cipher and may match a stream of it.
    pub fn may_seal(&self, basin: &BasinName) -> bool {
        let mut streams = self.streams.iter();
        matches!(self.basin(basin), Some(Some(_)))
            || streams.any(|(glob, policy)| {
                policy.cipher.is_some() && may_reach(glob.glob().glob(), basin)
            })
    }

    /// Whether any rule's key is the operator's, so that clients have to bring none.
    pub fn hands_out_keys(&self) -> bool {
        let mut rules = self.streams.iter();
        rules.any(|(_, rule)| matches!(rule.key_source(), KeySource::File | KeySource::Kms))
    }
}

fn policy(rule: &StreamRule) -> Result<StreamPolicy, String> {
    let cipher = rule.cipher.cipher();
    let source = match (rule.key, rule.key_file.path()) {
        (KeySource::Header, None) => Source::Header,
        (KeySource::Header | KeySource::Managed | KeySource::Kms, Some(_)) => {
            return Err("key_file: needs key = \"file\"".into());
        }
        (KeySource::File | KeySource::Managed | KeySource::Kms, _) if cipher.is_none() => {
            return Err("cipher: \"none\" takes no key".into());
        }
        (KeySource::File, None) => return Err("key: \"file\" needs key_file".into()),
        (KeySource::File, Some(path)) => {
            Source::File(FileKey::read(path).map_err(|error| format!("key_file: {error}"))?)
        }
        (KeySource::Managed, None) => Source::Managed,
        (KeySource::Kms, None) => Source::Kms,
    };
    if rule.header_overrides && rule.key != KeySource::File {
        return Err("header_overrides: needs key = \"file\"".into());
    }
    Ok(StreamPolicy {
        cipher,
        source,
        header_overrides: rule.header_overrides,
    })
}

fn not_set(file: &OptionalFile) -> bool {
    !file.is_set()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream_rule(glob: &str, cipher: RuleCipher) -> StreamRule {
        StreamRule {
            r#match: glob.into(),
            cipher,
            key: KeySource::Header,
            key_file: OptionalFile::default(),
            header_overrides: false,
        }
    }

    fn path(basin: &str, stream: &str) -> StreamPath {
        StreamPath {
            basin: basin.parse().unwrap(),
            stream: stream.parse().unwrap(),
        }
    }

    #[test]
    fn first_match_wins_and_globs_respect_segments() {
        let rules = Rules::compile(
            &[],
            &[
                stream_rule("audit-prod/app/*", RuleCipher::Aegis256),
                stream_rule("audit-*/**", RuleCipher::None),
            ],
        )
        .unwrap();
        let cipher = |basin, stream| rules.stream(&path(basin, stream)).map(|rule| rule.cipher);
        assert_eq!(cipher("audit-prod", "app/x"), Some(Some(Cipher::Aegis256)));
        assert_eq!(cipher("audit-prod", "app/x/y"), Some(None));
        assert_eq!(cipher("audit-test", "x"), Some(None));
        assert_eq!(cipher("other-basin", "x"), None);
    }

    #[test]
    fn plain_streams_are_refused_once_a_rule_supplies_a_key() {
        let rule = |key| StreamRule {
            key,
            ..stream_rule("audit-*/**", RuleCipher::Aegis256)
        };
        let default = |rules: &[StreamRule]| {
            let compiled = || Rules::compile(&[], rules).unwrap();
            for written in [PlainStreams::Allow, PlainStreams::Refuse] {
                let rules = compiled().with_plain_streams(Some(written));
                assert_eq!(rules.plain_streams(), written);
            }
            compiled().plain_streams()
        };
        assert_eq!(default(&[]), PlainStreams::Allow);
        assert_eq!(default(&[rule(KeySource::Header)]), PlainStreams::Allow);
        assert_eq!(default(&[rule(KeySource::Managed)]), PlainStreams::Refuse);
        assert_eq!(default(&[rule(KeySource::Kms)]), PlainStreams::Refuse);
        let dir = tempfile::tempdir().unwrap();
        let key_file = dir.path().join("key");
        std::fs::write(&key_file, "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=").unwrap();
        let file = StreamRule {
            key_file: key_file.into(),
            ..rule(KeySource::File)
        };
        assert_eq!(default(&[file]), PlainStreams::Refuse);
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let bad_key = dir.path().join("key");
        std::fs::write(&bad_key, "c2VjcmV0").unwrap();
        let with = |change: fn(&mut StreamRule)| {
            let mut rule = stream_rule("basin-a1/*", RuleCipher::Aegis256);
            change(&mut rule);
            rule
        };
        let mut unreadable = stream_rule("basin-b1/*", RuleCipher::Aegis256);
        unreadable.key = KeySource::File;
        unreadable.key_file = bad_key.into();
        let mistakes = Rules::compile(
            &["[", "pay[+-9]x", "prod"].map(|glob| BasinRule {
                r#match: glob.into(),
                stream_cipher: RuleCipher::None,
            }),
            &[
                with(|rule| rule.r#match = String::new()),
                with(|rule| rule.key = KeySource::File),
                with(|rule| rule.key_file = "/x".into()),
                with(|rule| rule.header_overrides = true),
                unreadable,
                with(|rule| rule.r#match = "audit[!0-9]x".into()),
                with(|rule| rule.r#match = "secret-*".into()),
            ],
        )
        .unwrap_err()
        .join("\n");
        for part in [
            "basins[0].match",
            "basins[1].match: `[+-9]` takes `/`",
            "streams[5].match: `[!0-9]` takes `/`",
            "streams[6].match: `secret-*` matches no stream",
            "basins[2].match: no basin can have a name like `prod`",
            "streams[0].match: empty glob",
            "streams[1].key: \"file\" needs key_file",
            "streams[2].key_file: needs key",
            "streams[3].header_overrides",
            "streams[4].key_file",
            "the same glob twice",
        ] {
            assert!(mistakes.contains(part), "{part} not in\n{mistakes}");
        }
        assert!(!mistakes.contains("c2VjcmV0"));
    }
}
