//! A change of the master key over the real config store: whatever breaks off, nothing is lost.

use std::{
    collections::BTreeMap,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, header};

use super::{Left, Master, MasterChange, Pass, Progress, ProjectError, Registry, Roster, Stopped};
use crate::{
    clock::Clock,
    crypto::{ApiKey, Cipher, Dek, DekPlace, Digest, Key, MasterKey, Wrapped},
    keys::{ProjectRule, Projects},
    project::{ProjectName, Scope, Scopes},
    proxy::gate::Gate,
    registry::rules::Rules,
    store::*,
    stream::{BasinName, StreamPath},
};

/// When a commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fails {
    /// Nothing is written.
    Before,
    /// It is written, and nobody is told.
    After,
}

/// A store whose commits fail from the `left`th on.
struct Faulty {
    store: Embedded,
    left: AtomicI64,
    fails: Fails,
}

impl Store for Faulty {
    fn basin<'a>(
        &'a self,
        name: &'a BasinName,
    ) -> BoxFuture<'a, Result<Versioned<Arc<BasinEntry>>, Error>> {
        self.store.basin(name)
    }

    fn stream<'a>(
        &'a self,
        path: &'a StreamPath,
    ) -> BoxFuture<'a, Result<Versioned<Arc<StreamEntry>>, Error>> {
        self.store.stream(path)
    }

    fn project<'a>(
        &'a self,
        name: &'a ProjectName,
    ) -> BoxFuture<'a, Result<Versioned<Arc<ProjectEntry>>, Error>> {
        self.store.project(name)
    }

    fn projects(&self) -> BoxFuture<'_, Result<Vec<RecordedProject>, Error>> {
        self.store.projects()
    }

    fn rules(&self) -> BoxFuture<'_, Result<Versioned<RulesEntry>, Error>> {
        self.store.rules()
    }

    fn streams_of<'a>(
        &'a self,
        basin: &'a BasinName,
    ) -> BoxFuture<'a, Result<Vec<Recorded>, Error>> {
        self.store.streams_of(basin)
    }

    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        Box::pin(async move {
            if left > 0 {
                return self.store.commit(changes).await;
            }
            if left == 0 && self.fails == Fails::After {
                self.store.commit(changes).await?;
            }
            Err(Error::Closed)
        })
    }

    fn erase(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        Box::pin(async move {
            if left > 0 {
                return self.store.erase(changes).await;
            }
            if left == 0 && self.fails == Fails::After {
                self.store.erase(changes).await?;
            }
            Err(Error::Closed)
        })
    }

    fn holdings(&self) -> Holdings {
        self.store.holdings()
    }

    fn basins_page(&self, page: Page) -> BoxFuture<'_, Result<Listed<RecordedBasin>, Error>> {
        self.store.basins_page(page)
    }

    fn streams_page(
        &self,
        basin: Option<BasinName>,
        page: Page,
    ) -> BoxFuture<'_, Result<Listed<Recorded>, Error>> {
        self.store.streams_page(basin, page)
    }

    fn summary(&self) -> BoxFuture<'_, Result<Summary, Error>> {
        self.store.summary()
    }

    fn export(&self, out: Box<dyn Write + Send>) -> BoxFuture<'_, Result<(), ExportError>> {
        Store::export(&self.store, out)
    }
}

/// Data keys by stream and key epoch.
type Deks = BTreeMap<(String, u32), Dek>;

/// A proxy's registry and gate over a store, with a project.
struct World {
    store: Arc<Faulty>,
    registry: Arc<Registry>,
    gate: Gate,
    roster: Roster,
    projects: Projects,
}

const PROJECT: &str = "payments";

/// The basins of the streams: more than one, and more streams than one batch in the first.
const STREAMS: [(&str, usize); 3] = [("basin-of-a", 70), ("basin-of-b", 2), ("basin-of-c", 1)];

impl World {
    /// On what is in the directory, with every commit from the `left`th on failing.
    fn open(dir: &Path, left: i64, fails: Fails) -> Self {
        let config = Config {
            path: dir.join("store.redb"),
            create: true,
            ..Config::default()
        };
        let pepper = dir.join("pepper");
        std::fs::write(&pepper, Key::from_bytes([7; 32]).to_base64().as_bytes()).unwrap();
        let rule = ProjectRule {
            name: name(),
            r#match: vec!["**".to_owned()],
            access_token_file: crate::file::OptionalFile::default(),
            pepper_file: pepper.into(),
        };
        let store = Arc::new(Faulty {
            store: Embedded::open(&config).unwrap(),
            left: AtomicI64::new(left),
            fails,
        });
        let as_store: Arc<dyn Store> = Arc::clone(&store) as _;
        let registry = Registry::new(
            Arc::clone(&as_store),
            Rules::default(),
            (&crate::store::Config::default()).into(),
        );
        Self {
            registry: Arc::new(registry),
            roster: Roster::new(Arc::clone(&as_store), Clock::system()),
            gate: Gate::new(as_store, Clock::system()),
            projects: Projects::compile(&[rule]).unwrap(),
            store,
        }
    }

