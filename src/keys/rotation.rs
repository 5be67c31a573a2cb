//! When a stream's managed key is due for the next one.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::crypto::Cipher;

/// Records that one AES-256-GCM key may seal. With random nonces of 96 bits, NIST SP 800-38D section 8.3
/// allows 2^32; a quarter of that leaves room for batches under way and for records sealed in vain.
pub const MAX_GCM_RECORDS: u64 = 1 << 30;

/// The `[keys.rotate_after]` section: a managed key gets a successor when it reaches one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RotateAfter {
    /// Age of the key; zero is never.
    #[serde(with = "humantime_serde")]
    pub age: Duration,
    /// Records that it sealed; zero is never. An AES-256-GCM key never seals more than 2^30.
    pub records: u64,
    /// Bytes that it sealed, as S2 meters them; zero is never.
    #[serde(serialize_with = "crate::size::write")]
    pub bytes: ByteSize,
}

impl Default for RotateAfter {
    fn default() -> Self {
        Self {
            age: Duration::ZERO,
            records: MAX_GCM_RECORDS,
            bytes: ByteSize::b(0),
        }
    }
}

impl RotateAfter {
    /// Most records that one key of this cipher seals; `None` for no limit.
    pub fn records_for(&self, cipher: Cipher) -> Option<u64> {
        let wanted = (self.records > 0).then_some(self.records);
        match cipher {
            Cipher::Aegis256 => wanted,
            Cipher::Aes256Gcm => Some(wanted.unwrap_or(MAX_GCM_RECORDS).min(MAX_GCM_RECORDS)),
        }
    }
}
