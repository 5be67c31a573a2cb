//! What certificates say of themselves: whose they are, and from when to when they are valid.

mod names;
mod presented;

use std::{
    fmt::Write as _,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rustls_pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    objects::{oid_registry, oid2abbrev},
    prelude::FromDer as _,
    public_key::PublicKey,
    revocation_list::CertificateRevocationList,
    x509::{AttributeTypeAndValue, X509Name},
};

pub use self::{
    names::CertificateNames,
    presented::{ClientTrust, ClientVerifier, PresentedCertificate},
};

/// Longest subject that is shown. RFC 5280 bounds its usual parts at 64 characters each; a certificate
/// alone may have 64 KiB.
const MAX_SUBJECT_CHARS: usize = 512;

/// What a certificate of the configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The listener's chain, which clients see.
    Listener,
    /// What client certificates must be issued by.
    ClientCa,
    /// The revocation list of an authority of clients.
    ClientCrl,
    /// What the upstream's certificate must be issued by.
    UpstreamCa,
    /// What the proxy presents to the upstream.
    UpstreamClient,
}

impl Role {
    /// Its name in logs, metrics and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::ClientCa => "client_ca",
            Self::ClientCrl => "client_crl",
            Self::UpstreamCa => "upstream_ca",
            Self::UpstreamClient => "upstream_client",
        }
    }
}

/// One certificate that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// What it is for.
    pub role: Role,
    /// Whose it is; see [`subject`].
    pub subject: Arc<str>,
    /// Valid from, in seconds since the Unix epoch.
    pub not_before: i64,
    /// Valid until, in seconds since the Unix epoch.
    pub not_after: i64,
}

impl Certificate {
    /// What a certificate says of itself; `None` when it is not X.509.
    pub fn read(role: Role, der: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        Some(Self {
            role,
            subject: name_of(&parsed),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }

    /// The issuer of a revocation list, and the time until which the list stands; without a `nextUpdate`,
    /// for good. `None` when it is not a revocation list.
    pub fn read_crl(der: &[u8]) -> Option<Self> {
        let (_, parsed) = CertificateRevocationList::from_der(der).ok()?;
        let next = parsed.next_update();
        Some(Self {
            role: Role::ClientCrl,
            subject: shortened(&distinguished(parsed.issuer())),
            not_before: parsed.last_update().timestamp(),
            not_after: next.map_or(i64::MAX, |next| next.timestamp()),
        })
    }

    /// Whether it is valid at this time. Nothing is said of who issued it.
    pub fn is_valid_at(&self, time: SystemTime) -> bool {
        let seconds = match time.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            Err(_) => i64::MIN,
        };
        (self.not_before..=self.not_after).contains(&seconds)
    }
}

/// Fewest bits of an RSA key that TLS takes here.
const MIN_RSA_BITS: usize = 2048;

/// The mistake of a certificate whose RSA key is too short for any connection to be made with it.
pub fn weakness(der: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let Ok(PublicKey::RSA(key)) = parsed.public_key().parsed() else {
        return None;
    };
    let zeros = key.modulus.iter().take_while(|byte| **byte == 0).count();
    let bits = key.modulus.len().saturating_sub(zeros) * 8;
    (bits < MIN_RSA_BITS).then(|| {
        let subject = name_of(&parsed);
        format!("the certificate of \"{subject}\" has an RSA key of {bits} bits, and needs {MIN_RSA_BITS} or more")
    })
}

/// Returns the certificates that the file of configuration key `key` holds, if none of them has a short RSA key.
///
/// # Errors
/// The first certificate that has one, with the key and the path.
pub fn strong(
    key: &str,
    path: &Path,
    chain: Vec<CertificateDer<'static>>,
) -> Result<Vec<CertificateDer<'static>>, String> {
    match chain.iter().find_map(weakness) {
        Some(mistake) => Err(format!("{key}: {}: {mistake}", path.display())),
        None => Ok(chain),
    }
}

/// The mistake of a certificate that is taken for an authority's and is none: it says so itself, or another one issued
/// it and it does not say that it is one. A certificate that says nothing and is signed by itself may be a root of X.509
/// version 1, or the only client's own.
pub fn no_authority(der: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let constraints = parsed.basic_constraints().ok().flatten();
    let is_authority = match constraints {
        Some(constraints) => constraints.value.ca,
        None => parsed.issuer().as_raw() == parsed.subject().as_raw(),
    };
    (!is_authority).then(|| {
        let subject = name_of(&parsed);
        format!(
            "the certificate of \"{subject}\" is not an authority's (its basic constraints do not say CA:TRUE); name \
             the certificate of the authority that issued it"
        )
    })
}

/// What is wrong with a certificate chain and its private key, which two files hold.
pub fn identity_mistake(error: &rustls::Error, cert_key: &str, key_key: &str) -> String {
    use rustls::{Error, InconsistentKeys};
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
            "{key_key}: the private key does not belong to the first certificate in {cert_key}; the own certificate \
             comes first, those of its authorities behind it"
        ),
        Error::General(_) => format!(
            "{key_key}: the private key is of no kind that TLS takes here: RSA of {MIN_RSA_BITS} bits or more, ECDSA or \
             Ed25519 ({error})"
        ),
        _ => format!("{cert_key}: {error}"),
    }
}