    fn sound(dir: &Path) -> Self {
        Self::open(dir, i64::MAX, Fails::Before)
    }

    /// Makes the project and its streams. Returns its API key and what the streams' data keys are.
    async fn fill(&self) -> (String, Deks) {
        let master = MasterKey::generate().unwrap();
        let project = self.projects.iter().next().unwrap();
        let (key, credentials) = ApiKey::issue(project.pepper(), PROJECT, 1, &master).unwrap();
        let row = ApiKeyEntry {
            id: "first".to_owned(),
            label: String::new(),
            lookup: credentials.lookup,
            verify: credentials.verify,
            mk_epoch: 1,
            scopes: Scopes::all(),
            created_at: 0,
            expires_at: None,
            state: ApiKeyState::Active,
        };
        let entry = ProjectEntry {
            mk_epoch: 1,
            mk_commit: master.commit(PROJECT, 1),
            rotation: None,
            api_keys: vec![row],
            replacing: false,
            seen_at: 0,
        };
        let mut changes = vec![Change::Project {
            name: name(),
            expected: Revision::NONE,
            entry: Some(entry),
        }];
        let mut deks = Deks::new();
        let of_one = Master {
            key: master,
            epoch: 1,
        };
        for (basin, count) in STREAMS {
            for at in 0..count {
                let path: StreamPath = format!("{basin}/stream-{at}").parse().unwrap();
                let keys = [1, 2].map(|epoch| made(&of_one, &path, epoch, &mut deks));
                changes.push(put(&path, Revision::NONE, &name(), keys.to_vec()));
            }
        }
        self.store.commit(changes).await.unwrap();
        (key.to_text().to_string(), deks)
    }

    async fn pass(&self, api_key: &str) -> Result<Arc<Pass>, super::super::super::Error> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(&format!("Bearer {api_key}")).unwrap();
        headers.insert(header::AUTHORIZATION, value);
        self.gate
            .admit(&self.projects, &headers)
            .await
            .map(Arc::new)
    }

    async fn entry(&self) -> Arc<ProjectEntry> {
        self.store.project(&name()).await.unwrap().entry.unwrap()
    }

    /// Begins or joins, and wraps everything. Returns the API key that came with it.
    async fn begin(&self, api_key: &str) -> Result<(String, Option<Stopped>), ProjectError> {
        let begun =
            MasterChange::begin(&self.registry, &self.roster, &self.pass(api_key).await?).await?;
        let stopped = begun.change.rewrap(&mut reader()).await?;
        Ok((begun.issued.api_key.to_string(), stopped))
    }

    async fn finish(&self, api_key: &str, mk_epoch: u32) -> Result<Option<Stopped>, ProjectError> {
        let pass = self.pass(api_key).await?;
        match MasterChange::resume(&self.registry, &pass, mk_epoch).await? {
            Left::Change(change) => Ok(change.finish(&mut reader()).await?),
            Left::Nothing(stopped) => Ok(Some(stopped)),
        }
    }

    /// Opens every data key there is with an API key.
    async fn opens(&self, api_key: &str, deks: &Deks) {
        let pass = self.pass(api_key).await.unwrap();
        let entry = self.entry().await;
        let mut found = Deks::new();
        let page = Page {
            limit: 1000,
            ..Page::default()
        };
        for (path, stream) in self.store.streams_page(None, page).await.unwrap().found {
            for key in stream.entry.unwrap().data_keys.unwrap().keys {
                let Some(WrappedKey::Master { mk_epoch, wrapped }) = key.wrapped else {
                    continue;
                };
                let master = pass.master_at(mk_epoch, &entry).unwrap();
                let id = path.id();
                let place = place(&id, key.epoch);
                let dek = master.key.unwrap_dek(&place, mk_epoch, &wrapped).unwrap();
                assert_eq!(dek.commit(&place), key.commit);
                found.insert((path.to_string(), key.epoch), dek);
            }
        }
        assert_eq!(&found, deks);
    }

    /// Everything is under this master key, and nothing leads to another.
    async fn has_ended(&self, mk_epoch: u32) {
        let entry = self.entry().await;
        assert_eq!((entry.mk_epoch, &entry.rotation), (mk_epoch, &None));
        let page = Page {
            limit: 1000,
            ..Page::default()
        };
        for (path, stream) in self.store.streams_page(None, page).await.unwrap().found {
            for key in stream.entry.unwrap().data_keys.unwrap().keys {
                let is_new = match key.wrapped {
                    Some(WrappedKey::Master {
                        mk_epoch: number, ..
                    }) => number == mk_epoch,
                    Some(WrappedKey::Kms { .. }) => false,
                    None => true,
                };
                assert!(is_new, "{path} {}", key.epoch);
            }
        }
    }

    async fn stream(&self, path: &StreamPath) -> (Revision, StreamEntry) {
        let found = self.store.stream(path).await.unwrap();
        (found.revision, (*found.entry.unwrap()).clone())
    }
}

