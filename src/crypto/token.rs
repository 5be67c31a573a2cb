//! What stands for an access token where the token itself must not.

use std::fmt;

/// The first 8 bytes of BLAKE3-derive-key("streamseal/v1/token-fingerprint", `authorization` value).
///
/// It tells tokens apart. S2's tokens are random, so it cannot be searched for; one that a person made up
/// could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenFingerprint([u8; 8]);

impl TokenFingerprint {
    /// Of the value of an `authorization` header.
    pub fn of(authorization: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("streamseal/v1/token-fingerprint");
        hasher.update(authorization);
        let mut first = [0; 8];
        hasher.finalize_xof().fill(&mut first);
        zeroize::Zeroize::zeroize(&mut hasher);
        Self(first)
    }
}

impl fmt::Display for TokenFingerprint {
    /// In hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
