//! The globs of the configuration, over `basin/stream`: nothing but `**` and a `/` that is written goes over a `/`.

use globset::{Error, GlobBuilder, GlobMatcher};

use super::language::{Language, Over, find};

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

/// Compiles a glob over `basin/stream`.
///
/// # Errors
/// What is wrong with it; a glob that matches no stream at all is, with the form that would.
pub fn stream_glob(text: &str) -> Result<GlobMatcher, String> {
    let compiled = glob(text)?;
    if !is_dead(&compiled, Over::Stream) {
        return Ok(compiled);
    }
    let basins = text
        .split_once('/')
        .map(|(basins, _)| (basins, glob(basins)));
    Err(match basins {
        None => format!(
            "`{text}` matches no stream, for globs are over `basin/stream`: write `{text}/**` for every stream of \
             such basins, or `*/{text}` for such streams of every basin"
        ),
        Some((basins, Ok(glob))) if is_dead(&glob, Over::Basin) => no_basin(basins),
        Some(_) => format!("`{text}` matches no valid `basin/stream`"),
    })
}

/// Compiles a glob over names of basins.
///
/// # Errors
/// What is wrong with it; a glob that matches no basin at all is.
pub fn basin_glob(text: &str) -> Result<GlobMatcher, String> {
    let compiled = glob(text)?;
    if let Some((basins, _)) = text.split_once('/') {
        return Err(format!(
            "`{text}` has a `/`, and a basin's name has none: write `{basins}`, or a rule of [[streams]]"
        ));
    }
    match is_dead(&compiled, Over::Basin) {
        true => Err(no_basin(text)),
        false => Ok(compiled),
    }
}

fn no_basin(glob: &str) -> String {
    format!(
        "no basin can have a name like `{glob}`: it has 8 to 48 bytes of a-z, 0-9 and `-`, and no `-` at its ends"
    )
}

/// Whether a glob certainly matches nothing.
fn is_dead(glob: &GlobMatcher, over: Over) -> bool {
    let found = Language::new(glob, over).and_then(|glob| find(&glob, &[], |_| true));
    found == Ok(None)
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
    use crate::stream::{BasinName, StreamPath};

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

    #[test]
    fn a_stream_glob_that_matches_nothing_shows_the_right_form() {
        let mistake = |text: &str| stream_glob(text).unwrap_err();
        assert_eq!(
            mistake("secret-*"),
            "`secret-*` matches no stream, for globs are over `basin/stream`: write `secret-*/**` for every stream \
             of such basins, or `*/secret-*` for such streams of every basin"
        );
        for basins in [
            "prod",
            "prod-?",
            "Audit-*",
            "audit.prod",
            "audit_*",
            "-audit-*",
            "audit-prod-",
            "",
        ] {
            let wanted = format!("no basin can have a name like `{basins}`: ");
            let found = mistake(&format!("{basins}/**"));
            assert!(found.starts_with(&wanted) || basins.is_empty(), "{found}");
        }
        let long = format!("{}/**", "a".repeat(49));
        assert!(
            mistake(&long).starts_with("no basin can"),
            "{}",
            mistake(&long)
        );
        for text in [
            "audit-prod",
            "*",
            "audit-prod/",
            "audit-prod/..",
            "{prod/a,test/b}",
            "prod*p/[.]",
            "audit-prod**",
        ] {
            let found = mistake(text);
            assert!(found.contains("matches no"), "{found}");
        }
        for alive in [
            "secret-*/**",
            "*/secret-*",
            "**",
            "**/x",
            "prod*/**",
            "{audit-prod/a,x/b}",
            "*/.?",
        ] {
            stream_glob(alive).unwrap();
        }
    }

    #[test]
    fn a_basin_glob_that_matches_nothing_is_a_mistake() {
        for text in [
            "prod",
            "Audit-*",
            "audit_*",
            "*.prod",
            "-*",
            "?",
            "?????????????????????????????????????????????????",
        ] {
            let found = basin_glob(text).unwrap_err();
            assert!(
                found.starts_with(&format!("no basin can have a name like `{text}`: ")),
                "{found}"
            );
        }
        for text in ["audit-*/**", "audit-prod/x", "**/audit-prod"] {
            let found = basin_glob(text).unwrap_err();
            assert!(found.starts_with(&format!("`{text}` has a `/`")), "{found}");
        }
        for alive in ["audit-*", "*", "a*", "{prod,audit-prod}", "????????", "**"] {
            basin_glob(alive).unwrap();
        }
    }

    proptest! {
        #[test]
        fn what_is_called_dead_matches_nothing_valid(
            pieces in vec(prop_oneof![
                Just("**"), Just("*"), Just("/"), Just("?"), Just("a"), Just("basin-a"), Just("{a,basin-a}"),
                Just("["), Just("]"), Just("{"), Just("}"), Just(","), Just("\\"), Just("[a-b]"), Just("."),
                Just("[^/x]"), Just("[^.]"), Just("A"), Just("_"),
            ], 1..7),
            basin in "[ab-]{0,4}(basin-a)?[ab]{0,4}",
            stream in vec(prop_oneof![Just("/"), Just("a"), Just("\n"), Just("basin-a"), Just("é"), Just(".")], 1..5),
        ) {
            let text = pieces.concat();
            let Ok(glob) = glob(&text) else { return Ok(()) };
            let basins = ["basin-aa", &basin].into_iter().filter_map(|name| name.parse::<BasinName>().ok());
            for basin in basins {
                let path = format!("{basin}/{}", stream.concat());
                if path.parse::<StreamPath>().is_ok() && glob.is_match(&path) {
                    prop_assert!(stream_glob(&text).is_ok(), "{text} {path:?}");
                }
                if !text.contains('/') && glob.is_match(basin.as_str()) {
                    prop_assert!(basin_glob(&text).is_ok(), "{text} {basin}");
                }
            }
        }

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
