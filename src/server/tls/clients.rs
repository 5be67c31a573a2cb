//! The check of client certificates: by their authorities, and by the revocation lists of these.
//!
//! A certificate is refused when a list of its issuer names it, and when that list has expired: a list that is not
//! renewed would let revoked clients in. A certificate whose issuer has no list in the file is accepted, unless a
//! list of the file covers one distribution point only: which certificates the missing parts name is unknown then,
//! so every certificate needs a list that covers it.

use std::{cmp::Reverse, path::Path, sync::Arc, time::SystemTime};

use rustls::{
    RootCertStore,
    crypto::WebPkiSupportedAlgorithms,
    server::{ClientCertVerifierBuilder, VerifierBuilderError, WebPkiClientVerifier},
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::{
    certificate::X509Certificate, extensions::ParsedExtension, prelude::FromDer as _,
    revocation_list::CertificateRevocationList as Parsed,
};

use crate::{
    certificate::{Certificate, ClientVerifier, Role, no_authority, strong},
    file,
    server::config::TlsConfig,
};

const CA_KEY: &str = "listen.tls.client_ca_file";
const CRL_KEY: &str = "listen.tls.client_crl_file";

/// What clients must present.
pub(super) struct AskedOfClients {
    pub(super) verifier: Arc<ClientVerifier>,
    authorities: Vec<CertificateDer<'static>>,
    /// The newest first.
    lists: Vec<CertificateRevocationListDer<'static>>,
}

impl AskedOfClients {
    /// Reads the authorities and the revocation lists; nothing when no certificate is asked for.
    ///
    /// # Errors
    /// Every file that cannot be used, with its key.
    pub(super) fn load(config: &TlsConfig) -> Result<Option<Self>, Vec<String>> {
        let Some(path) = config.client_ca_file.path() else {
            return Ok(None);
        };
        let authorities = file::certificates(CA_KEY, path);
        let authorities = authorities.and_then(|found| strong(CA_KEY, path, found));
        let lists = config.client_crl_file.path().map(read_lists);
        match (authorities, lists.transpose()) {
            (Ok(authorities), Ok(lists)) => {
                Self::new(config, authorities, lists.unwrap_or_default())
                    .map(Some)
                    .map_err(|problem| vec![problem])
            }
            (authorities, lists) => Err([authorities.err(), lists.err()]
                .into_iter()
                .flatten()
                .collect()),
        }
    }

    fn new(
        config: &TlsConfig,
        authorities: Vec<CertificateDer<'static>>,
        lists: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Self, String> {
        let path = config.client_ca_file.path().unwrap_or(Path::new(""));
        let mut roots = RootCertStore::empty();
        for certificate in &authorities {
            if let Some(mistake) = no_authority(certificate) {
                return Err(format!("{CA_KEY}: {}: {mistake}", path.display()));
            }
            let added = roots.add(certificate.clone());
            added.map_err(|error| format!("{CA_KEY}: {}: {error}", path.display()))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        for list in &lists {
            check_issuer(
                list,
                &authorities,
                &provider.signature_verification_algorithms,
            )?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = with_lists(builder, &lists).build().map_err(|error| {
            let (key, path) = match error {
                VerifierBuilderError::InvalidCrl(_) => (CRL_KEY, config.client_crl_file.path()),
                _ => (CA_KEY, config.client_ca_file.path()),
            };
            format!(
                "{key}: {}: {error}",
                path.unwrap_or(Path::new("")).display()
            )
        })?;
        Ok(Self {
            verifier: Arc::new(ClientVerifier(verifier)),
            authorities,
            lists,
        })
    }

    /// The authorities, and the lists with the time until which they stand.
    pub(super) fn certificates(&self) -> impl Iterator<Item = Certificate> {
        let authorities = self.authorities.iter();
        let authorities = authorities.filter_map(|der| Certificate::read(Role::ClientCa, der));
        let lists = self.lists.iter();
        authorities.chain(lists.filter_map(|der| Certificate::read_crl(der)))
    }
}

fn with_lists(
    builder: ClientCertVerifierBuilder,
    lists: &[CertificateRevocationListDer<'static>],
) -> ClientCertVerifierBuilder {
    if lists.is_empty() {
        return builder;
    }
    let builder = builder
        .with_crls(lists.iter().cloned())
        .enforce_revocation_expiration();
    match lists.iter().all(|list| is_whole(list)) {
        true => builder.allow_unknown_revocation_status(),
        false => builder,
    }
}

/// The lists of a PEM file, the newest first: of several lists of an issuer the first that covers a certificate
/// counts.
fn read_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let mut lists = file::revocation_lists(CRL_KEY, path)?;
    let mut since = Vec::new();
    for list in &lists {
        let read = Certificate::read_crl(list).ok_or_else(|| {
            format!(
                "{CRL_KEY}: {} holds no X.509 revocation list",
                path.display()
            )
        })?;
        if !read.is_valid_at(SystemTime::now()) {
            tracing::warn!(
                issuer = %read.subject,
                "{CRL_KEY}: the revocation list is not valid now, so clients of its issuer are refused; \
                 fetch a new list"
            );
        }
        since.push(read.not_before);
    }
    let mut dated: Vec<_> = since.into_iter().zip(lists.drain(..)).collect();
    dated.sort_by_key(|(since, _)| Reverse(*since));
    Ok(dated.into_iter().map(|(_, list)| list).collect())
}

/// Makes sure that a list is signed by the authority whose name it bears, if that is one of these: any other list
/// under that name would refuse every client of the authority.
fn check_issuer(
    list: &CertificateRevocationListDer<'_>,
    authorities: &[CertificateDer<'_>],
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), String> {
    let unreadable = || format!("{CRL_KEY}: holds a list that is not X.509");
    let name = Certificate::read_crl(list).ok_or_else(unreadable)?.subject;
    let (_, list) = Parsed::from_der(list).map_err(|_| unreadable())?;
    let authorities = authorities.iter();
    let read = authorities.filter_map(|der| X509Certificate::from_der(der).ok());
    let named = read.filter(|(_, one)| one.subject().as_raw() == list.issuer().as_raw());
    let keys: Vec<_> = named
        .map(|(_, one)| one.public_key().subject_public_key.data.to_vec())
        .collect();
    let (message, signature) = (list.tbs_cert_list.as_ref(), &list.signature_value.data);
    let verifies = |key: &Vec<u8>| {
        let mut algorithms = algorithms.all.iter();
        algorithms.any(|one| one.verify_signature(key, message, signature).is_ok())
    };
    if keys.is_empty() {
        tracing::warn!(
            issuer = %name,
            "{CRL_KEY}: no authority in {CA_KEY} has the name of this list's issuer, so it counts for \
             intermediate authorities of that name only"
        );
        return Ok(());
    }
    match keys.iter().any(verifies) {
        true => Ok(()),
        false => Err(format!(
            "{CRL_KEY}: the list of \"{name}\" is not signed by the authority of that name in {CA_KEY}"
        )),
    }
}

/// Whether a list covers every certificate of its issuer, or every one of a kind, and not those of one
/// distribution point only.
fn is_whole(list: &CertificateRevocationListDer<'_>) -> bool {
    let Ok((_, parsed)) = Parsed::from_der(list) else {
        return false;
    };
    parsed
        .extensions()
        .iter()
        .all(|extension| match extension.parsed_extension() {
            ParsedExtension::IssuingDistributionPoint(point) => point.distribution_point.is_none(),
            ParsedExtension::ParseError { .. } => false,
            _ => true,
        })
}
