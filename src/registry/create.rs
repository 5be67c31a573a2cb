//! Creating streams: the intent is durable before the upstream hears of it, the outcome is recorded when it answers.

use super::{
    Created, Creating, Error, Questions, Registry,
    table::{Event, next},
    update::Updated,
};
use crate::{
    crypto::Cipher,
    store::{BasinEntry, Origin, StreamEntry},
    stream::{BasinName, StreamPath},
};

/// A creation that a client asked for, between intent and outcome. The caller holds the basin's lock.
pub struct Creation {
    path: StreamPath,
    intent: Updated,
    /// Deletions through the proxy before it.
    deletions: u64,
}

impl Registry {
    /// Records that a stream is about to be created with the cipher of this moment. The caller holds the basin's
    /// lock. Nothing is written for a plain stream, or for one with an entry.
    ///
    /// # Errors
    /// The store cannot answer or write.
    pub async fn begin(&self, path: &StreamPath, origin: Origin) -> Result<Creation, Error> {
        let deletions = self.seen.deletions(path);
        let cipher = self.planned_cipher(path).await?;
        let intend = Event::IntendCreate { cipher, origin };
        Ok(Creation {
            intent: self.happen(path, &[intend]).await?,
            path: path.clone(),
            deletions,
        })
    }

    /// Records the outcome of a creation, and returns the cipher that the stream has now; `None` when nothing is
    /// recorded of it.
    ///
    /// # Errors
    /// The store cannot write, or the upstream does not tell the tail: the intent stays, and is settled before the
    /// next use.
    pub async fn finish<Q: Questions>(
        &self,
        creation: Creation,
        answer: &Creating,
        ask: &Q,
    ) -> Result<Option<Option<Cipher>>, Q::Stop> {
        let Creation {
            path,
            intent,
            deletions,
        } = creation;
        let entry = match answer {
            Creating::There { created_at, is_new } => {
                self.confirm_basin(&path.basin).await?;
                if *is_new && intent.after.is_none() {
                    let created_at = Some(created_at.clone());
                    self.seen.note(&path, deletions, created_at);
                }
                match !*is_new && self.is_foreign(&path, ask).await? {
                    true => self.withdraw(&path, &intent).await?,
                    false => {
                        let shown = (created_at.clone(), *is_new);
                        self.found(&path, shown, ask).await?
                    }
                }
            }
            Creating::Taken | Creating::Refused => self.withdraw(&path, &intent).await?,
            // Anything may have happened: the intent, if there is one, stays.
            Creating::Unknown => intent.after.as_deref().cloned(),
        };
        Ok(entry.map(|entry| entry.state.cipher()))
    }

    /// Takes an intent back, unless something happened to the stream since.
    async fn withdraw(
        &self,
        path: &StreamPath,
        intent: &Updated,
    ) -> Result<Option<StreamEntry>, Error> {
        let (before, after) = (intent.before.as_deref(), intent.after.as_deref());
        if !intent.is_written {
            return Ok(after.cloned());
        }
        let updated = self.change(path, |entry| {
            if entry.as_ref() != after {
                return Ok(entry);
            }
            let before = before.cloned().map(Box::new);
            Ok(next(entry.clone(), Event::Withdrawn { before }).unwrap_or(entry))
        });
        Ok(updated.await?.after.as_deref().cloned())
    }

    /// Creates a stream because a request needs it. The caller holds the basin's lock and looks the stream up again
    /// afterwards.
    pub(super) async fn create_on_demand<Q: Questions>(
        &self,
        path: &StreamPath,
        config: Option<&str>,
        ask: &Q,
    ) -> Result<(), Q::Stop> {
        let creation = self.begin(path, Origin::AutoCreated).await?;
        let Created {
            mut outcome,
            refusal,
        } = ask.create(path, config).await?;
        // Another request was faster, through this proxy or around it.
        if outcome == Creating::Taken
            && let Some(listed) = ask.stream(path).await?.filter(|listed| !listed.is_going)
        {
            outcome = Creating::There {
                created_at: listed.created_at,
                is_new: false,
            };
        }
        let recorded = self.finish(creation, &outcome, ask).await?;
        let is_there = recorded.is_some() && matches!(outcome, Creating::There { .. });
        refusal.filter(|_| !is_there).map_or(Ok(()), Err)
    }

    /// A stream was created in the basin, so the basin exists: a mark of its deletion, or of a creation whose
    /// outcome is unknown, no longer lets go of its cipher.
    pub(super) async fn confirm_basin(&self, basin: &BasinName) -> Result<(), Error> {
        let found = self.store.basin(basin).await?;
        match found.entry.as_deref() {
            Some(entry) if entry.deleted => {
                let entry = BasinEntry {
                    deleted: false,
                    ..entry.clone()
                };
                self.record_basin(basin, found.revision, Some(entry)).await
            }
            Some(_) | None => Ok(()),
        }
    }
}
