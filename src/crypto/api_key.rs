//! API keys: an auth secret and the project's master key, wrapped, in one text.
//!
//! ```text
//! "sk-ss-" base64url( version: 1 = 0x01 ‖ auth_secret: 16 ‖ AES-256-KW(token_wrap, master key): 40 )      82 characters
//!
//! PRK_a      = Extract(salt = pepper, ikm = auth_secret)
//! lookup     = Expand(PRK_a, "streamseal/v1/lookup")               finds the key's row
//! verify     = Expand(PRK_a, "streamseal/v1/verify")               the row holds its SHA-256
//! token_wrap = Expand(PRK_a, "streamseal/v1/token-wrap" ‖ lp(project) ‖ u32(mk_epoch))
//! ```
//! No password hashing: the secret is 128 random bits.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use rand::TryRng as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{
    Digest, Key, MasterKey, Wrapped,
    kdf::{derive, prefix, unwrap, wrap},
    stack::{SETUP, scrubbed},
};

/// What every API key starts with.
pub const API_KEY_PREFIX: &str = "sk-ss-";

const VERSION: u8 = 1;
const SECRET_BYTES: usize = 16;
const TOKEN_BYTES: usize = 1 + SECRET_BYTES + Wrapped::BYTES;
/// 57 bytes are 76 characters without padding and without spare bits.
const TOKEN_CHARACTERS: usize = TOKEN_BYTES / 3 * 4;

/// So many characters of a token are no word that somebody chose. They hold twelve bytes of the auth secret.
const TELLING_CHARACTERS: usize = 18;

/// The operator's secret that every lookup and check of a project's API keys goes through: 32 random bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pepper(Key);

impl Pepper {
    /// The pepper of these bytes.
    pub fn new(key: Key) -> Self {
        Self(key)
    }
}

/// An API key as a client presents it: well-formed, and nothing else is known of it.
pub struct ApiKey {
    secret: Box<Zeroizing<[u8; SECRET_BYTES]>>,
    wrapped: Wrapped,
}

impl ApiKey {
    /// Reads an API key. Another version, length, alphabet, padding or space around it is `None`: why is
    /// nobody's business.
    pub fn parse(text: &[u8]) -> Option<Self> {
        scrubbed::<SETUP, _>(|| {
            let token = text.strip_prefix(API_KEY_PREFIX.as_bytes())?;
            if token.len() != TOKEN_CHARACTERS {
                return None;
            }
            let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
            let decoded = Base64UrlUnpadded::decode(token, bytes.as_mut()).ok()?;
            let (&[version], rest) = decoded.split_first_chunk()?;
            let (secret, wrapped) = rest.split_first_chunk()?;
            let wrapped = wrapped.try_into().ok()?;
            (version == VERSION).then(|| Self {
                secret: boxed(secret),
                wrapped: Wrapped::from_bytes(wrapped),
            })
        })
    }

    /// A new API key that opens `master`, with what its row holds.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn issue(
        pepper: &Pepper,
        project: &str,
        mk_epoch: u32,
        master: &MasterKey,
    ) -> Result<(Self, Credentials), rand::rngs::SysError> {
        let mut secret = Box::new(Zeroizing::new([0; SECRET_BYTES]));
        rand::rngs::SysRng.try_fill_bytes(secret.as_mut().as_mut())?;
        let wrapped = wrap(
            &token_wrap(pepper, &secret, project, mk_epoch),
            master.key(),
        );
        let key = Self { secret, wrapped };
        let credentials = key.credentials(pepper);
        Ok((key, credentials))
    }

    /// What finds and checks it under this pepper.
    pub fn credentials(&self, pepper: &Pepper) -> Credentials {
        let expand = |label: &[u8]| derive(pepper.0.as_bytes(), self.secret.as_slice(), &[label]);
        let lookup = expand(b"streamseal/v1/lookup");
        let verify = expand(b"streamseal/v1/verify");
        Credentials {
            lookup: Digest::from_bytes(*lookup.as_bytes()),
            verify: scrubbed::<SETUP, _>(|| {
                Digest::from_bytes(Sha256::digest(verify.as_bytes()).into())
            }),
        }
    }

    /// The master key in it; `None` when it is not one of this project and epoch under this pepper. Whoever
    /// asks compares [`MasterKey::commit`] with what is recorded.
    pub fn master_key(&self, pepper: &Pepper, project: &str, mk_epoch: u32) -> Option<MasterKey> {
        let token_wrap = token_wrap(pepper, &self.secret, project, mk_epoch);
        unwrap(&token_wrap, &self.wrapped).map(MasterKey::new)
    }

    /// The text that a client presents, wiped on drop. It is shown once, and kept nowhere.
    pub fn to_text(&self) -> Zeroizing<String> {
        scrubbed::<SETUP, _>(|| {
            let mut bytes = Zeroizing::new(Vec::with_capacity(TOKEN_BYTES));
            bytes.push(VERSION);
            bytes.extend_from_slice(self.secret.as_slice());
            bytes.extend_from_slice(self.wrapped.as_bytes());
            let token = Zeroizing::new(Base64UrlUnpadded::encode_string(&bytes));
            let length = API_KEY_PREFIX.len() + token.len();
            let mut text = Zeroizing::new(String::with_capacity(length));
            text.push_str(API_KEY_PREFIX);
            text.push_str(&token);
            text
        })
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(redacted)")
    }
}

/// Whether an API key, or enough of one to be a secret, stands in this text: an API key that was cut off,
/// or that something else surrounds, is none, and still does not belong anywhere.
pub fn holds_api_key(text: &[u8]) -> bool {
    let prefix = API_KEY_PREFIX.as_bytes();
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.windows(prefix.len()).enumerate().any(|(at, window)| {
        let rest = text.iter().skip(at + prefix.len());
        window.eq_ignore_ascii_case(prefix)
            && rest
                .take_while(|byte| is_token(byte))
                .take(TELLING_CHARACTERS)
                .count()
                == TELLING_CHARACTERS
    })
}

/// What an API key's row holds: neither the key nor the master key can be computed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Finds the row.
    pub lookup: Digest,
    /// SHA-256 of the verifier; compared in constant time.
    pub verify: Digest,
}

fn token_wrap(pepper: &Pepper, secret: &[u8; SECRET_BYTES], project: &str, mk_epoch: u32) -> Key {
    let info: [&[u8]; 4] = [
        b"streamseal/v1/token-wrap",
        &prefix(project.as_bytes()),
        project.as_bytes(),
        &mk_epoch.to_be_bytes(),
    ];
    derive(pepper.0.as_bytes(), secret, &info)
}

fn boxed(secret: &[u8; SECRET_BYTES]) -> Box<Zeroizing<[u8; SECRET_BYTES]>> {
    let mut boxed = Box::new(Zeroizing::new([0; SECRET_BYTES]));
    boxed.copy_from_slice(secret);
    boxed
}
