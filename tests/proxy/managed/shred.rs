//! A shredded stream is gone for ever: its keys are nowhere in the config store's files, its sessions end, and
//! nothing brings it back.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use streamseal::{config::Config, project::Scopes, registry::rules::RuleCipher, store::WrappedKey};
use tokio::{task::block_in_place, time::timeout};

use super::setup::{Managed, appends, reads, rule};
use crate::{
    harness::{
        Answer, Ask, BASIN, Client, Encoding, Lite, Live, Program, Ran, Session, Way, ask_until,
        base64, contains, frame, input, pepper, project, record, until,
    },
    projects::keyed,
};

/// A session of a shredded stream is told so within this time.
const CUT: Duration = Duration::from_secs(5);

pub fn with_admin(config: &mut Config) {
    config.admin.address = "127.0.0.1:0".parse::<SocketAddr>().unwrap().into();
}

pub async fn start() -> Managed {
    Managed::with(RuleCipher::Aegis256, with_admin).await
}

/// Asks the admin listener with an API key.
pub async fn order(managed: &Managed, path: &str, api_key: &str, body: &Value) -> Answer {
    let ask = keyed("POST", path, api_key).raw(body.to_string());
    managed.stack.admin().await.ask(ask).await
}

pub async fn shred(managed: &Managed, stream: &str, before: Option<u32>) -> Answer {
    let body = json!({ "basin": BASIN, "stream": stream, "before": before });
    order(managed, "/api/streams/shred", &managed.token.text, &body).await
}

