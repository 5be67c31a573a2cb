//! Which master keys an API key leads to: its own, and while the project goes from one to the next, both.

use super::{Master, Pass};
use crate::{proxy::Error, store::ProjectEntry};

impl Pass {
    /// The project's master key of a number, as the project's entry leads there. Whoever uses it to wrap a
    /// data key commits that together with [`Change::SameProject`](crate::store::Change::SameProject).
    ///
    /// # Errors
    /// [`Error::NoMasterKey`]: this API key does not lead to it by this entry.
    pub fn master_at(&self, mk_epoch: u32, entry: &ProjectEntry) -> Result<Master, Error> {
        let own = self.master()?;
        if own.epoch == mk_epoch {
            return Ok(own.clone());
        }
        let next = entry.rotation.as_ref().ok_or(Error::NoMasterKey)?;
        let (link, commit) = match (own.epoch, mk_epoch) {
            (from, to) if from == entry.mk_epoch && to == next.mk_epoch => {
                (&next.forward, next.mk_commit)
            }
            (from, to) if from == next.mk_epoch && to == entry.mk_epoch => {
                (&next.backward, entry.mk_commit)
            }
            _ => return Err(Error::NoMasterKey),
        };
        let name = self.project.name.as_str();
        let key = own.key.follow(name, own.epoch, link, mk_epoch);
        key.filter(|key| key.commit(name, mk_epoch) == commit)
            .map(|key| Master {
                key,
                epoch: mk_epoch,
            })
            .ok_or(Error::NoMasterKey)
    }

    /// The project's master key that new data keys are wrapped in: the next one as soon as the change to it
    /// has begun.
    ///
    /// # Errors
    /// As [`Pass::master_at`].
    pub fn newest(&self, entry: &ProjectEntry) -> Result<Master, Error> {
        self.master_at(entry.newest_mk_epoch(), entry)
    }
}
