//! As much of Prometheus's query language as it takes to see what a query asks for.

use std::collections::BTreeSet;

/// Words that are neither metrics nor functions.
const WORDS: [&str; 5] = ["and", "or", "unless", "offset", "bool"];
/// Words before labels in parentheses.
const GROUPINGS: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

/// What a query asks for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The metrics it names.
    pub(super) metrics: BTreeSet<String>,
    /// The labels it chooses or groups by.
    pub(super) labels: BTreeSet<String>,
}

/// Reads a query that Prometheus would take.
pub(super) fn read(query: &str) -> Asked {
    let mut asked = Asked::default();
    let mut rest = query;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => quoted(rest),
            '{' => {
                let length = rest.find('}').expect("a closing brace") + 1;
                asked.labels.extend(chosen(&rest[1..length - 1]));
                length
            }
            '[' => rest.find(']').expect("a closing bracket") + 1,
            c if c.is_ascii_alphabetic() || c == '_' => asked.word(rest),
            c if c.is_ascii_digit() => rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '.')
                .unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        rest = &rest[length..];
    }
    asked
}

impl Asked {
    /// Takes the word that `rest` begins with, and the labels that it groups by. Returns their length.
    fn word(&mut self, rest: &str) -> usize {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        if GROUPINGS.contains(&word) {
            let end = after.find(')').expect("a closing parenthesis") + 1;
            let labels = after[..end].split(|c| !is_part(c));
            let labels = labels.filter(|label| !label.is_empty());
            self.labels.extend(labels.map(str::to_owned));
            return length + end;
        }
        let is_function = after.trim_start().starts_with('(');
        // An aggregation, with its grouping before its argument.
        let is_grouped = GROUPINGS
            .iter()
            .any(|grouping| after.trim_start().starts_with(&format!("{grouping} (")));
        if !is_function && !is_grouped && !WORDS.contains(&word) {
            self.metrics.insert(word.to_owned());
        }
        length
    }
}

/// The length of the string that `rest` begins with.
fn quoted(rest: &str) -> usize {
    rest[1..].find('"').expect("a closing quote") + 2
}

/// The labels in the matchers between two braces. None of ours has a brace or a comma in its value.
fn chosen(matchers: &str) -> impl Iterator<Item = String> {
    matchers.split(',').filter_map(|matcher| {
        let end = matcher.find(['=', '!'])?;
        Some(matcher[..end].trim().to_owned())
    })
}

fn set<const N: usize>(words: [&str; N]) -> BTreeSet<String> {
    words.map(str::to_owned).into()
}

#[test]
fn reads_what_a_query_asks_for() {
    let asked = read(
        "sum by (job, le) (rate(a_total{b=~\"c|d\", e!=\"f\"}[5m])) / g unless on (h) i offset 10m > 0.5 * 86400",
    );
    assert_eq!(asked.metrics, set(["a_total", "g", "i"]));
    assert_eq!(asked.labels, set(["b", "e", "h", "job", "le"]));
    let asked = read("histogram_quantile(0.99, sum by (le) (rate(d_bucket[$__rate_interval])))");
    assert_eq!(asked.metrics, set(["d_bucket"]));
}
