//! The `[kms]` section: which key management service wraps data keys, and how the proxy gets to it.

use std::{net::IpAddr, time::Duration};

use bytesize::ByteSize;
use http::{Uri, uri::Authority};
use serde::{Deserialize, Serialize};

use crate::file::{self, OptionalFile};

/// Longest time that an unwrapped key may be held. A key that was disabled in the service works here for as
/// long, so that a day is as much as anybody should want.
const MAX_CACHE_TTL: Duration = Duration::from_secs(24 * 3600);

/// Least room for unwrapped keys: with less, streams in use would push each other's keys out.
const MIN_CACHE_BYTES: ByteSize = ByteSize::mib(1);

/// Where data keys are wrapped and unwrapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The service; none by default.
    pub provider: ProviderName,
    /// How long an unwrapped data key is used without asking the service again.
    #[serde(with = "humantime_serde")]
    pub cache_ttl: Duration,
    /// Time without use after which an unwrapped data key is dropped. Zero: as long as `cache_ttl`.
    #[serde(with = "humantime_serde")]
    pub cache_idle: Duration,
    /// Most bytes that unwrapped data keys take, with their wrapped forms. The least recently used are dropped.
    #[serde(serialize_with = "crate::size::write")]
    pub cache_bytes: ByteSize,
    /// AWS Key Management Service.
    pub aws: AwsConfig,
    /// The transit engine of HashiCorp Vault or OpenBao.
    pub vault: VaultConfig,
}

/// A key management service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderName {
    /// None.
    #[default]
    #[serde(rename = "")]
    None,
    /// AWS Key Management Service.
    Aws,
    /// The transit engine of HashiCorp Vault or OpenBao.
    Vault,
}

/// AWS Key Management Service. Credentials come from where every AWS program takes them: environment,
/// shared files, web identity, container or instance role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AwsConfig {
    /// The symmetric key that wraps: its id, ARN or alias.
    pub key_id: String,
    /// Its region. Empty: the one in the key's ARN, or the AWS environment's.
    pub region: String,
    /// Another endpoint than the region's own, as a VPC endpoint has.
    pub endpoint_url: String,
}

/// The transit engine of HashiCorp Vault or OpenBao.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VaultConfig {
    /// `https://` URL of the server, without a path.
    pub address: String,
    /// Where the engine is mounted.
    pub mount: String,
    /// The key that wraps: of type `aes256-gcm96` or `chacha20-poly1305`, not derived.
    pub key: String,
    /// The file with the token. It is read for each call, so that whatever renews it needs to tell nobody.
    pub token_file: OptionalFile,
    /// PEM certificates to trust instead of the system's roots.
    pub ca_file: OptionalFile,
    /// The namespace, where there are any.
    pub namespace: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            provider: ProviderName::None,
            cache_ttl: Duration::from_secs(3600),
            cache_idle: Duration::ZERO,
            // About 25,000 keys of Vault.
            cache_bytes: ByteSize::mib(16),
            aws: AwsConfig::default(),
            vault: VaultConfig::default(),
        }
    }
}

impl Default for VaultConfig {
    fn default() -> Self {
        Self {
            address: String::new(),
            // Where `vault secrets enable transit` mounts it.
            mount: "transit".to_owned(),
            key: String::new(),
            token_file: OptionalFile::default(),
            ca_file: OptionalFile::default(),
            namespace: String::new(),
        }
    }
}

impl Config {
    /// What is wrong with the section, each with its key, including files of the chosen service that cannot
    /// be used. Opens no connection.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.cache_ttl.is_zero() || self.cache_ttl > MAX_CACHE_TTL {
            problems.push("kms.cache_ttl: must be more than zero and at most a day".to_owned());
        }
        if self.cache_idle > self.cache_ttl {
            let problem = "kms.cache_idle: must be at most kms.cache_ttl; zero is the same";
            problems.push(problem.to_owned());
        }
        if self.cache_bytes < MIN_CACHE_BYTES {
            problems.push("kms.cache_bytes: must be at least 1 MiB".to_owned());
        }
        match self.provider {
            ProviderName::None => {}
            ProviderName::Aws => self.aws.check(&mut problems),
            ProviderName::Vault => self.vault.check(&mut problems),
        }
        problems
    }
}

