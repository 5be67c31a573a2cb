//! API keys against a real config store, by a clock that the tests set.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderValue, header};

use super::*;
use crate::{
    crypto::{Digest, MasterKey},
    keys::{ClientRule, ClientRules, Clients, ProjectRule},
    project::{Scope, Scopes},
    proxy::route::{Forwarded, Route, Routing},
    store::{ApiKeyState, Change, Config, Embedded, Revision},
};

/// When the tests begin.
const START: u64 = 1_700_000_000_000;

struct Scene {
    gate: Gate,
    clock: Arc<AtomicU64>,
    projects: Projects,
    store: Arc<dyn Store>,
    dir: tempfile::TempDir,
}

impl Scene {
    /// Projects of these names, each with the streams of the basin of its name.
    fn new(names: &[&str]) -> Self {
        let rules: Vec<_> = names
            .iter()
            .map(|name| (*name, format!("{name}-basin/**")))
            .collect();
        Self::with(&rules)
    }

    fn with(rules: &[(&str, String)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rule = |(name, glob): &(&str, String)| {
            let pepper_file = dir.path().join(format!("{name}.pepper"));
            let key = crate::crypto::Key::generate().unwrap();
            std::fs::write(&pepper_file, key.to_base64().as_bytes()).unwrap();
            ProjectRule {
                name: name.parse().unwrap(),
                r#match: vec![glob.clone()],
                access_token_file: Default::default(),
                pepper_file: pepper_file.into(),
            }
        };
        let rules: Vec<_> = rules.iter().map(rule).collect();
        let store = Embedded::init(&Config {
            path: dir.path().join("store.redb"),
            ..Config::default()
        });
        let store: Arc<dyn Store> = Arc::new(store.unwrap());
        let clock = Arc::new(AtomicU64::new(START));
        let now = Arc::clone(&clock);
        Self {
            gate: Gate::new(
                Arc::clone(&store),
                // No time passes but by the system's clock.
                Clock::of(move || now.load(Ordering::SeqCst), || 0),
            ),
            clock,
            projects: Projects::compile(&rules).unwrap(),
            store,
            dir,
        }
    }

    /// Makes a project with one API key.
    async fn create(&self, name: &str, change: impl FnOnce(&mut ProjectEntry)) -> HeaderMap {
        let name: ProjectName = name.parse().unwrap();
        let project = self.projects.named(&name).unwrap();
        let master = MasterKey::generate().unwrap();
        let issued = ApiKey::issue(project.pepper(), name.as_str(), 1, &master);
        let (key, credentials) = issued.unwrap();
        let mut entry = ProjectEntry {
            mk_epoch: 1,
            mk_commit: master.commit(name.as_str(), 1),
            rotation: None,
            api_keys: vec![ApiKeyEntry {
                id: "key-1".to_owned(),
                label: String::new(),
                lookup: credentials.lookup,
                verify: credentials.verify,
                mk_epoch: 1,
                scopes: Scopes::all(),
                created_at: START,
                expires_at: None,
                state: ApiKeyState::Active,
            }],
            replacing: false,
            seen_at: START,
        };
        change(&mut entry);
        self.record(&name, Revision::NONE, entry).await;
        let value = format!("Bearer {}", key.to_text().as_str());
        let value = HeaderValue::from_str(&value).unwrap();
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    async fn record(&self, name: &ProjectName, expected: Revision, entry: ProjectEntry) {
        let change = Change::Project {
            name: name.clone(),
            expected,
            entry: Some(entry),
        };
        self.store.commit(vec![change]).await.unwrap();
    }

    async fn change(&self, name: &str, change: impl FnOnce(&mut ProjectEntry)) {
        let name = name.parse().unwrap();
        let found = self.store.project(&name).await.unwrap();
        let mut entry = ProjectEntry::clone(&found.entry.unwrap());
        change(&mut entry);
        self.record(&name, found.revision, entry).await;
    }

    async fn admit(&self, headers: &HeaderMap) -> Result<Pass, Refusal> {
        match self.gate.admit(&self.projects, headers).await {
            Ok(pass) => Ok(pass),
            Err(Error::Unauthenticated(refusal)) => Err(refusal),
            Err(error) => panic!("{error}"),
        }
    }

    fn over(&self, project: &str) -> Refusal {
        Refusal::Over {
            project: project.parse().unwrap(),
            id: "key-1".to_owned(),
        }
    }
}

#[tokio::test]
async fn every_state_of_a_key_is_judged_at_once_also_when_it_was_good_a_moment_ago() {
    let scene = Scene::new(&["other", "tests"]);
    scene.create("other", |_| {}).await;
    let key = scene.create("tests", |_| {}).await;
    for _ in 0..2 {
        assert_eq!(
            scene.admit(&key).await.unwrap().project.name.as_str(),
            "tests"
        );
    }
    let row = |change: fn(&mut ApiKeyEntry)| {
        move |entry: &mut ProjectEntry| entry.api_keys.iter_mut().for_each(change)
    };
    let revoked = row(|row| row.state = ApiKeyState::Revoked { at: START });
    scene.change("tests", revoked).await;
    assert_eq!(scene.admit(&key).await.unwrap_err(), scene.over("tests"));
    let retiring = row(|row| {
        row.state = ApiKeyState::Retiring {
            until: START + 10,
            successor: "key-2".to_owned(),
        };
    });
    scene.change("tests", retiring).await;
    scene.admit(&key).await.unwrap();
    scene.clock.store(START + 10, Ordering::SeqCst);
    assert_eq!(scene.admit(&key).await.unwrap_err(), scene.over("tests"));
    let altered = row(|row| {
        row.state = ApiKeyState::Active;
        row.verify = Digest::from_bytes([7; 32]);
    });
    scene.change("tests", altered).await;
    assert_eq!(scene.admit(&key).await.unwrap_err(), Refusal::Verifier);
    scene.change("tests", |entry| entry.api_keys.clear()).await;
    assert_eq!(scene.admit(&key).await.unwrap_err(), Refusal::Unknown);
}

#[test]
fn rules_refuse_who_has_no_certificate() {
    let rule = ClientRule {
        subject: "CN=*".to_owned(),
        r#match: vec!["**".to_owned()],
        scopes: Scopes::all(),
        ..ClientRule::default()
    };
    let access = ClientAccess::new(Clients::compile(&ClientRules::Rules(vec![rule])).unwrap());
    assert_eq!(access.judge(None).unwrap_err(), Denied::Certificate);
    access.replace(Clients::Any);
    assert!(access.judge(None).unwrap().is_none());
}

#[tokio::test]
async fn what_was_seen_of_the_time_counts_whatever_the_clock_says() {
    let scene = Scene::new(&["tests"]);
    let until = START + 1000;
    let expires = |entry: &mut ProjectEntry| entry.api_keys[0].expires_at = Some(until);
    let key = scene.create("tests", expires).await;
    scene.clock.store(until - 1, Ordering::SeqCst);
    scene.admit(&key).await.unwrap();
    scene.clock.store(until, Ordering::SeqCst);
    assert_eq!(scene.admit(&key).await.unwrap_err(), scene.over("tests"));
    scene.change("tests", |entry| entry.seen_at = until).await;
    for back in [until - 1, START, 0] {
        scene.clock.store(back, Ordering::SeqCst);
        assert_eq!(scene.admit(&key).await.unwrap_err(), scene.over("tests"));
    }
}

#[tokio::test]
async fn rows_that_were_swapped_hold_no_master_key() {
    let scene = Scene::new(&["one", "two"]);
    let one = scene.create("one", |_| {}).await;
    let two = scene.create("two", |_| {}).await;
    let row = async |name: &str| {
        let found = scene.store.project(&name.parse().unwrap()).await.unwrap();
        found.entry.unwrap().api_keys[0].clone()
    };
    let (row_of_one, row_of_two) = (row("one").await, row("two").await);
    scene
        .change("one", |entry| entry.api_keys = vec![row_of_two])
        .await;
    scene
        .change("two", |entry| entry.api_keys = vec![row_of_one])
        .await;
    for key in [&one, &two] {
        assert_eq!(scene.admit(key).await.unwrap_err(), Refusal::Unknown);
    }
    // A whole project's row in another's place: the peppers differ, so it is found nowhere.
    let found = scene.store.project(&"two".parse().unwrap()).await.unwrap();
    scene
        .change("one", |entry| {
            *entry = found.entry.unwrap().as_ref().clone()
        })
        .await;
    assert_eq!(scene.admit(&two).await.unwrap_err(), Refusal::Unknown);
    // A good key of another master key: it comes in, and opens nothing.
    let scene = Scene::new(&["tests"]);
    let key = scene
        .create("tests", |entry| {
            entry.mk_commit = Digest::from_bytes([1; 32])
        })
        .await;
    let pass = scene.admit(&key).await.unwrap();
    assert!(matches!(pass.master(), Err(Error::NoMasterKey)));
    scene
        .change("tests", |entry| entry.api_keys[0].mk_epoch = 2)
        .await;
    assert_eq!(scene.admit(&key).await.unwrap_err(), Refusal::Wrapping);
    scene
        .change("tests", |entry| {
            entry.api_keys[0].mk_epoch = 1;
            entry.mk_epoch = 2;
        })
        .await;
    assert!(scene.admit(&key).await.unwrap().master().is_err());
}

#[tokio::test]
async fn a_pass_shows_no_secret() {
    let scene = Scene::new(&["tests"]);
    let key = scene.create("tests", |_| {}).await;
    let pass = scene.admit(&key).await.unwrap();
    assert_eq!(format!("{pass:?}"), "Pass(tests, key-1)");
    let shown = format!("{:?}", pass.master().unwrap());
    assert_eq!(shown, "Master { key: MasterKey(redacted), epoch: 1 }");
    drop(scene.dir);
}

#[tokio::test]
async fn nothing_that_is_nobodys_is_allowed_and_each_scope_stands_alone() {
    let rules = [
        ("first", "{pay-basin,shared-basin}/a/**".to_owned()),
        ("tests", "{pay,sell,shared}-basin/**".to_owned()),
    ];
    let scene = Scene::with(&rules);
    let key = scene.create("tests", |_| {}).await;
    let route = |method: &str, uri: &str, basin: &str| {
        let method = http::Method::from_bytes(method.as_bytes()).unwrap();
        let basin = HeaderValue::from_str(basin).unwrap();
        let headers = HeaderMap::from_iter([("s2-basin".parse().unwrap(), basin)]);
        Route::of(&method, &uri.parse().unwrap(), &headers, Routing::default()).unwrap()
    };
    let (sell, pay) = ("sell-basin", "pay-basin");
    // What it takes where it is allowed at all.
    let calls = [
        ("POST", "/v1/streams/s/records", pay, Some(Scope::Append)),
        ("POST", "/v1/streams/a%2Fs/records", pay, None),
        ("GET", "/v1/streams/s/records", pay, Some(Scope::Read)),
        ("GET", "/v1/streams/a%2Fs/records", pay, None),
        ("GET", "/v1/streams/s/records/tail", pay, Some(Scope::Read)),
        ("GET", "/v1/streams/s", pay, Some(Scope::Read)),
        ("PATCH", "/v1/streams/s", pay, Some(Scope::Manage)),
        ("PATCH", "/v1/streams/a%2Fs", pay, None),
        ("PUT", "/v1/streams/s", pay, Some(Scope::Manage)),
        ("DELETE", "/v1/streams/s", pay, Some(Scope::Manage)),
        ("DELETE", "/v1/streams/a%2Fs", pay, None),
        ("POST", "/v1/streams", pay, Some(Scope::Manage)),
        ("GET", "/v1/streams", pay, Some(Scope::Read)),
        ("GET", "/v1/streams", "other-basin", None),
        ("POST", "/v1/streams", "other-basin", None),
        ("GET", "/v1/basins", sell, Some(Scope::Read)),
        ("POST", "/v1/basins", sell, Some(Scope::Manage)),
        ("GET", "/v1/basins/sell-basin", sell, Some(Scope::Read)),
        ("PUT", "/v1/basins/sell-basin", sell, Some(Scope::Manage)),
        ("PATCH", "/v1/basins/sell-basin", sell, Some(Scope::Manage)),
        ("DELETE", "/v1/basins/sell-basin", sell, Some(Scope::Manage)),
        ("GET", "/v1/basins/pay-basin", sell, None),
        ("PUT", "/v1/basins/pay-basin", sell, None),
        ("PATCH", "/v1/basins/shared-basin", sell, None),
        ("DELETE", "/v1/basins/pay-basin", sell, None),
        ("GET", "/v1/metrics/sell-basin", sell, Some(Scope::Read)),
        ("GET", "/v1/metrics/pay-basin", sell, None),
        ("GET", "/v1/metrics/pay-basin/s", sell, Some(Scope::Read)),
        ("GET", "/v1/metrics/pay-basin/a%2Fs", sell, None),
        ("GET", "/v1/metrics", sell, None),
        ("GET", "/v1/access-tokens", sell, None),
        ("POST", "/v1/access-tokens", sell, None),
        ("DELETE", "/v1/access-tokens/x", sell, None),
        ("GET", "/v1/locations", sell, None),
        ("GET", "/health", sell, None),
        ("OPTIONS", "/v1/streams/s", sell, None),
    ];
    for had in Scope::ALL {
        let scopes: Scopes = [had].into_iter().collect();
        scene
            .change("tests", |entry| entry.api_keys[0].scopes = scopes)
            .await;
        let pass = Arc::new(scene.admit(&key).await.unwrap());
        let caller = Principal::new(Some(pass), None);
        for (method, uri, basin, wanted) in calls {
            let route = route(method, uri, basin);
            let allowed = caller.allow_route(&route);
            assert_eq!(allowed.is_ok(), wanted == Some(had), "{had} {method} {uri}");
            if let (Some(_), Err(denied)) = (wanted, allowed) {
                assert!(
                    matches!(denied, Denied::Scope(By::ApiKey, _)),
                    "{method} {uri}"
                );
            }
        }
    }
    let pass = Arc::new(scene.admit(&key).await.unwrap());
    let caller = Principal::new(Some(pass), None);
    let options = route("OPTIONS", "/v1/streams/s", sell);
    assert!(matches!(options, Route::Forward(_, Forwarded::Options(_))));
    assert_eq!(caller.allow_route(&options), Err(Denied::Path(By::ApiKey)));
}
