//! A new configuration for a proxy that runs: read and checked as a whole, then put in force as a whole.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tokio::{runtime::Handle, signal::unix::Signal};

use super::{
    Failure, checked,
    effective::{differences, effective},
    notify, open,
    watch::Watch,
};
use crate::{
    certificate::{Certificate, Role},
    config::Config,
    keys::{ClientRules, Clients},
    proxy::Proxy,
    registry::rules::{Rules, Succession},
    server::{self, LiveTls, Outcome, Reloads},
    store::{self, Store},
    telemetry::{metrics::Metrics, sinks::Sinks},
    upstream::{self, Upstream},
};

/// Puts configurations in force while the proxy runs, one after the other.
pub struct Reloader {
    /// The configuration in force.
    running: Mutex<Config>,
    parts: Live,
    reloads: Arc<Reloads>,
}

/// The parts of a running proxy that can be replaced.
pub(super) struct Live {
    /// Where the listener is.
    pub(super) address: SocketAddr,
    pub(super) tls: LiveTls,
    pub(super) upstream: Upstream,
    pub(super) proxy: Arc<Proxy>,
    pub(super) store: Arc<dyn Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) sinks: Arc<Sinks>,
}

/// Their replacements: nothing can fail any more.
struct Renewed {
    tls: server::Renewed,
    upstream: upstream::Renewed,
    rules: Rules,
    clients: Clients,
}

impl Reloader {
    pub(super) fn new(config: &Config, parts: Live) -> Self {
        let certificates = parts.certificates();
        parts.metrics.process.last_reload_successful.set(1);
        for outcome in Outcome::NAMES {
            parts.metrics.process.reloads.with_label_values(&[outcome]);
        }
        let reloads = Arc::new(Reloads::new(certificates));
        Self {
            running: Mutex::new(config.clone()),
            parts,
            reloads,
        }
    }

    /// What became of the reloads, and the certificates in use.
    pub fn reloads(&self) -> &Arc<Reloads> {
        &self.reloads
    }

    /// Puts what it can of `wanted` in force and returns the keys that have to wait for the next start. The
    /// files that it names are read again, whether or not their paths changed. May block on them.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with `wanted`, or with what it would come to here. Nothing has changed then.
    pub fn apply(&self, wanted: &Config) -> Result<Vec<String>, Failure> {
        self.count(self.replace(wanted))
    }

    /// The same with what the file says; `read` hears of the configuration before the files that it names
    /// are read.
    fn apply_file(&self, path: &Path, read: impl FnOnce(&Config)) -> Result<Vec<String>, Failure> {
        let loaded = Config::load(Some(path)).map_err(Failure::from);
        self.count(loaded.and_then(|wanted| {
            read(&wanted);
            self.replace(&wanted)
        }))
    }

    fn replace(&self, wanted: &Config) -> Result<Vec<String>, Failure> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        checked(wanted)?;
        keeps_clients(&running, wanted)?;
        let effective = effective(&running, wanted);
        let waiting = differences(&effective, wanted)?;
        if !waiting.is_empty() {
            // What is checked must be what comes in force: half of a change may be what makes it sound.
            checked(&effective).map_err(|failure| as_is(&failure, &waiting))?;
        }
        let renewed = self.parts.renew(&effective)?;
        if *running != effective {
            let effective = effective.to_toml()?;
            tracing::info!("effective configuration:\n{effective}");
        }
        let hands_out_keys = renewed.rules.hands_out_keys();
        let succession = wait(Succession::begin(&*self.parts.store, &renewed.rules))?;
        self.parts.replace(renewed);
        settled(wait(succession.finish(&*self.parts.store)));
        if hands_out_keys {
            open::warn_if_open(&effective, self.parts.address, &self.parts.upstream);
        }
        *running = effective;
        Ok(waiting)
    }

    fn count(&self, applied: Result<Vec<String>, Failure>) -> Result<Vec<String>, Failure> {
        let (outcome, certificates) = match &applied {
            Ok(waiting) => (
                Outcome::Applied(waiting.clone()),
                Some(self.parts.certificates()),
            ),
            Err(failure) => (Outcome::Refused(failure.to_string()), None),
        };
        let process = &self.parts.metrics.process;
        let name = [outcome.name()];
        process.reloads.with_label_values(&name).inc();
        let is_applied = i64::from(applied.is_ok());
        process.last_reload_successful.set(is_applied);
        self.reloads.ended(outcome, certificates);
        applied
    }
}

