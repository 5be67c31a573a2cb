//! Files named in the configuration: paths that may be left empty, and reading what they name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use http::HeaderValue;
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A path written in the configuration. The empty string, the default, means "not set".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OptionalFile(PathBuf);

impl OptionalFile {
    /// The path, or nothing when the key was left empty.
    pub fn path(&self) -> Option<&Path> {
        self.is_set().then_some(self.0.as_path())
    }

    /// Whether a path was written.
    pub fn is_set(&self) -> bool {
        !self.0.as_os_str().is_empty()
    }
}

impl<P: Into<PathBuf>> From<P> for OptionalFile {
    fn from(path: P) -> Self {
        Self(path.into())
    }
}

/// Reads the one access token in the file that `key` names, as the value of an `authorization` header.
///
/// # Errors
///
/// When the file cannot be read, or holds anything but one token of visible ASCII characters.
pub fn read_bearer(key: &str, path: &Path) -> Result<HeaderValue, String> {
    let bytes = read(key, path)?;
    let token = bytes.trim_ascii();
    let wrong = || format!("{key}: {} does not hold one access token", path.display());
    if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
        return Err(wrong());
    }
    let value = Zeroizing::new([b"Bearer ", token].concat());
    let mut value = HeaderValue::from_bytes(&value).map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads the file that configuration key `key` names. The bytes may be a secret: they are wiped on drop.
///
/// # Errors
///
/// When the file cannot be read: the key, the path and the system's reason, never the content.
pub fn read(key: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    fs::read(path)
        .map(Zeroizing::new)
        .map_err(|error| format!("{key}: cannot read {}: {error}", path.display()))
}

/// The certificates in the PEM file that configuration key `key` names, in the file's order.
///
/// # Errors
///
/// When the file cannot be read, is not PEM, or holds no certificate: the key and the path.
pub fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(key, path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("{key}: {} is not valid PEM", path.display()))?;
    if found.is_empty() {
        return Err(format!("{key}: {} holds no certificate", path.display()));
    }
    Ok(found)
}

/// The revocation lists in the PEM file that configuration key `key` names, in the file's order.
///
/// # Errors
///
/// When the file cannot be read, is not PEM, or holds no list: the key and the path.
pub fn revocation_lists(
    key: &str,
    path: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let pem = read(key, path)?;
    let found: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("{key}: {} is not valid PEM", path.display()))?;
    if found.is_empty() {
        return Err(format!(
            "{key}: {} holds no revocation list; it must hold X509 CRL blocks in PEM",
            path.display()
        ));
    }
    Ok(found)
}

/// The private key in the PEM file that configuration key `key` names.
///
/// # Errors
///
/// When the file cannot be read or holds no private key: the key and the path, never the content.
pub fn private_key(key: &str, path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let pem = read(key, path)?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| format!("{key}: {} holds no PEM private key", path.display()))
}
