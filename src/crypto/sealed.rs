//! Sealed records: the native layout, which is byte for byte S2's own encrypted record, and the
//! extended one for what the native layout cannot say.
//!
//! ```text
//! native    [format_id: 1]            [nonce] [ciphertext] [tag: 16]
//! extended  [format_id: 1] [flags: 1] [nonce] [ciphertext] [tag: 16]
//!
//! format_id  layout    cipher        nonce
//! 0x01       native    AEGIS-256     32 bytes
//! 0x02       native    AES-256-GCM   12 bytes
//! 0x81       extended  AEGIS-256     32 bytes
//! 0x82       extended  AES-256-GCM   12 bytes
//!
//! flags bit 0: the plaintext is one zstd frame of the encoded record
//!       others: reserved, refused when set
//! ```
//!
//! The associated data is the stream's [`StreamId`], followed in the extended layout by every byte
//! before the nonce. It is not stored.

use std::{fmt, sync::Arc};

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{
    Cipher, Key, KeyCheck,
    aead::{Aead, Nonce, TAG_BYTES, TooLong},
};
use crate::stream::StreamId;

/// What the format id of the extended layout adds to that of the native one.
const EXTENDED: u8 = 0x80;

/// Flag of the extended layout: the plaintext is one zstd frame of the encoded record.
const FLAG_ZSTD: u8 = 1;

/// Longest associated data: stream id, format id, flags.
const MAX_AAD_BYTES: usize = 32 + 2;

/// What was sealed: decides the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// The encoded record: native layout.
    Encoded,
    /// One zstd frame of the encoded record: extended layout.
    Zstd,
}

impl Text {
    /// The bytes before the nonce.
    fn prefix(self, cipher: Cipher) -> ([u8; 2], usize) {
        match self {
            Self::Encoded => ([cipher.format_id(), 0], 1),
            Self::Zstd => ([cipher.format_id() | EXTENDED, FLAG_ZSTD], 2),
        }
    }

    /// Reads the bytes before the nonce and returns what follows them.
    fn of_prefix(stored: &[u8], cipher: Cipher) -> Result<(Self, &[u8]), OpenError> {
        let (format_id, rest) = stored.split_first().ok_or(OpenError::Truncated)?;
        if *format_id == cipher.format_id() {
            return Ok((Self::Encoded, rest));
        }
        if *format_id != cipher.format_id() | EXTENDED {
            return Err(OpenError::Format);
        }
        match rest.split_first().ok_or(OpenError::Truncated)? {
            (&FLAG_ZSTD, rest) => Ok((Self::Zstd, rest)),
            // No flag at all is never written, and every other flag is reserved.
            _ => Err(OpenError::Format),
        }
    }
}

/// Why a stored record does not open. Says nothing about its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No bytes, or fewer than format id, nonce and tag take.
    #[error("truncated sealed record")]
    Truncated,
    /// The first byte is not the format id of the stream's cipher.
    #[error("sealed record has another format than the stream's cipher")]
    Format,
    /// The tag does not match: wrong key, altered bytes, or a record of another stream.
    #[error("authentication failed")]
    Authentication,
    /// The record carries headers in clear, which no sealed record does.
    #[error("sealed record has headers in clear")]
    HeadersInClear,
    /// It opened, but what was sealed is not an encoded record.
    #[error("malformed record inside a sealed record")]
    Malformed,
}

/// One record after sealing. Only [`StreamCipher::seal`] makes one, so whatever is built from
/// `Sealed` alone cannot hold plaintext.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Bytes);

impl Sealed {
    /// The bytes that the upstream stores as the record's body.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// The cipher that these bytes would have been sealed with, if they are a sealed record at all: judged by
/// format id, flags and length, so anybody's bytes may pass for one.
///
/// Only for making a lost config store anew. Whether a record is sealed is what the store says.
pub fn looks_sealed(stored: &[u8]) -> Option<Cipher> {
    Cipher::ALL.into_iter().find(|cipher| {
        Text::of_prefix(stored, *cipher)
            .is_ok_and(|(_, rest)| rest.len() >= cipher.nonce_bytes() + TAG_BYTES)
    })
}

/// Key, cipher and associated data of one stream. Cheap to clone.
#[derive(Clone)]
pub struct StreamCipher(Arc<Inner>);

struct Inner {
    aead: Aead,
    aad: StreamId,
    check: KeyCheck,
}

impl StreamCipher {
    /// Binds `cipher` and `key` to `stream`.
    pub fn new(cipher: Cipher, key: &Key, stream: StreamId) -> Self {
        Self(Arc::new(Inner {
            aead: Aead::new(cipher, key),
            aad: stream,
            check: key.check(&stream),
        }))
    }