impl Live {
    fn renew(&self, config: &Config) -> Result<Renewed, Failure> {
        let rules = config
            .rules()
            .map_err(|mistakes| Failure::Config(mistakes.join("\n")))?;
        let clients = config
            .clients()
            .map_err(|mistakes| Failure::Config(mistakes.join("\n")))?;
        let tls = self.tls.renew(&config.listen);
        let upstream = self.upstream.renew(&config.upstream);
        Ok(Renewed {
            tls: tls.map_err(|error| Failure::Config(error.to_string()))?,
            upstream: upstream.map_err(|error| Failure::Config(error.to_string()))?,
            rules,
            clients,
        })
    }

    /// Who may come in changes before what they may reach.
    fn replace(&self, renewed: Renewed) {
        self.tls.replace(renewed.tls);
        self.proxy.replace_clients(renewed.clients);
        self.proxy.replace_rules(renewed.rules);
        self.upstream.replace(renewed.upstream);
    }

    /// The certificates in use. Those that prove who the proxy is had better be valid.
    fn certificates(&self) -> Vec<Certificate> {
        let mut certificates = self.tls.certificates();
        certificates.extend(self.upstream.certificates());
        let now = SystemTime::now();
        for certificate in &certificates {
            let is_own = matches!(certificate.role, Role::Listener | Role::UpstreamClient);
            if is_own && !certificate.is_valid_at(now) {
                tracing::warn!(
                    certificate = certificate.role.name(),
                    subject = %certificate.subject,
                    "certificate is not valid now"
                );
            }
        }
        certificates
    }
}

/// Reloads the file at `path` whenever `hangup` or `watch` says so, forever. What went wrong is in the log.
pub(super) async fn whenever(
    reloader: Arc<Reloader>,
    path: Arc<Path>,
    mut hangup: Signal,
    mut watch: Watch,
) {
    loop {
        let why = tokio::select! {
            _ = hangup.recv() => "SIGHUP",
            () = watch.changed() => "a file changed",
        };
        tracing::info!("reloading the configuration: {why}");
        let _told = notify::reloading();
        // Whoever rotates the log sends SIGHUP, too.
        if let Some(audit) = &reloader.parts.sinks.audit {
            audit.reopen();
        }
        watch.look().await;
        let (reloader, path) = (Arc::clone(&reloader), Arc::clone(&path));
        let reload = tokio::task::spawn_blocking(move || {
            let applied = reloader.apply_file(&path, |wanted| watch.follow(wanted));
            (watch, applied)
        });
        let applied = match reload.await {
            Ok((back, applied)) => {
                watch = back;
                applied
            }
            Err(error) => {
                tracing::error!(%error, "reloading broke down: there will be no more before a restart");
                return;
            }
        };
        report(&applied);
    }
}

/// Says that the store could not record what the rules in force no longer seal. It knows of too much then.
pub(super) fn settled(recorded: Result<(), store::Error>) {
    if let Err(error) = recorded {
        tracing::error!(
            %error,
            "the rules are in force, and the config store still knows of those before: keep the rules with \
             \"none\" until the next reload"
        );
    }
}

/// Waits on a thread of the runtime that may block.
fn wait<T>(done: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| Handle::current().block_on(done))
}

fn report(applied: &Result<Vec<String>, Failure>) {
    match applied {
        Ok(waiting) if waiting.is_empty() => tracing::info!("configuration reloaded"),
        Ok(waiting) => tracing::warn!(
            "configuration reloaded, but these keys take effect at the next start: {}",
            waiting.join(", ")
        ),
        Err(failure) => {
            tracing::error!("configuration refused, the one before stays in force: {failure}")
        }
    }
}

/// Refuses a configuration that lost all of its `[[clients]]`: cut short by its writer, say. Every certificate
/// would have every right then.
fn keeps_clients(running: &Config, wanted: &Config) -> Result<(), Failure> {
    match wanted.clients.is_empty() && matches!(&running.clients, ClientRules::Rules(rules) if !rules.is_empty()) {
        true => Err(Failure::Config(
            "clients: there are no more [[clients]] tables; write clients = \"any\" to let every client \
             certificate use every stream"
                .to_owned(),
        )),
        false => Ok(()),
    }
}

fn as_is(failure: &Failure, waiting: &[String]) -> Failure {
    Failure::Config(format!(
        "it needs a restart: {} cannot change while the proxy runs, and without that {failure}",
        waiting.join(", ")
    ))
}
