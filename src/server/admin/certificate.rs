//! The certificates in use: whose, and from when until when.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use crate::{
    file::{self, OptionalFile},
    server, upstream,
};

/// Certificates of one authority file that are looked at. Systems trust some 150 authorities.
const MAX_AUTHORITIES: usize = 200;

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The listener presents it to clients.
    Listener,
    /// Certificates of clients must be issued by it.
    ClientCa,
    /// The upstream's certificate must be issued by it.
    UpstreamCa,
    /// The proxy presents it to the upstream.
    UpstreamClient,
}

impl Role {
    /// The word for it, which is also its label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::ClientCa => "client_ca",
            Self::UpstreamCa => "upstream_ca",
            Self::UpstreamClient => "upstream_client",
        }
    }

    /// Whether nothing works once it has ended. Of authorities there may be several, old and new.
    fn is_needed(self) -> bool {
        matches!(self, Self::Listener | Self::UpstreamClient)
    }
}

/// A certificate in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// What it is for.
    pub role: Role,
    /// Whose it is: its subject, or the first name it is for.
    pub subject: String,
    /// When it begins.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

impl Certificate {
    /// Reads what is of interest of a certificate.
    ///
    /// # Errors
    /// When it is not X.509, without a word of what is in it.
    pub fn parse(role: Role, der: &[u8]) -> Result<Self, String> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| "it is not X.509".to_owned())?;
        let validity = certificate.validity();
        Ok(Self {
            role,
            subject: subject(&certificate),
            not_before: moment(validity.not_before.timestamp()),
            not_after: moment(validity.not_after.timestamp()),
        })
    }

    /// What is wrong with it at this time, if it is one that nothing works without.
    fn problem(&self, now: SystemTime) -> Option<String> {
        let role = self.role.as_str();
        let subject = &self.subject;
        if !self.role.is_needed() {
            None
        } else if now >= self.not_after {
            Some(format!("the {role} certificate ({subject}) has expired"))
        } else if now < self.not_before {
            Some(format!(
                "the {role} certificate ({subject}) is not valid yet"
            ))
        } else {
            None
        }
    }

    /// Whole days until it ends; below zero once it has.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        let days = |left: Duration| i64::try_from(left.as_secs() / 86_400).unwrap_or(i64::MAX);
        match self.not_after.duration_since(now) {
            Ok(left) => days(left),
            Err(past) => -1 - days(past.duration()),
        }
    }
}

/// The certificates in use now. A reload replaces them.
#[derive(Debug, Default)]
pub struct Certificates(ArcSwap<Vec<Certificate>>);

impl Certificates {
    /// The certificates that the configuration names, read from their files, with the one that the
    /// listener made itself where it did. What cannot be read is left out: it is not in use either.
    pub fn of(
        listen: &server::Config,
        self_signed: Option<&str>,
        upstream: &upstream::TlsConfig,
    ) -> Self {
        let mut found = Vec::new();
        if let Some(pem) = self_signed {
            let der = CertificateDer::from_pem_slice(pem.as_bytes());
            found.extend(
                der.ok()
                    .and_then(|der| Certificate::parse(Role::Listener, &der).ok()),
            );
        }
        for (role, key, file) in [
            (
                Role::Listener,
                "listen.tls.cert_file",
                &listen.tls.cert_file,
            ),
            (
                Role::ClientCa,
                "listen.tls.client_ca_file",
                &listen.tls.client_ca_file,
            ),
            (Role::UpstreamCa, "upstream.tls.ca_file", &upstream.ca_file),
            (
                Role::UpstreamClient,
                "upstream.tls.client_cert_file",
                &upstream.client_cert_file,
            ),
        ] {
            found.extend(read(role, key, file));
        }
        Self(ArcSwap::from_pointee(found))
    }

    /// Others are in use from now on.
    pub fn replace(&self, certificates: Vec<Certificate>) {
        self.0.store(Arc::new(certificates));
    }

    /// The certificates in use.
    pub fn now(&self) -> Arc<Vec<Certificate>> {
        self.0.load_full()
    }

    /// Whether they can be used at this time, and until when.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn check(&self, now: SystemTime) -> Result<String, String> {
        let certificates = self.now();
        let problems: Vec<_> = certificates
            .iter()
            .filter_map(|one| one.problem(now))
            .collect();
        if !problems.is_empty() {
            return Err(problems.join("; "));
        }
        let needed = certificates.iter().filter(|one| one.role.is_needed());
        Ok(match needed.min_by_key(|one| one.not_after) {
            Some(first) => format!("valid for {} days", first.days_left(now)),
            None => "none in use".to_owned(),
        })
    }
}

/// Of a chain the certificate it is about, which stands first; of authorities all.
fn read(role: Role, key: &str, file: &OptionalFile) -> Vec<Certificate> {
    let ders = file.path().map(|path| file::certificates(key, path));
    let ders = ders.and_then(Result::ok).unwrap_or_default();
    let count = if role.is_needed() { 1 } else { MAX_AUTHORITIES };
    let parsed = ders
        .iter()
        .take(count)
        .map(|der| Certificate::parse(role, der));
    parsed.filter_map(Result::ok).collect()
}

fn subject(certificate: &X509Certificate<'_>) -> String {
    let subject = certificate.subject().to_string();
    if !subject.is_empty() {
        return subject;
    }
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.iter());
    let name = names.into_iter().flatten().find_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    name.unwrap_or_else(|| "without a name".to_owned())
}

/// Seconds since the Unix epoch as a time.
fn moment(seconds: i64) -> SystemTime {
    let epoch = SystemTime::UNIX_EPOCH;
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let moment = match seconds < 0 {
        true => epoch.checked_sub(distance),
        false => epoch.checked_add(distance),
    };
    moment.unwrap_or(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn certificate(role: Role, subject: &str) -> Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !subject.is_empty() {
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, subject);
        }
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 1, 11);
        Certificate::parse(role, params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn days_are_counted_to_the_end_and_beyond() {
        let certificate = certificate(Role::Listener, "streams");
        assert_eq!(certificate.subject, "CN=streams");
        let (begin, end) = (certificate.not_before, certificate.not_after);
        assert_eq!(end.duration_since(begin).unwrap(), 10 * DAY);
        for (now, days) in [
            (begin, 10),
            (end - DAY, 1),
            (end - DAY / 2, 0),
            (end, 0),
            (end + DAY / 2, -1),
            (end + DAY, -2),
        ] {
            assert_eq!(certificate.days_left(now), days, "{now:?}");
        }
    }

    #[test]
    fn a_certificate_that_is_needed_must_be_valid() {
        let listener = certificate(Role::Listener, "");
        assert_eq!(listener.subject, "localhost");
        let (begin, end) = (listener.not_before, listener.not_after);
        let certificates = Certificates::default();
        assert_eq!(certificates.check(begin).unwrap(), "none in use");
        certificates.replace(vec![listener, certificate(Role::ClientCa, "old")]);
        assert_eq!(certificates.check(begin).unwrap(), "valid for 10 days");
        assert!(
            certificates
                .check(begin - DAY)
                .unwrap_err()
                .contains("not valid yet")
        );
        let expired = certificates.check(end).unwrap_err();
        assert_eq!(expired, "the listener certificate (localhost) has expired");
        certificates.replace(vec![certificate(Role::ClientCa, "old")]);
        assert_eq!(certificates.check(end).unwrap(), "none in use");
    }

    #[test]
    fn anything_else_is_no_certificate() {
        for der in [
            &b""[..],
            b"not a certificate",
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert!(Certificate::parse(Role::Listener, der).is_err());
        }
    }
}
