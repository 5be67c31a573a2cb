//! Which of S2's formats a `content-type` or `accept` header names.

use http::{
    HeaderMap, HeaderValue,
    header::{ACCEPT, CONTENT_TYPE},
};

use super::{s2s, sse};

/// A format that S2 speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// `application/json`, or any `application/…+json`.
    Json,
    /// `application/protobuf` or `application/x-protobuf`.
    Proto,
    /// `s2s/proto`: a session of frames.
    S2s,
    /// `text/event-stream`.
    EventStream,
}

impl Media {
    /// The format of a request's body, if its `content-type` names one.
    pub fn content_type(headers: &HeaderMap) -> Option<Self> {
        headers.get(CONTENT_TYPE).and_then(Self::first)
    }

    /// The format of the response, if the first media type of `accept` names one.
    pub fn accept(headers: &HeaderMap) -> Option<Self> {
        headers.get(ACCEPT).and_then(Self::first)
    }

    /// The value for `content-type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Proto => "application/protobuf",
            Self::S2s => s2s::CONTENT_TYPE,
            Self::EventStream => sse::CONTENT_TYPE,
        }
    }

    /// The first media type of a list counts, and nothing else.
    fn first(value: &HeaderValue) -> Option<Self> {
        let first = value.to_str().ok()?.split(',').next()?;
        MediaType::parse(first.trim())?.media()
    }
}

/// `type/subtype+suffix; parameter=value`, without the parameters.
struct MediaType<'a> {
    kind: &'a str,
    /// Up to the last `+`.
    subtype: &'a str,
    suffix: Option<&'a str>,
}

impl<'a> MediaType<'a> {
    /// Takes a media type apart, or `None` if any of it is malformed, parameters included.
    fn parse(text: &'a str) -> Option<Self> {
        let (essence, parameters) = match text.split_once(';') {
            Some((essence, parameters)) => (essence, Some(parameters)),
            None => (text, None),
        };
        let (kind, subtype) = essence.split_once('/')?;
        if kind.is_empty() || !is_token(kind) || !is_token(subtype) {
            return None;
        }
        if let Some(parameters) = parameters
            && (subtype.is_empty() || !are_parameters(parameters))
        {
            return None;
        }
        // A leading plus belongs to the subtype.
        let (subtype, suffix) = match subtype.rsplit_once('+') {
            Some((subtype, suffix)) if !subtype.is_empty() => (subtype, Some(suffix)),
            _ => (subtype, None),
        };
        Some(Self {
            kind,
            subtype,
            suffix,
        })
    }

    fn media(&self) -> Option<Media> {
        let kind = |kind| self.kind.eq_ignore_ascii_case(kind);
        let subtype = |subtype| self.subtype.eq_ignore_ascii_case(subtype);
        let json_suffix = self
            .suffix
            .is_some_and(|suffix| suffix.eq_ignore_ascii_case("json"));
        if kind("application") && (subtype("json") || json_suffix) {
            Some(Media::Json)
        } else if kind("application") && (subtype("protobuf") || subtype("x-protobuf")) {
            Some(Media::Proto)
        } else if kind("s2s") && subtype("proto") {
            Some(Media::S2s)
        } else if kind("text") && subtype("event-stream") {
            Some(Media::EventStream)
        } else {
            None
        }
    }
}

/// Whether `rest` is `name=value` pairs between semicolons, each after any spaces.
fn are_parameters(mut rest: &str) -> bool {
    loop {
        rest = rest.trim_start_matches(' ');
        if rest.is_empty() {
            return true;
        }
        let Some((name, value)) = rest.split_once('=') else {
            return false;
        };
        if name.is_empty() || !is_token(name) {
            return false;
        }
        let after = match value.strip_prefix('"') {
            Some(quoted) => after_quoted(quoted),
            None => after_token(value),
        };
        match after {
            Some(next) => rest = next,
            None => return false,
        }
    }
}

/// What follows a bare value and its semicolon. Only the last value may be empty.
fn after_token(value: &str) -> Option<&str> {
    let (value, next) = match value.split_once(';') {
        Some(("", _)) => return None,
        Some(parts) => parts,
        None => (value, ""),
    };
    is_token(value).then_some(next)
}

/// What follows a quoted value and its semicolon. The value is never empty, so a quote that opens
/// and at once closes counts as its first character.
fn after_quoted(quoted: &str) -> Option<&str> {
    let start = quoted.chars().next().map_or(0, char::len_utf8);
    let (first, rest) = quoted.split_at_checked(start)?;
    let (more, after) = rest.split_once('"')?;
    if [first, more]
        .iter()
        .any(|part| part.bytes().any(is_control))
    {
        return None;
    }
    let after = after.trim_start_matches(' ');
    if after.is_empty() {
        Some(after)
    } else {
        after.strip_prefix(';')
    }
}

fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

/// Whether `text` has only the characters of an HTTP token; it may be empty.
fn is_token(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests;
