//! Environment variables: each that begins with `STREAMSEAL_` sets a key, is known, or is a mistake.

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
};

use figment::{error::Kind, value::Value};

use super::{Config, Leaf, defaults};
use crate::telemetry;

/// What environment variables start with that set a key, as in `STREAMSEAL_LISTEN__ADDRESS`.
const PREFIX: &str = "STREAMSEAL_";
/// What stands between the levels of a key in an environment variable.
const LEVEL: &str = "__";

/// Beginnings of the variables that tests and benchmarks read. The programs that they start inherit them.
const OF_TESTS: [&str; 6] = [
    "STREAMSEAL_PROGRAM",
    "STREAMSEAL_BENCH_",
    "STREAMSEAL_CRASH_",
    "STREAMSEAL_DIFFERENTIAL_",
    "STREAMSEAL_FUZZ_",
    "STREAMSEAL_TEST_",
];

/// Largest share of a name that may differ from the one it is taken for.
const LIKENESS: f64 = 0.6;

/// The keys that environment variables set.
///
/// # Errors
/// Every variable that sets nothing.
pub(super) fn leaves(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<Leaf>, Vec<String>> {
    let mut leaves = Vec::new();
    let mut mistakes = Vec::new();
    let mut keys = None;
    for (name, value) in variables {
        let name = name.to_string_lossy();
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let keys = keys.get_or_insert_with(|| keys_below(&[]));
        let path: Vec<_> = rest
            .to_ascii_lowercase()
            .split(LEVEL)
            .map(str::to_owned)
            .collect();
        if keys.iter().any(|key| is_settable(key) && *key == path) {
            match value.to_str() {
                Some(value) => leaves.push(leaf(&name, path, value)),
                None => mistakes.push(format!("{name}: the value is not UTF-8")),
            }
            continue;
        }
        let value = value.to_string_lossy();
        if !is_known(&name) && !is_service_link(rest, &value) {
            mistakes.push(sets_nothing(&name, &path, keys));
        }
    }
    match mistakes.is_empty() {
        true => Ok(leaves),
        false => Err(mistakes),
    }
}

/// The value of a variable. A key that takes text gets the text as it is, also `0123` or `true`; only the other
/// keys get what the text reads as: a number, a boolean, or a list of words with commas between them.
fn leaf(name: &str, path: Vec<String>, text: &str) -> Leaf {
    let leaf = |value| Leaf {
        path: path.clone(),
        name: format!("environment variable {name}"),
        value,
    };
    let fits = |value: &Value| {
        let config = defaults().merge(leaf(value.clone()));
        config.extract::<Config>().is_ok()
    };
    // This never fails: what reads as nothing else is text again.
    let Ok(read) = text.parse::<Value>();
    let readings = [Value::from(text), read, Value::from(words(text))];
    let fitting = readings.into_iter().find(fits);
    leaf(fitting.unwrap_or_else(|| Value::from(text)))
}

/// The words of a list, with or without brackets around it and quotes around each.
fn words(text: &str) -> Vec<&str> {
    let text = text.trim();
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let words = inner.unwrap_or(text).split(',');
    let words = words.map(|word| word.trim().trim_matches('"'));
    words.filter(|word| !word.is_empty()).collect()
}

/// Every key of the configuration, found by asking each section for the names in it.
fn keys_below(section: &[String]) -> Vec<Vec<String>> {
    let path = [section, &[String::new()]].concat();
    let probe = Leaf {
        path,
        name: String::new(),
        value: Value::from(0),
    };
    let asked = defaults().merge(probe).extract::<Config>();
    match asked.map_err(|error| error.kind) {
        Err(Kind::UnknownField(_, names)) => {
            let inner = names
                .iter()
                .map(|name| [section, &[(*name).to_owned()]].concat());
            inner.flat_map(|key| keys_below(&key)).collect()
        }
        _ => vec![section.to_vec()],
    }
}

/// Whether a variable can set the key. One outside of all sections is a list of tables.
fn is_settable(key: &[String]) -> bool {
    key.len() > 1
}

/// Whether the program itself or its tests read the variable.
fn is_known(name: &str) -> bool {
    let mut of_tests = OF_TESTS.iter();
    name == telemetry::FILTER_VARIABLE || of_tests.any(|beginning| name.starts_with(beginning))
}

/// Whether Kubernetes or Docker makes such a variable for a service whose name begins with `streamseal`. Its name
/// may end in a way that an operator's mistake does, too, so the value decides as well.
fn is_service_link(rest: &str, value: &str) -> bool {
    let is_protocol = |text: &str| ["tcp", "udp", "sctp"].contains(&&*text.to_ascii_lowercase());
    let is_port = || value.parse::<u16>().is_ok();
    let is_address = || value.parse::<IpAddr>().is_ok();
    let is_url = || {
        let parts = value.split_once("://");
        parts.is_some_and(|(protocol, address)| {
            is_protocol(protocol) && address.parse::<SocketAddr>().is_ok()
        })
    };
    let is_number = |text: &str| text.parse::<u16>().is_ok();
    let words: Vec<_> = rest.split('_').collect();
    match words.as_slice() {
        [.., "SERVICE", "HOST"] => is_address(),
        words if words.windows(2).any(|two| two == ["SERVICE", "PORT"]) => is_port(),
        [.., "PORT", number, protocol] if is_number(number) && is_protocol(protocol) => is_url(),
        [.., "PORT", number, protocol, last] if is_number(number) && is_protocol(protocol) => {
            match *last {
                "ADDR" => is_address(),
                "PORT" => is_port(),
                "PROTO" => is_protocol(value),
                _ => false,
            }
        }
        [.., "PORT"] => is_url(),
        _ => false,
    }
}

fn sets_nothing(name: &str, path: &[String], keys: &[Vec<String>]) -> String {
    let mut lists = keys.iter().filter(|key| !is_settable(key)).flatten();
    if let Some(list) = lists.find(|list| path.first() == Some(list)) {
        return format!("{name} sets nothing: [[{list}]] can only be written in the file");
    }
    let names = keys.iter().filter(|key| is_settable(key));
    let names = names.map(|key| PREFIX.to_owned() + &key.join(LEVEL).to_ascii_uppercase());
    let likeness = |wanted: &str| {
        let wanted = wanted.strip_prefix(PREFIX).unwrap_or(wanted);
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        strsim::normalized_damerau_levenshtein(wanted, &name.to_ascii_uppercase())
    };
    let nearest = names.max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    match nearest.filter(|nearest| likeness(nearest) >= LIKENESS) {
        Some(nearest) => format!("{name} sets nothing; did you mean {nearest}?"),
        None => {
            format!("{name} sets nothing; a variable sets a key as {PREFIX}LISTEN__ADDRESS does")
        }
    }
}