impl AwsConfig {
    fn check(&self, problems: &mut Vec<String>) {
        let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if self.key_id.is_empty() || !is_word(&self.key_id) {
            problems.push("kms.aws.key_id: must name the key that wraps".to_owned());
        }
        if !is_word(&self.region) {
            problems.push("kms.aws.region: is no region".to_owned());
        }
        if !self.endpoint_url.is_empty() {
            problems.extend(endpoint(&self.endpoint_url).map_or_else(
                |problem| Some(format!("kms.aws.endpoint_url: {problem}")),
                |_| None,
            ));
        }
    }

    /// The region that the configuration names, if it does: its own key's, or the one in the key's ARN.
    pub(super) fn region(&self) -> Option<&str> {
        let of_arn = || {
            let mut parts = self.key_id.split(':');
            let is_kms = parts.next() == Some("arn") && parts.nth(1) == Some("kms");
            parts.next().filter(|region| is_kms && !region.is_empty())
        };
        match self.region.as_str() {
            "" => of_arn(),
            region => Some(region),
        }
    }
}

impl VaultConfig {
    fn check(&self, problems: &mut Vec<String>) {
        if let Err(problem) = endpoint(&self.address) {
            problems.push(format!("kms.vault.address: {problem}"));
        }
        if self.mount.is_empty() || !self.mount.split('/').all(is_name) {
            problems.push("kms.vault.mount: is not the path of a mount".to_owned());
        }
        if !is_name(&self.key) {
            problems.push("kms.vault.key: must name the key that wraps".to_owned());
        }
        let visible = |byte: u8| byte.is_ascii_graphic();
        if !self.namespace.bytes().all(visible) {
            problems.push("kms.vault.namespace: is no namespace".to_owned());
        }
        const CA: &str = "kms.vault.ca_file";
        let ca = self.ca_file.path().map(|path| file::certificates(CA, path));
        problems.extend(ca.and_then(Result::err));
        match self.token_file.path() {
            None => problems.push("kms.vault.token_file: must name the file with the token".into()),
            Some(path) => problems.extend(super::vault::token(path).err()),
        }
    }
}

/// Whether the transit engine would take it for the name of a key: letters, digits, `_`, and within it `-`
/// and `.`. So it can go into a path as it is.
pub(super) fn is_name(name: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let bytes = name.as_bytes();
    bytes.first().is_some_and(is_word)
        && bytes.last().is_some_and(is_word)
        && bytes
            .iter()
            .all(|byte| is_word(byte) || b"-.".contains(byte))
}

/// Reads the URL of a server: `https://`, or `http://` where it does not leave this host.
///
/// # Errors
///
/// What is wrong with it, as the end of a sentence that starts with its key.
pub(super) fn endpoint(text: &str) -> Result<Uri, &'static str> {
    let url: Uri = text.parse().map_err(|_| "must be a URL")?;
    let authority = url.authority().ok_or("must be a URL with a host")?;
    if authority.as_str().contains('@') {
        return Err("must not hold a user name or password");
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() {
        return Err("must end after the host and port");
    }
    match is_private(&url) {
        true => Ok(url),
        false => Err("must start with \"https://\": data keys cross the network there"),
    }
}

/// Whether nobody on the way can read what goes there.
pub(super) fn is_private(url: &Uri) -> bool {
    match url.scheme_str() {
        Some("https") => true,
        Some("http") => url.authority().is_some_and(is_loopback),
        _ => false,
    }
}

fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host().trim_matches(['[', ']']);
    let address = host.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}
