//! The `[admin]` section: where health, metrics, the admin API and the status page are.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::file::{self, OptionalFile};

const TOKEN_KEY: &str = "admin.token_file";

/// Shortest token: what 96 random bits take in base64. A shorter one could be guessed over the network.
const MIN_TOKEN_BYTES: usize = 16;
/// Longest token: half of what a header of the listener may take in all.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Where health, metrics, the admin API and the status page are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// IP address and port of the admin listener; empty turns it off. It speaks plain HTTP, which
    /// orchestrators' probes want.
    pub address: OptionalAddress,
    /// A file with the token that the admin API asks for, 16 bytes or more. Without one the API answers
    /// only on loopback.
    pub token_file: OptionalFile,
    /// Whether metrics may name streams.
    pub stream_metrics: bool,
}

/// An IP address and port. The empty string means "not set".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OptionalAddress(Option<SocketAddr>);

impl OptionalAddress {
    /// No address.
    pub const NONE: Self = Self(None);

    /// The address, or nothing when the key was left empty.
    pub fn address(self) -> Option<SocketAddr> {
        self.0
    }
}

impl From<SocketAddr> for OptionalAddress {
    fn from(address: SocketAddr) -> Self {
        Self(Some(address))
    }
}

impl From<OptionalAddress> for String {
    fn from(address: OptionalAddress) -> Self {
        address
            .0
            .map(|address| address.to_string())
            .unwrap_or_default()
    }
}

impl TryFrom<String> for OptionalAddress {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() {
            return Ok(Self::NONE);
        }
        let address = text.parse();
        address
            .map(|address| Self(Some(address)))
            .map_err(|_| "invalid address, expected an IP address and port, or an empty string")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090).into(),
            token_file: OptionalFile::default(),
            stream_metrics: false,
        }
    }
}

impl Config {
    /// What is wrong with the section, each with its key, including a token file that cannot be used.
    pub fn problems(&self) -> Vec<String> {
        self.token().err().into_iter().collect()
    }

    /// The token that the admin API asks for, when one is configured.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or does not hold one token; never quotes what it holds.
    pub(super) fn token(&self) -> Result<Option<Token>, String> {
        let Some(path) = self.token_file.path() else {
            return Ok(None);
        };
        let bytes = file::read(TOKEN_KEY, path)?;
        let token = bytes.trim_ascii();
        let has_length = (MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&token.len());
        if !has_length || !token.iter().all(u8::is_ascii_graphic) {
            return Err(format!(
                "{TOKEN_KEY}: {} does not hold one token of {MIN_TOKEN_BYTES} bytes or more, without spaces",
                path.display()
            ));
        }
        Ok(Some(Token(Zeroizing::new(token.to_vec()))))
    }
}

/// What the admin API asks for.
pub(super) struct Token(Zeroizing<Vec<u8>>);

impl Token {
    /// Whether a request carries it, as `Authorization: Bearer …`. How long that takes tells at most its
    /// length.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut sent = headers.get_all(http::header::AUTHORIZATION).iter();
        let (Some(value), None) = (sent.next(), sent.next()) else {
            return false;
        };
        let Some((scheme, token)) = value.as_bytes().split_at_checked(b"Bearer ".len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"Bearer ")
            && bool::from(self.0.as_slice().ct_eq(token.trim_ascii()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_token(text: &str) -> Config {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let (_, path) = file.keep().unwrap();
        Config {
            token_file: path.into(),
            ..Config::default()
        }
    }

    #[test]
    fn an_empty_address_is_none_and_a_wrong_one_a_mistake() {
        let parse = |text: &str| OptionalAddress::try_from(text.to_owned());
        assert_eq!(parse(""), Ok(OptionalAddress::NONE));
        let address: SocketAddr = "[::1]:9".parse().unwrap();
        assert_eq!(parse("[::1]:9"), Ok(address.into()));
        assert_eq!(String::from(parse("[::1]:9").unwrap()), "[::1]:9");
        for text in [" ", "9090", "localhost:9090", "127.0.0.1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tokens_that_could_be_guessed_or_not_be_sent_are_mistakes() {
        for text in [
            "",
            "short",
            "fifteen-bytes-x",
            "sixteen bytes or more",
            "ünïcode-ünïcode-ünïcode",
        ] {
            let config = with_token(text);
            let problems = config.problems();
            assert_eq!(problems.len(), 1, "{text}");
            assert!(
                problems[0].starts_with("admin.token_file: "),
                "{problems:?}"
            );
            assert!(
                text.is_empty() || !problems[0].contains(text),
                "{problems:?}"
            );
            std::fs::remove_file(config.token_file.path().unwrap()).unwrap();
        }
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let config = with_token("0123456789abcdef\n");
        let token = config.token().unwrap().unwrap();
        let is_in = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(http::header::AUTHORIZATION, value.parse().unwrap());
            }
            token.is_in(&headers)
        };
        assert!(is_in(&["Bearer 0123456789abcdef"]));
        assert!(is_in(&["bearer 0123456789abcdef"]));
        for values in [
            &[][..],
            &["0123456789abcdef"],
            &["Bearer 0123456789abcde"],
            &["Bearer 0123456789abcdefg"],
            &["Bearer 0123456789abcdeF"],
            &["Bearer "],
            &["Basic 0123456789abcdef"],
            &["Bearer 0123456789abcdef", "Bearer x"],
        ] {
            assert!(!is_in(values), "{values:?}");
        }
        std::fs::remove_file(config.token_file.path().unwrap()).unwrap();
    }
}
