//! Bodies that name themselves: wherever their bytes turn up, whole or in part, it is known whose they are.

use std::collections::BTreeSet;

const START: &[u8] = b"<<crash:";
const DIGITS: usize = 12;

/// The body of this number: its marker, repeated a number of times that follows from the number.
pub fn body(id: u64) -> String {
    let copies = match id % 61 {
        // More than one HTTP/2 frame.
        0 => 1000,
        other => 1 + other as usize % 4,
    };
    format!("<<crash:{id:012}>>").repeat(copies)
}

/// The number of a body, which must be whole.
pub fn id(bytes: &[u8]) -> u64 {
    let id = number(bytes.strip_prefix(START).unwrap_or_default());
    let id = id.unwrap_or_else(|| panic!("not a body: {:?}", String::from_utf8_lossy(bytes)));
    assert_eq!(bytes, body(id).as_bytes(), "a torn body");
    id
}

/// The numbers of all bodies of which a marker stands in `bytes` in clear.
pub fn found(bytes: &[u8]) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == START[0]) {
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix(START) {
            found.extend(number(after));
        }
        rest = &rest[1..];
    }
    found
}

fn number(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes.get(..DIGITS)?).ok()?.parse().ok()
}
