//! The change of a project's master key: a new one is made, every data key of the project is wrapped in it, and
//! then the old one is forgotten.
//!
//! ```text
//! begin   one commit: the next master key's commitment, each of the two wrapped in the other, and an API key
//!         of the next one. From here on either kind of API key leads to both, and new data keys are wrapped in
//!         the next one only.
//! rewrap  data key by data key, from the old one to the next, until a whole pass finds none left.
//! end     asked for with an API key of the next master key: whoever asks holds one, so that the old ones may
//!         go. One commit: the links go, and the API keys of the old master key are revoked.
//! ```
//! Both master keys live in the request that asked, and nowhere else: when it ends or the process does, any later
//! request with an API key that may manage goes on where it stopped.
//!
//! Why nothing is lost: a data key is recorded only together with the state of the project that its master key was
//! chosen by ([`Change::SameProject`]), so that none is wrapped in the old one after the beginning is committed. A
//! pass that begins after that, and finds none, has seen them all.

mod end;
mod rewrap;

use std::sync::Arc;

use serde::Serialize;

pub use self::end::Left;
use self::rewrap::{Rewrap, Rewrapped};
use super::super::{
    Error, Proxy,
    gate::{Master, Pass},
    projects::{Issued, ProjectError, Roster},
};
#[cfg(doc)]
use crate::store::Change;
use crate::{registry::Registry, store};

/// Passes over all streams before it gives up: two are enough unless others write all the time.
const MAX_PASSES: usize = 16;

/// How far a change of the master key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Data keys that are wrapped in the next master key by now.
    pub rewrapped: u64,
    /// Of so many that were found at the beginning. More may come and go meanwhile.
    pub of: u64,
}

/// How a request for a change of the master key ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stopped {
    /// Whether every data key of the project is wrapped in the next master key.
    pub done: bool,
    /// Whether the old master key is forgotten, and its API keys are revoked.
    pub ended: bool,
    /// The number of the next master key.
    pub mk_epoch: u32,
    /// The data keys that keep the change from its end: they open under no master key that there is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stuck: Vec<Stuck>,
}

/// A data key that does not open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stuck {
    /// Its stream.
    pub stream: String,
    /// Its key epoch.
    pub epoch: u32,
    /// What is wrong with it.
    pub why: String,
}

/// Takes the progress; `false` when nobody reads it any more, and the work stops.
pub type Tell<'a> = dyn FnMut(Progress) -> futures_util::future::BoxFuture<'a, bool> + Send + 'a;

/// A change of the master key that is under way, and the keys for it.
pub struct MasterChange {
    registry: Arc<Registry>,
    old: Master,
    next: Master,
    /// Whoever asks.
    by: Arc<Pass>,
}

impl MasterChange {
    /// The change that a project's entry says is under way, by the keys that `pass` leads to.
    fn by(
        registry: &Arc<Registry>,
        pass: &Arc<Pass>,
        entry: &store::ProjectEntry,
    ) -> Result<Self, Error> {
        Ok(Self {
            registry: Arc::clone(registry),
            old: pass.master_at(entry.mk_epoch, entry)?,
            next: pass.newest(entry)?,
            by: Arc::clone(pass),
        })
    }

    async fn begin(
        registry: &Arc<Registry>,
        roster: &Roster,
        pass: &Arc<Pass>,
    ) -> Result<Begun, ProjectError> {
        let (entry, issued) = roster.next_master(pass).await?;
        Ok(Begun {
            change: Self::by(registry, pass, &entry)?,
            issued,
        })
    }

    /// The number of the next master key.
    pub fn mk_epoch(&self) -> u32 {
        self.next.epoch
    }

    /// Wraps every data key of the project in the next master key. Ends nothing. `None` when nobody reads the progress any
    /// more.
    ///
    /// # Errors
    /// The config store fails, or others change the streams all the time. What is done is done.
    pub async fn rewrap(&self, tell: &mut Tell<'_>) -> Result<Option<Stopped>, Error> {
        let rewrap = Rewrap::new(self);
        let of = rewrap.count().await?;
        let mut rewrapped = 0;
        for _ in 0..MAX_PASSES {
            let passed = rewrap.pass(rewrapped, of, tell).await?;
            let Rewrapped {
                done,
                left,
                stuck,
                is_read,
            } = passed;
            if !is_read {
                return Ok(None);
            }
            rewrapped = rewrapped.saturating_add(done);
            if done == 0 && left == 0 {
                return Ok(Some(Stopped {
                    done: stuck.is_empty(),
                    ended: false,
                    mk_epoch: self.next.epoch,
                    stuck,
                }));
            }
        }
        Err(Error::Busy)
    }
}

impl Proxy {
    /// Begins a change of the master key of the project of `pass`, or joins the one that is under way, and
    /// makes an API key of the next master key, with the scopes of the one that was presented.
    ///
    /// # Errors
    /// [`ProjectError`]; nothing has changed then.
    pub async fn begin_master_change(&self, pass: &Arc<Pass>) -> Result<Begun, ProjectError> {
        MasterChange::begin(&self.registry, &self.roster, pass).await
    }

    /// The change to master key `mk_epoch`, to be brought to its end with an API key of that master key. Never
    /// begins one.
    ///
    /// # Errors
    /// [`ProjectError`]; nothing has changed then.
    pub async fn resume_master_change(
        &self,
        pass: &Arc<Pass>,
        mk_epoch: u32,
    ) -> Result<Left, ProjectError> {
        MasterChange::resume(&self.registry, pass, mk_epoch).await
    }
}

/// What was begun: the change, and an API key of the next master key.
pub struct Begun {
    /// The change.
    pub change: MasterChange,
    /// The API key. Whoever asked gets it before any data key is touched.
    pub issued: Issued,
}

#[cfg(test)]
mod tests;
