//! What counts as sealing less, and what does not.

use super::*;
use crate::{
    file::OptionalFile,
    registry::rules::{BasinRule, KeySource, RuleCipher, StreamRule},
};

use RuleCipher::{Aegis256, Aes256Gcm, None as Plain};

/// Rules for streams, and for basins.
type Lists<'a> = (&'a [(&'a str, RuleCipher)], &'a [(&'a str, RuleCipher)]);

fn rules((streams, basins): Lists<'_>) -> Rules {
    let streams: Vec<_> = streams
        .iter()
        .map(|(glob, cipher)| StreamRule {
            r#match: (*glob).to_owned(),
            cipher: *cipher,
            key: KeySource::Header,
            key_file: OptionalFile::default(),
            header_overrides: false,
        })
        .collect();
    let basins: Vec<_> = basins
        .iter()
        .map(|(glob, cipher)| BasinRule {
            r#match: (*glob).to_owned(),
            stream_cipher: *cipher,
        })
        .collect();
    Rules::compile(&basins, &streams).unwrap()
}

fn unsaid(before: Lists<'_>, after: Lists<'_>) -> Vec<String> {
    rules(after).unsaid(&rules(before).in_force())
}

#[test]
fn what_was_sealed_stays_so_until_its_glob_says_none() {
    const A: &str = "audit-*/**";
    let sealed: Lists<'_> = (&[(A, Aegis256)], &[("audit-*", Aegis256)]);
    let fine: [Lists<'_>; 6] = [
        sealed,
        (&[(A, Aes256Gcm)], &[("audit-*", Aes256Gcm)]),
        (&[(A, Plain)], &[("audit-*", Plain)]),
        // A narrower `none` is the operator's word.
        (&[("audit-prod/x", Plain), (A, Aegis256)], sealed.1),
        (sealed.0, &[("audit-p*", Plain), ("audit-*", Aegis256)]),
        // Everything that it matched is sealed by a wider one.
        (&[("*/**", Aegis256)], &[("a*", Aegis256)]),
    ];
    for after in fine {
        assert_eq!(unsaid(sealed, after), [""; 0], "{after:?}");
    }
}

#[test]
fn a_rule_that_is_gone_or_narrower_is_named() {
    let before: Lists<'_> = (&[("audit-*/**", Aegis256)], &[]);
    let gone: [Lists<'_>; 6] = [
        (&[], &[]),
        (&[("audit-p*/**", Aegis256)], &[]),
        (&[("audit-*/*", Aegis256)], &[]),
        (&[("*/**", Plain)], &[]),
        // A basin's cipher is for its new streams alone.
        (&[], &[("*", Aegis256)]),
        (&[("audit-p*/**", Plain)], &[("audit-*", Plain)]),
    ];
    for after in gone {
        let found = unsaid(before, after);
        let [found] = found.as_slice() else {
            panic!("{after:?}: {found:?}")
        };
        assert!(
            found.contains("[[streams]] match = \"audit-*/**\" sealed"),
            "{found}"
        );
        let line = "[[streams]]\nmatch = \"audit-*/**\"\ncipher = \"none\"";
        assert!(found.ends_with(line), "{found}");
    }
}

#[test]
fn a_basin_rule_that_is_gone_is_named() {
    let before: Lists<'_> = (&[], &[("audit-*", Aegis256)]);
    for after in [(&[][..], &[][..]), (&[], &[("audit-p*", Aegis256)])] {
        let found = unsaid(before, after);
        let line = "[[basins]]\nmatch = \"audit-*\"\nstream_cipher = \"none\"";
        assert!(found[0].ends_with(line), "{found:?}");
    }
    // Every stream of such basins is sealed.
    assert_eq!(unsaid(before, (&[("audit-*/**", Aegis256)], &[])), [""; 0]);
}

#[test]
fn an_overtaken_rule_is_named() {
    let streams: Lists<'_> = (&[("audit-*/app/*", Aegis256)], &[]);
    let basins: Lists<'_> = (&[], &[("audit-*", Aegis256)]);
    let overtaken: [(Lists<'_>, Lists<'_>); 6] = [
        (
            streams,
            (&[("audit-*/**", Plain), ("audit-*/app/*", Aegis256)], &[]),
        ),
        (
            streams,
            (&[("*/app/**", Plain), ("audit-*/app/*", Aegis256)], &[]),
        ),
        // Three that cover it together.
        (
            streams,
            (
                &[
                    ("audit-*/app/[a-m]*", Plain),
                    ("*/app/[^a-m/]*", Plain),
                    ("*/app/", Plain),
                    ("audit-*/app/*", Aegis256),
                ],
                &[],
            ),
        ),
        (basins, (&[], &[("a*", Plain), ("audit-*", Aegis256)])),
        (basins, (&[("audit-*/**", Plain)], &[("audit-*", Aegis256)])),
        (basins, (&[("**", Plain)], &[("audit-*", Aegis256)])),
    ];
    for (before, after) in overtaken {
        let found = unsaid(before, after);
        assert!(
            found.len() == 1 && found[0].contains("before it"),
            "{after:?}: {found:?}"
        );
        // Behind it they take nothing from it.
        let (mut last_streams, mut last_basins) = (after.0.to_vec(), after.1.to_vec());
        last_streams.reverse();
        last_basins.reverse();
        if before.0 == streams.0 || after.0.is_empty() {
            assert_eq!(
                unsaid(before, (&last_streams, &last_basins)),
                [""; 0],
                "{after:?}"
            );
        }
    }
}

#[test]
fn a_rule_that_never_sealed_anything_is_not_remembered() {
    let shadowed: Lists<'_> = (&[("audit-*/**", Plain), ("audit-*/app/*", Aegis256)], &[]);
    assert_eq!(rules(shadowed).in_force(), RulesEntry::default());
    assert_eq!(unsaid(shadowed, shadowed), [""; 0]);
}

#[test]
fn none_is_said_once() {
    let sealed: Lists<'_> = (&[("audit-*/**", Aegis256)], &[]);
    let said: Lists<'_> = (&[("audit-*/**", Plain)], &[]);
    assert_eq!(unsaid(sealed, said), [""; 0]);
    assert_eq!(unsaid(said, (&[], &[])), [""; 0]);
}

#[test]
fn refusing_plain_streams_is_remembered_once_it_is_written() {
    let with = |said| rules((&[], &[])).with_plain_streams(said);
    let last = with(Some(PlainStreams::Refuse)).in_force();
    assert_eq!(with(Some(PlainStreams::Refuse)).unsaid(&last), [""; 0]);
    assert_eq!(with(Some(PlainStreams::Allow)).unsaid(&last), [""; 0]);
    let found = with(None).unsaid(&last);
    assert!(found[0].contains("plain_streams = \"allow\""), "{found:?}");
    assert_eq!(with(None).unsaid(&with(None).in_force()), [""; 0]);
}