/// The same that must succeed; the certificate.
pub async fn shredded(managed: &Managed, stream: &str, before: Option<u32>) -> Value {
    let answer = shred(managed, stream, before).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// The wrapped data keys of a stream, as the store's rows have them.
pub async fn wrapped(managed: &Managed, stream: &str) -> Vec<String> {
    let keys = managed.data_keys(stream).await.unwrap().keys;
    let text = |key| match key {
        Some(WrappedKey::Master { wrapped, .. }) => Some(wrapped.to_string()),
        Some(WrappedKey::Kms { .. }) | None => None,
    };
    keys.into_iter()
        .filter_map(|key| text(key.wrapped))
        .collect()
}

/// In how many files beside the config store this stands, as text or as bytes.
pub fn files_with(store: &Path, secret: &str) -> usize {
    let bytes = STANDARD.decode(secret).unwrap();
    let files = fs::read_dir(store.parent().unwrap()).unwrap();
    let files = files.filter_map(|file| fs::read(file.unwrap().path()).ok());
    files
        .filter(|file| contains(file, secret.as_bytes()) || contains(file, &bytes))
        .count()
}

async fn refuses_everything(managed: &Managed, stream: &str) {
    for encoding in Encoding::READS {
        let answer = managed
            .ask(reads(stream, "seq_num=0&count=1", encoding))
            .await;
        let said = answer.text();
        assert!(said.contains("decryption_failed"), "{encoding:?}: {said}");
        assert!(said.contains("shredded"), "{encoding:?}: {said}");
        assert!(
            !matches!(encoding, Encoding::Json | Encoding::Proto) || answer.status == 400,
            "{encoding:?}: {}",
            answer.status
        );
    }
    let batch = input([record(&[], "too late")]);
    for encoding in Encoding::APPENDS {
        let answer = managed.ask(appends(stream, encoding, &batch)).await;
        let said = answer.text();
        assert!(said.contains("permission_denied"), "{encoding:?}: {said}");
        assert!(said.contains("shredded"), "{encoding:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shredded_stream_is_gone_for_ever() {
    let mut managed = start().await;
    for stream in ["s", "kept"] {
        managed.put(stream, "under the first key").await;
        managed.rotate(stream).await;
        managed.put(stream, "under the second key").await;
    }
    let path = managed.stack.config.store.path.clone();
    let keys = wrapped(&managed, "s").await;
    assert_eq!(keys.len(), 2);
    for key in &keys {
        assert!(
            files_with(&path, key) > 0,
            "it proves nothing not to find it later"
        );
    }
    let certificate = shredded(&managed, "s", None).await;
    for key in &keys {
        assert_eq!(files_with(&path, key), 0);
    }
    assert_eq!(certificate["stream"], format!("{BASIN}/s"));
    assert_eq!(certificate["project"], "payments");
    assert_eq!(certificate["cipher"], "aegis-256");
    assert_eq!(certificate["whole_stream"], true);
    assert_eq!(
        certificate["records"],
        json!({ "from_seq_num": 0, "until_seq_num": 2, "includes_others": false })
    );
    let epochs = certificate["epochs"].as_array().unwrap();
    let recorded = managed.data_keys("s").await.unwrap();
    assert_eq!((epochs.len(), recorded.keys.len()), (2, 2));
    for (epoch, key) in epochs.iter().zip(&recorded.keys) {
        assert_eq!(epoch["epoch"], key.epoch);
        assert_eq!(epoch["commitment"], key.commit.to_string());
        assert!(epoch["shredded_at"].is_string() && epoch["created_at"].is_string());
        assert_eq!(epoch["first_acked_seq_num"], key.epoch - 1);
        assert!(key.wrapped.is_none() && key.shredded_at.is_some());
    }
    let statement = certificate["statement"].as_str().unwrap();
    assert!(statement.contains("backups") && statement.contains("snapshots"));

    refuses_everything(&managed, "s").await;
    // Nothing brings it back: no unpin, no new key, no reload, no restart, and not once more.
    managed
        .stack
        .proxy()
        .apply(
            &super::setup::path("s"),
            &streamseal::registry::table::Event::Unpinned,
        )
        .await
        .unwrap();
    let rotate = json!({ "basin": BASIN, "stream": "s" });
    let rotated = order(
        &managed,
        "/api/streams/rotate-key",
        &managed.token.text,
        &rotate,
    )
    .await;
    assert_eq!(rotated.status, 403, "{}", rotated.text());
    managed
        .stack
        .reload(|config| {
            config
                .streams
                .insert(0, rule("test-*/**", RuleCipher::Aegis256))
        })
        .unwrap();
    refuses_everything(&managed, "s").await;
    managed.stack.restart(|_| {}).await;
    refuses_everything(&managed, "s").await;
    let again = shredded(&managed, "s", None).await;
    assert_eq!(again["epochs"], certificate["epochs"]);
    assert_eq!(
        managed.bodies("kept").await,
        ["under the first key", "under the second key"]
    );
    managed.put("kept", "and on").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_deletion_through_the_proxy_begins_a_new_life() {
    let managed = start().await;
    managed.put("s", "before").await;
    shredded(&managed, "s", None).await;
    // Made anew behind the proxy's back, it is what it was.
    let direct = managed.stack.direct().await;
    // It may take the upstream a moment until it can be deleted.
    let delete = Ask::new("DELETE", "/v1/streams/s");
    ask_until(&direct, delete, |answer| answer.status == 202).await;
    let make = Ask::new("PUT", "/v1/streams/s").json(&json!({}));
    ask_until(&direct, make, |answer| answer.status == 201).await;
    let batch = input([record(&[], "too late")]);
    let refused = managed.ask(appends("s", Encoding::Json, &batch)).await;
    assert_eq!(
        (refused.status, &*refused.code()),
        (403, "permission_denied")
    );
    // Nor does an append that would create the stream bring the key back.
    // It may take the upstream a moment until it can be deleted.
    let delete = Ask::new("DELETE", "/v1/streams/s");
    ask_until(&direct, delete, |answer| answer.status == 202).await;
    let refused = managed.ask(appends("s", Encoding::Json, &batch)).await;
    assert_eq!(
        (refused.status, &*refused.code()),
        (403, "permission_denied")
    );
    assert!(managed.data_keys("s").await.unwrap().is_shredded());

    let client = managed.stack.h2().await;
    let make = managed
        .token
        .on(Ask::new("PUT", "/v1/streams/t").json(&json!({})));
    assert_eq!(client.ask(make.clone()).await.status, 201);
    managed.put("t", "before").await;
    let first = shredded(&managed, "t", None).await;
    let gone = managed.ask(Ask::new("DELETE", "/v1/streams/t")).await;
    assert_eq!(gone.status, 202, "{}", gone.text());
    ask_until(&client, make, |answer| answer.status == 201).await;
    managed.put("t", "after").await;
    assert_eq!(managed.bodies("t").await, ["after"]);
    let keys = managed.data_keys("t").await.unwrap().keys;
    assert_ne!(first["epochs"][0]["commitment"], keys[0].commit.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_a_shredded_stream_end() {
    for alpn in ["h2", "http/1.1"] {
        let managed = start().await;
        managed.put("s", "record").await;
        let client = async || match alpn {
            "h2" => managed.stack.h2().await,
            _ => managed.stack.h1().await,
        };
        let reading = client().await;
        let ask = managed.token.on(reads("s", "seq_num=0", Encoding::Frames));
        let mut frames = Live::new(reading.open(ask).await);
        assert_eq!(
            frames.frame().await.unwrap().unwrap().batch().records.len(),
            1
        );
        let listening = client().await;
        let ask = managed.token.on(reads("s", "seq_num=0", Encoding::Events));
        let mut events = Live::new(listening.open(ask).await);
        events.event().await.unwrap().unwrap();
        let batch = input([record(&[], "in a session")]);
        let appending = client().await;
        let ask = managed.token.on(Ask::post(crate::harness::records("s")));
        let mut session = Session::append(&appending, ask).await;
        session.send(frame(&batch)).await;
        session.live.frame().await.unwrap().unwrap().ack();

        shredded(&managed, "s", None).await;
        let ends = async {
            loop {
                let next = frames.frame().await.unwrap().unwrap();
                if let crate::harness::Frame::Terminal { .. } = next {
                    break next.failure();
                }
            }
        };
        assert_eq!(
            timeout(CUT, ends).await.unwrap(),
            (400, "decryption_failed".to_owned())
        );
        let ends = async {
            loop {
                let next = events.event().await.unwrap().unwrap();
                if next.contains("event: error") {
                    break next;
                }
            }
        };
        let said = timeout(CUT, ends).await.unwrap();
        assert!(said.contains("decryption_failed"), "{said}");
        let ends = session.live.frame();
        let ended = timeout(CUT, ends).await.unwrap().unwrap().unwrap();
        assert_eq!(ended.failure(), (403, "permission_denied".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_epochs_are_shredded_and_the_stream_goes_on() {
    let managed = start().await;
    for body in ["first", "second", "third"] {
        managed.put("s", body).await;
        managed.rotate("s").await;
    }
    managed.put("s", "fourth").await;
    let path = managed.stack.config.store.path.clone();
    let keys = wrapped(&managed, "s").await;
    let reading = managed.stack.h2().await;
    let ask = managed.token.on(reads("s", "seq_num=2", Encoding::Frames));
    let mut tail = Live::new(reading.open(ask).await);
    tail.frame().await.unwrap().unwrap().batch();
    for (before, why) in [(0, "from 2 to 4"), (1, "from 2 to 4"), (5, "from 2 to 4")] {
        let refused = shred(&managed, "s", Some(before)).await;
        assert_eq!(refused.status, 400, "{}", refused.text());
        assert!(refused.text().contains(why), "{}", refused.text());
    }
    let certificate = shredded(&managed, "s", Some(3)).await;
    assert_eq!(certificate["whole_stream"], false);
    let epochs: Vec<_> = certificate["epochs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|epoch| &epoch["epoch"])
        .collect();
    assert_eq!(epochs, [1, 2]);
    for (at, key) in keys.iter().enumerate() {
        assert_eq!(files_with(&path, key) > 0, at >= 2, "{at}");
    }
    let answer = managed.ask(reads("s", "seq_num=2", Encoding::Proto)).await;
    let records = crate::harness::delivered(Encoding::Proto, &answer).records();
    assert_eq!(records.len(), 2, "{}", answer.text());
    for from in ["seq_num=0&count=1", "seq_num=1&count=1", "seq_num=0"] {
        let answer = managed.ask(reads("s", from, Encoding::Proto)).await;
        assert_eq!((answer.status, &*answer.code()), (400, "decryption_failed"));
        assert!(answer.text().contains("shredded"), "{}", answer.text());
    }
    // The session that reads what is left goes on.
    managed.put("s", "fifth").await;
    let more = async {
        loop {
            let batch = tail.frame().await.unwrap().unwrap().batch();
            if let Some(record) = batch.records.last() {
                break record.seq_num;
            }
        }
    };
    assert_eq!(timeout(CUT, more).await.unwrap(), 4);
    let again = shredded(&managed, "s", Some(3)).await;
    assert_eq!(again["epochs"], certificate["epochs"]);
    // And all of it, in the end.
    let whole = shredded(&managed, "s", None).await;
    assert_eq!(whole["epochs"].as_array().unwrap().len(), 4);
    assert_eq!(whole["epochs"][0], certificate["epochs"][0]);
    refuses_everything(&managed, "s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_on_its_way_is_waited_for() {
    let managed = start().await;
    managed.put("s", "first").await;
    managed.stack.tap.hold_after(Way::Down, 1);
    let client = managed.stack.h2().await;
    let batch = input([record(&[], "on its way")]);
    let ask = managed.token.on(appends("s", Encoding::Json, &batch));
    let appending = tokio::spawn(async move { client.ask(ask).await });
    managed.stack.tap.held(Way::Down).await;
    assert_eq!(managed.rotate("s").await, 2);
    let admin = managed.stack.admin().await;
    let body = json!({ "basin": BASIN, "stream": "s", "before": 2 });
    let ask = keyed("POST", "/api/streams/shred", &managed.token.text).raw(body.to_string());
    let shredding = tokio::spawn(async move { admin.ask(ask).await });
    // New appends are under the next key, and are not waited for; the one on its way is.
    let waited = timeout(Duration::from_millis(300), async {
        until("it is shredded", async || {
            wrapped(&managed, "s").await.len() == 1
        })
        .await;
    });
    assert!(waited.await.is_err(), "shredded under an append on its way");
    managed.stack.tap.release();
    assert_eq!(appending.await.unwrap().status, 200);
    let certificate = shredding.await.unwrap();
    assert_eq!(certificate.status, 200, "{}", certificate.text());
    assert_eq!(wrapped(&managed, "s").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_shreds_nothing() {
    let managed = Managed::with(RuleCipher::Aegis256, |config| {
        with_admin(config);
        config.projects.clear();
        project(config, "other", &["other-*/**"]);
        project(config, "payments", &["*/**"]);
        config.streams = vec![rule("*/**", RuleCipher::Aegis256)];
    })
    .await;
    managed.put("s", "record").await;
    let other = managed.stack.create_project("other").await;
    let only = |scope| [scope].into_iter().collect::<Scopes>();
    let reader = managed
        .stack
        .issue(
            &managed.token,
            "reader",
            only(streamseal::project::Scope::Read),
        )
        .await;
    let body = json!({ "basin": BASIN, "stream": "s" });
    for path in ["/api/streams/shred", "/api/streams/rotate-key"] {
        for (token, status) in [(&other, [403, 404]), (&reader, [403, 403])] {
            let refused = order(&managed, path, &token.text, &body).await;
            assert!(
                status.contains(&refused.status),
                "{path}: {}",
                refused.text()
            );
        }
        for cut_short in ["sk-ss-x", "SK-SS-x"] {
            assert_eq!(order(&managed, path, cut_short, &body).await.status, 401);
        }
        // The operator has no say in what a project holds.
        let operator = Ask::post(path).json(&body);
        let refused = managed.stack.admin().await.ask(operator).await;
        assert!(matches!(refused.status, 403 | 404), "{}", refused.text());
    }
    let unknown = shred(&managed, "unknown", None).await;
    assert_eq!((unknown.status, &*unknown.code()), (404, "stream_unknown"));
    assert_eq!(managed.bodies("s").await, ["record"]);
    assert_eq!(managed.data_keys("s").await.unwrap().keys.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_do_it() {
    let managed = start().await;
    managed.put("s", "first").await;
    let admin = format!("http://{}", managed.stack.admin.unwrap());
    let file = managed.stack.config.store.path.with_file_name("api-key");
    fs::write(&file, &managed.token.text).unwrap();
    let file = file.to_str().unwrap();
    let stream = format!("s2://{BASIN}/s");
    let run = |command: &str, more: &[&str]| {
        let all = [
            "stream",
            command,
            &stream,
            "--admin",
            &admin,
            "--api-key-file",
            file,
        ];
        block_in_place(|| Ran::of(all.iter().chain(more).copied()))
    };
    let said = run("rotate-key", &[]).ok();
    assert_eq!(
        said,
        format!("stream {BASIN}/s goes from key epoch 1 to 2\n")
    );
    let unsaid = run("shred", &["--before", "2"]);
    assert_eq!(unsaid.code, 64);
    assert!(unsaid.err.contains("--yes"), "{}", unsaid.err);
    assert_eq!(wrapped(&managed, "s").await.len(), 2);
    let said = run("shred", &["--before", "2", "--yes"]).ok();
    let certificate: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(certificate["whole_stream"], false);
    let said = run("shred", &["--yes"]).ok();
    let certificate: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(certificate["whole_stream"], true);
    refuses_everything(&managed, "s").await;
}

/// Kills of the program, spread over the time that the call takes. As long as none hit before, or none after, there
/// are more of them, spread over more time.
const KILLS: u32 = 10;
const MOST_KILLS: u32 = 10 * KILLS;

/// When to kill, given how long the whole takes.
pub fn moment(whole: Duration, kill: u32, kills: u32) -> Duration {
    let round = (kill - 1) / kills;
    whole * (1 + round) * ((kill - 1) % kills) / kills
}

/// The program with one project that has every stream.
pub fn program(dir: &Path, lite: &Lite) -> Program {
    let file = dir.join("pepper");
    fs::write(&file, base64(&pepper("payments"))).unwrap();
    let sections = json!({
        "listen": { "authenticate": "api-key" },
        "admin": { "address": "127.0.0.1:0" },
        "projects": [{ "name": "payments", "match": ["*/**"], "pepper_file": file }],
        "streams": [{ "match": "*/**", "cipher": "aegis-256", "key": "managed" }],
    });
    Program::with(dir, lite.address, &sections, "warn")
}

/// A first API key of the program, and a basin.
pub async fn first_key(program: &Program) -> String {
    let create = crate::admin::local("POST", "/api/projects").json(&json!({ "name": "payments" }));
    let made = Client::plain_http1(program.admin()).await.ask(create).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let key = made.json()["api_key"].as_str().unwrap().to_owned();
    let config = json!({ "create_stream_on_append": true });
    let ask = Ask::post("/v1/basins").json(&json!({ "basin": BASIN, "config": config }));
    let made = program.client("h2").await.ask(bearing(ask, &key)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    key
}

/// A request with an API key.
pub fn bearing(ask: Ask, api_key: &str) -> Ask {
    ask.header("authorization", format!("Bearer {api_key}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_leaves_it_whole_or_shredded_and_the_same_command_finishes() {
    let dir = tempfile::tempdir().unwrap();
    let lite = Lite::start().await;
    let mut program = block_in_place(|| program(dir.path(), &lite));
    let key = first_key(&program).await;
    let batch = input([record(&[], "record")]);
    let order = |stream: &str| {
        let body = json!({ "basin": BASIN, "stream": stream });
        keyed("POST", "/api/streams/shred", &key).raw(body.to_string())
    };
    let mut whole = Duration::ZERO;
    let (mut before, mut after) = (0, 0);
    for kill in 0.. {
        if kill > KILLS && before > 0 && after > 0 {
            break;
        }
        assert!(kill <= MOST_KILLS, "{before} before, {after} after");
        let stream = format!("s{kill}");
        let client = program.client("h2").await;
        let ask = bearing(appends(&stream, Encoding::Json, &batch), &key);
        assert_eq!(client.ask(ask).await.status, 200);
        let admin = Client::plain_http1(program.admin()).await;
        let ask = order(&stream);
        let began = std::time::Instant::now();
        let asking = tokio::spawn(async move { admin.try_ask(ask).await });
        if kill == 0 {
            assert_eq!(asking.await.unwrap().unwrap().status, 200);
            whole = began.elapsed() * 5 / 4;
            continue;
        }
        tokio::time::sleep(moment(whole, kill, KILLS)).await;
        program.kill();
        let certified = asking.await.unwrap().is_ok();
        block_in_place(|| program.start_again());
        let client = program.client("h2").await;
        let read = bearing(reads(&stream, "seq_num=0", Encoding::Json), &key);
        let answer = client.ask(read.clone()).await;
        match answer.status {
            200 => {
                assert!(!certified, "certified, and not shredded");
                before += 1;
            }
            _ => {
                assert_eq!(answer.code(), "decryption_failed");
                after += 1;
            }
        }
        let admin = Client::plain_http1(program.admin()).await;
        let certificate = admin.ask(order(&stream)).await;
        assert_eq!(certificate.status, 200, "{}", certificate.text());
        assert_eq!(client.ask(read).await.code(), "decryption_failed");
    }
    let left = fs::read_dir(dir.path()).unwrap();
    let left: Vec<_> = left
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        !left
            .iter()
            .any(|name| name.contains("eras") || name.contains("rewrite")),
        "{left:?}"
    );
}
