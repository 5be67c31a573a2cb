//! What is refused: the end of the last API key, too many of them, and what nobody could mean.

use super::*;

/// One with `manage` that ends by itself.
fn short() -> Wanted {
    Wanted {
        lifetime: Some(Duration::from_secs(7 * 24 * 3600)),
        ..wanted(&Scope::ALL)
    }
}

fn is_last(refused: Result<bool, ProjectError>) -> bool {
    matches!(refused, Err(ProjectError::Last(_)))
}

#[tokio::test]
async fn the_last_key_with_manage_ends_only_by_force() {
    let (world, first) = World::created().await;
    let reader = world.issue(&first, &wanted(&[Scope::Read])).await.unwrap();
    assert!(is_last(world.revoke(&first, &first.id, false).await));
    assert!(world.is_good(&first).await);
    assert!(world.revoke(&first, &first.id, true).await.unwrap());
    assert!(!world.is_good(&first).await && world.is_good(&reader).await);
}

#[tokio::test]
async fn a_key_that_ends_by_itself_is_no_substitute_for_one_that_does_not() {
    let (world, first) = World::created().await;
    let one = world.issue(&first, &short()).await.unwrap();
    assert!(is_last(world.revoke(&first, &first.id, false).await));
    let lasting = world.issue(&one, &wanted(&Scope::ALL)).await.unwrap();
    assert!(world.revoke(&one, &first.id, false).await.unwrap());
    assert!(is_last(world.revoke(&one, &lasting.id, false).await));
    // What ends by itself may go as long as there is another such.
    assert!(world.revoke(&one, &lasting.id, true).await.unwrap());
    let other = world.issue(&one, &short()).await.unwrap();
    assert!(world.revoke(&one, &other.id, false).await.unwrap());
    assert!(is_last(world.revoke(&one, &one.id, false).await));
}

#[tokio::test]
async fn there_are_256_keys_and_those_that_ended_first_make_room() {
    let (world, first) = World::created().await;
    let by = world.pass(&first).await;
    let mut made = Vec::new();
    for _ in 1..MAX_API_KEYS {
        made.push(
            world
                .roster
                .issue(&by, &wanted(&[Scope::Read]))
                .await
                .unwrap(),
        );
    }
    let full = world.roster.issue(&by, &wanted(&[Scope::Read])).await.err();
    assert!(matches!(full, Some(ProjectError::Full(256))), "{full:?}");
    let full = world.roster.rotate(&by, None, GRACE).await.err();
    assert!(matches!(full, Some(ProjectError::Full(256))), "{full:?}");
    assert_eq!(world.entry().await.api_keys.len(), MAX_API_KEYS);
    for at in [7, 3] {
        world.revoke(&first, &made[at].id, false).await.unwrap();
        world.after(1).await;
    }
    for gone in [7, 3] {
        assert!(world.entry().await.api_key(&made[gone].id).is_some());
        world
            .roster
            .issue(&by, &wanted(&[Scope::Read]))
            .await
            .unwrap();
        let entry = world.entry().await;
        assert_eq!(entry.api_keys.len(), MAX_API_KEYS);
        assert_eq!(entry.api_key(&made[gone].id), None, "{gone}");
    }
}

#[tokio::test]
async fn what_is_over_is_listed_for_30_days() {
    let (world, first) = World::created().await;
    let over = world.issue(&first, &wanted(&[Scope::Read])).await.unwrap();
    world.revoke(&first, &over.id, false).await.unwrap();
    world.after(30 * DAY - 1).await;
    assert_eq!(
        world.view(&first, &over.id).await.state,
        KeyStanding::Revoked
    );
    world.after(HOUR).await;
    assert_eq!(world.entry().await.api_key(&over.id), None);
    assert!(!world.is_good(&over).await);
}

