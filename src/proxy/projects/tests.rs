//! The life of API keys on a real store, by a clock that goes as the test says.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use tempfile::TempDir;

use super::*;
use crate::{
    clock::{self, Clock},
    crypto::{Digest, Wrapped},
    keys::{ProjectRule, Projects},
    proxy::gate::Gate,
    store::{
        self, ApiKeyEntry, Change, Config, DataKey, DataKeys, Embedded, Holder, MasterRotation,
        ProjectEntry, Revision, Store, StreamEntry, WrappedKey,
    },
};

mod again;
mod limits;

const HOUR: u64 = 60 * 60 * 1000;
const DAY: u64 = 24 * HOUR;

/// A store with one project, and a clock.
struct World {
    store: Arc<dyn Store>,
    roster: Roster,
    projects: Projects,
    clock: Arc<AtomicU64>,
    _dir: TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pepper_file = dir.path().join("pepper");
        std::fs::write(
            &pepper_file,
            crate::crypto::Key::generate().unwrap().to_base64(),
        )
        .unwrap();
        let rule = ProjectRule {
            name: "payments".parse().unwrap(),
            r#match: vec!["pay-*/**".to_owned()],
            access_token_file: Default::default(),
            pepper_file: pepper_file.into(),
        };
        let config = Config {
            path: dir.path().join("store.redb"),
            create: true,
            ..Config::default()
        };
        let store: Arc<dyn Store> = Arc::new(Embedded::open(&config).unwrap());
        let clock = Arc::new(AtomicU64::new(clock::now_ms()));
        let (told, passed) = (Arc::clone(&clock), Arc::clone(&clock));
        let told = Clock::of(move || told.load(SeqCst), move || passed.load(SeqCst));
        Self {
            roster: Roster::new(Arc::clone(&store), told),
            projects: Projects::compile(&[rule]).unwrap(),
            store,
            clock,
            _dir: dir,
        }
    }

    /// A world with the project in it, and its first API key.
    async fn created() -> (Self, Issued) {
        let world = Self::new();
        let issued = world.create(false).await.unwrap();
        (world, issued)
    }

    async fn create(&self, again: bool) -> Result<Issued, ProjectError> {
        let project = self.projects.named(&name()).unwrap();
        self.roster.create(project, again).await
    }

    /// What the gate makes of an API key by the system's clock, which stands where the test's began.
    async fn admit(&self, issued: &Issued) -> Result<Pass, Error> {
        let mut headers = HeaderMap::new();
        let bearer = format!("Bearer {}", issued.api_key.as_str());
        headers.insert(header::AUTHORIZATION, bearer.parse().unwrap());
        let gate = Gate::new(Arc::clone(&self.store), Clock::system());
        gate.admit(&self.projects, &headers).await
    }

    async fn pass(&self, issued: &Issued) -> Pass {
        self.admit(issued).await.unwrap()
    }

    /// Whether an API key gets in.
    async fn is_good(&self, issued: &Issued) -> bool {
        match self.admit(issued).await {
            Ok(_) => true,
            Err(Error::Unauthenticated(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Lets time pass, and the sweeper see it.
    async fn after(&self, ms: u64) {
        self.clock.fetch_add(ms, SeqCst);
        self.roster.sweep().await.unwrap();
    }

    async fn issue(&self, by: &Issued, wanted: &Wanted) -> Result<Issued, ProjectError> {
        let by = self.pass(by).await;
        self.roster.issue(&by, wanted).await
    }

    async fn rotate(&self, by: &Issued, id: Option<&str>) -> Result<Rotated, ProjectError> {
        let by = self.pass(by).await;
        self.roster.rotate(&by, id, GRACE).await
    }

    async fn revoke(&self, by: &Issued, id: &str, force: bool) -> Result<bool, ProjectError> {
        let by = self.pass(by).await;
        self.roster.revoke(&by, id, force).await
    }

    async fn entry(&self) -> ProjectEntry {
        let found = self.store.project(&name()).await.unwrap();
        ProjectEntry::clone(&found.entry.unwrap())
    }

    /// Writes another row past all rules.
    async fn write(&self, change: impl FnOnce(&mut ProjectEntry)) {
        let mut entry = self.entry().await;
        change(&mut entry);
        let found = self.store.project(&name()).await.unwrap();
        let committed = self.roster.commit(&name(), found.revision, entry).await;
        committed.unwrap();
    }

    async fn view(&self, by: &Issued, id: &str) -> ApiKeyView {
        let by = self.pass(by).await;
        let views = self.roster.api_keys(&by).await.unwrap();
        views.into_iter().find(|view| view.id == id).unwrap()
    }
}

fn name() -> ProjectName {
    "payments".parse().unwrap()
}

fn wanted(scopes: &[Scope]) -> Wanted {
    Wanted {
        scopes: scopes.iter().copied().collect(),
        label: String::new(),
        lifetime: None,
    }
}

#[tokio::test]
async fn an_issued_key_opens_the_same_master_key() {
    let (world, first) = World::created().await;
    let asked = Wanted {
        label: "for the CI, nightly".to_owned(),
        ..wanted(&[Scope::Read, Scope::Append])
    };
    let issued = world.issue(&first, &asked).await.unwrap();
    assert_ne!(issued.api_key, first.api_key);
    let (one, other) = (world.pass(&first).await, world.pass(&issued).await);
    assert!(one.master().unwrap().key == other.master().unwrap().key);
    assert_eq!(other.scopes, asked.scopes);
    let view = world.view(&first, &issued.id).await;
    assert_eq!((view.label, view.state), (asked.label, KeyStanding::Active));
    assert!(!view.own && world.view(&first, &first.id).await.own);
}

#[tokio::test]
async fn a_rotated_key_is_good_for_its_grace_time_and_never_after() {
    let (world, first) = World::created().await;
    let asked = Wanted {
        label: "ci".to_owned(),
        lifetime: Some(Duration::from_secs(60 * 60 * 24 * 10)),
        ..wanted(&[Scope::Append])
    };
    let before = world.issue(&first, &asked).await.unwrap();
    world.after(DAY).await;
    let rotated = world.rotate(&first, Some(&before.id)).await.unwrap();
    let after = &rotated.issued;
    assert!(world.is_good(&before).await && world.is_good(after).await);
    let entry = world.entry().await;
    let row = entry.api_key(&after.id).unwrap();
    assert_eq!((&*row.label, &row.scopes), ("ci", &asked.scopes));
    assert_eq!(row.expires_at, Some(row.created_at + 10 * DAY));
    let view = world.view(&first, &before.id).await;
    assert_eq!(view.state, KeyStanding::Retiring);
    assert_eq!(view.successor, Some(after.id.clone()));
    assert_eq!(view.until, Some(clock::rfc3339(rotated.until)));
    // The last moment of it, then the first after it.
    world.after(DAY - 1).await;
    assert!(world.is_good(&before).await);
    world.after(1).await;
    assert!(!world.is_good(&before).await && world.is_good(after).await);
    assert_eq!(
        world.view(&first, &before.id).await.state,
        KeyStanding::Revoked
    );
}

#[tokio::test]
async fn a_clock_that_is_set_back_revives_nothing() {
    let (world, first) = World::created().await;
    let short = Wanted {
        lifetime: Some(Duration::from_secs(3600)),
        ..wanted(&[Scope::Read])
    };
    let short = world.issue(&first, &short).await.unwrap();
    let revoked = world.issue(&first, &wanted(&[Scope::Read])).await.unwrap();
    world.revoke(&first, &revoked.id, false).await.unwrap();
    let rotated = world.rotate(&first, None).await.unwrap();
    let next = &rotated.issued;
    world.after(2 * DAY).await;
    let seen = world.entry().await.seen_at;
    // The gate's clock is where it was all the time. Now the roster's is set back as well, and commits.
    world.clock.fetch_sub(30 * DAY, SeqCst);
    world.roster.sweep().await.unwrap();
    let later = world.issue(next, &wanted(&[Scope::Read])).await.unwrap();
    for over in [&first, &short, &revoked] {
        assert!(!world.is_good(over).await);
    }
    assert!(world.is_good(next).await && world.is_good(&later).await);
    let entry = world.entry().await;
    assert_eq!(entry.seen_at, seen);
    assert_eq!(entry.api_key(&later.id).unwrap().created_at, seen);
    assert_eq!(
        world.view(next, &short.id).await.state,
        KeyStanding::Expired
    );
}

#[tokio::test]
async fn a_key_that_is_made_while_the_clock_is_behind_lasts_no_longer_than_it_says() {
    let (world, first) = World::created().await;
    // The host was once a year ahead.
    world.write(|entry| entry.seen_at += 365 * DAY).await;
    let gate = Gate::new(Arc::clone(&world.store), world.roster.clock.clone());
    let is_good = async |issued: &Issued| {
        let mut headers = HeaderMap::new();
        let bearer = format!("Bearer {}", issued.api_key.as_str());
        headers.insert(header::AUTHORIZATION, bearer.parse().unwrap());
        gate.admit(&world.projects, &headers).await.is_ok()
    };
    let short = Wanted {
        lifetime: Some(Duration::from_secs(3600)),
        ..wanted(&[Scope::Read])
    };
    let short = world.issue(&first, &short).await.unwrap();
    let by = world.pass(&first).await;
    let hour = Duration::from_secs(3600);
    let rotated = world.roster.rotate(&by, None, hour).await.unwrap();
    world.clock.fetch_add(HOUR - 1, SeqCst);
    assert!(is_good(&short).await && is_good(&first).await);
    world.clock.fetch_add(1, SeqCst);
    assert!(!is_good(&short).await && !is_good(&first).await);
    assert!(is_good(&rotated.issued).await);
    // And the sweeper sees it likewise, so that it outlives the process.
    world.roster.sweep().await.unwrap();
    for over in [&short.id, &first.id] {
        let entry = world.entry().await;
        let state = entry.api_key(over).unwrap().state.clone();
        assert!(
            matches!(state, store::ApiKeyState::Revoked { .. }),
            "{state:?}"
        );
    }
    // While only the row tells how late it is, it is written more often.
    let at = world.entry().await.seen_at;
    world.after(60_000).await;
    assert_eq!(world.entry().await.seen_at, at + 60_000);
}

#[tokio::test]
async fn time_is_recorded_without_anybody_changing_anything() {
    let (world, _) = World::created().await;
    let at = world.entry().await.seen_at;
    world.after(HOUR - 1).await;
    assert_eq!(world.entry().await.seen_at, at, "not more than needed");
    world.after(1).await;
    assert_eq!(world.entry().await.seen_at, at + HOUR);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_rotations_at_once_one_wins() {
    let (world, first) = World::created().await;
    let world = Arc::new(world);
    for _ in 0..10 {
        let key = world.issue(&first, &wanted(&[Scope::Read])).await.unwrap();
        let rotate = |by: Pass| {
            let (world, id) = (Arc::clone(&world), key.id.clone());
            tokio::spawn(async move { world.roster.rotate(&by, Some(&id), GRACE).await })
        };
        let (one, other) = (world.pass(&first).await, world.pass(&first).await);
        let (one, other) = (rotate(one), rotate(other));
        let (one, other) = (one.await.unwrap(), other.await.unwrap());
        let (won, lost) = match (one, other) {
            (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
            (one, other) => panic!("{} {}", one.is_ok(), other.is_ok()),
        };
        assert!(matches!(lost, ProjectError::Retiring(_)), "{lost}");
        assert!(world.is_good(&won.issued).await && world.is_good(&key).await);
        world.revoke(&first, &won.issued.id, false).await.unwrap();
    }
}

#[tokio::test]
async fn a_revoked_key_does_nothing_any_more_even_where_it_was_let_in_before() {
    let (world, first) = World::created().await;
    let other = world.issue(&first, &wanted(&Scope::ALL)).await.unwrap();
    let early = world.pass(&other).await;
    assert!(world.revoke(&first, &other.id, false).await.unwrap());
    assert!(!world.is_good(&other).await);
    let roster = &world.roster;
    for refused in [
        roster.issue(&early, &wanted(&Scope::ALL)).await.err(),
        roster.rotate(&early, Some(&first.id), GRACE).await.err(),
        roster.revoke(&early, &first.id, true).await.err(),
        roster.api_keys(&early).await.err(),
    ] {
        let is_refused = matches!(
            refused,
            Some(ProjectError::Refused(Error::Unauthenticated(_)))
        );
        assert!(is_refused, "{refused:?}");
    }
    // Said once more, it is no news.
    assert!(!world.revoke(&first, &other.id, false).await.unwrap());
}

#[tokio::test]
async fn only_what_is_good_and_not_replaced_is_rotated() {
    let (world, first) = World::created().await;
    let key = world.issue(&first, &wanted(&[Scope::Read])).await.unwrap();
    let next = world.rotate(&first, Some(&key.id)).await.unwrap().issued;
    let again = world.rotate(&first, Some(&key.id)).await.err().unwrap();
    assert!(matches!(again, ProjectError::Retiring(_)), "{again}");
    world.revoke(&first, &next.id, false).await.unwrap();
    let over = world.rotate(&first, Some(&next.id)).await.err().unwrap();
    assert!(matches!(over, ProjectError::Over(_)), "{over}");
    let unknown = world.rotate(&first, Some("key-0")).await.err().unwrap();
    assert!(matches!(unknown, ProjectError::NoSuchKey), "{unknown}");
}

#[tokio::test]
async fn a_lost_answer_loses_nothing() {
    let (world, first) = World::created().await;
    let lost = world.rotate(&first, None).await.unwrap().issued;
    // The old one lists the new one, makes another that is known, and ends the one that nobody has.
    assert_eq!(
        world.view(&first, &lost.id).await.state,
        KeyStanding::Active
    );
    let too_early = world.revoke(&first, &lost.id, false).await.err().unwrap();
    assert!(matches!(too_early, ProjectError::Last(_)), "{too_early}");
    let known = world.issue(&first, &wanted(&Scope::ALL)).await.unwrap();
    assert!(world.revoke(&first, &lost.id, false).await.unwrap());
    world.after(DAY).await;
    assert!(!world.is_good(&lost).await && !world.is_good(&first).await);
    assert!(world.pass(&known).await.master().is_ok());
}
