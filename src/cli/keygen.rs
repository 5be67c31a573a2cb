//! `streamseal keygen`: a fresh encryption key on standard output.

use zeroize::Zeroizing;

use super::{Failure, print};
use crate::crypto::Key;

/// Prints 32 random bytes in base64, as `s2-encryption-key` and key files carry them.
///
/// # Errors
///
/// When the system has no randomness to give, or standard output is closed.
pub(super) fn run() -> Result<(), Failure> {
    let key = Key::generate().map_err(|error| Failure::Other(format!("no randomness: {error}")))?;
    let text = key.to_base64();
    print(&Zeroizing::new(format!("{}\n", text.as_str())))
}
