//! What is said of files that hold something else than they should.

use std::io::Write as _;

use rcgen::{CertificateParams, KeyPair};

use super::*;

fn file(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

/// PEM of a certificate and of its private key.
fn identity() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn utf16(text: &str) -> Vec<u8> {
    let units = text.encode_utf16().flat_map(u16::to_le_bytes);
    [0xff, 0xfe].into_iter().chain(units).collect()
}

const KEY_TEXT: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";

#[test]
fn a_key_file_says_what_it_holds_instead() {
    let (_, private_key) = identity();
    let raw: Vec<u8> = (200..232).collect();
    for (content, wanted) in [
        (b"".to_vec(), "is empty"),
        (b" \n".to_vec(), "is empty"),
        (
            [b"\xef\xbb\xbf", KEY_TEXT.as_bytes()].concat(),
            "byte order mark",
        ),
        (utf16(KEY_TEXT), "is UTF-16"),
        ("0F".repeat(32).into_bytes(), "holds hex digits"),
        (
            format!("0x{}\n", "0f".repeat(32)).into_bytes(),
            "holds hex digits",
        ),
        (raw, "holds raw bytes"),
        (private_key.into_bytes(), "is PEM"),
        (
            KEY_TEXT.replace("AQID", "AQ-_").into_bytes(),
            "of the kind for URLs",
        ),
        (KEY_TEXT.trim_end_matches('=').into(), "without the `=`"),
        (format!("\"{KEY_TEXT}\"").into_bytes(), "has quotes"),
        (
            format!("{KEY_TEXT}\n{KEY_TEXT}").into_bytes(),
            "more than one word",
        ),
        (
            b"AQIDBAUGBwgJCgsMDQ4PEBES".to_vec(),
            "decodes to 18 bytes instead of 32",
        ),
    ] {
        let said = no_key(&content, "decodes to 18 bytes instead of 32");
        assert!(said.contains(wanted), "{wanted}: {said}");
        assert!(
            said.ends_with("it must hold 32 bytes in base64, as `streamseal keygen` prints them")
        );
        assert!(
            !said.contains("AQID") && !said.to_lowercase().contains("0f0f"),
            "{said}"
        );
    }
}

#[test]
fn a_pem_file_says_what_it_holds_instead() {
    let (certificate, private_key) = identity();
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let labelled = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    for (content, wanted) in [
        (b"".to_vec(), "is empty"),
        (
            [b"\xef\xbb\xbf", certificate.as_bytes()].concat(),
            "byte order mark",
        ),
        (utf16(&certificate), "is UTF-16"),
        (der.to_vec(), "is DER"),
        (KEY_TEXT.into(), "is not PEM, and no certificate"),
        (
            private_key.clone().into_bytes(),
            "holds a private key, and no certificate",
        ),
        (
            labelled("ENCRYPTED PRIVATE KEY").into_bytes(),
            "holds an encrypted private key, and",
        ),
        (
            labelled("CERTIFICATE REQUEST").into_bytes(),
            "holds a certificate request, and",
        ),
        (
            labelled("TRUSTED CERTIFICATE").into_bytes(),
            "`TRUSTED CERTIFICATE`, and",
        ),
        (
            certificate.replace("END", "ENDE").into_bytes(),
            "is not valid PEM",
        ),
    ] {
        let file = file(&content);
        let said = certificates("listen.tls.cert_file", file.path()).unwrap_err();
        let named = format!("listen.tls.cert_file: {} ", file.path().display());
        assert!(
            said.starts_with(&named) && said.contains(wanted),
            "{wanted}: {said}"
        );
    }
    let both = file((certificate + &private_key).as_bytes());
    assert_eq!(certificates("k", both.path()).unwrap(), [der]);
    private_key_of(both.path()).unwrap();
}

fn private_key_of(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    private_key("listen.tls.key_file", path)
}

#[test]
fn a_private_key_file_says_what_it_holds_instead() {
    let (certificate, private_key) = identity();
    let labelled = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n\
               -----END RSA PRIVATE KEY-----\n";
    for (content, wanted) in [
        (b"\n".to_vec(), "is empty"),
        (
            [b"\xef\xbb\xbf", private_key.as_bytes()].concat(),
            "byte order mark",
        ),
        (KEY_TEXT.into(), "is not PEM, and no private key"),
        (
            certificate.into_bytes(),
            "holds a certificate, and no private key",
        ),
        (
            labelled("ENCRYPTED PRIVATE KEY").into_bytes(),
            "holds an encrypted private key",
        ),
        (old.as_bytes().to_vec(), "holds an encrypted private key"),
        (
            labelled("OPENSSH PRIVATE KEY").into_bytes(),
            "in OpenSSH's form, and no",
        ),
        (
            labelled("PUBLIC KEY").into_bytes(),
            "holds a public key, and no",
        ),
    ] {
        let file = file(&content);
        let said = private_key_of(file.path()).unwrap_err();
        assert!(
            said.starts_with("listen.tls.key_file: ") && said.contains(wanted),
            "{said}"
        );
        assert!(!said.contains("AAAA") && !said.contains(KEY_TEXT), "{said}");
    }
}

#[test]
fn a_token_file_says_what_is_wrong_with_it() {
    for (content, wanted) in [
        (&b"\xef\xbb\xbftoken"[..], "byte order mark"),
        (b"", "is empty"),
        (b"two tokens", "does not hold one access token"),
    ] {
        let said = read_bearer("upstream.access_token_file", file(content).path()).unwrap_err();
        assert!(said.contains(wanted) && !said.contains("tokens"), "{said}");
    }
}