#[tokio::test]
async fn what_nobody_could_mean_is_refused() {
    let (world, first) = World::created().await;
    let before = world.entry().await;
    let lifetime = |seconds| Wanted {
        lifetime: Some(Duration::from_secs(seconds)),
        ..wanted(&[Scope::Read])
    };
    let label = |label: &str| Wanted {
        label: label.to_owned(),
        ..wanted(&[Scope::Read])
    };
    for wrong in [
        wanted(&[]),
        lifetime(0),
        lifetime(3650 * 24 * 3600 + 1),
        lifetime(u64::MAX),
        label("two\nlines"),
        label("\u{1b}[31m"),
        label("\u{202e}dne eht ta"),
        label("tab\t"),
        label(&"x".repeat(129)),
    ] {
        let refused = world.issue(&first, &wrong).await.err();
        assert!(
            matches!(refused, Some(ProjectError::Invalid(_))),
            "{wrong:?}"
        );
    }
    let by = world.pass(&first).await;
    for grace in [0, 59, 30 * 24 * 3600 + 1, u64::MAX] {
        let rotated = world
            .roster
            .rotate(&by, None, Duration::from_secs(grace))
            .await;
        assert!(
            matches!(rotated.err(), Some(ProjectError::Invalid(_))),
            "{grace}"
        );
    }
    assert_eq!(world.entry().await, before);
    for good in [lifetime(1), label(&"x".repeat(128)), label("Üben, täglich")] {
        assert!(world.issue(&first, &good).await.is_ok(), "{good:?}");
    }
}

#[tokio::test]
async fn while_the_master_key_changes_only_the_new_one_is_handed_on() {
    let (world, first) = World::created().await;
    let next = world.issue(&first, &wanted(&Scope::ALL)).await.unwrap();
    world
        .write(|entry| {
            entry.rotation = Some(MasterRotation {
                mk_epoch: 2,
                mk_commit: Digest::from_bytes([0; 32]),
                forward: Wrapped::from_bytes([0; Wrapped::BYTES]),
                backward: Wrapped::from_bytes([0; Wrapped::BYTES]),
                began_at: entry.seen_at,
            });
            let mut keys = entry.api_keys.iter_mut();
            keys.find(|key| key.id == next.id).unwrap().mk_epoch = 2;
        })
        .await;
    let issued = world.issue(&first, &wanted(&Scope::ALL)).await.err();
    assert!(matches!(issued, Some(ProjectError::Changing)), "{issued:?}");
    let rotated = world.rotate(&first, None).await.err();
    assert!(
        matches!(rotated, Some(ProjectError::Changing)),
        "{rotated:?}"
    );
    // The others end with the change, so they are none to keep the project by.
    assert!(is_last(world.revoke(&first, &next.id, false).await));
}

#[tokio::test]
async fn a_key_without_the_master_key_makes_none() {
    let (world, first) = World::created().await;
    world
        .write(|entry| entry.mk_commit = Digest::from_bytes([0; 32]))
        .await;
    let issued = world.issue(&first, &wanted(&Scope::ALL)).await.err();
    let is_refused = matches!(issued, Some(ProjectError::Refused(Error::NoMasterKey)));
    assert!(is_refused, "{issued:?}");
}

#[tokio::test]
async fn no_two_ids_are_alike_and_an_end_out_of_sight_is_no_overflow() {
    let (world, first) = World::created().await;
    world.clock.store(u64::MAX - 1, SeqCst);
    let late = Wanted {
        lifetime: Some(Duration::from_secs(3600)),
        ..wanted(&[Scope::Read])
    };
    let late = world.issue(&first, &late).await.unwrap();
    assert_eq!(late.expires_at, Some(u64::MAX));
    let rotated = world.rotate(&first, None).await.unwrap();
    assert_eq!(rotated.until, u64::MAX);
    let ids: Vec<ApiKeyEntry> = world.entry().await.api_keys;
    let distinct: std::collections::HashSet<_> = ids.iter().map(|key| &key.id).collect();
    assert_eq!(distinct.len(), 3);
}