fn name() -> ProjectName {
    PROJECT.parse().unwrap()
}

fn place(stream: &crate::stream::StreamId, epoch: u32) -> DekPlace<'_> {
    DekPlace {
        project: PROJECT,
        stream,
        epoch,
    }
}

/// A new data key, wrapped.
fn made(master: &Master, path: &StreamPath, epoch: u32, deks: &mut Deks) -> DataKey {
    let (dek, id) = (Dek::generate().unwrap(), path.id());
    let place = place(&id, epoch);
    deks.insert((path.to_string(), epoch), dek.clone());
    DataKey {
        epoch,
        commit: dek.commit(&place),
        wrapped: Some(WrappedKey::Master {
            mk_epoch: master.epoch,
            wrapped: master.key.wrap_dek(&place, master.epoch, &dek),
        }),
        created_at: 0,
        shredded_at: None,
        sealed: Sealing::default(),
        first_seq_num: None,
    }
}

fn put(path: &StreamPath, expected: Revision, of: &ProjectName, keys: Vec<DataKey>) -> Change {
    let entry = StreamEntry {
        state: StreamState::Live(Incarnation {
            cipher: Some(Cipher::Aegis256),
            created_at: None,
        }),
        origin: Origin::Created,
        key_check: None,
        key_unconfirmed: false,
        former: Vec::new(),
        data_keys: Some(DataKeys {
            holder: Holder::Project(of.clone()),
            keys,
        }),
    };
    Change::Stream {
        path: path.clone(),
        expected,
        entry: Some(entry),
    }
}

/// Somebody who reads all of the progress.
fn reader<'a>() -> impl FnMut(Progress) -> BoxFuture<'a, bool> + Send + 'a {
    |_| Box::pin(async { true })
}

fn refused(result: Result<impl Sized, ProjectError>) -> String {
    result.err().unwrap().to_string()
}

#[tokio::test]
async fn everything_opens_with_old_and_new_keys_until_the_old_ones_end() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::sound(dir.path());
    let (old, mut deks) = world.fill().await;
    let begun = MasterChange::begin(
        &world.registry,
        &world.roster,
        &world.pass(&old).await.unwrap(),
    )
    .await
    .unwrap();
    let new = begun.issued.api_key.to_string();
    assert_eq!((begun.issued.mk_epoch, begun.change.mk_epoch()), (2, 2));
    for key in [&old, &new] {
        world.opens(key, &deks).await;
        let entry = world.entry().await;
        assert_eq!(
            world.pass(key).await.unwrap().newest(&entry).unwrap().epoch,
            2
        );
    }
    let mut told = Vec::new();
    let mut tell = |progress| -> BoxFuture<'_, bool> {
        told.push(progress);
        Box::pin(async { true })
    };
    let stopped = begun.change.rewrap(&mut tell).await.unwrap().unwrap();
    assert!(stopped.done && !stopped.ended && stopped.stuck.is_empty());
    let count = deks.len() as u64;
    let last = Progress {
        rewrapped: count,
        of: count,
    };
    assert!(
        told.len() > STREAMS.len() && told.last() == Some(&last),
        "{told:?}"
    );
    for key in [&old, &new] {
        world.opens(key, &deks).await;
    }
    // A stream that is made now, and one that is rotated, whichever API key does it.
    let entry = world.entry().await;
    let master = world.pass(&old).await.unwrap().newest(&entry).unwrap();
    let path: StreamPath = "basin-of-c/young".parse().unwrap();
    let keys = vec![made(&master, &path, 1, &mut deks)];
    world
        .store
        .commit(vec![put(&path, Revision::NONE, &name(), keys)])
        .await
        .unwrap();
    let stopped = world.finish(&new, 2).await.unwrap().unwrap();
    assert!(stopped.done && stopped.ended);
    world.has_ended(2).await;
    world.opens(&new, &deks).await;
    assert!(world.pass(&old).await.is_err());
    // Asking again for the same end neither fails nor begins anything.
    let again = world.finish(&new, 2).await.unwrap().unwrap();
    assert!(again.ended);
    world.has_ended(2).await;
    // And the next change begins where this one ended.
    let (third, _) = world.begin(&new).await.unwrap();
    world.finish(&third, 3).await.unwrap();
    world.has_ended(3).await;
    world.opens(&third, &deks).await;
}

