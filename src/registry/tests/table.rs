//! The table of states against its invariants, for any entry and any order of events.

use proptest::{collection::vec, prelude::*};

use super::check;
use crate::{
    crypto::Cipher,
    registry::table::{Contradiction, Event, Proof, is_sealed, next},
    store::{
        FormerIncarnation, Incarnation, KeyKnown, MAX_FORMER, Origin, StreamEntry, StreamState,
    },
};

fn cipher() -> impl Strategy<Value = Option<Cipher>> {
    prop_oneof![
        Just(None),
        Just(Some(Cipher::Aegis256)),
        Just(Some(Cipher::Aes256Gcm)),
    ]
}

fn time() -> impl Strategy<Value = String> {
    prop_oneof![Just("2001".to_owned()), Just("2002".to_owned())]
}

/// Everything that clients and the upstream can bring about.
fn event() -> impl Strategy<Value = Event> {
    let key = || (1_u8..3).prop_map(check);
    prop_oneof![
        cipher().prop_map(|cipher| Event::IntendCreate {
            cipher,
            origin: Origin::Created
        }),
        (time(), any::<bool>())
            .prop_map(|(created_at, is_new)| Event::Found { created_at, is_new }),
        (cipher(), proptest::option::of(time())).prop_map(|(cipher, created_at)| {
            Event::NewIncarnation {
                cipher,
                created_at,
                origin: Origin::Created,
            }
        }),
        Just(Event::Declared {
            cipher: Cipher::Aegis256
        }),
        key().prop_map(|check| Event::KeyClaimed { check }),
        key().prop_map(|check| Event::ClaimMoved { check }),
        (key(), any::<bool>()).prop_map(|(check, opened)| Event::KeyConfirmed {
            check: Some(check),
            proof: match opened {
                true => Proof::Opened,
                false => Proof::Acked,
            },
        }),
        proptest::option::of(time()).prop_map(|created_at| Event::SeenPlain { created_at }),
        Just(Event::DeleteIntended),
        Just(Event::Deleted),
        Just(Event::DeleteRefused),
    ]
}

/// What an incarnation wrote opens with these.
fn openers(entry: &StreamEntry) -> Vec<FormerIncarnation> {
    let mut openers = entry.former.clone();
    openers.push(FormerIncarnation {
        cipher: entry.state.cipher(),
        key_check: entry.key_check,
        created_at: None,
    });
    openers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_event_but_a_deletion_unseals(events in vec(event(), 1..12)) {
        let mut entry: Option<StreamEntry> = None;
        for event in events {
            let before = entry.clone();
            let after = match next(before.clone(), event.clone()) {
                Ok(after) => after,
                Err(_) => continue,
            };
            if is_sealed(before.as_ref()) && !is_sealed(after.as_ref()) {
                prop_assert_eq!(&event, &Event::Deleted);
                prop_assert_eq!(&after, &None);
            }
            entry = after;
        }
    }

    #[test]
    fn confirmed_key_changes_only_with_its_incarnation(events in vec(event(), 1..12)) {
        let mut entry: Option<StreamEntry> = None;
        for event in events {
            let Ok(after) = next(entry.clone(), event.clone()) else { continue };
            let (Some(before), Some(now)) = (&entry, &after) else {
                entry = after;
                continue;
            };
            if let KeyKnown::Confirmed(known) = before.key() {
                match event {
                    Event::NewIncarnation { .. } => {
                        let kept = openers(now).into_iter().any(|life| {
                            life.key_check == Some(known) && life.cipher == before.state.cipher()
                        });
                        prop_assert!(kept, "{:?} keeps no way to open {:?}", now, before);
                    }
                    _ => {
                        prop_assert_eq!(now.key(), KeyKnown::Confirmed(known));
                        prop_assert_eq!(now.state.cipher(), before.state.cipher());
                    }
                }
            }
            prop_assert!(now.former.len() <= MAX_FORMER);
            entry = after;
        }
    }

    #[test]
    fn contradiction_changes_nothing_and_repeats(events in vec(event(), 1..8), last in event()) {
        let mut entry: Option<StreamEntry> = None;
        for event in events {
            entry = next(entry.clone(), event).unwrap_or(entry);
        }
        let once = next(entry.clone(), last.clone());
        prop_assert_eq!(&once, &next(entry, last));
    }
}

