//! What opens the records of a stream: one key for all of them, or one for each key epoch.

use bytes::{Bytes, BytesMut};

use super::{Cipher, OpenError, StreamCipher, Text, sealed::layout_of};

/// The keys of a stream's records, as far as they are at hand.
#[derive(Debug, Clone)]
pub struct Opener {
    cipher: Cipher,
    keys: Keys,
}

#[derive(Debug, Clone)]
enum Keys {
    /// From a header or a file: no record names a key epoch. The same key with the cipher that the stream had
    /// before, if it had another.
    One {
        present: StreamCipher,
        former: Option<StreamCipher>,
    },
    /// Managed: every record names its key epoch. Those that are known, a handful.
    Epochs(Vec<(u32, EpochKey)>),
}

#[derive(Debug, Clone)]
enum EpochKey {
    Here(StreamCipher),
    Shredded,
}

impl Opener {
    /// Opens every record with this key.
    pub fn one(present: StreamCipher) -> Self {
        Self {
            cipher: present.cipher(),
            keys: Keys::One {
                present,
                former: None,
            },
        }
    }

    /// Opens also what was sealed with the cipher that the stream had before.
    #[must_use]
    pub fn or_former(mut self, cipher: Option<StreamCipher>) -> Self {
        if let Keys::One { former, .. } = &mut self.keys {
            *former = cipher;
        }
        self
    }

    /// Opens no record until it is given the key of its epoch.
    pub fn managed(cipher: Cipher) -> Self {
        Self {
            cipher,
            keys: Keys::Epochs(Vec::new()),
        }
    }

    /// The algorithm.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The key epoch that a stored record names, if its key is not at hand and has to be before it is opened.
    pub fn wants(&self, stored: &[u8]) -> Option<u32> {
        let Keys::Epochs(known) = &self.keys else {
            return None;
        };
        let epoch = layout_of(stored)?.epoch?;
        let is_known = known.iter().any(|(known, _)| *known == epoch);
        (!is_known).then_some(epoch)
    }

    /// Takes the key of one epoch.
    pub fn learn(&mut self, cipher: StreamCipher) {
        if let Some(epoch) = cipher.epoch() {
            self.know(epoch, EpochKey::Here(cipher));
        }
    }

    /// The key of an epoch was shredded: its records do not open, and say so.
    pub fn learn_shredded(&mut self, epoch: u32) {
        self.know(epoch, EpochKey::Shredded);
    }

    /// Lets go of managed keys, but for those of these epochs.
    pub fn keep_only(&mut self, epochs: &[u32]) {
        if let Keys::Epochs(known) = &mut self.keys {
            known.retain(|(known, _)| epochs.contains(known));
        }
    }

    /// Whether there is no key in it.
    pub fn is_empty(&self) -> bool {
        matches!(&self.keys, Keys::Epochs(known) if known.is_empty())
    }

    /// Opens one stored record into `arena` and returns the text that was sealed, and what it is.
    ///
    /// # Errors
    /// [`OpenError`] for everything that is not an authentic record of this stream and its keys.
    pub fn open(&self, stored: &[u8], arena: &mut BytesMut) -> Result<(Text, Bytes), OpenError> {
        let known = match &self.keys {
            Keys::One { present, former } => {
                let layout = layout_of(stored);
                let is_of = |cipher: &&StreamCipher| {
                    layout.is_some_and(|layout| layout.cipher == cipher.cipher())
                };
                let cipher = former.as_ref().filter(is_of).unwrap_or(present);
                return cipher.open(stored, arena);
            }
            Keys::Epochs(known) => known,
        };
        let layout = layout_of(stored).ok_or(match stored {
            [] => OpenError::Truncated,
            _ => OpenError::Format,
        })?;
        if layout.cipher != self.cipher {
            return Err(OpenError::Format);
        }
        let epoch = layout.epoch.ok_or(OpenError::Epoch)?;
        match known.iter().find(|(known, _)| *known == epoch) {
            Some((_, EpochKey::Here(cipher))) => cipher.open(stored, arena),
            Some((_, EpochKey::Shredded)) => Err(OpenError::Shredded),
            None => Err(OpenError::Epoch),
        }
    }

    fn know(&mut self, epoch: u32, key: EpochKey) {
        if let Keys::Epochs(known) = &mut self.keys {
            known.retain(|(known, _)| *known != epoch);
            known.push((epoch, key));
        }
    }
}
