//! Files named in the configuration: paths that may be left empty, and reading what they name.

mod mistaken;

use std::{
    fmt::Display,
    fs,
    path::{Path, PathBuf},
};

use http::HeaderValue;
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
    pem::{self, PemObject},
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
    let wrong = || {
        let path = path.display();
        match mistaken::as_text(&bytes) {
            Some(mistake) => format!("{key}: {path} {mistake}; it must hold one access token"),
            None => format!("{key}: {path} does not hold one access token"),
        }
    };
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

/// Explains why the content of a file is no key, given the error that decoding it gave. Shows nothing of the content.
pub fn no_key(bytes: &[u8], error: impl Display) -> String {
    let mistake = match mistaken::as_key(bytes) {
        Some(mistake) => format!("the file {mistake}"),
        None => error.to_string(),
    };
    format!("{mistake}; it must hold 32 bytes in base64, as `streamseal keygen` prints them")
}

/// The certificates in the PEM file that configuration key `key` names, in the file's order.
///
/// # Errors
///
/// When the file cannot be read, is not PEM, or holds no certificate: the key, the path and what it holds instead.
pub fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(key, path)?;
    all_of(key, path, &pem, "certificate (CERTIFICATE blocks in PEM)")
}

/// Every object of one kind in a PEM file.
fn all_of<T: PemObject>(key: &str, path: &Path, pem: &[u8], kind: &str) -> Result<Vec<T>, String> {
    let path = path.display();
    // The parser takes the first line for a comment when there is a BOM in front of it.
    if let Some(mistake) = mistaken::as_text(pem) {
        return Err(format!("{key}: {path} {mistake}"));
    }
    let found: Vec<T> = T::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("{key}: {path} is not valid PEM"))?;
    match found.is_empty() {
        true => Err(format!(
            "{key}: {path} {}, and no {kind}",
            mistaken::as_pem(pem)
        )),
        false => Ok(found),
    }
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
    all_of(key, path, &pem, "revocation list (X509 CRL blocks in PEM)")
}

/// The private key in the PEM file that configuration key `key` names.
///
/// # Errors
///
/// When the file cannot be read or holds no private key: the key, the path and what it holds instead, never the
/// content.
pub fn private_key(key: &str, path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let pem = read(key, path)?;
    let path = path.display();
    if mistaken::is_encrypted(&pem) {
        return Err(format!(
            "{key}: {path} holds an encrypted private key: `openssl pkey -in FILE` decrypts it"
        ));
    }
    if let Some(mistake) = mistaken::as_text(&pem) {
        return Err(format!("{key}: {path} {mistake}"));
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        pem::Error::NoItemsFound => format!(
            "{key}: {path} {}, and no private key (a PRIVATE KEY block in PEM)",
            mistaken::as_pem(&pem)
        ),
        _ => format!("{key}: {path} is not valid PEM"),
    })
}

#[cfg(test)]
mod tests;