/// Whose certificate it is: its subject as `O=Example, CN=billing`, or its first alternative name where
/// the subject is empty, or else its serial number. Safe to print. `None` when it is not X.509.
pub fn subject(der: &CertificateDer<'_>) -> Option<Arc<str>> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    Some(name_of(&parsed))
}

fn name_of(certificate: &X509Certificate<'_>) -> Arc<str> {
    let subject = distinguished(certificate.subject());
    if !subject.is_empty() {
        return shortened(&subject);
    }
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let name =
        alternatives.and_then(|names| names.value.general_names.iter().find_map(alternative));
    match name {
        Some(name) => shortened(&name),
        None => shortened(&format!("serial {}", certificate.raw_serial_as_string())),
    }
}

fn alternative(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::URI(uri) => Some(format!("URI:{}", escaped(uri))),
        GeneralName::DNSName(name) => Some(format!("DNS:{}", escaped(name))),
        GeneralName::RFC822Name(name) => Some(format!("email:{}", escaped(name))),
        _ => None,
    }
}

/// A name in the order of the certificate. Separators within a value are escaped, so that no value can
/// pass for two.
fn distinguished(name: &X509Name<'_>) -> String {
    let part = |part: &AttributeTypeAndValue<'_>| {
        let kind = oid2abbrev(part.attr_type(), oid_registry());
        let kind = kind.map_or_else(|_| part.attr_type().to_id_string(), str::to_owned);
        let value = part.as_str().map_or_else(|_| hex(part.as_slice()), escaped);
        format!("{kind}={value}")
    };
    let parts = |parts: Vec<String>| parts.join("+");
    let parts = name
        .iter_rdn()
        .map(|rdn| parts(rdn.iter().map(part).collect()));
    parts.collect::<Vec<_>>().join(", ")
}

fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    // A `#` in front stands for a value that is no text.
    if value.starts_with('#') {
        text.push('\\');
    }
    for character in value.chars() {
        match character {
            ',' | '+' | '\\' | '"' | '=' => text.extend(['\\', character]),
            _ if character.is_control() => text.extend(character.escape_unicode()),
            _ => text.push(character),
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("#".to_owned(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn shortened(text: &str) -> Arc<str> {
    match text.char_indices().nth(MAX_SUBJECT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType, date_time_ymd};

    use super::*;

    fn made(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn subject_is_shown_in_order_and_cannot_pretend() {
        let der = made(|params| {
            let name = &mut params.distinguished_name;
            name.push(DnType::OrganizationName, "Example");
            name.push(DnType::CommonName, "billing, CN=root\n");
        });
        let shown = subject(&der).unwrap();
        assert_eq!(&*shown, r"O=Example, CN=billing\, CN\=root\u{a}");
    }

    #[test]
    fn text_in_a_subject_cannot_pass_for_bytes() {
        let der = made(|params| {
            let name = &mut params.distinguished_name;
            name.push(DnType::CommonName, "#0c0461646d69");
        });
        assert_eq!(&*subject(&der).unwrap(), r"CN=\#0c0461646d69");
    }

    #[test]
    fn certificate_without_a_subject_goes_by_another_name() {
        let der = made(|params| {
            let uri = "spiffe://example.org/billing".try_into().unwrap();
            params.subject_alt_names = vec![SanType::URI(uri)];
        });
        assert_eq!(&*subject(&der).unwrap(), "URI:spiffe://example.org/billing");
        assert!(subject(&made(|_| {})).unwrap().starts_with("serial "));
    }

    #[test]
    fn long_subjects_are_cut() {
        let der = made(|params| {
            let name = &mut params.distinguished_name;
            name.push(DnType::CommonName, "ä".repeat(5000));
        });
        assert_eq!(
            subject(&der).unwrap().chars().count(),
            MAX_SUBJECT_CHARS + 1
        );
    }

    #[test]
    fn validity_is_in_unix_seconds() {
        let der = made(|params| {
            params.not_before = date_time_ymd(2001, 9, 9);
            params.not_after = date_time_ymd(2033, 5, 18);
        });
        let read = Certificate::read(Role::Listener, &der).unwrap();
        assert_eq!(
            (read.not_before, read.not_after),
            (999_993_600, 1_999_987_200)
        );
        let at = |seconds| UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        for (seconds, valid) in [
            (999_993_599, false),
            (1_500_000_000, true),
            (2_000_000_000, false),
        ] {
            assert_eq!(read.is_valid_at(at(seconds)), valid, "{seconds}");
        }
    }

    #[test]
    fn nonsense_is_no_certificate() {
        for bytes in [&b""[..], b"\x30\x03\x02\x01\x01", &[0xff; 64]] {
            let der = CertificateDer::from(bytes);
            assert_eq!(subject(&der), None);
            assert_eq!(Certificate::read(Role::ClientCa, &der), None);
        }
    }
}
