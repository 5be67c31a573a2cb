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
        let now = SystemTime::now();
        keeps_valid(&self.parts.in_use(), &renewed.certificates(), now)?;
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

impl Renewed {
    fn certificates(&self) -> Vec<Certificate> {
        let listener = self.tls.certificates();
        listener.chain(self.upstream.certificates()).collect()
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

    fn in_use(&self) -> Vec<Certificate> {
        let mut certificates = self.tls.certificates();
        certificates.extend(self.upstream.certificates());
        certificates
    }

    /// The certificates in use, with a warning for each of the proxy's own that is not valid now.
    fn certificates(&self) -> Vec<Certificate> {
        let certificates = self.in_use();
        let now = SystemTime::now();
        for certificate in &certificates {
            if own_key(certificate.role).is_some() && !certificate.is_valid_at(now) {
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

/// The configuration key of the proxy's own certificates of this role; `None` for those of others.
fn own_key(role: Role) -> Option<&'static str> {
    match role {
        Role::Listener => Some("listen.tls.cert_file"),
        Role::UpstreamClient => Some("upstream.tls.client_cert_file"),
        Role::ClientCa | Role::ClientCrl | Role::UpstreamCa => None,
    }
}

/// Refuses a certificate of the proxy's own that is not valid now, where it would replace one that is.
fn keeps_valid(
    before: &[Certificate],
    after: &[Certificate],
    now: SystemTime,
) -> Result<(), Failure> {
    let is_valid = |role| {
        let mut of_role = before
            .iter()
            .filter(|before| before.role == role)
            .peekable();
        of_role.peek().is_some() && of_role.all(|before| before.is_valid_at(now))
    };
    let replaces_valid = |after: &&Certificate| !after.is_valid_at(now) && is_valid(after.role);
    let mut refused = after.iter().filter(replaces_valid);
    let refused = refused.find_map(|after| Some((own_key(after.role)?, after)));
    match refused {
        Some((key, after)) => Err(Failure::Config(format!(
            "{key}: the certificate of \"{}\" has expired or is not valid yet, and the one in force is valid; name a \
             valid one, or check the clock",
            after.subject
        ))),
        None => Ok(()),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_good_certificate_is_kept_from_a_bad_one() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let of = |role, (not_before, not_after)| Certificate {
            role,
            subject: "CN=a".into(),
            not_before,
            not_after,
        };
        let (good, expired, early) = ((0, 2_000), (0, 999), (1_001, 2_000));
        let own = [Role::Listener, Role::UpstreamClient];
        for role in own {
            for bad in [expired, early] {
                let refused = |before: &[_], after: &[_]| {
                    let certificates = |times: &[_]| -> Vec<_> {
                        times.iter().map(|times| of(role, *times)).collect()
                    };
                    keeps_valid(&certificates(before), &certificates(after), now).is_err()
                };
                assert!(refused(&[good], &[bad]));
                assert!(refused(&[good, good], &[good, bad]));
                assert!(
                    !refused(&[bad], &[bad]),
                    "the one in force has expired, too"
                );
                assert!(!refused(&[good, bad], &[bad]));
                assert!(!refused(&[], &[bad]), "nothing is replaced");
                assert!(!refused(&[good], &[good]));
                assert!(!refused(&[good], &[]));
            }
            let others = own.into_iter().find(|other| *other != role);
            let before: Vec<_> = others.map(|other| of(other, good)).into_iter().collect();
            let bad = [of(role, expired)];
            assert!(
                keeps_valid(&before, &bad, now).is_ok(),
                "another's certificate"
            );
        }
        for role in [Role::ClientCa, Role::UpstreamCa, Role::ClientCrl] {
            let (good, expired) = (of(role, good), of(role, expired));
            assert!(keeps_valid(&[good], &[expired], now).is_ok(), "{role:?}");
        }
    }
}
