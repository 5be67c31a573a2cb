//! Sealed records: the native layout, which is byte for byte S2's own encrypted record, and the
//! extended one for what the native layout cannot say.
//!
//! ```text
//! native    [format_id: 1]                               [nonce] [ciphertext] [tag: 16]
//! extended  [format_id: 1] [flags: 1] [key_epoch: 0 | 4] [nonce] [ciphertext] [tag: 16]
//!
//! format_id  layout    cipher        nonce
//! 0x01       native    AEGIS-256     32 bytes
//! 0x02       native    AES-256-GCM   12 bytes
//! 0x81       extended  AEGIS-256     32 bytes
//! 0x82       extended  AES-256-GCM   12 bytes
//!
//! flags bit 0: the plaintext is one zstd frame of the encoded record
//!       bit 1: a key epoch follows, big-endian: the number of the stream's managed key
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
/// Flag of the extended layout: a key epoch follows.
const FLAG_EPOCH: u8 = 2;

/// Most bytes before the nonce: format id, flags, key epoch.
const MAX_PREFIX_BYTES: usize = 1 + 1 + 4;
/// Longest associated data: stream id and prefix.
const MAX_AAD_BYTES: usize = 32 + MAX_PREFIX_BYTES;

/// What was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// The encoded record.
    Encoded,
    /// One zstd frame of the encoded record: extended layout.
    Zstd,
}

/// What a sealed record says of itself in clear, before the nonce. It is authenticated with the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The algorithm.
    pub cipher: Cipher,
    /// What was sealed.
    pub text: Text,
    /// The number of the stream's managed key; none for a key that clients or files bring.
    pub epoch: Option<u32>,
}

impl Layout {
    /// Whether it is the layout of S2's own encrypted records.
    pub fn is_native(self) -> bool {
        self.text == Text::Encoded && self.epoch.is_none()
    }

    fn prefix(self) -> Prefix {
        let mut prefix = Prefix::EMPTY;
        if self.is_native() {
            prefix.push(&[self.cipher.format_id()]);
            return prefix;
        }
        let zstd = match self.text {
            Text::Encoded => 0,
            Text::Zstd => FLAG_ZSTD,
        };
        let epoch = self.epoch.map_or(0, |_| FLAG_EPOCH);
        prefix.push(&[self.cipher.format_id() | EXTENDED, zstd | epoch]);
        if let Some(epoch) = self.epoch {
            prefix.push(&epoch.to_be_bytes());
        }
        prefix
    }

    /// Reads the bytes before the nonce and returns what follows them.
    fn read(stored: &[u8]) -> Result<(Self, &[u8]), OpenError> {
        let (format_id, rest) = stored.split_first().ok_or(OpenError::Truncated)?;
        let cipher = Cipher::ALL
            .into_iter()
            .find(|cipher| cipher.format_id() == format_id & !EXTENDED)
            .ok_or(OpenError::Format)?;
        let mut layout = Self {
            cipher,
            text: Text::Encoded,
            epoch: None,
        };
        if format_id & EXTENDED == 0 {
            return Ok((layout, rest));
        }
        let (&flags, rest) = rest.split_first().ok_or(OpenError::Truncated)?;
        // No flag at all is never written, and every other flag is reserved.
        if flags == 0 || flags & !(FLAG_ZSTD | FLAG_EPOCH) != 0 {
            return Err(OpenError::Format);
        }
        if flags & FLAG_ZSTD != 0 {
            layout.text = Text::Zstd;
        }
        if flags & FLAG_EPOCH == 0 {
            return Ok((layout, rest));
        }
        let (epoch, rest) = rest.split_first_chunk().ok_or(OpenError::Truncated)?;
        layout.epoch = Some(u32::from_be_bytes(*epoch));
        Ok((layout, rest))
    }
}

type Prefix = Short<MAX_PREFIX_BYTES>;

/// At most `N` bytes, on the stack.
struct Short<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Short<N> {
    const EMPTY: Self = Self {
        bytes: [0; N],
        length: 0,
    };

    fn push(&mut self, more: &[u8]) {
        let rest = self.bytes.iter_mut().skip(self.length);
        for (to, from) in rest.zip(more) {
            *to = *from;
        }
        self.length += more.len();
    }
}