/// Runs a change against a store that fails at some commit, then again against a sound one.
async fn broken_off(left: i64, fails: Fails, resumes_with_new: bool) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let (old, deks) = World::sound(dir.path()).fill().await;
    let mut keys = vec![old.clone()];
    let went_well = {
        let world = World::open(dir.path(), left, fails);
        async {
            let pass = world.pass(&old).await?;
            let begun = MasterChange::begin(&world.registry, &world.roster, &pass).await?;
            keys.push(begun.issued.api_key.to_string());
            begun.change.rewrap(&mut reader()).await?;
            world.finish(&keys[1], 2).await
        }
        .await
        .is_ok()
    };
    let world = World::sound(dir.path());
    let has_ended = world.entry().await.mk_epoch == 2;
    for key in &keys {
        match has_ended && *key == old {
            true => assert!(world.pass(key).await.is_err()),
            false => world.opens(key, &deks).await,
        }
    }
    // The first answer may be lost with all that is in it: then the old API key still is good.
    let by = match (has_ended, resumes_with_new) {
        (false, false) => &old,
        _ => keys.last().unwrap(),
    };
    let fresh = match has_ended {
        true => by.clone(),
        false => world.begin(by).await.unwrap().0,
    };
    assert!(world.finish(&fresh, 2).await.unwrap().unwrap().ended);
    world.has_ended(2).await;
    world.opens(&fresh, &deks).await;
    assert!(world.pass(&old).await.is_err());
    went_well
}

#[tokio::test]
async fn a_change_that_breaks_off_anywhere_goes_on_with_either_key() {
    for fails in [Fails::Before, Fails::After] {
        for resumes_with_new in [false, true] {
            let mut left = 0;
            while !broken_off(left, fails, resumes_with_new).await {
                left += 1;
            }
            // The beginning, the batches, the end.
            assert_eq!(left, 6, "{fails:?}");
        }
    }
}

#[tokio::test]
async fn two_changes_at_once_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::sound(dir.path());
    let (old, deks) = world.fill().await;
    let (one, two) = tokio::join!(world.begin(&old), world.begin(&old));
    let ((one, _), (two, stopped)) = (one.unwrap(), two.unwrap());
    assert!(stopped.unwrap().done);
    assert_ne!(one, two);
    for key in [&old, &one, &two] {
        world.opens(key, &deks).await;
    }
    let (first, second) = tokio::join!(world.finish(&one, 2), world.finish(&two, 2));
    assert!(first.unwrap().unwrap().ended && second.unwrap().unwrap().ended);
    world.has_ended(2).await;
    for key in [&one, &two] {
        world.opens(key, &deks).await;
    }
}

#[tokio::test]
async fn a_key_wrapped_before_the_beginning_is_not_recorded_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::sound(dir.path());
    let (old, mut deks) = world.fill().await;
    let project = world.store.project(&name()).await.unwrap();
    let pass = world.pass(&old).await.unwrap();
    let master = pass.newest(&project.entry.unwrap()).unwrap();
    assert_eq!(master.epoch, 1);
    let path: StreamPath = "basin-of-c/young".parse().unwrap();
    let keys = vec![made(&master, &path, 1, &mut deks)];
    let (new, _) = world.begin(&old).await.unwrap();
    let changes = vec![
        put(&path, Revision::NONE, &name(), keys),
        Change::SameProject {
            name: name(),
            expected: project.revision,
        },
    ];
    let error = world.store.commit(changes).await.unwrap_err();
    assert!(matches!(error, Error::Conflict(_)), "{error}");
    world.finish(&new, 2).await.unwrap();
    world.has_ended(2).await;
}

