//! Killed at any moment, nothing acked is lost, nothing is under a key that is not recorded, and no key sealed
//! more than is written down of it.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::json;
use streamseal::{
    crypto::{ApiKey, Key, MasterKey, Pepper, layout_of},
    project::Scopes,
    store::{
        self, ApiKeyEntry, ApiKeyState, Change, DataKey, Embedded, ProjectEntry, Revision,
        Store as _,
    },
};

use super::setup::{appends, path, reads};
use crate::harness::{
    Ask, BASIN, Client, Encoding, Lite, Program, base64, delivered, input, pepper, record, records,
};

const PROJECT: &str = "payments";

/// Records that one key may seal: several are used up before each kill.
const LIMIT: u64 = 7;

fn store_in(dir: &Path) -> store::Config {
    store::Config {
        path: dir.join("store.redb"),
        create: true,
        ..Default::default()
    }
}

/// Makes the project's master key, and an API key for everything.
async fn create_project(dir: &Path) -> String {
    let store = Embedded::init(&store_in(dir)).unwrap();
    let master = MasterKey::generate().unwrap();
    let pepper = Pepper::new(Key::from_bytes(pepper(PROJECT)));
    let (key, credentials) = ApiKey::issue(&pepper, PROJECT, 1, &master).unwrap();
    let row = ApiKeyEntry {
        id: "first".to_owned(),
        label: String::new(),
        lookup: credentials.lookup,
        verify: credentials.verify,
        mk_epoch: 1,
        scopes: Scopes::all(),
        created_at: 1,
        expires_at: None,
        state: ApiKeyState::Active,
    };
    let entry = ProjectEntry {
        mk_epoch: 1,
        mk_commit: master.commit(PROJECT, 1),
        rotation: None,
        api_keys: vec![row],
        replacing: false,
        seen_at: 1,
    };
    let change = Change::Project {
        name: PROJECT.parse().unwrap(),
        expected: Revision::NONE,
        entry: Some(entry),
    };
    store.commit(vec![change]).await.unwrap();
    key.to_text().as_str().to_owned()
}

fn start(dir: &Path, lite: &Lite) -> Program {
    let pepper_file = dir.join("pepper");
    std::fs::write(&pepper_file, base64(&pepper(PROJECT))).unwrap();
    let sections = json!({
        "listen": { "authenticate": "api-key" },
        "projects": [{ "name": PROJECT, "match": ["*/**"], "pepper_file": pepper_file }],
        "streams": [{ "match": "*/**", "cipher": "aegis-256", "key": "managed" }],
        "keys": { "rotate_after": { "records": LIMIT } },
    });
    Program::with(dir, lite.address, &sections, "info")
}

/// Appends one number after the other until the connection breaks; those that were acked, and the one that may
/// have been stored.
async fn count(client: &Client, token: &str, from: u64) -> (Vec<u64>, u64) {
    let mut acked = Vec::new();
    let mut next = from;
    loop {
        let ask = appends(
            "s",
            Encoding::Proto,
            &input([record(&[], next.to_string())]),
        );
        let ask = ask.header("authorization", format!("Bearer {token}"));
        match client.try_ask(ask).await {
            Ok(answer) if answer.status == 200 => acked.push(next),
            Ok(answer) => panic!("{} {}", answer.status, answer.text()),
            Err(_) => return (acked, next),
        }
        next += 1;
    }
}

/// The keys of the stream; none where a kill came before the first.
async fn data_keys(dir: &Path) -> Vec<DataKey> {
    let store = Embedded::open_existing(&store_in(dir)).unwrap();
    let found = store.stream(&path("s")).await.unwrap();
    let keys = found.entry.and_then(|entry| entry.data_keys.clone());
    keys.map(|keys| keys.keys).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_lose_nothing_and_count_nothing_too_low() {
    let dir = tempfile::tempdir().unwrap();
    let lite = Lite::start().await;
    let token = create_project(dir.path()).await;
    let mut program = start(dir.path(), &lite);
    let config = json!({ "create_stream_on_append": true });
    let basin = Ask::post("/v1/basins").json(&json!({ "basin": BASIN, "config": config }));
    let basin = basin.header("authorization", format!("Bearer {token}"));
    assert_eq!(program.client("h2").await.ask(basin).await.status, 201);
    let (mut acked, mut maybe, mut next) = (Vec::new(), Vec::new(), 0);
    for round in 0..40 {
        // A slow machine appends little before a kill.
        if round >= 8 && acked.len() > 8 {
            break;
        }
        let client = program.client("h2").await;
        let counting = count(&client, &token, next);
        let kill = async {
            // Not a wait for anything: the moment to kill at.
            tokio::time::sleep(Duration::from_millis(60 + 23 * round)).await;
            program.kill();
        };
        let ((more, last), ()) = tokio::join!(counting, kill);
        acked.extend(more);
        maybe.push(last);
        next = last + 1;
        lite.quiet().await;
        // Whatever is stored was counted before.
        let keys = data_keys(dir.path()).await;
        for (epoch, sealed) in stored(&lite).await {
            let key = keys.iter().find(|key| key.epoch == epoch);
            let key = key.unwrap_or_else(|| panic!("epoch {epoch} is not recorded"));
            assert!(
                key.sealed.records >= sealed && sealed <= LIMIT,
                "{sealed}: {key:?}"
            );
        }
        program.start_again();
    }
    assert!(acked.len() > 8, "too few appends to mean anything");
    let ask = reads("s", "seq_num=0&count=100000&wait=0", Encoding::Frames);
    let ask = ask.header("authorization", format!("Bearer {token}"));
    let answer = program.client("h2").await.ask(ask).await;
    let read = delivered(Encoding::Frames, &answer).records();
    let read: Vec<u64> = read
        .iter()
        .map(|record| String::from_utf8_lossy(&record.body).parse().unwrap())
        .collect();
    assert!(read.is_sorted_by(|one, other| one < other), "out of order");
    for number in &acked {
        assert!(read.binary_search(number).is_ok(), "{number} is lost");
    }
    for number in &read {
        assert!(acked.contains(number) || maybe.contains(number), "{number}");
    }
    let epochs = stored(&lite).await.len();
    assert!(
        epochs as u64 > acked.len() as u64 / LIMIT,
        "{epochs} epochs"
    );
}

/// How many records of each epoch the upstream has.
async fn stored(lite: &Lite) -> BTreeMap<u32, u64> {
    let direct = Client::plain(lite.address).await;
    let mut sealed = BTreeMap::new();
    let mut from = 0;
    loop {
        let ask = Ask::get(records("s") + &format!("?seq_num={from}&clamp=true"));
        let answer = direct
            .ask(ask.header("accept", "application/protobuf"))
            .await;
        let more = delivered(Encoding::Proto, &answer).records();
        if more.is_empty() {
            return sealed;
        }
        from += more.len();
        for record in more {
            let layout = layout_of(&record.body).expect("a record in clear");
            *sealed.entry(layout.epoch.unwrap()).or_default() += 1;
        }
    }
}