fn live(cipher: Option<Cipher>, created_at: &str) -> StreamEntry {
    let life = Incarnation {
        cipher,
        created_at: Some(created_at.to_owned()),
    };
    StreamEntry::new(StreamState::Live(life), Origin::Created)
}

#[test]
fn sealed_stream_with_another_time_is_a_contradiction() {
    let sealed = live(Some(Cipher::Aegis256), "2001").with_key(KeyKnown::Confirmed(check(1)));
    for is_new in [false, true] {
        let found = |created_at: &str| {
            next(
                Some(sealed.clone()),
                Event::Found {
                    created_at: created_at.into(),
                    is_new,
                },
            )
        };
        assert_eq!(found("2002"), Err(Contradiction::OtherIncarnation));
        assert_eq!(found("2001"), Ok(Some(sealed.clone())));
    }
}

#[test]
fn plain_stream_created_again_is_a_contradiction() {
    let plain = live(None, "2001");
    let found = |is_new| Event::Found {
        created_at: "2002".into(),
        is_new,
    };
    assert_eq!(
        next(Some(plain.clone()), found(true)),
        Err(Contradiction::OtherIncarnation)
    );
    assert_eq!(
        next(Some(plain.clone()), found(false)),
        Ok(Some(plain.clone()))
    );
    let sealed = next(
        Some(plain),
        Event::NewIncarnation {
            cipher: Some(Cipher::Aegis256),
            created_at: None,
            origin: Origin::Created,
        },
    );
    assert!(is_sealed(sealed.unwrap().as_ref()));
}

#[test]
fn former_incarnations_are_bounded() {
    let mut entry = live(Some(Cipher::Aegis256), "0");
    for number in 0..9 {
        let with_key = entry.with_key(KeyKnown::Confirmed(check(number)));
        let event = Event::NewIncarnation {
            cipher: Some(Cipher::Aes256Gcm),
            created_at: Some(number.to_string()),
            origin: Origin::Created,
        };
        entry = next(Some(with_key), event).unwrap().unwrap();
    }
    let kept: Vec<_> = entry.former.iter().map(|life| life.key_check).collect();
    assert_eq!(kept, [5, 6, 7, 8].map(|number| Some(check(number))));
}

#[test]
fn claim_is_moved_but_never_a_confirmed_key() {
    let sealed = live(Some(Cipher::Aegis256), "2001");
    let claimed = sealed.clone().with_key(KeyKnown::Claimed(check(1)));
    let confirmed = sealed.with_key(KeyKnown::Confirmed(check(1)));
    let (other, check) = (check(2), check(2));
    let key = |result: Result<Option<StreamEntry>, _>| result.map(|entry| entry.unwrap().key());
    assert_eq!(
        key(next(Some(claimed.clone()), Event::KeyClaimed { check })),
        Err(Contradiction::OtherKey)
    );
    let moved = next(Some(claimed), Event::ClaimMoved { check });
    assert_eq!(key(moved), Ok(KeyKnown::Claimed(other)));
    let moved = next(Some(confirmed), Event::ClaimMoved { check });
    assert_eq!(key(moved), Err(Contradiction::OtherKey));
}

#[test]
fn operator_alone_makes_a_sealed_stream_plain() {
    let sealed = live(Some(Cipher::Aegis256), "2001").with_key(KeyKnown::Confirmed(check(1)));
    for event in [
        Event::SeenPlain { created_at: None },
        Event::Admitted {
            created_at: "2001".into(),
        },
    ] {
        let refused = next(Some(sealed.clone()), event);
        assert_eq!(refused, Err(Contradiction::IsSealed));
    }
    let plain = next(Some(sealed), Event::CipherSet { cipher: None })
        .unwrap()
        .unwrap();
    assert_eq!(plain.state.cipher(), None);
    assert_eq!(plain.former.len(), 1, "its records still open");
}
