//! Sealed records: the native layout, which is byte for byte S2's own encrypted record.
//!
//! ```text
//! [format_id: 1] [nonce] [ciphertext] [tag: 16]
//!
//! format_id  cipher        nonce
//! 0x01       AEGIS-256     32 bytes
//! 0x02       AES-256-GCM   12 bytes
//! ```
//!
//! The associated data is the stream's [`StreamId`]; it is not stored.

use std::{fmt, sync::Arc};

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{
    Cipher, Key, KeyCheck,
    aead::{Aead, Nonce, TAG_BYTES, TooLong},
};
use crate::stream::StreamId;

/// Size of the format id in bytes.
const FORMAT_ID_BYTES: usize = 1;

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

    /// Bytes that sealing adds to an encoded record.
    pub fn overhead(&self) -> usize {
        FORMAT_ID_BYTES + self.cipher().nonce_bytes() + TAG_BYTES
    }

    /// Seals what `encode` appends to its buffer, under a fresh random nonce.
    ///
    /// `arena` is where the bytes are built: one arena with room for a whole batch costs one
    /// allocation. It is left empty of this record's bytes.
    ///
    /// # Errors
    /// [`TooLong`] beyond the cipher's own limit, which the record limits never reach.
    pub fn seal(
        &self,
        arena: &mut BytesMut,
        encode: impl FnOnce(&mut BytesMut),
    ) -> Result<Sealed, TooLong> {
        self.seal_with(Nonce::random(self.cipher()), arena, encode)
    }

    pub(super) fn seal_with(
        &self,
        nonce: Nonce,
        arena: &mut BytesMut,
        encode: impl FnOnce(&mut BytesMut),
    ) -> Result<Sealed, TooLong> {
        let mut record = arena.split_off(arena.len());
        record.put_u8(self.cipher().format_id());
        record.put_slice(nonce.as_bytes());
        let text_start = record.len();
        encode(&mut record);
        let text = record.get_mut(text_start..).ok_or(TooLong)?;
        let tag = self.0.aead.encrypt(nonce, self.0.aad.as_bytes(), text)?;
        record.put_slice(&tag);
        *arena = record.split_off(record.len());
        Ok(Sealed(record.freeze()))
    }

    /// Opens one stored record into `arena` and returns the encoded record that was sealed.
    ///
    /// # Errors
    /// [`OpenError`] for everything that is not an authentic record of this stream, key and cipher.
    pub fn open(&self, stored: &[u8], arena: &mut BytesMut) -> Result<Bytes, OpenError> {
        let (format_id, rest) = stored.split_first().ok_or(OpenError::Truncated)?;
        if *format_id != self.cipher().format_id() {
            return Err(OpenError::Format);
        }
        let (nonce, rest) = rest
            .split_at_checked(self.cipher().nonce_bytes())
            .ok_or(OpenError::Truncated)?;
        let (text, tag) = rest
            .split_last_chunk::<TAG_BYTES>()
            .ok_or(OpenError::Truncated)?;
        let mut record = arena.split_off(arena.len());
        record.put_slice(text);
        if !self
            .0
            .aead
            .decrypt(nonce, self.0.aad.as_bytes(), &mut record, tag)
        {
            return Err(OpenError::Authentication);
        }
        *arena = record.split_off(record.len());
        Ok(record.freeze())
    }
}

impl fmt::Debug for StreamCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamCipher({}, {:?})", self.cipher(), self.0.aad)
    }
}
