//! Streams as a look-up returns them: sealed, or plain with the proof that they are.

use std::sync::Arc;

use super::{Decision, Error, Registry, rules::Rules};
use crate::{
    crypto::{Cipher, Key, KeyCheck},
    store::{KeyKnown, StreamEntry, StreamState, UnknownStreams, Versioned},
    stream::StreamPath,
};

/// A stream whose records are sealed.
#[derive(Debug, Clone)]
pub struct SealedStream {
    /// Its names.
    pub path: StreamPath,
    /// Its cipher.
    pub cipher: Cipher,
    /// Its entry at the time of the look-up.
    pub(super) entry: Versioned<Arc<StreamEntry>>,
    /// The rules at the time of the look-up: they also say where the key comes from.
    pub(super) rules: Arc<Rules>,
    /// Deletions through the proxy at the time of the look-up.
    pub(super) deletions: u64,
}

/// How the records of a stream are treated.
#[derive(Debug)]
pub enum Access {
    /// They are forwarded untouched.
    Plain(PlainStream),
    /// They are sealed and opened.
    Sealed(SealedStream),
}

/// What a look-up without a call upstream returns.
#[derive(Debug)]
pub enum Lookup {
    /// How the records are treated.
    Found(Access),
    /// The stream is sealed, and its first append must create it or find it empty: see [`Registry::claim`].
    FirstUse(SealedStream),
    /// The upstream has to be asked: see [`Registry::settle`].
    Unsettled,
}

/// What allows records to go up in clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainBy {
    /// A `[[streams]]` rule with `cipher = "none"`.
    Rule,
    /// The basin has no cipher, and the stream no entry.
    Basin,
    /// The entry says plain: seen or admitted.
    Entry,
    /// The stream exists upstream, has no entry, and `store.unknown_streams = "plain"`.
    Unknown,
}

/// Proof that the rules or the config store, not the upstream, say that a stream is plain. It allows forwarding
/// its records as they are for as long as nothing changes.
#[derive(Debug, Clone, Copy)]
pub struct PlainStream {
    by: PlainBy,
    /// Changes of store and rules at the look-up.
    changes: u64,
    /// Deletions through the proxy at the first look-up.
    deletions: u64,
}

impl PlainStream {
    pub(super) fn new(by: PlainBy, changes: u64, deletions: u64) -> Self {
        Self {
            by,
            changes,
            deletions,
        }
    }

    /// What allows it.
    pub fn by(&self) -> PlainBy {
        self.by
    }

    /// Whether nothing changed since the look-up.
    pub fn is_fresh(&self, registry: &Registry) -> bool {
        self.changes == registry.changes()
    }
}

impl Registry {
    /// Looks again whether a stream is still plain. If it is, returns a fresh proof.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn still_plain(
        &self,
        path: &StreamPath,
        proof: &PlainStream,
    ) -> Result<Option<PlainStream>, Error> {
        let changes = self.changes();
        let rules = self.rules();
        let found = self.store.stream(path).await?;
        let by = match self.decision(&rules, path, &found).await? {
            Decision::Plain(by) => by,
            Decision::FirstUse(_)
                if proof.by == PlainBy::Unknown
                    && found.entry.is_none()
                    && self.settings.unknown_streams == UnknownStreams::Plain =>
            {
                PlainBy::Unknown
            }
            _ => return Ok(None),
        };
        Ok(Some(PlainStream {
            by,
            changes,
            deletions: proof.deletions,
        }))
    }

    /// Looks again at a stream that is in use. `None` when it is not the same sealed stream with a key of its own. The
    /// rules of the first look stay in force: what was begun under them goes on.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn refreshed(&self, stream: &SealedStream) -> Result<Option<SealedStream>, Error> {
        let found = self.store.stream(&stream.path).await?;
        let is_same = found.entry.as_deref().is_some_and(|entry| {
            let is_living = matches!(entry.state, StreamState::Live(_));
            let has_cipher = entry.state.cipher() == Some(stream.cipher);
            is_living && has_cipher && entry.data_keys.is_none()
        });
        Ok(is_same.then(|| SealedStream {
            entry: found,
            ..stream.clone()
        }))
    }

    /// Notes that the upstream acknowledged an append to a plain stream, or its creation. The entry is written
    /// behind the answer, in groups.
    pub fn saw_plain(&self, path: &StreamPath, proof: &PlainStream, created_at: Option<String>) {
        if proof.by == PlainBy::Basin {
            self.seen.note(path, proof.deletions, created_at);
        }
    }
}

impl SealedStream {
    pub(super) fn new(
        path: &StreamPath,
        cipher: Cipher,
        entry: Versioned<Arc<StreamEntry>>,
        (rules, deletions): (&Arc<Rules>, u64),
    ) -> Self {
        Self {
            path: path.clone(),
            cipher,
            entry,
            rules: Arc::clone(rules),
            deletions,
        }
    }

    /// Whether this look-up and an earlier one found one existence of the stream, with one cipher and one source of
    /// keys. A stream that was not known to exist may have been created since.
    pub fn is_same_incarnation(&self, earlier: &Self) -> bool {
        let created_at = |stream: &Self| match stream.entry.entry.as_deref().map(|e| &e.state) {
            Some(StreamState::Live(life)) => Some(life.created_at.clone()),
            _ => None,
        };
        let is_same_life = match (created_at(self), created_at(earlier)) {
            (Some(Some(now)), Some(Some(then))) => now == then,
            (Some(_), _) | (None, None) => true,
            (None, Some(_)) => false,
        };
        let formers = |stream: &Self| {
            let entry = stream.entry.entry.as_deref();
            entry.map_or(0, |entry| entry.former.len())
        };
        is_same_life
            && formers(self) == formers(earlier)
            && self.deletions == earlier.deletions
            && self.cipher == earlier.cipher
            && self.key_source() == earlier.key_source()
    }

    /// What was known of its own key at the look-up.
    pub fn key(&self) -> KeyKnown {
        let entry = self.entry.entry.as_deref();
        entry.map_or(KeyKnown::No, StreamEntry::key)
    }

    /// The commitment to its own key, claimed or confirmed.
    pub fn key_check(&self) -> Option<KeyCheck> {
        self.entry.entry.as_ref().and_then(|entry| entry.key_check)
    }

    /// Whether nothing that exists upstream was known to be the stream, and no rule says that it is.
    pub fn is_first_use(&self) -> bool {
        let is_ruled = self.rules.stream(&self.path).is_some();
        match self.entry.entry.as_deref().map(|entry| &entry.state) {
            None => !is_ruled,
            Some(StreamState::Creating { .. }) => true,
            Some(StreamState::Live(_) | StreamState::Deleting(_)) => false,
        }
    }

    /// The operator's key for it, unless a header that the client sent wins over it.
    pub fn file_key(&self, has_header: bool) -> Option<&Key> {
        self.rules.stream(&self.path)?.key(has_header)
    }

    /// The cipher of the newest former incarnation with this key, if that had another cipher or the stream has
    /// another key now.
    pub fn former_cipher(&self, check: KeyCheck) -> Option<Cipher> {
        let entry = self.entry.entry.as_deref()?;
        let is_present = entry.key_check == Some(check);
        let mut former = entry.former.iter().rev();
        let former = former.find(|life| life.key_check == Some(check))?;
        former
            .cipher
            .filter(|cipher| !is_present || *cipher != self.cipher)
    }
}
