//! The certificates that a rule is about: one subject or one alternative name, exact or with wildcards.

use std::net::IpAddr;

use globset::GlobMatcher;

use crate::{certificate::CertificateNames, keys::glob};

/// Scheme of SPIFFE ids. A certificate with one of them and any other URI is no valid SPIFFE identity.
const SPIFFE: &str = "spiffe://";

/// The name that a certificate must have.
#[derive(Debug)]
pub(super) enum Who {
    /// The whole subject, value by value.
    Subject(Segments),
    Uri(GlobMatcher),
    Dns(Segments),
    Email(String),
    Address(IpAddr),
}

impl Who {
    /// Compiles the one of the two that is written.
    pub(super) fn compile(subject: &str, san: &str) -> Result<Self, String> {
        match (subject.is_empty(), san.is_empty()) {
            (true, true) => Err("subject: needs a subject or a san".to_owned()),
            (false, false) => Err("san: does not go together with subject".to_owned()),
            (false, true) => Self::subject(subject).map_err(|wrong| format!("subject: {wrong}")),
            (true, false) => Self::san(san).map_err(|wrong| format!("san: {wrong}")),
        }
    }

    fn subject(text: &str) -> Result<Self, String> {
        no_double_star(text)?;
        let is_attribute = |part: &str| part.split_once('=').is_some_and(|(kind, _)| is_kind(kind));
        match subject_parts(text).all(is_attribute) {
            true => Ok(Self::Subject(Segments::of(subject_parts(text)))),
            false => Err(
                "is not a subject; write it as the log shows it, such as \"O=Example, CN=billing\""
                    .to_owned(),
            ),
        }
    }

    /// The form of the name says which kind it is.
    fn san(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        if text.contains(':') {
            return glob(text).map(Self::Uri);
        }
        if text.contains('@') {
            return match text.contains('*') {
                true => Err("an e-mail address takes no `*`".to_owned()),
                false => Ok(Self::Email(text.to_owned())),
            };
        }
        no_double_star(text)?;
        let lower = text.to_ascii_lowercase();
        match is_dns_pattern(&lower) {
            true => Ok(Self::Dns(Segments::of(lower.split('.')))),
            false => Err(
                "is not a URI, a DNS name, an e-mail address or an IP address; write one, such as \
                 \"spiffe://example.org/billing\" or \"billing.example.org\""
                    .to_owned(),
            ),
        }
    }

    /// Whether a certificate with these names is meant.
    pub(super) fn is(&self, names: &CertificateNames) -> bool {
        match self {
            Self::Subject(wanted) => {
                let subject = names.subject.as_deref();
                subject.is_some_and(|subject| wanted.match_all(subject_parts(subject)))
            }
            Self::Uri(wanted) => {
                let is_spiffe = |uri: &String| uri.starts_with(SPIFFE);
                let is_ambiguous = names.uris.len() > 1 && names.uris.iter().any(is_spiffe);
                !is_ambiguous && names.uris.iter().any(|uri| wanted.is_match(uri))
            }
            Self::Dns(wanted) => {
                let mut names = names.dns.iter();
                names.any(|name| wanted.match_all(name.split('.')))
            }
            Self::Email(wanted) => names.emails.contains(wanted),
            Self::Address(wanted) => names.addresses.contains(wanted),
        }
    }
}

fn no_double_star(text: &str) -> Result<(), String> {
    match text.contains("**") {
        true => Err("`**` stands for nothing here; `*` stays within one value or label".to_owned()),
        false => Ok(()),
    }
}

/// Whether it is the kind of a value in a subject: `CN`, or a number such as `1.2.3`.
fn is_kind(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
}

/// Whether it is a DNS name, where `*` may stand for any text in a label. The last label has a letter, so that
/// no part of an IP address passes for a name.
fn is_dns_pattern(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'*');
        !label.is_empty() && label.bytes().all(is_good)
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.split('.').all(is_label) && last.bytes().any(|b| b.is_ascii_alphabetic())
}

/// The values of a subject with their kinds, each with the separator that follows it. A separator that is
/// escaped is part of its value.
fn subject_parts(text: &str) -> impl Iterator<Item = &str> {
    let mut is_escaped = false;
    text.split_inclusive(move |char| {
        let separates = !is_escaped && matches!(char, ',' | '+');
        is_escaped = char == '\\' && !is_escaped;
        separates
    })
    .map(str::trim_start)
}

/// A text in parts, in which `*` stands for any text within one part.
#[derive(Debug)]
pub(super) struct Segments(Vec<String>);

impl Segments {
    fn of<'a>(parts: impl Iterator<Item = &'a str>) -> Self {
        Self(parts.map(str::to_owned).collect())
    }

    /// Whether there are as many parts, and each matches its own.
    fn match_all<'a>(&self, mut parts: impl Iterator<Item = &'a str>) -> bool {
        let mut patterns = self.0.iter();
        let all = patterns.all(|pattern| parts.next().is_some_and(|part| matches(pattern, part)));
        all && parts.next().is_none()
    }
}

/// Whether the text is the pattern with some text in place of each `*`.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}
