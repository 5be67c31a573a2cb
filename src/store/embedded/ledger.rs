//! What the file says of all rows together: how many there are, their sum, and the number of changes so
//! far. A row that was removed, or put back as it once was, no longer fits it.
//!
//! The sum is the exclusive or of every row's share. It is stored covered with a digest of a fresh nonce:
//! whoever collects the sums of many versions of a file learns nothing from them, and so cannot find rows
//! that add up to the same.

use serde::{Deserialize, Serialize};

use crate::crypto::{Digest, Purpose, StoreKey};

/// Size of a store's id in bytes.
pub(super) const STORE_ID_BYTES: usize = 16;

/// The sum of all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ledger {
    /// How many times the file was changed.
    pub(super) generation: u64,
    /// How many rows there are.
    pub(super) entries: u64,
    sum: Digest,
}

/// The ledger as it is stored, in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    generation: u64,
    entries: u64,
    nonce: Digest,
    covered: Digest,
    tag: Digest,
}

impl Ledger {
    /// The ledger of a file without rows.
    pub(super) const EMPTY: Self = Self {
        generation: 0,
        entries: 0,
        sum: Digest::ZERO,
    };

    /// A row comes in.
    pub(super) fn add(&mut self, share: Digest) {
        self.entries = self.entries.wrapping_add(1);
        self.sum = self.sum.xor(share);
    }

    /// A row that was added goes out.
    pub(super) fn take(&mut self, share: Digest) {
        self.entries = self.entries.wrapping_sub(1);
        self.sum = self.sum.xor(share);
    }

    /// Whether these are the same rows, whatever the generation.
    pub(super) fn has_rows_of(&self, other: &Self) -> bool {
        self.entries == other.entries && self.sum == other.sum
    }

    /// Under a fresh nonce, for the store with this id.
    pub(super) fn write(
        &self,
        key: &StoreKey,
        store_id: &[u8; STORE_ID_BYTES],
    ) -> Result<Vec<u8>, serde_json::Error> {
        let nonce = Digest::from_bytes(rand::random());
        let mut stored = Stored {
            generation: self.generation,
            entries: self.entries,
            nonce,
            covered: self.sum.xor(cover(key, nonce)),
            tag: Digest::ZERO,
        };
        stored.tag = stored.tag_for(key, store_id);
        serde_json::to_vec(&stored)
    }

    /// Reads what [`Ledger::write`] wrote; `None` for anything else, and under another key.
    pub(super) fn read(
        key: &StoreKey,
        store_id: &[u8; STORE_ID_BYTES],
        bytes: &[u8],
    ) -> Option<Self> {
        let stored: Stored = serde_json::from_slice(bytes).ok()?;
        (stored.tag == stored.tag_for(key, store_id)).then(|| Self {
            generation: stored.generation,
            entries: stored.entries,
            sum: stored.covered.xor(cover(key, stored.nonce)),
        })
    }
}

impl Stored {
    fn tag_for(&self, key: &StoreKey, store_id: &[u8; STORE_ID_BYTES]) -> Digest {
        let parts = [
            store_id.as_slice(),
            &self.generation.to_le_bytes(),
            &self.entries.to_le_bytes(),
            self.nonce.as_bytes(),
            self.covered.as_bytes(),
        ];
        key.digest(Purpose::Ledger, &parts)
    }
}

fn cover(key: &StoreKey, nonce: Digest) -> Digest {
    key.digest(Purpose::Cover, &[nonce.as_bytes()])
}
