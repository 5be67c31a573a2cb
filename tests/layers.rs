//! The floor plan holds: no module uses what stands above it, and the doors to the upstream are known.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "that is how a test fails"
)]

use std::{collections::BTreeSet, fs, path::Path};

/// Modules from top to bottom. A module uses only what stands in a row below its own.
const ROWS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["config"],
    &["server"],
    &["proxy"],
    &["registry"],
    &["body", "store", "keys", "upstream"],
    &["wire", "received"],
    &[
        "crypto",
        "telemetry",
        "stream",
        "file",
        "certificate",
        "clock",
        "drain",
        "process",
        "project",
        "size",
    ],
];

/// What goes another way, and why. An entry that is not needed any more fails, too.
const EXCEPTIONS: &[(&str, &str)] = &[
    // A body is read from an upstream's answer and becomes an upstream's request.
    ("body", "upstream"),
    // A stream's identity is bound into every record.
    ("crypto", "stream"),
];

/// The files that hand a request to the upstream. Each either holds a proof that no record of a sealed
/// stream is in it (`forward`, `append`), or makes the request itself (`append` from a `SealedBody`).
const DOORS: &[&str] = &[
    "cli/open.rs",           // a probe at start, without a body
    "cli/store/upstream.rs", // what `store rebuild` reads, without a body
    "proxy/append.rs",       // sealed bodies, and plain streams by proof
    "proxy/call.rs",         // control calls
    "proxy/forward.rs",      // whatever there is proof for
    "proxy/read.rs",         // reads, without a body
];

#[test]
fn modules_use_only_what_stands_below_them() {
    let row = |module: &str| ROWS.iter().position(|row| row.contains(&module));
    let mut upward = BTreeSet::new();
    for (path, text) in sources() {
        let module = path.split(['/', '.']).next().unwrap_or_default();
        let own = row(module).filter(|_| path != "lib.rs");
        for used in uses(&text).iter().filter(|used| *used != module) {
            let below = row(used).unwrap_or_else(|| panic!("{path}: unknown module {used}"));
            if own.is_some_and(|own| own >= below) {
                upward.insert((module.to_owned(), used.clone()));
            }
        }
    }
    let known = EXCEPTIONS
        .iter()
        .map(|(from, to)| ((*from).to_owned(), (*to).to_owned()));
    assert_eq!(upward, known.collect(), "(user, used) beyond the layers");
}

#[test]
fn requests_leave_through_known_doors() {
    let sends = |text: &str| {
        let dense: String = text.split_whitespace().collect();
        dense.contains("upstream.send(")
    };
    let found = sources().into_iter().filter(|(_, text)| sends(text));
    let found: Vec<String> = found
        .map(|(path, _)| path)
        .filter(|path| is_code(path))
        .collect();
    assert_eq!(found, DOORS);
    // Private fields already forbid other makers; this forbids making them public.
    for (file, maker) in [
        ("proxy/forward.rs", "pub struct Untouched(());"),
        ("body/outgoing.rs", "pub struct SealedBody(Body);"),
        ("crypto/sealed.rs", "pub struct Sealed(Bytes);"),
    ] {
        let text = fs::read_to_string(Path::new("src").join(file)).unwrap();
        assert!(text.contains(maker), "{file} has no `{maker}`");
    }
}

#[test]
fn sources_are_finished_and_say_what_they_are() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        if !text.starts_with("//! ") {
            faults.push(format!("{path} does not open with a `//!` sentence"));
        }
        for unfinished in ["todo!(", "unimplemented!(", "#[ignore"] {
            if text.contains(unfinished) {
                faults.push(format!("{path} has {unfinished}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Path below `src`, and text, of every source file.
fn sources() -> Vec<(String, String)> {
    fn walk(directory: &Path, files: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix("src").unwrap().to_str().unwrap();
                files.push((name.to_owned(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut files = Vec::new();
    walk(Path::new("src"), &mut files);
    files.sort();
    files
}

fn is_code(path: &str) -> bool {
    !path.contains("tests") && !path.contains("quickstart")
}

/// Every module `m` that `text` names as `crate::m` or in `crate::{…}`, outside of comments.
fn uses(text: &str) -> BTreeSet<String> {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let code: String = text.lines().filter(is_code).collect();
    let mut used = BTreeSet::new();
    for path in code.split("crate::").skip(1) {
        let Some(list) = path.strip_prefix('{') else {
            used.insert(first_name(path));
            continue;
        };
        let (mut depth, mut starts) = (0, vec![0]);
        for (at, character) in list.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => starts.push(at + 1),
                _ => {}
            }
        }
        used.extend(starts.into_iter().map(|start| first_name(&list[start..])));
    }
    // What follows the last comma of a list.
    used.remove("");
    used
}

fn first_name(text: &str) -> String {
    let in_name = |character: &char| character.is_alphanumeric() || *character == '_';
    text.trim_start().chars().take_while(in_name).collect()
}

#[test]
fn uses_are_found() {
    let text = "use crate::a::B;\n// crate::no\nuse crate::{\n c::{D, E}, f,\n};\nfn g() { crate::h::i() }";
    let found: Vec<String> = uses(text).into_iter().collect();
    assert_eq!(found, ["a", "c", "f", "h"]);
}
