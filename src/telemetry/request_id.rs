//! The id of one request: the client's own, or a fresh one.

use http::{HeaderMap, HeaderName};

/// Carries the id, in requests and in answers.
pub const HEADER: HeaderName = HeaderName::from_static("s2-request-id");
/// Where many clients and load balancers write one.
const OTHER_HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken over: four times a UUID, so that ids made of several parts fit.
const MAX_BYTES: usize = 128;

/// One to 128 of `A-Z a-z 0-9 . _ -`, so that it can stand anywhere without escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// The id in these headers, if they hold a well-formed one.
    pub fn find(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers, &HEADER).or_else(|| Self::parse(headers, &OTHER_HEADER))
    }

    /// The id under this name, if it is well-formed.
    pub fn parse(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let text = headers.get(name)?.to_str().ok()?;
        let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
        let is_id = (1..=MAX_BYTES).contains(&text.len()) && text.bytes().all(is_plain);
        is_id.then(|| Self(text.to_owned()))
    }

    /// A new one: 128 random bits in hex.
    pub fn fresh() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &'static str, value: &[u8]) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.try_into().unwrap());
        RequestId::find(&headers).map(|id| id.0)
    }

    #[test]
    fn only_plain_ids_of_bounded_length_are_taken_over() {
        let longest = "x".repeat(MAX_BYTES);
        for id in [
            "a",
            "Az09._-",
            "5f0c2b1e-7d55-4a64-8c4e-0e3b2f9d1a77",
            &longest,
        ] {
            assert_eq!(found("s2-request-id", id.as_bytes()).unwrap(), id);
            assert_eq!(found("x-request-id", id.as_bytes()).unwrap(), id);
        }
        let too_long = "x".repeat(MAX_BYTES + 1);
        for text in [
            "", " ", "a b", "a\tb", "a\"b", "a=b", "a/b", "a\u{e9}", &too_long,
        ] {
            assert_eq!(found("s2-request-id", text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn fresh_ids_are_well_formed_and_differ() {
        let [one, other] = [RequestId::fresh(), RequestId::fresh()];
        assert_ne!(one, other);
        assert_eq!(found("s2-request-id", one.0.as_bytes()), Some(one.0));
    }
}
