//! What globs match among all valid names. The answers are exact: they come from the automata of the globs.

use std::{
    collections::{HashMap, VecDeque},
    sync::LazyLock,
};

use globset::GlobMatcher;
use regex_automata::{
    Anchored, Input, MatchKind,
    hybrid::{
        LazyStateID,
        dfa::{Cache, DFA},
    },
    util::syntax,
};

/// Every valid `basin/stream`, but for the longest stream name: as [`crate::stream`] says.
const PATHS: &str =
    r"^[a-z0-9][a-z0-9-]{6,46}[a-z0-9]/(?:[^.\x00]|\.[^.\x00]|\.\.[^\x00])[^\x00]*$";

static ALL_PATHS: LazyLock<Result<Language, Unclear>> =
    LazyLock::new(|| Language::of_regex(PATHS, Over::Stream));

/// Most memory for the states of one automaton.
const MAX_CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Most combined states that a question looks at.
const MAX_STATES: usize = 100_000;

/// What a glob is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The name of a basin.
    Basin,
    /// `basin/stream`.
    Stream,
}

/// The question takes more states than may be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the globs are too complicated to compare")]
pub struct Unclear;

/// The names that a glob matches.
pub struct Language {
    over: Over,
    dfa: DFA,
}

impl Language {
    /// The names that this glob matches.
    ///
    /// # Errors
    /// [`Unclear`] for a glob that is too large.
    pub fn new(glob: &GlobMatcher, over: Over) -> Result<Self, Unclear> {
        Self::of_regex(glob.glob().regex(), over)
    }

    /// Built as globset builds its own.
    fn of_regex(regex: &str, over: Over) -> Result<Self, Unclear> {
        let config = DFA::config()
            .match_kind(MatchKind::All)
            .cache_capacity(MAX_CACHE_BYTES)
            .skip_cache_capacity_check(true)
            // Never: a state keeps its number.
            .minimum_cache_clear_count(Some(0));
        let syntax = syntax::Config::new().utf8(false).dot_matches_new_line(true);
        let dfa = DFA::builder().syntax(syntax).configure(config).build(regex);
        let dfa = dfa.map_err(|_| Unclear)?;
        Ok(Self { over, dfa })
    }
}

/// Whether two globs could match one name, by how they begin. Costs next to nothing.
pub fn may_meet(one: &GlobMatcher, other: &GlobMatcher) -> bool {
    let [one, other] = [one, other].map(|glob| {
        let text = glob.glob().glob();
        text.split(['*', '?', '[', '{', '\\'])
            .next()
            .unwrap_or_default()
    });
    one.starts_with(other) || other.starts_with(one)
}

/// Finds a valid `basin/stream` that `within` matches and that is `wanted`, given which of the globs match it.
///
/// # Errors
/// [`Unclear`] when it takes too long to find out.
pub fn find(
    within: &Language,
    globs: &[Language],
    wanted: impl Fn(&[bool]) -> bool,
) -> Result<Option<String>, Unclear> {
    let paths = ALL_PATHS.as_ref().map_err(|unclear| *unclear)?;
    let languages = [paths, within].into_iter().chain(globs);
    let mut runs: Vec<_> = languages.map(Run::new).collect();
    let bytes = representatives(&runs);
    let start = runs
        .iter_mut()
        .map(Run::start)
        .collect::<Result<Vec<_>, _>>()?;
    // Each state, and the byte and the state before it that first led there.
    let mut seen = HashMap::from([(start.clone(), None)]);
    let mut queue = VecDeque::from([start]);
    while let Some(states) = queue.pop_front() {
        if let [true, true, matches @ ..] = &*ends(&mut runs, &states)?
            && wanted(matches)
        {
            return Ok(Some(spelled(&seen, &states)));
        }
        for &byte in &bytes {
            let next = next(&mut runs, &states, byte)?;
            if next
                .iter()
                .take(2)
                .any(|state| *state == State::Decided(false))
                || seen.contains_key(&next)
            {
                continue;
            }
            if seen.len() == MAX_STATES {
                return Err(Unclear);
            }
            seen.insert(next.clone(), Some((byte, states.clone())));
            queue.push_back(next);
        }
    }
    Ok(None)
}

