//! A project whose first answer was lost is made again only while nothing hangs on it.

use super::*;
use crate::{
    crypto::Cipher,
    proxy::managed::{KeyHolder, Wrapping},
    store::{self, Incarnation, Origin, StreamState},
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
    let change = Change::Stream {
        path: "pay-prod/orders".parse().unwrap(),
        expected: Revision::NONE,
        entry: Some(of_keys(DataKeys {
            holder,
            keys: vec![key],
        })),
    };
    world.store.commit(vec![change]).await.unwrap();
}

fn of_keys(keys: DataKeys) -> StreamEntry {
    StreamEntry {
        state: StreamState::Live(Incarnation {
            cipher: Some(Cipher::Aegis256),
            created_at: None,
        }),
        origin: Origin::Created,
        key_check: None,
        key_unconfirmed: false,
        former: Vec::new(),
        data_keys: Some(keys),
    }
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

/// Records a stream's first data key, wrapped as the proxy does it, in what was read before.
async fn record_first_key(world: &World, by: &KeyHolder, wrapping: &Wrapping) -> Result<(), Error> {
    let path = "pay-prod/orders".parse().unwrap();
    let key = by.make(wrapping, &path, 1, Default::default()).await?;
    let found = world.store.stream(&path).await?;
    let keys = DataKeys {
        holder: by.recorded(),
        keys: vec![key],
    };
    let stream = Change::Stream {
        path,
        expected: found.revision,
        entry: Some(of_keys(keys)),
    };
    let changes = [Some(stream), wrapping.condition()];
    Ok(world
        .store
        .commit(changes.into_iter().flatten().collect())
        .await?)
}

/// Begins to make the project again, up to its last commit; at which revision that is to be.
async fn begin_again(world: &World) -> Result<Revision, ProjectError> {
    let found = world.store.project(&name()).await.unwrap();
    let before = found.entry.unwrap();
    world.roster.unused(&name(), found.revision, &before).await
}

/// The last commit.
async fn end_again(world: &World, marked: Revision) -> Result<Issued, ProjectError> {
    let before = world.entry().await;
    let project = world.projects.named(&name()).unwrap();
    world.roster.put(project, Some(&before), marked, true).await
}

#[tokio::test]
async fn a_key_that_is_recorded_while_the_project_is_made_again_keeps_its_master_key() {
    let (world, first) = World::created().await;
    let by = KeyHolder::Project(Arc::new(world.pass(&first).await));
    let before = world.entry().await;
    let marked = begin_again(&world).await.unwrap();
    // It reads the marked row, and is recorded when all streams have been looked at.
    let wrapping = by.wrapping(&*world.store).await.unwrap();
    record_first_key(&world, &by, &wrapping).await.unwrap();
    let refused = end_again(&world, marked).await.err();
    assert!(
        matches!(refused, Some(ProjectError::Conflict)),
        "{refused:?}"
    );
    assert_eq!(world.entry().await, before);
    assert!(world.is_good(&first).await);
    let refused = world.create(true).await.err();
    assert!(
        matches!(refused, Some(ProjectError::InUse(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_key_that_is_recorded_just_before_the_mark_is_seen_after_it() {
    let (world, first) = World::created().await;
    let by = KeyHolder::Project(Arc::new(world.pass(&first).await));
    let wrapping = by.wrapping(&*world.store).await.unwrap();
    record_first_key(&world, &by, &wrapping).await.unwrap();
    let refused = begin_again(&world).await.err();
    assert!(
        matches!(refused, Some(ProjectError::InUse(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_key_of_a_master_key_that_is_being_replaced_is_not_recorded() {
    let (world, first) = World::created().await;
    let by = KeyHolder::Project(Arc::new(world.pass(&first).await));
    for is_replaced in [false, true] {
        // It reads the row before it is marked.
        let wrapping = by.wrapping(&*world.store).await.unwrap();
        let marked = begin_again(&world).await.unwrap();
        if is_replaced {
            end_again(&world, marked).await.unwrap();
        }
        let recorded = record_first_key(&world, &by, &wrapping).await;
        let is_conflict = matches!(recorded, Err(Error::Store(store::Error::Conflict(_))));
        assert!(is_conflict, "{recorded:?}");
    }
}

#[tokio::test]
async fn a_crash_while_a_project_is_made_again_loses_nothing() {
    let (world, first) = World::created().await;
    begin_again(&world).await.unwrap();
    assert!(world.entry().await.replacing && world.is_good(&first).await);
    // The API keys of before work, and it can be made again, or come into use.
    let again = world.create(true).await.unwrap();
    assert!(!world.entry().await.replacing && world.is_good(&again).await);
    begin_again(&world).await.unwrap();
    let by = KeyHolder::Project(Arc::new(world.pass(&again).await));
    let wrapping = by.wrapping(&*world.store).await.unwrap();
    record_first_key(&world, &by, &wrapping).await.unwrap();
    assert!(!world.entry().await.replacing);
    let refused = world.create(true).await.err();
    assert!(
        matches!(refused, Some(ProjectError::InUse(_))),
        "{refused:?}"
    );
    assert!(world.is_good(&again).await);
}
