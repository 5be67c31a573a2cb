//! Which basins a glob over `basin/stream` reaches into: two answers, each on the safe side.

use globset::GlobMatcher;

use super::glob::compiled;
use crate::stream::BasinName;

/// What the beginning of a glob says of basins. What it does not say for certain, it may be.
#[derive(Debug)]
pub(super) struct Reach {
    /// What stands before the first `/`, where that is a glob of its own.
    basins: Option<GlobMatcher>,
    /// It could match in basins that `basins` does not match.
    is_wide: bool,
    /// Nothing but `**` follows: it takes every stream of the basins that it matches.
    is_whole: bool,
}

/// Returns true if a glob over `basin/stream` could match a stream of a basin. The glob must compile.
pub fn may_reach(glob: &str, basin: &BasinName) -> bool {
    Reach::of(glob).may_reach(basin)
}

impl Reach {
    /// Of a glob that compiles, and has no class that takes a `/`.
    pub(super) fn of(glob: &str) -> Self {
        let (first, rest) = match glob.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            // Without a `/` it takes a `**` to match one.
            None if glob.contains("**") => ("**", (glob == "**").then_some("**")),
            None => return Self::nowhere(),
        };
        // A class, an alternative or an escape that goes on behind the `/` is no glob here.
        let basins = compiled(first).ok();
        Self {
            // A `**` before the first `/` may stand for several segments, or none.
            is_wide: basins.is_none() || first.contains("**"),
            is_whole: rest == Some("**"),
            basins,
        }
    }

    fn nowhere() -> Self {
        Self {
            basins: None,
            is_wide: false,
            is_whole: false,
        }
    }

    /// Whether it certainly matches every stream of the basin.
    pub(super) fn covers(&self, basin: &BasinName) -> bool {
        self.is_whole && self.reaches(basin)
    }

    /// Whether it certainly matches what could be a stream of the basin.
    pub(super) fn reaches(&self, basin: &BasinName) -> bool {
        let mut basins = self.basins.iter();
        basins.any(|basins| basins.is_match(basin.as_str()))
    }

    /// Whether it could match any stream of the basin.
    pub(super) fn may_reach(&self, basin: &BasinName) -> bool {
        self.is_wide || self.reaches(basin)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::keys::glob;

    /// Covers, reaches, may reach.
    fn reach(glob: &str, basin: &str) -> (bool, bool, bool) {
        crate::keys::glob(glob).unwrap();
        let (reach, basin) = (Reach::of(glob), basin.parse().unwrap());
        (
            reach.covers(&basin),
            reach.reaches(&basin),
            reach.may_reach(&basin),
        )
    }

    #[test]
    fn a_basin_is_covered_only_by_what_takes_every_stream_of_it() {
        for (glob, wanted) in [
            ("pay-*/**", (true, true, true)),
            ("pay-basin/**", (true, true, true)),
            ("{pay,sell}-*/**", (true, true, true)),
            ("*/**", (true, true, true)),
            ("**/**", (true, true, true)),
            ("**", (true, true, true)),
            ("pay-*/*", (false, true, true)),
            ("pay-*/a/**", (false, true, true)),
            ("pay-*/**/a", (false, true, true)),
            ("**/a", (false, true, true)),
            ("sell-*/**", (false, false, false)),
            ("pay-basin", (false, false, false)),
            ("*", (false, false, false)),
            // What cannot be told apart at its first `/` reaches nothing, and may reach everything.
            ("{sell-1/**,pay-basin/a}", (false, false, true)),
            ("pay**", (false, true, true)),
        ] {
            assert_eq!(reach(glob, "pay-basin"), wanted, "{glob}");
        }
    }

    proptest! {
        #[test]
        fn it_is_on_the_safe_side(
            pieces in vec(prop_oneof![
                Just("**"), Just("*"), Just("/"), Just("?"), Just("a"), Just("basin-a"), Just("{a,basin-a}"),
                Just("["), Just("]"), Just("{"), Just("}"), Just(","), Just("\\"), Just("[a/b]"), Just("[!0-9]"),
                Just("[+-9]"), Just("[^x]"), Just("[^x/]"), Just("[a-b]"), Just("[^"),
            ], 1..7),
            stream in vec(prop_oneof![Just("/"), Just("a"), Just("\n"), Just("basin-a"), Just("é")], 1..5),
        ) {
            let text = pieces.concat();
            let Ok(glob) = glob(&text) else { return Ok(()) };
            let path = format!("basin-aa/{}", stream.concat());
            let (reach, basin) = (Reach::of(&text), "basin-aa".parse().unwrap());
            if reach.covers(&basin) {
                prop_assert!(glob.is_match(&path), "{text} covers, and does not match {path:?}");
            }
            if glob.is_match(&path) {
                prop_assert!(reach.may_reach(&basin), "{text} matches {path:?}, out of reach");
            }
        }
    }
}
