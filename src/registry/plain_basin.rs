//! Proof that a basin as a whole is plain, for requests that do not say which stream they are about.

use super::Registry;
use crate::{
    store::{Error, Page, Recorded, StreamEntry},
    stream::BasinName,
};

/// Recorded streams that a look at a basin reads at a time.
const PAGE: usize = 1000;

/// Most pages that a look at a basin reads. A basin with more streams counts as one that may hold sealed records.
const MAX_PAGES: usize = 10;

/// Proof that no stream of a basin had, or would get, sealed records when it was looked up.
#[derive(Debug)]
pub struct PlainBasin(());

impl Registry {
    /// Returns the proof, unless something could seal a record of this basin: a rule that may match in it, its
    /// cipher, a sealed stream, or more streams than are looked at.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn plain_basin(&self, basin: &BasinName) -> Result<Option<PlainBasin>, Error> {
        if self.rules().may_seal(basin) {
            return Ok(None);
        }
        let recorded = self.store.basin(basin).await?.entry;
        if recorded.is_some_and(|entry| entry.stream_cipher.is_some()) {
            return Ok(None);
        }
        let mut after = String::new();
        for _ in 0..MAX_PAGES {
            let page = Page {
                after,
                limit: PAGE,
                ..Page::default()
            };
            let listed = self.store.streams_page(Some(basin.clone()), page).await?;
            let is_sealed = |(_, found): &Recorded| {
                let entry = found.entry.as_ref();
                entry.is_some_and(has_sealed)
            };
            if listed.found.iter().any(is_sealed) {
                return Ok(None);
            }
            match listed.next {
                None => return Ok(Some(PlainBasin(()))),
                Some(next) => after = next,
            }
        }
        Ok(None)
    }
}

/// Whether a stream holds sealed records, or did in a former incarnation that may be there after all.
fn has_sealed(entry: &StreamEntry) -> bool {
    let mut former = entry.former.iter();
    entry.state.cipher().is_some() || former.any(|life| life.cipher.is_some())
}