/// Which of the automata match what ends here.
fn ends(runs: &mut [Run<'_>], states: &[State]) -> Result<Vec<bool>, Unclear> {
    let ends = runs.iter_mut().zip(states);
    ends.map(|(run, state)| run.ends(*state)).collect()
}

/// The states behind one more byte.
fn next(runs: &mut [Run<'_>], states: &[State], byte: u8) -> Result<Vec<State>, Unclear> {
    let next = runs.iter_mut().zip(states);
    next.map(|(run, state)| run.next(*state, byte)).collect()
}

/// The bytes that led to a state.
fn spelled(seen: &HashMap<Vec<State>, Option<(u8, Vec<State>)>>, last: &[State]) -> String {
    let mut bytes = Vec::new();
    let mut states = last;
    while let Some(Some((byte, before))) = seen.get(states) {
        bytes.push(*byte);
        states = before;
    }
    bytes.reverse();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One byte of each kind that no automaton tells apart.
fn representatives(runs: &[Run<'_>]) -> Vec<u8> {
    let is_first = |byte: &u8| {
        let Some(before) = byte.checked_sub(1) else {
            return true;
        };
        let differs = |run: &Run<'_>| {
            let classes = run.language.dfa.byte_classes();
            classes.get(*byte) != classes.get(before)
        };
        [before, *byte].contains(&b'/') || runs.iter().any(differs)
    };
    // Letters before all else: they make better examples.
    let (mut first, other): (Vec<u8>, Vec<u8>) = (0..=u8::MAX)
        .filter(is_first)
        .partition(u8::is_ascii_lowercase);
    first.extend(other);
    first
}

/// How far an automaton got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    Running(LazyStateID),
    /// What comes next does not matter: over a basin, behind its name.
    Decided(bool),
}

/// An automaton at work.
struct Run<'a> {
    language: &'a Language,
    cache: Cache,
}

impl<'a> Run<'a> {
    fn new(language: &'a Language) -> Self {
        let cache = language.dfa.create_cache();
        Self { language, cache }
    }

    fn start(&mut self) -> Result<State, Unclear> {
        let input = Input::new("").anchored(Anchored::Yes);
        let start = self
            .language
            .dfa
            .start_state_forward(&mut self.cache, &input);
        start.map(Self::state).map_err(|_| Unclear)
    }

    fn next(&mut self, state: State, byte: u8) -> Result<State, Unclear> {
        let State::Running(id) = state else {
            return Ok(state);
        };
        if byte == b'/' && self.language.over == Over::Basin {
            return self.ends(state).map(State::Decided);
        }
        let next = self.language.dfa.next_state(&mut self.cache, id, byte);
        next.map(Self::state).map_err(|_| Unclear)
    }

    /// Whether it matches what ends here.
    fn ends(&mut self, state: State) -> Result<bool, Unclear> {
        match state {
            State::Running(id) => {
                let end = self.language.dfa.next_eoi_state(&mut self.cache, id);
                end.map(|end| end.is_match()).map_err(|_| Unclear)
            }
            State::Decided(matches) => Ok(matches),
        }
    }

    fn state(id: LazyStateID) -> State {
        match id.is_dead() {
            true => State::Decided(false),
            false => State::Running(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        keys::glob,
        stream::{BasinName, StreamPath},
    };

    fn language(text: &str, over: Over) -> Language {
        Language::new(&glob(text).unwrap(), over).unwrap()
    }

    /// Whether the one matches everything that the other does.
    fn covers(one: (&str, Over), other: (&str, Over)) -> bool {
        let [one, other] = [one, other].map(|(text, over)| language(text, over));
        let outside = find(&other, &[one], |matches| matches == [false]).unwrap();
        outside.is_none()
    }

    #[test]
    fn covering_is_told_exactly() {
        use Over::{Basin, Stream};
        for (one, other, wanted) in [
            (("audit-*/**", Stream), ("audit-prod/app/*", Stream), true),
            (("audit-*/*", Stream), ("audit-prod/app/*", Stream), false),
            (("*-*/**", Stream), ("audit-*/**", Stream), true),
            (("audit-?*/**", Stream), ("audit-*/**", Stream), true),
            (("audit-p*/**", Stream), ("audit-*/**", Stream), false),
            (("audit-*/**", Stream), ("audit-*", Basin), true),
            (("audit-*/*", Stream), ("audit-*", Basin), false),
            (("audit-*", Basin), ("audit-*/**", Stream), true),
            (("a*", Basin), ("audit-*", Basin), true),
            (("audit-a*", Basin), ("audit-*", Basin), false),
            (("**", Stream), ("*", Basin), true),
            // The name of a basin ends with a letter or digit.
            (
                ("audit-prod-?*/**", Stream),
                ("audit-prod-*/**", Stream),
                true,
            ),
            // No stream is called `.` or `..`.
            (
                ("audit-prod/{?,??}?*", Stream),
                ("audit-prod/.*", Stream),
                true,
            ),
            (
                ("audit-prod/{[^./],[^./]?,???*}", Stream),
                ("audit-prod/*", Stream),
                false,
            ),
            (
                ("audit-prod/{[^./],[^./][^/],.[^./],???*}", Stream),
                ("audit-prod/*", Stream),
                true,
            ),
        ] {
            assert_eq!(covers(one, other), wanted, "{one:?} {other:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_found_is_valid_and_as_wanted(
            texts in vec(vec(prop_oneof![
                Just("**"), Just("*"), Just("/"), Just("?"), Just("a"), Just("basin-a"), Just("{a,basin-a}"),
                Just("["), Just("]"), Just("{"), Just("}"), Just(","), Just("\\"), Just("."), Just("A"),
                Just("[^/x]"), Just("[a-b]"), Just("é"), Just("[é]"),
            ], 1..7), 2),
            wanted in any::<[bool; 2]>(),
            stream in vec(prop_oneof![Just("/"), Just("a"), Just("\n"), Just("basin-a"), Just("é"), Just(".")], 1..5),
        ) {
            let texts: Vec<_> = texts.iter().map(|pieces| pieces.concat()).collect();
            let globs: Result<Vec<_>, _> = texts.iter().map(|text| glob(text)).collect();
            let Ok(globs) = globs else { return Ok(()) };
            let overs = [Over::Stream, Over::Basin];
            let languages: Vec<_> = globs.iter().zip(overs)
                .map(|(glob, over)| Language::new(glob, over).unwrap()).collect();
            let every = language("**", Over::Stream);
            let matches = |path: &str| {
                let path: StreamPath = path.parse().unwrap();
                let (basin, path): (BasinName, _) = (path.basin.clone(), path.to_string());
                [globs[0].is_match(&path), globs[1].is_match(basin.as_str())]
            };
            let found = find(&every, &languages, |matches| matches == wanted).unwrap();
            if found.is_some() && wanted == [true, true] {
                prop_assert!(may_meet(&globs[0], &globs[1]), "{texts:?}");
            }
            let [first, second] = languages.try_into().ok().unwrap();
            let within = find(&first, &[second], |matches| matches == [wanted[1]]).unwrap();
            prop_assert!(!wanted[0] || within.is_some() == found.is_some());
            if let Some(found) = &found {
                prop_assert_eq!(matches(found), wanted, "{:?} {}", &texts, found);
            }
            let path = format!("basin-aa/{}", stream.concat());
            if path.parse::<StreamPath>().is_ok() && matches(&path) == wanted {
                prop_assert!(found.is_some(), "{texts:?} {path}");
            }
        }
    }
}
