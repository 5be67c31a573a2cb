//! The names that a certificate authority vouches for, for rules to compare with.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use rustls_pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use super::{distinguished, name_of};

/// The names in one certificate. Each kind stands alone: a DNS name that reads like a URI is no URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateNames {
    /// The name that logs show; see [`super::subject`]. It may be cut: never compare it.
    pub shown: Arc<str>,
    /// The whole subject as `O=Example, CN=billing`; `None` when the certificate has an empty one.
    pub subject: Option<String>,
    /// The URIs among the alternative names, such as a SPIFFE id.
    pub uris: Vec<String>,
    /// The DNS names, in lower case.
    pub dns: Vec<String>,
    /// The e-mail addresses.
    pub emails: Vec<String>,
    /// The IP addresses.
    pub addresses: Vec<IpAddr>,
}

impl CertificateNames {
    /// Reads the names of a certificate; `None` when it is not X.509. Alternative names that cannot be
    /// parsed are left out.
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let subject = distinguished(parsed.subject());
        let mut names = Self {
            shown: name_of(&parsed),
            subject: (!subject.is_empty()).then_some(subject),
            uris: Vec::new(),
            dns: Vec::new(),
            emails: Vec::new(),
            addresses: Vec::new(),
        };
        let alternatives = parsed.subject_alternative_name().ok().flatten();
        for name in alternatives.iter().flat_map(|san| &san.value.general_names) {
            names.add(name);
        }
        Some(names)
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) => self.dns.push(name.to_ascii_lowercase()),
            GeneralName::RFC822Name(name) => self.emails.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => self.addresses.extend(address(bytes)),
            _ => {}
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| Ipv4Addr::from(bytes).into());
    let v6 = <[u8; 16]>::try_from(bytes).map(|bytes| Ipv6Addr::from(bytes).into());
    v4.or(v6).ok()
}
