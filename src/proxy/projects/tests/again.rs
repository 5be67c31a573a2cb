//! A project whose first answer was lost is made again only while nothing hangs on it.

use super::*;
use crate::{
    crypto::Cipher,
    store::{Incarnation, Origin, StreamState},
};

/// Records a stream whose data key is in these hands, wrapped or shredded.
async fn with_stream(world: &World, holder: Holder, is_shredded: bool) {
    let wrapped = WrappedKey::Master {
        mk_epoch: 1,
        wrapped: Wrapped::from_bytes([0; Wrapped::BYTES]),
    };
    let key = DataKey {
        epoch: 1,
        commit: Digest::from_bytes([0; 32]),
        wrapped: (!is_shredded).then_some(wrapped),
        created_at: 0,
        shredded_at: is_shredded.then_some(0),
        sealed: Default::default(),
        first_seq_num: None,
    };
    let entry = StreamEntry {
        state: StreamState::Live(Incarnation {
            cipher: Some(Cipher::Aegis256),
            created_at: None,
        }),
        origin: Origin::Created,
        key_check: None,
        data_keys: Some(DataKeys {
            holder,
            keys: vec![key],
        }),
    };
    let change = Change::Stream {
        path: "pay-prod/orders".parse().unwrap(),
        expected: Revision::NONE,
        entry: Some(entry),
    };
    world.store.commit(vec![change]).await.unwrap();
}

#[tokio::test]
async fn a_project_is_made_once_unless_it_is_said() {
    let (world, first) = World::created().await;
    let exists = world.create(false).await.err();
    assert!(matches!(exists, Some(ProjectError::Exists)), "{exists:?}");
    assert!(world.is_good(&first).await);
    let again = world.create(true).await.unwrap();
    assert!(!world.is_good(&first).await && world.is_good(&again).await);
    assert_eq!((first.mk_epoch, again.mk_epoch), (1, 2));
    assert!(world.pass(&again).await.master().is_ok());
}

#[tokio::test]
async fn a_project_that_is_in_use_is_never_made_again() {
    let (world, first) = World::created().await;
    with_stream(&world, Holder::Project(name()), false).await;
    let before = world.entry().await;
    match world.create(true).await.err() {
        Some(ProjectError::InUse(stream)) => assert_eq!(stream, "pay-prod/orders"),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.entry().await, before);
    assert!(world.is_good(&first).await);
}

#[tokio::test]
async fn what_is_not_lost_with_the_master_key_is_no_hindrance() {
    for (holder, is_shredded) in [
        (Holder::Project(name()), true),
        (Holder::Project("another".parse().unwrap()), false),
        (Holder::Kms, false),
    ] {
        let (world, _) = World::created().await;
        with_stream(&world, holder, is_shredded).await;
        assert!(world.create(true).await.is_ok());
    }
}

#[tokio::test]
async fn a_stream_that_came_into_use_meanwhile_keeps_its_master_key() {
    let (world, first) = World::created().await;
    let before = world.entry().await;
    let issued = world.create(true).await.unwrap();
    with_stream(&world, Holder::Project(name()), false).await;
    let back = world.roster.or_back(&name(), &issued, &before).await;
    assert!(matches!(back, Err(ProjectError::InUse(_))), "{back:?}");
    assert_eq!(world.entry().await, before);
    assert!(world.is_good(&first).await && !world.is_good(&issued).await);
}
