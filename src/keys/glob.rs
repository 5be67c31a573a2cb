//! The globs of the configuration, over `basin/stream`: nothing but `**` and a `/` that is written goes over a `/`.

use globset::{Error, GlobBuilder, GlobMatcher};

/// Compiles a glob. `*` stays within one segment, `**` crosses them.
///
/// # Errors
/// What is wrong with it; a class that takes a `/` is, for it would reach into other basins than it seems to.
pub fn glob(text: &str) -> Result<GlobMatcher, String> {
    if text.is_empty() {
        return Err("empty glob".into());
    }
    let glob = compiled(text).map_err(|error| error.to_string())?;
    let mut classes = classes(text).into_iter();
    let crossing = classes.find(|class| compiled(class).map_or(true, |class| class.is_match("/")));
    match crossing {
        Some(class) => Err(format!(
            "`{class}` takes `/`, too; write a class that does not, such as `[0-9]`, `[^x/]` or `[a-z]`"
        )),
        None => Ok(glob),
    }
}

/// Compiles a glob whatever its classes take.
pub(super) fn compiled(text: &str) -> Result<GlobMatcher, Error> {
    let glob = GlobBuilder::new(text).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher())
}

/// The classes of a glob that compiles, each with its brackets: read as globset reads them.
fn classes(glob: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut chars = glob.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => drop(chars.next()),
            '[' => {
                // What stands first is no end; nor is it where the class is the opposite of what it lists.
                let first = chars.next();
                if let Some((_, '!' | '^')) = first {
                    chars.next();
                }
                let end = chars.find(|(_, char)| *char == ']');
                let end = end.map_or(glob.len(), |(end, _)| end + 1);
                found.extend(glob.get(at..end));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn no_class_takes_a_slash() {
        for crossing in [
            "pay[!0-9]**/x",
            "pay[+-9]*",
            "pay[^x]*",
            "pay-1[/]x",
            "pay-1/[a/b]",
            "{a,pay[!x]}/**",
            "[]/]",
            "[-/]",
            "[!!]",
            "[^^]",
            "[!]]",
            "[,-9]",
            "[a-z!/]",
            "[.-é]",
            "[a]/[!a]",
        ] {
            let mistake = glob(crossing).unwrap_err();
            assert!(mistake.contains("takes `/`"), "{crossing}: {mistake}");
        }
        for good in [
            "pay[0-9]/**",
            "[^x/]*/**",
            "[!/]/x",
            "[!,-9]",
            "[]]/x",
            "[a^!]/x",
            "[a-]/x",
            r"\[!a\]/x",
            "[é-ü]/*",
        ] {
            glob(good).unwrap();
        }
        assert_eq!(glob("").unwrap_err(), "empty glob");
    }

    proptest! {
        /// Without `**` and `/` there is no way over a border.
        #[test]
        fn a_border_is_crossed_by_what_says_so_alone(
            pieces in vec(prop_oneof![
                Just("["), Just("]"), Just("!"), Just("^"), Just("-"), Just("a"), Just("+"), Just("9"), Just("\\"),
                Just("{"), Just("}"), Just(","), Just("?"), Just("[!0-9]"), Just("[+-9]"), Just("[^x]"), Just("[!"),
            ], 1..9),
            path in "[a+9x]{0,3}/[a+9x]{0,3}",
        ) {
            let text = pieces.concat();
            if let Ok(glob) = glob(&text) {
                prop_assert!(!glob.is_match(&path), "{text} matches {path}");
            }
        }
    }
}
