//! What a file holds in place of what it should, for messages that say it. They show nothing of the content.

/// Length of a key, raw, in hex, and in base64 without its padding.
const RAW: usize = 32;
const HEX: usize = 2 * RAW;
const UNPADDED: usize = 43;

/// What stands in front of each part of a PEM file.
const BEGIN: &[u8] = b"-----BEGIN ";

/// Parts of PEM files by their labels, the telling ones first.
const PARTS: [(&[u8], &str); 11] = [
    (b"ENCRYPTED PRIVATE KEY", ENCRYPTED),
    (
        b"OPENSSH PRIVATE KEY",
        "holds a private key in OpenSSH's form",
    ),
    (b"PRIVATE KEY", PRIVATE_KEY),
    (b"RSA PRIVATE KEY", PRIVATE_KEY),
    (b"EC PRIVATE KEY", PRIVATE_KEY),
    (
        b"TRUSTED CERTIFICATE",
        "holds a certificate in OpenSSL's own form, `TRUSTED CERTIFICATE`",
    ),
    (b"CERTIFICATE REQUEST", "holds a certificate request"),
    (b"NEW CERTIFICATE REQUEST", "holds a certificate request"),
    (b"CERTIFICATE", "holds a certificate"),
    (b"X509 CRL", "holds a revocation list"),
    (b"PUBLIC KEY", "holds a public key"),
];
const PRIVATE_KEY: &str = "holds a private key";
const ENCRYPTED: &str = "holds an encrypted private key";

/// What makes any text file unusable.
pub(super) fn as_text(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        _ if bytes.trim_ascii().is_empty() => Some("is empty"),
        [0xef, 0xbb, 0xbf, ..] => {
            Some("begins with a byte order mark (BOM): save it as UTF-8 without one")
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("is UTF-16: save it as UTF-8 without a BOM"),
        _ => None,
    }
}

/// What a file holds that is no PEM file, or not the right one.
pub(super) fn as_pem(bytes: &[u8]) -> &'static str {
    if let Some(mistake) = as_text(bytes) {
        return mistake;
    }
    if let [0x30, 0x81..=0x84, ..] = bytes {
        return "is DER, and must be PEM: `openssl x509 -inform der` or `openssl pkey -inform der` converts it";
    }
    if is_encrypted(bytes) {
        return ENCRYPTED;
    }
    let parts = PARTS.iter().find(|(label, _)| has_part(bytes, label));
    parts.map_or("is not PEM", |(_, what)| what)
}

/// Whether a file holds a private key that needs a password.
pub(super) fn is_encrypted(bytes: &[u8]) -> bool {
    has_part(bytes, b"ENCRYPTED PRIVATE KEY") || contains(bytes, b"\nProc-Type: 4,ENCRYPTED")
}

/// What a file holds in place of 32 bytes in base64; `None` when that is not clear.
pub(super) fn as_key(bytes: &[u8]) -> Option<&'static str> {
    let text = bytes.trim_ascii();
    let all = |is: fn(&u8) -> bool| text.iter().all(is);
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=-_".contains(byte);
    let without_0x = text.strip_prefix(b"0x").unwrap_or(text);
    if let Some(mistake) = as_text(bytes) {
        return Some(mistake);
    }
    Some(match text {
        _ if contains(text, BEGIN) => "is PEM",
        _ if bytes.len() == RAW && !all(u8::is_ascii) => {
            "holds raw bytes: `base64 FILE` converts it"
        }
        _ if without_0x.len() == HEX && without_0x.iter().all(u8::is_ascii_hexdigit) => {
            "holds hex digits: `xxd -r -p FILE | base64` converts them"
        }
        _ if all(is_base64) && text.iter().any(|byte| b"-_".contains(byte)) => {
            "holds base64 of the kind for URLs: write `+` for `-` and `/` for `_`"
        }
        _ if text.len() == UNPADDED && all(is_base64) => "holds base64 without the `=` at its end",
        [b'"' | b'\'', ..] => "has quotes around its text",
        _ if text.iter().any(u8::is_ascii_whitespace) => "holds more than one word",
        _ => return None,
    })
}

fn has_part(bytes: &[u8], label: &[u8]) -> bool {
    contains(bytes, &[BEGIN, label, b"-----"].concat())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