#[tokio::test]
async fn streams_that_are_written_to_all_the_time_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::sound(dir.path());
    let (old, mut deks) = world.fill().await;
    let path: StreamPath = "basin-of-a/stream-0".parse().unwrap();
    let begun = MasterChange::begin(
        &world.registry,
        &world.roster,
        &world.pass(&old).await.unwrap(),
    )
    .await
    .unwrap();
    // Counts what it seals as fast as it can, and gets a third data key in the middle.
    let writer = async {
        let entry = world.entry().await;
        let master = world.pass(&old).await.unwrap().newest(&entry).unwrap();
        let mut third = Some(made(&master, &path, 3, &mut deks));
        let mut written = 0;
        while written < 40 {
            let (revision, mut entry) = world.stream(&path).await;
            let keys = &mut entry.data_keys.as_mut().unwrap().keys;
            if written == 20 && keys.len() == 2 {
                keys.extend(third.take());
            }
            keys[0].sealed.records += 1;
            let change = Change::Stream {
                path: path.clone(),
                expected: revision,
                entry: Some(entry),
            };
            match world.store.commit(vec![change]).await {
                Ok(()) => written += 1,
                Err(Error::Conflict(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    let mut reader = reader();
    let (stopped, ()) = tokio::join!(begun.change.rewrap(&mut reader), writer);
    assert!(stopped.unwrap().unwrap().done);
    world.finish(&begun.issued.api_key, 2).await.unwrap();
    world.has_ended(2).await;
    world.opens(&begun.issued.api_key, &deks).await;
    let (_, entry) = world.stream(&path).await;
    assert_eq!(entry.data_keys.unwrap().keys[0].sealed.records, 40);
}

#[tokio::test]
async fn a_key_that_does_not_open_keeps_the_change_from_its_end() {
    for damage in ["bits", "commitment", "number"] {
        let dir = tempfile::tempdir().unwrap();
        let world = World::sound(dir.path());
        let (old, deks) = world.fill().await;
        let path: StreamPath = "basin-of-b/stream-1".parse().unwrap();
        let (revision, mut entry) = world.stream(&path).await;
        let key = &mut entry.data_keys.as_mut().unwrap().keys[1];
        match damage {
            "commitment" => key.commit = Digest::from_bytes([1; 32]),
            _ => {
                let Some(WrappedKey::Master { mk_epoch, wrapped }) = &mut key.wrapped else {
                    panic!("it is wrapped");
                };
                match damage {
                    "number" => *mk_epoch = 9,
                    _ => *wrapped = Wrapped::from_bytes([9; Wrapped::BYTES]),
                }
            }
        }
        let change = |expected, entry| Change::Stream {
            path: path.clone(),
            expected,
            entry: Some(entry),
        };
        world
            .store
            .commit(vec![change(revision, entry)])
            .await
            .unwrap();
        let (new, stopped) = world.begin(&old).await.unwrap();
        let stuck = stopped.unwrap();
        let at = (stuck.stuck[0].stream.as_str(), stuck.stuck[0].epoch);
        assert_eq!((stuck.stuck.len(), at), (1, ("basin-of-b/stream-1", 2)));
        let stopped = world.finish(&new, 2).await.unwrap().unwrap();
        assert!(
            !stopped.done && !stopped.ended && stopped.stuck.len() == 1,
            "{damage}"
        );
        assert!(world.entry().await.rotation.is_some());
        world.pass(&old).await.unwrap();
        // The operator shreds it, and the change ends.
        let (revision, mut entry) = world.stream(&path).await;
        entry.data_keys.as_mut().unwrap().keys[1].wrapped = None;
        world
            .store
            .commit(vec![change(revision, entry)])
            .await
            .unwrap();
        assert!(world.finish(&new, 2).await.unwrap().unwrap().ended);
        world.has_ended(2).await;
        let mut deks = deks;
        deks.remove(&("basin-of-b/stream-1".to_owned(), 2));
        world.opens(&new, &deks).await;
    }
}

#[tokio::test]
async fn other_projects_streams_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::sound(dir.path());
    let (old, _) = world.fill().await;
    let other = Master {
        key: MasterKey::generate().unwrap(),
        epoch: 1,
    };
    let path: StreamPath = "basin-of-c/foreign".parse().unwrap();
    let keys = vec![made(&other, &path, 1, &mut Deks::new())];
    let change = put(
        &path,
        Revision::NONE,
        &"other".parse().unwrap(),
        keys.clone(),
    );
    world.store.commit(vec![change]).await.unwrap();
    let (new, _) = world.begin(&old).await.unwrap();
    assert!(world.finish(&new, 2).await.unwrap().unwrap().ended);
    assert_eq!(world.stream(&path).await.1.data_keys.unwrap().keys, keys);
}

#[tokio::test]
async fn the_end_takes_an_api_key_of_the_next_master_key() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::sound(dir.path());
    let (old, deks) = world.fill().await;
    // Asking for an end begins nothing.
    let nothing = refused(world.finish(&old, 2).await);
    assert!(
        nothing.contains("only with an API key of the next one"),
        "{nothing}"
    );
    assert_eq!(world.entry().await.rotation, None);
    let (new, _) = world.begin(&old).await.unwrap();
    let with_old = refused(world.finish(&old, 2).await);
    assert!(
        with_old.contains("only with an API key of the next one"),
        "{with_old}"
    );
    assert!(world.entry().await.rotation.is_some());
    // One that was revoked meanwhile might have been the last.
    let pass = world.pass(&new).await.unwrap();
    let Left::Change(change) = MasterChange::resume(&world.registry, &pass, 2)
        .await
        .unwrap()
    else {
        panic!("it is under way");
    };
    let project = world.store.project(&name()).await.unwrap();
    let mut entry = (*project.entry.unwrap()).clone();
    entry.api_keys[1].state = ApiKeyState::Revoked { at: 1 };
    let revoke = Change::Project {
        name: name(),
        expected: project.revision,
        entry: Some(entry),
    };
    world.store.commit(vec![revoke]).await.unwrap();
    let error = change.finish(&mut reader()).await.unwrap_err();
    assert_eq!(error.to_string(), "access token is not valid");
    world.opens(&old, &deks).await;
}

#[tokio::test]
async fn without_the_scope_or_a_number_nothing_begins() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::sound(dir.path());
    let (old, _) = world.fill().await;
    let project = world.store.project(&name()).await.unwrap();
    let mut entry = (*project.entry.unwrap()).clone();
    entry.api_keys[0].scopes = [Scope::Append, Scope::Read].into_iter().collect();
    let write = Change::Project {
        name: name(),
        expected: project.revision,
        entry: Some(entry),
    };
    world.store.commit(vec![write]).await.unwrap();
    let pass = world.pass(&old).await.unwrap();
    for result in [
        MasterChange::begin(&world.registry, &world.roster, &pass)
            .await
            .map(|_| ()),
        MasterChange::resume(&world.registry, &pass, 1)
            .await
            .map(|_| ()),
    ] {
        assert!(refused(result).contains("access token is not valid"));
    }
    let project = world.store.project(&name()).await.unwrap();
    let mut entry = (*project.entry.unwrap()).clone();
    let master = world.pass(&old).await.unwrap().master().unwrap().clone();
    let mut last = u32::MAX;
    let pepper = world.projects.iter().next().unwrap();
    let (key, credentials) = ApiKey::issue(pepper.pepper(), PROJECT, last, &master.key).unwrap();
    entry.mk_epoch = last;
    entry.mk_commit = master.key.commit(PROJECT, last);
    entry.api_keys[0].scopes = Scopes::all();
    entry.api_keys[0].mk_epoch = last;
    entry.api_keys[0].lookup = credentials.lookup;
    entry.api_keys[0].verify = credentials.verify;
    let write = Change::Project {
        name: name(),
        expected: project.revision,
        entry: Some(entry.clone()),
    };
    world.store.commit(vec![write]).await.unwrap();
    let result = world.begin(&key.to_text()).await;
    assert!(refused(result).contains("as many master keys"));
    last = world.entry().await.mk_epoch;
    assert_eq!(last, u32::MAX);
    assert_eq!(*world.entry().await, entry);
}

#[tokio::test]
async fn what_nobody_reads_does_not_end() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::sound(dir.path());
    let (old, deks) = world.fill().await;
    let pass = world.pass(&old).await.unwrap();
    let begun = MasterChange::begin(&world.registry, &world.roster, &pass)
        .await
        .unwrap();
    let mut gone = |_| -> BoxFuture<'_, bool> { Box::pin(async { false }) };
    assert_eq!(begun.change.finish(&mut gone).await.unwrap(), None);
    assert!(world.entry().await.rotation.is_some());
    for key in [&old, &*begun.issued.api_key] {
        world.opens(key, &deks).await;
    }
}
