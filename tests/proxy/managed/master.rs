//! The master key of a project changes under its clients, and nothing is lost whatever breaks off.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use tokio::{task::block_in_place, time::timeout};

use super::{
    setup::{Managed, appends, reads},
    shred::{bearing, files_with, first_key, moment, order, program, start, wrapped},
};
use crate::{
    harness::{Answer, Client, Encoding, Frame, Lite, Live, Ran, delivered, input, record},
    projects::keyed,
};

const PATH: &str = "/api/projects/rotate-master";

/// The lines of an answer.
fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Begins a change; the new API key and the last line.
async fn begin(managed: &Managed, api_key: &str) -> (String, Value) {
    let lines = lines(&order(managed, PATH, api_key, &json!({})).await);
    let key = lines[0]["api_key"].as_str().unwrap().to_owned();
    (key, lines.last().unwrap().clone())
}

/// Brings it to its end; the last line.
async fn finish(managed: &Managed, api_key: &str, mk_epoch: u32) -> Value {
    let answer = order(managed, PATH, api_key, &json!({ "finish": mk_epoch })).await;
    lines(&answer).pop().unwrap()
}

async fn bodies(managed: &Managed, api_key: &str, stream: &str) -> Vec<String> {
    let ask = bearing(reads(stream, "seq_num=0", Encoding::Proto), api_key);
    let answer = managed.stack.h2().await.ask(ask).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let records = delivered(Encoding::Proto, &answer).records();
    let text = |body: bytes::Bytes| String::from_utf8(body.to_vec()).unwrap();
    records
        .into_iter()
        .map(|record| text(record.body))
        .collect()
}

