//! What `/api/status` answers: the whole proxy on one screen.

use std::time::{Duration, SystemTime};

use humantime_serde::re::humantime;
use serde::Serialize;

use super::{
    Admin,
    certificates::days_left,
    ready::{Look, Report},
};
use crate::{
    certificate::{Certificate, Role},
    keys,
    server::{Authenticate, Config, Outcome, Reloads},
    upstream::Probed,
};

/// The whole proxy on one screen.
#[derive(Serialize)]
pub(super) struct Status<'a> {
    version: &'static str,
    started_at: String,
    uptime_seconds: u64,
    ready: &'a Report,
    key_check: keys::Check,
    listeners: [Listener; 2],
    upstream: Vec<EndpointStatus>,
    certificates: Vec<CertificateStatus>,
    store: Option<StoreStatus>,
    reloads: ReloadStatus,
}

#[derive(Serialize)]
struct Listener {
    role: &'static str,
    address: String,
    tls: bool,
    authenticate: &'static str,
    client_certificates: bool,
}

#[derive(Serialize)]
struct EndpointStatus {
    endpoint: &'static str,
    url: String,
    reachable: bool,
    reason: String,
}

#[derive(Serialize)]
struct CertificateStatus {
    role: &'static str,
    subject: String,
    not_before: String,
    not_after: String,
    days_left: i64,
}

#[derive(Serialize)]
struct ReloadStatus {
    applied: u64,
    refused: u64,
    last: Option<LastReload>,
}

#[derive(Serialize)]
struct LastReload {
    at: String,
    outcome: &'static str,
    /// Why it was refused.
    reason: Option<String>,
    /// Keys that take effect at the next start.
    waiting: Vec<String>,
}

#[derive(Serialize)]
struct StoreStatus {
    path: String,
    size_bytes: u64,
    basins: u64,
    streams: u64,
    projects: u64,
    changes: u64,
    format: u32,
    keyed: bool,
}

impl<'a> Status<'a> {
    pub(super) fn of(
        admin: &Admin,
        look: Option<&Look>,
        ready: &'a Report,
        now: SystemTime,
    ) -> Self {
        let parts = &admin.parts;
        let certificates = parts.reloads.certificates();
        let asks_clients = certificates.iter().any(|one| one.role == Role::ClientCa);
        let store = look.and_then(|look| look.store.as_ref().ok());
        Self {
            version: env!("CARGO_PKG_VERSION"),
            started_at: time(admin.started_at),
            uptime_seconds: admin.started.elapsed().as_secs(),
            ready,
            key_check: parts.key_check,
            listeners: [
                Listener::data(parts.data_address, &parts.listen, asks_clients),
                Listener {
                    role: "admin",
                    address: admin.access.listener.to_string(),
                    tls: false,
                    authenticate: admin.access.kind(),
                    client_certificates: false,
                },
            ],
            upstream: look.map(endpoints).unwrap_or_default(),
            certificates: certificates
                .iter()
                .map(|certificate| CertificateStatus::of(certificate, now))
                .collect(),
            store: store.map(|summary| StoreStatus {
                path: summary.path.display().to_string(),
                size_bytes: summary.size,
                basins: summary.basins,
                streams: summary.streams,
                projects: summary.projects,
                changes: summary.generation,
                format: summary.format,
                keyed: summary.is_keyed,
            }),
            reloads: ReloadStatus::of(&parts.reloads),
        }
    }
}

impl Listener {
    fn data(address: std::net::SocketAddr, config: &Config, asks_clients: bool) -> Self {
        Self {
            role: "data",
            address: address.to_string(),
            tls: !config.plaintext,
            authenticate: match config.authenticate {
                Authenticate::Upstream => "upstream",
                Authenticate::Mtls => "mtls",
                Authenticate::ApiKey => "api-key",
                Authenticate::None => "none",
            },
            client_certificates: asks_clients,
        }
    }
}

impl CertificateStatus {
    fn of(certificate: &Certificate, now: SystemTime) -> Self {
        Self {
            role: certificate.role.name(),
            subject: certificate.subject.to_string(),
            not_before: moment(certificate.not_before),
            not_after: moment(certificate.not_after),
            days_left: days_left(certificate, now),
        }
    }
}

impl ReloadStatus {
    fn of(reloads: &Reloads) -> Self {
        let last = reloads.last().map(|last| {
            let (reason, waiting) = match &last.outcome {
                Outcome::Applied(waiting) => (None, waiting.clone()),
                Outcome::Refused(reason) => (Some(reason.clone()), Vec::new()),
            };
            LastReload {
                at: time(last.at),
                outcome: last.outcome.name(),
                reason,
                waiting,
            }
        });
        Self {
            applied: reloads.applied(),
            refused: reloads.refused(),
            last,
        }
    }
}

fn endpoints(look: &Look) -> Vec<EndpointStatus> {
    let of = |probed: &Probed| EndpointStatus {
        endpoint: probed.key,
        url: probed.url.clone(),
        reachable: probed.outcome.is_well(),
        reason: probed.outcome.reason(),
    };
    look.upstream.iter().map(of).collect()
}

/// Seconds since the Unix epoch, as [`time`] writes them.
fn moment(seconds: i64) -> String {
    let since = u64::try_from(seconds).ok().map(Duration::from_secs);
    let moment = since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    moment.map_or_else(|| "out of range".to_owned(), time)
}

/// A time as RFC 3339 writes it.
pub(super) fn time(at: SystemTime) -> String {
    // What is before 1970 or after the year 9999 has no such form, and the formatter would panic.
    const LAST: u64 = 253_402_300_799;
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH);
    match seconds {
        Ok(since) if since.as_secs() <= LAST => humantime::format_rfc3339_seconds(at).to_string(),
        Ok(_) | Err(_) => "out of range".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_without_a_form_do_no_harm() {
        let epoch = SystemTime::UNIX_EPOCH;
        let second = std::time::Duration::from_secs(1);
        assert_eq!(time(epoch), "1970-01-01T00:00:00Z");
        assert_eq!(time(epoch - second), "out of range");
        let far = std::time::Duration::from_secs(253_402_300_799);
        assert_eq!(time(epoch + far), "9999-12-31T23:59:59Z");
        assert_eq!(time(epoch + far + second), "out of range");
    }
}
