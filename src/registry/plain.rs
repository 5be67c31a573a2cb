//! The proof that a stream is plain, and how long it holds.

use std::sync::{PoisonError, atomic::Ordering};

use super::{Basin, Registry};
use crate::{
    proxy::Error,
    store::{Revision, StreamState, UnknownStreams},
    stream::{BasinName, StreamPath},
};

/// Proof that the config store, not the upstream, says that a stream is plain: what allows its
/// records to be forwarded as they are, for as long as nothing changes.
#[derive(Debug)]
pub struct PlainStream {
    /// What was recorded of the stream.
    revision: Revision,
    /// When that was looked up.
    epoch: u64,
    /// Made around this proxy, and forwarded because the operator says so.
    is_unknown: bool,
}

impl PlainStream {
    pub(super) fn known(revision: Revision, epoch: u64) -> Self {
        Self {
            revision,
            epoch,
            is_unknown: false,
        }
    }

    pub(super) fn unknown(revision: Revision, epoch: u64) -> Self {
        Self {
            revision,
            epoch,
            is_unknown: true,
        }
    }

    /// The same proof, for looking again.
    pub fn copy(&self) -> Self {
        Self { ..*self }
    }

    /// Whether nothing at all changed since the look-up.
    pub fn is_fresh(&self, registry: &Registry) -> bool {
        self.epoch == registry.epoch()
    }
}

impl Registry {
    /// Looks again whether a stream is still the plain one that it was; if so, the proof is fresh again.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn still_plain(
        &self,
        path: &StreamPath,
        proof: &PlainStream,
    ) -> Result<Option<PlainStream>, Error> {
        let epoch = self.epoch();
        let rules = self.rules();
        let found = self.store.stream(path).await?;
        if found.revision != proof.revision {
            return Ok(None);
        }
        let rule = rules.stream(path).map(|rule| rule.cipher);
        let is_plain = match (found.entry.as_deref().map(|entry| &entry.state), rule) {
            // A rule that a reload brought may want it encrypted: what it holds stays plain, but nothing is added.
            (_, Some(Some(_))) => false,
            (Some(StreamState::Live(life)), _) => life.cipher.is_none(),
            (Some(StreamState::Creating { .. } | StreamState::Deleting(_)), _) => proof.is_unknown,
            (None, Some(None)) => true,
            (None, None) => match self.basin_by(&rules, &path.basin).await? {
                Basin::Plain => !self.is_changing(&path.basin),
                Basin::Sealing(_) => proof.is_unknown && self.unknown == UnknownStreams::Plain,
                Basin::Unadopted(_) => false,
            },
        };
        Ok(is_plain.then_some(PlainStream {
            revision: proof.revision,
            epoch,
            is_unknown: proof.is_unknown,
        }))
    }

    /// How often store or rules changed.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Makes every proof of before stale.
    pub(super) fn advance(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Marks a basin as being about to get its first cipher, until the mark is dropped: what is not
    /// known there waits, instead of being created plain between the baseline and the cipher.
    pub fn changing<'a>(&'a self, basin: &BasinName) -> Changing<'a> {
        let mut changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        *changing.entry(basin.clone()).or_default() += 1;
        drop(changing);
        self.advance();
        Changing {
            registry: self,
            basin: basin.clone(),
        }
    }

    pub(super) fn is_changing(&self, basin: &BasinName) -> bool {
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        !changing.is_empty() && changing.contains_key(basin)
    }
}

/// A basin that is about to get its first cipher.
pub struct Changing<'a> {
    registry: &'a Registry,
    basin: BasinName,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let changing = &self.registry.changing;
        let mut changing = changing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = changing.get_mut(&self.basin) {
            *count -= 1;
            if *count == 0 {
                changing.remove(&self.basin);
            }
        }
    }
}