impl<const N: usize> std::ops::Deref for Short<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&self.bytes)
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
    /// The record names a key epoch, or none, and the stream's key is the other kind; or an epoch that the
    /// stream never had.
    #[error("sealed record is of a key epoch that the stream does not have")]
    Epoch,
    /// The key of the record's epoch was shredded.
    #[error("the key of the record's epoch was shredded")]
    Shredded,
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

/// The layout that these bytes would have been sealed in, if they are a sealed record at all: judged by
/// format id, flags and length, so anybody's bytes may pass for one.
///
/// Only for looking at what a store holds. Whether a record is sealed is what the config store says.
pub fn layout_of(stored: &[u8]) -> Option<Layout> {
    let (layout, rest) = Layout::read(stored).ok()?;
    (rest.len() >= layout.cipher.nonce_bytes() + TAG_BYTES).then_some(layout)
}

/// The cipher that these bytes would have been sealed with; see [`layout_of`].
pub fn looks_sealed(stored: &[u8]) -> Option<Cipher> {
    layout_of(stored).map(|layout| layout.cipher)
}

/// Key, cipher and associated data of one stream. Cheap to clone.
#[derive(Clone)]
pub struct StreamCipher(Arc<Inner>);

struct Inner {
    aead: Aead,
    aad: StreamId,
    check: KeyCheck,
    epoch: Option<u32>,
}

impl StreamCipher {
    /// Binds `cipher` and `key` to `stream`.
    pub fn new(cipher: Cipher, key: &Key, stream: StreamId) -> Self {
        Self::bound(cipher, key, stream, None)
    }

    /// The same for a managed key: its epoch goes into every record, and is authenticated with it.
    pub fn of_epoch(cipher: Cipher, key: &Key, stream: StreamId, epoch: u32) -> Self {
        Self::bound(cipher, key, stream, Some(epoch))
    }

    fn bound(cipher: Cipher, key: &Key, stream: StreamId, epoch: Option<u32>) -> Self {
        Self(Arc::new(Inner {
            aead: Aead::new(cipher, key),
            aad: stream,
            check: key.check(&stream),
            epoch,
        }))
    }

    /// The number of the managed key; none for a key that clients or files bring.
    pub fn epoch(&self) -> Option<u32> {
        self.0.epoch
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
        self.layout(text).prefix().len() + self.cipher().nonce_bytes() + TAG_BYTES
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
        let prefix = self.layout(text).prefix();
        record.put_slice(&prefix);
        record.put_slice(nonce.as_bytes());
        let text_start = record.len();
        encode(&mut record);
        let aad = self.aad(text, &prefix);
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
        let (layout, rest) = Layout::read(stored)?;
        if layout.cipher != self.cipher() {
            return Err(OpenError::Format);
        }
        if layout.epoch != self.0.epoch {
            return Err(OpenError::Epoch);
        }
        let text = layout.text;
        let (nonce, rest) = rest
            .split_at_checked(self.cipher().nonce_bytes())
            .ok_or(OpenError::Truncated)?;
        let (sealed, tag) = rest
            .split_last_chunk::<TAG_BYTES>()
            .ok_or(OpenError::Truncated)?;
        let mut record = arena.split_off(arena.len());
        record.put_slice(sealed);
        let aad = self.aad(text, &layout.prefix());
        if !self.0.aead.decrypt(nonce, &aad, &mut record, tag) {
            return Err(OpenError::Authentication);
        }
        *arena = record.split_off(record.len());
        Ok((text, record.freeze()))
    }

    fn layout(&self, text: Text) -> Layout {
        Layout {
            cipher: self.cipher(),
            text,
            epoch: self.0.epoch,
        }
    }

    /// Stream id, and in the extended layout every byte before the nonce.
    fn aad(&self, text: Text, prefix: &[u8]) -> Short<MAX_AAD_BYTES> {
        let mut aad = Short::EMPTY;
        aad.push(self.0.aad.as_bytes());
        if !self.layout(text).is_native() {
            aad.push(prefix);
        }
        aad
    }
}

impl fmt::Debug for StreamCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamCipher({}, {:?})", self.cipher(), self.0.aad)
    }
}
