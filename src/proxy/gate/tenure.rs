//! How long a session, or what else lasts, may go on: as long as its API key or client certificate is good for
//! it, and its stream is not shredded.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{ClientAccess, Denied, Gate, Principal, Refusal, refusal::By};
use crate::{
    certificate::PresentedCertificate,
    crypto::{Digest, Pepper},
    keys::Projects,
    project::{ProjectName, Scope},
    proxy::Error,
    registry::Registry,
    store::ProjectEntry,
    stream::StreamPath,
};

/// How often a session looks whether its API key or certificate is still good. Looking costs no I/O.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a session whose API key or certificate is not good any more may go on with what it had begun: for the acks of
/// what was sent.
const LAST_ACKS: Duration = Duration::from_secs(2);

/// Tells a session when it is over because its API key or certificate is. Clones are one and the same.
#[derive(Clone)]
pub struct Tenure(Option<Arc<Watched>>);

struct Watched {
    phase: watch::Receiver<Phase>,
    looking: JoinHandle<()>,
}

#[derive(Clone)]
enum Phase {
    Good,
    /// It is not good any more: nothing new.
    Over(Verdict),
    /// Nothing at all.
    Cut(Verdict),
}

/// Why a session is over.
#[derive(Debug, Clone)]
enum Verdict {
    Refused(Refusal),
    Denied(Denied),
    /// Every data key of the session's stream is gone.
    Shredded(Scope, StreamPath),
}

/// What the caller of a session needs for as long as the session runs.
struct Claim {
    api_key: Option<KeyClaim>,
    certificate: Option<Arc<PresentedCertificate>>,
    scope: Scope,
    path: StreamPath,
}

/// What an API key was good for when the session began.
struct KeyClaim {
    project: ProjectName,
    pepper: Pepper,
    key_id: String,
    lookup: Digest,
    /// What was recorded of the project at the last look.
    entry: Option<Arc<ProjectEntry>>,
}

/// What says whether a claim holds. The gate and the registry are not kept: a session that is on its way out
/// must not hold the config store open.
pub struct Judges {
    /// Checks API keys, if clients come with them.
    pub gate: Option<Weak<Gate>>,
    /// The rights of client certificates.
    pub clients: Arc<ClientAccess>,
    /// The rules and the streams.
    pub registry: Weak<Registry>,
}

impl Tenure {
    /// Without an API key and a certificate there is no end.
    pub fn endless() -> Self {
        Self(None)
    }

    /// Watches over a caller's session that needs this scope on this stream. Ends with its last clone.
    pub fn watched(judges: Judges, principal: &Principal, scope: Scope, path: &StreamPath) -> Self {
        let api_key = principal.api_key().map(|pass| KeyClaim {
            project: pass.project.name.clone(),
            pepper: pass.project.pepper().clone(),
            key_id: pass.key_id.clone(),
            lookup: pass.lookup,
            entry: Some(Arc::clone(&pass.entry)),
        });
        let claim = Claim {
            api_key,
            certificate: principal.certificate().cloned(),
            scope,
            path: path.clone(),
        };
        let (told, phase) = watch::channel(Phase::Good);
        let looking = tokio::spawn(claim.look(judges, told));
        Self(Some(Arc::new(Watched { phase, looking })))
    }

    /// Why it is over, if it is.
    pub fn ended(&self) -> Option<Error> {
        let watched = self.0.as_ref()?;
        let phase = watched.phase.borrow();
        phase.verdict().map(Error::from)
    }

    /// Waits until it is over: nothing new may begin.
    pub async fn over(&self) -> Error {
        self.reached(|_| true).await
    }

    /// Waits until what was begun may not go on either.
    pub async fn cut(&self) -> Error {
        self.reached(|phase| matches!(phase, Phase::Cut(_))).await
    }