async fn put(managed: &Managed, api_key: &str, stream: &str, body: &str) {
    let batch = input([record(&[], body.to_owned())]);
    let ask = bearing(appends(stream, Encoding::Proto, &batch), api_key);
    let answer = managed.stack.h2().await.ask(ask).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn both_kinds_of_keys_work_until_the_old_ones_end() {
    let managed = start().await;
    let old = managed.token.text.clone();
    for stream in ["a", "b"] {
        managed.put(stream, "first").await;
        managed.rotate(stream).await;
        managed.put(stream, "second").await;
    }
    let path = managed.stack.config.store.path.clone();
    let mut before = wrapped(&managed, "a").await;
    before.extend(wrapped(&managed, "b").await);
    let answer = order(&managed, PATH, &old, &json!({})).await;
    let said = lines(&answer);
    assert_eq!(
        (&said[0]["project"], &said[0]["mk_epoch"]),
        (&json!("payments"), &json!(2))
    );
    assert!(said[0]["id"].is_string(), "{said:?}");
    assert!(
        said.contains(&json!({ "rewrapped": 4, "of": 4 })),
        "{said:?}"
    );
    let end = json!({ "done": true, "ended": false, "mk_epoch": 2 });
    assert_eq!(said.last(), Some(&end));
    let new = said[0]["api_key"].as_str().unwrap().to_owned();
    let entry = managed.stack.project_entry("payments").await;
    let links = entry.rotation.unwrap();
    before.extend([links.forward.to_string(), links.backward.to_string()]);
    for key in [&old, &new] {
        assert_eq!(bodies(&managed, key, "a").await, ["first", "second"]);
        put(&managed, key, "b", "meanwhile").await;
    }
    // New streams and new keys, by either.
    put(&managed, &old, "by-old", "record").await;
    put(&managed, &new, "by-new", "record").await;
    let order_of = json!({ "basin": crate::harness::BASIN, "stream": "a" });
    for key in [&old, &new] {
        let rotated = order(&managed, "/api/streams/rotate-key", key, &order_of).await;
        assert_eq!(rotated.status, 200, "{}", rotated.text());
        put(&managed, key, "a", "under a new key").await;
    }
    // With an old API key it does not end: nobody might have a new one.
    let refused = order(&managed, PATH, &old, &json!({ "finish": 2 })).await;
    assert_eq!((refused.status, &*refused.code()), (409, "old_master_key"));

    let client = managed.stack.h2().await;
    let session = async |key: &str| {
        let ask = bearing(reads("a", "seq_num=0", Encoding::Frames), key);
        let mut live = Live::new(client.open(ask).await);
        live.frame().await.unwrap().unwrap().batch();
        live
    };
    let (mut by_old, mut by_new) = (session(&old).await, session(&new).await);
    let end = finish(&managed, &new, 2).await;
    assert_eq!(end, json!({ "done": true, "ended": true, "mk_epoch": 2 }));
    for secret in &before {
        assert_eq!(files_with(&path, secret), 0);
    }
    let refused = bearing(reads("a", "seq_num=0", Encoding::Proto), &old);
    assert_eq!(client.ask(refused).await.status, 401);
    let cut = timeout(Duration::from_secs(5), async {
        while let Some(frame) = by_old.frame().await.unwrap() {
            if let Frame::Terminal { .. } = frame {
                return frame.failure();
            }
        }
        panic!("a clean end");
    });
    assert_eq!(cut.await.unwrap(), (401, "authn".to_owned()));
    put(&managed, &new, "a", "after").await;
    let goes_on = timeout(Duration::from_secs(5), async {
        while by_new
            .frame()
            .await
            .unwrap()
            .unwrap()
            .batch()
            .records
            .is_empty()
        {}
    });
    goes_on.await.unwrap();
    let all = [
        "first",
        "second",
        "under a new key",
        "under a new key",
        "after",
    ];
    assert_eq!(bodies(&managed, &new, "a").await, all);
    for stream in ["by-old", "by-new"] {
        assert_eq!(bodies(&managed, &new, stream).await, ["record"]);
    }
    // The end can be asked for again, and begins nothing.
    assert_eq!(finish(&managed, &new, 2).await["ended"], true);
    assert_eq!(managed.stack.project_entry("payments").await.mk_epoch, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_loses_nothing() {
    let managed = start().await;
    let old = managed.token.text.clone();
    managed.put("a", "first").await;
    for _ in 0..3 {
        let admin = managed.stack.admin().await;
        let ask = keyed("POST", PATH, &old).raw("{}");
        let asking = tokio::spawn(async move { admin.try_ask(ask).await.map(|_| ()) });
        tokio::task::yield_now().await;
        asking.abort();
        let _gone = asking.await;
    }
    assert_eq!(bodies(&managed, &old, "a").await, ["first"]);
    let (new, end) = begin(&managed, &old).await;
    assert_eq!(end["done"], true);
    assert_eq!(finish(&managed, &new, 2).await["ended"], true);
    assert_eq!(bodies(&managed, &new, "a").await, ["first"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_key_that_does_not_open_is_named_and_can_be_shredded() {
    let managed = start().await;
    let old = managed.token.text.clone();
    managed.put("good", "record").await;
    managed.put("bad", "record").await;
    let good = managed.data_keys("good").await.unwrap();
    managed
        .change("bad", |entry| {
            let key = &mut entry.data_keys.as_mut().unwrap().keys[0];
            key.wrapped = good.keys[0].wrapped.clone();
        })
        .await;
    let (new, end) = begin(&managed, &old).await;
    let stream = format!("{}/bad", crate::harness::BASIN);
    for end in [end, finish(&managed, &new, 2).await] {
        assert_eq!(
            (&end["done"], &end["ended"]),
            (&json!(false), &json!(false))
        );
        assert_eq!(
            (&end["stuck"][0]["stream"], &end["stuck"][0]["epoch"]),
            (&json!(stream), &json!(1))
        );
    }
    assert_eq!(bodies(&managed, &old, "good").await, ["record"]);
    let order_of = json!({ "basin": crate::harness::BASIN, "stream": "bad" });
    assert_eq!(
        order(&managed, "/api/streams/shred", &new, &order_of)
            .await
            .status,
        200
    );
    assert_eq!(finish(&managed, &new, 2).await["ended"], true);
    assert_eq!(bodies(&managed, &new, "good").await, ["record"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_prints_the_key_first_and_ends_the_change() {
    let managed = start().await;
    managed.put("a", "first").await;
    let admin = format!("http://{}", managed.stack.admin.unwrap());
    let file = managed.stack.config.store.path.with_file_name("api-key");
    fs::write(&file, &managed.token.text).unwrap();
    let file = file.to_str().unwrap();
    let arguments = [
        "project",
        "rotate-master",
        "--admin",
        &admin,
        "--api-key-file",
        file,
    ];
    let ran = block_in_place(|| Ran::of(arguments));
    assert_eq!(ran.code, 0, "{ran:?}");
    let new = ran.out.trim_end();
    assert_eq!(ran.out, format!("{new}\n"));
    assert!(
        new.starts_with("sk-ss-") && !ran.err.contains(&new[6..]),
        "{ran:?}"
    );
    assert!(
        ran.err.contains("the change to master key 2 has ended"),
        "{}",
        ran.err
    );
    assert_eq!(bodies(&managed, new, "a").await, ["first"]);
    let again = block_in_place(|| Ran::of(arguments)).failed();
    assert!(again.contains("access token is not valid"), "{again}");
    // In two parts, with both kinds of keys good in between.
    fs::write(file, new).unwrap();
    let begun = [&arguments[..], &["--begin"]].concat();
    let ran = block_in_place(|| Ran::of(begun));
    assert_eq!(ran.code, 0, "{ran:?}");
    let third = ran.out.trim_end().to_owned();
    for key in [new, &*third] {
        assert_eq!(bodies(&managed, key, "a").await, ["first"]);
    }
    let finish = [&arguments[..], &["--finish"]].concat();
    let refused = block_in_place(|| Ran::of(finish.iter().copied())).failed();
    assert!(
        refused.contains("no change to master key 2 is under way"),
        "{refused}"
    );
    fs::write(file, &third).unwrap();
    for _ in 0..2 {
        assert_eq!(block_in_place(|| Ran::of(finish.iter().copied())).ok(), "");
    }
    assert_eq!(managed.stack.project_entry("payments").await.mk_epoch, 3);
    let new = third.as_str();
    // Nowhere to print it: the old one goes on.
    fs::write(file, new).unwrap();
    let line = format!(
        "'{}' project rotate-master --admin {admin} --api-key-file {file} > /dev/full",
        env!("CARGO_BIN_EXE_streamseal")
    );
    let ran = block_in_place(|| {
        std::process::Command::new("sh")
            .args(["-c", &line])
            .output()
    });
    assert!(!ran.unwrap().status.success());
    assert_eq!(bodies(&managed, new, "a").await, ["first"]);
    assert_eq!(managed.stack.project_entry("payments").await.mk_epoch, 3);
}

/// Kills, spread over the time that the change takes. As long as there is a stage of it that none hit, there are more
/// of them, spread over more time.
const KILLS: u32 = 12;
const MOST_KILLS: u32 = 10 * KILLS;

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_time_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let lite = Lite::start().await;
    let mut program = block_in_place(|| program(dir.path(), &lite));
    let mut key = first_key(&program).await;
    let streams: Vec<String> = (0..20).map(|at| format!("s{at}")).collect();
    let client = program.client("h2").await;
    for stream in &streams {
        let batch = input([record(&[], stream.clone())]);
        let ask = bearing(appends(stream, Encoding::Json, &batch), &key);
        assert_eq!(client.ask(ask).await.status, 200);
    }
    let (file, out) = (dir.path().join("api-key"), dir.path().join("new-key"));
    let mut whole = Duration::ZERO;
    // Before the new key was printed, while both kinds are good, and after the end of the old kind.
    let mut hits = [0; 3];
    for kill in 0.. {
        if kill > KILLS && hits.iter().all(|hits| *hits > 0) {
            break;
        }
        assert!(kill <= MOST_KILLS, "{hits:?}");
        fs::write(&file, &key).unwrap();
        let change = |admin| {
            let arguments = ["project", "rotate-master", "--api-key-file"];
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_streamseal"));
            command
                .args(arguments)
                .arg(&file)
                .arg("--admin")
                .arg(format!("http://{admin}"));
            command
                .stdout(fs::File::create(&out).unwrap())
                .stderr(std::process::Stdio::null());
            command.spawn().unwrap()
        };
        let began = std::time::Instant::now();
        let mut command = change(program.admin());
        if kill > 0 {
            tokio::time::sleep(moment(whole, kill, KILLS)).await;
            program.kill();
        }
        block_in_place(|| command.wait()).unwrap();
        if kill == 0 {
            whole = began.elapsed();
        } else {
            block_in_place(|| program.start_again());
        }
        // Whatever was printed is good, and if nothing was, the old one is.
        let printed = fs::read_to_string(&out).unwrap().trim().to_owned();
        let keys: Vec<&String> = [&key, &printed]
            .into_iter()
            .filter(|key| !key.is_empty())
            .collect();
        let client = program.client("h2").await;
        let mut good = Vec::new();
        for key in keys {
            let ask = bearing(reads("s0", "seq_num=0", Encoding::Json), key);
            if client.ask(ask).await.status == 200 {
                good.push(key.clone());
            }
        }
        assert!(!good.is_empty(), "kill {kill}: nobody has a key");
        assert!(printed.is_empty() || good.contains(&printed), "kill {kill}");
        if kill > 0 {
            let stage = match (printed.is_empty(), good.len()) {
                (true, _) => 0,
                (false, 2) => 1,
                (false, _) => 2,
            };
            hits[stage] += 1;
        }
        // With the old key or the new one, in turn.
        let by = match kill % 2 {
            0 => good.first().unwrap(),
            _ => good.last().unwrap(),
        };
        fs::write(&file, by).unwrap();
        let mut command = change(program.admin());
        assert!(block_in_place(|| command.wait()).unwrap().success());
        key = fs::read_to_string(&out).unwrap().trim().to_owned();
        for stream in &streams {
            let ask = bearing(reads(stream, "seq_num=0", Encoding::Json), &key);
            let answer = client.ask(ask).await;
            assert_eq!(
                answer.json()["records"][0]["body"],
                **stream,
                "{}",
                answer.text()
            );
        }
        let listed = keyed("GET", "/api/apikeys", &key);
        let listed = Client::plain_http1(program.admin())
            .await
            .ask(listed)
            .await
            .json();
        let rows = listed["rows"].as_array().unwrap();
        let own = rows.iter().find(|row| row["own"] == true).unwrap();
        for row in rows.iter().filter(|row| row["state"] == "active") {
            assert_eq!(row["mk_epoch"], own["mk_epoch"]);
        }
    }
}