    /// The algorithm.
    pub fn cipher(&self) -> Cipher {
        self.0.aead.cipher()
    }

    /// The commitment to the key, as the config store keeps it.
    pub fn key_check(&self) -> KeyCheck {
        self.0.check
    }

    /// Bytes that sealing adds to its text.
    pub fn overhead(&self, text: Text) -> usize {
        let (_, prefix) = text.prefix(self.cipher());
        prefix + self.cipher().nonce_bytes() + TAG_BYTES
    }

    /// Seals what `encode` appends to its buffer, under a fresh random nonce. `text` says what it is.
    ///
    /// `arena` is where the bytes are built: one arena with room for a whole batch costs one
    /// allocation. It is left empty of this record's bytes.
    ///
    /// # Errors
    /// [`TooLong`] beyond the cipher's own limit, which the record limits never reach.
    pub fn seal(
        &self,
        text: Text,
        arena: &mut BytesMut,
        encode: impl FnOnce(&mut BytesMut),
    ) -> Result<Sealed, TooLong> {
        self.seal_with(Nonce::random(self.cipher()), text, arena, encode)
    }

    pub(super) fn seal_with(
        &self,
        nonce: Nonce,
        text: Text,
        arena: &mut BytesMut,
        encode: impl FnOnce(&mut BytesMut),
    ) -> Result<Sealed, TooLong> {
        let mut record = arena.split_off(arena.len());
        let (prefix, length) = text.prefix(self.cipher());
        record.extend(prefix.iter().take(length));
        record.put_slice(nonce.as_bytes());
        let text_start = record.len();
        encode(&mut record);
        let aad = self.aad(text);
        let plain = record.get_mut(text_start..).ok_or(TooLong)?;
        let tag = self.0.aead.encrypt(nonce, &aad, plain)?;
        record.put_slice(&tag);
        *arena = record.split_off(record.len());
        Ok(Sealed(record.freeze()))
    }

    /// Opens one stored record into `arena` and returns the text that was sealed, and what it is.
    ///
    /// # Errors
    /// [`OpenError`] for everything that is not an authentic record of this stream, key and cipher.
    pub fn open(&self, stored: &[u8], arena: &mut BytesMut) -> Result<(Text, Bytes), OpenError> {
        let (text, rest) = Text::of_prefix(stored, self.cipher())?;
        let (nonce, rest) = rest
            .split_at_checked(self.cipher().nonce_bytes())
            .ok_or(OpenError::Truncated)?;
        let (sealed, tag) = rest
            .split_last_chunk::<TAG_BYTES>()
            .ok_or(OpenError::Truncated)?;
        let mut record = arena.split_off(arena.len());
        record.put_slice(sealed);
        let aad = self.aad(text);
        if !self.0.aead.decrypt(nonce, &aad, &mut record, tag) {
            return Err(OpenError::Authentication);
        }
        *arena = record.split_off(record.len());
        Ok((text, record.freeze()))
    }

    /// Stream id, and in the extended layout every byte before the nonce.
    fn aad(&self, text: Text) -> Aad {
        let mut aad = Aad {
            bytes: [0; MAX_AAD_BYTES],
            length: 0,
        };
        aad.push(self.0.aad.as_bytes());
        match text {
            Text::Encoded => {}
            Text::Zstd => {
                let (prefix, _) = text.prefix(self.cipher());
                aad.push(&prefix);
            }
        }
        aad
    }
}

/// Associated data, on the stack.
struct Aad {
    bytes: [u8; MAX_AAD_BYTES],
    length: usize,
}

impl Aad {
    fn push(&mut self, more: &[u8]) {
        let rest = self.bytes.iter_mut().skip(self.length);
        for (to, from) in rest.zip(more) {
            *to = *from;
        }
        self.length += more.len();
    }
}

impl std::ops::Deref for Aad {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&self.bytes)
    }
}

impl fmt::Debug for StreamCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamCipher({}, {:?})", self.cipher(), self.0.aad)
    }
}