    /// Runs something for no longer than it lasts.
    ///
    /// # Errors
    /// Why it is over, or what comes of running.
    pub async fn within<T, E: From<Error>>(
        &self,
        running: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            biased;
            ended = self.over() => Err(ended.into()),
            done = running => done,
        }
    }

    /// Whether there is no end.
    pub fn is_endless(&self) -> bool {
        self.0.is_none()
    }

    async fn reached(&self, wanted: impl Fn(&Phase) -> bool) -> Error {
        if let Some(watched) = &self.0 {
            let mut phase = watched.phase.clone();
            let is_wanted = |phase: &Phase| phase.verdict().is_some() && wanted(phase);
            let verdict = match phase.wait_for(is_wanted).await {
                Ok(phase) => phase.verdict(),
                // Nobody looks any more: the proxy is gone, or this one was over before.
                Err(_) => None,
            };
            if let Some(verdict) = verdict {
                return verdict.into();
            }
        }
        std::future::pending().await
    }
}

impl Phase {
    fn verdict(&self) -> Option<Verdict> {
        match self {
            Self::Good => None,
            Self::Over(verdict) | Self::Cut(verdict) => Some(verdict.clone()),
        }
    }
}

impl From<Verdict> for Error {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Refused(refusal) => refusal.into(),
            Verdict::Denied(denied) => denied.into(),
            Verdict::Shredded(Scope::Append, path) => Self::shredded_stream(&path),
            Verdict::Shredded(Scope::Read | Scope::Manage, _) => Self::KeyShredded,
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

impl Claim {
    /// Looks again and again, until it does not hold any more.
    async fn look(mut self, judges: Judges, told: watch::Sender<Phase>) {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let verdict = loop {
            look.tick().await;
            let Some(registry) = judges.registry.upgrade() else {
                return;
            };
            if let (Some(gate), Some(claim)) = (&judges.gate, &mut self.api_key) {
                let Some(gate) = gate.upgrade() else {
                    return;
                };
                claim.renew(&gate).await;
            }
            if let Err(verdict) = self.judge(&judges, registry.rules().projects()) {
                break verdict;
            }
            if let Ok(found) = registry.stream(&self.path).await
                && let Some(keys) = found
                    .entry
                    .as_ref()
                    .and_then(|entry| entry.data_keys.as_ref())
                && keys.is_shredded()
            {
                break Verdict::Shredded(self.scope, self.path);
            }
        };
        told.send_replace(Phase::Over(verdict.clone()));
        sleep(LAST_ACKS).await;
        told.send_replace(Phase::Cut(verdict));
    }

    /// Whether every credential still gives the scope on the stream.
    fn judge(&self, judges: &Judges, projects: &Projects) -> Result<(), Verdict> {
        if let Some(claim) = &self.api_key {
            let gate = judges.gate.as_ref().and_then(Weak::upgrade);
            let gate = gate.ok_or_else(|| claim.over())?;
            claim.judge(&gate, projects, (self.scope, &self.path))?;
        }
        let holder = judges.clients.judge(self.certificate.as_ref());
        let now = Principal::new(None, holder.map_err(Verdict::Denied)?);
        now.allow_stream(self.scope, &self.path)
            .map_err(Verdict::Denied)
    }
}

impl KeyClaim {
    /// Reads what is recorded of the project. A config store that cannot be read could not be changed either:
    /// what was read last holds.
    async fn renew(&mut self, gate: &Gate) {
        if let Ok(found) = gate.store.project(&self.project).await {
            self.entry = found.entry;
        }
    }

    fn over(&self) -> Verdict {
        let (project, id) = (self.project.clone(), self.key_id.clone());
        Verdict::Refused(Refusal::Over { project, id })
    }

    /// Whether the API key is good now, and for this.
    fn judge(
        &self,
        gate: &Gate,
        projects: &Projects,
        (scope, path): (Scope, &StreamPath),
    ) -> Result<(), Verdict> {
        let over = || self.over();
        let project = projects.named(&self.project).ok_or_else(over)?;
        if *project.pepper() != self.pepper {
            return Err(over());
        }
        let owner = projects.owner(path);
        if owner.is_none_or(|owner| owner.name != self.project) {
            return Err(Verdict::Denied(Denied::Stream(path.clone())));
        }
        let entry = self.entry.as_ref().ok_or_else(over)?;
        let mut rows = entry.api_keys.iter();
        let row = rows.find(|row| row.lookup == self.lookup);
        let row = row.ok_or_else(over)?;
        if !gate.is_good(entry, row) {
            return Err(over());
        }
        match row.scopes.allow(scope) {
            true => Ok(()),
            false => Err(Verdict::Denied(Denied::Scope(By::ApiKey, scope))),
        }
    }
}
