//! Paths that another router could take for a call about basins, streams or records.

use percent_encoding::percent_decode_str;

/// Words of paths that lead to what the proxy intercepts, in S2's v1 API and very likely in a later one.
const INTERCEPTED: [&str; 3] = ["basins", "streams", "records"];

/// Returns true if every `%` starts a pair of hex digits, and the segment is no literal dot segment.
pub(super) fn well_formed(segment: &str) -> bool {
    let mut rest = segment.split('%');
    let _before_the_first = rest.next();
    segment != "."
        && segment != ".."
        && rest.all(|part| {
            let digits = part.as_bytes().get(..2);
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        })
}

/// Returns true if a router that decodes, ignores case, or has another version or prefix could take the path for a
/// call about basins, streams or records; at any depth. Dots and slashes hide no word, so none has to be resolved.
pub(super) fn looks_intercepted(path: &str) -> bool {
    !path.split('/').all(well_formed) || words(path).iter().any(|word| is_intercepted(word))
}

/// Returns the words in a path or query, of letters, digits and hyphens: as it is, decoded once, and decoded
/// twice, for a front end may decode before the router does.
pub fn words(text: &str) -> Vec<String> {
    let once = percent_decode_str(text).decode_utf8_lossy();
    let twice = percent_decode_str(&once).decode_utf8_lossy();
    let forms = [text, &once, &twice].into_iter();
    let is_gap = |character: char| !(character.is_alphanumeric() || character == '-');
    forms
        .flat_map(|form| form.split(is_gap))
        .map(str::to_owned)
        .collect()
}

fn is_intercepted(word: &str) -> bool {
    let mut words = INTERCEPTED.iter();
    words.any(|intercepted| word.eq_ignore_ascii_case(intercepted))
}
