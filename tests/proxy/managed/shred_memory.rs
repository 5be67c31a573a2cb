//! No key is in the program's memory any more when nobody uses it, when its stream is shredded though sessions were
//! open, and when its master key was changed.

use serde_json::{Value, json};
use tokio::{task::block_in_place, time::timeout};

use super::{
    oracle::{keys, master, stream_id},
    setup::{appends, reads},
    shred::{bearing, first_key, program},
};
use crate::{
    admin::local,
    harness::{
        Ask, BASIN, Client, DEADLINE, Encoding, Lite, Live, Program, Secret, Session, connections,
        frame, input, record, records, search, until,
    },
    projects::keyed,
};

/// How often memory is searched before what is found counts.
const SEARCHES: usize = 5;

/// The master key in the program's first API key, a stream's first data key, and what seals its records.
async fn keys_of(program: &Program, api_key: &str, stream: &str) -> [[u8; 32]; 3] {
    let export = Client::plain_http1(program.admin())
        .await
        .ask(local("GET", "/api/store/export"))
        .await;
    let text = export.text();
    let name = format!("{BASIN}/{stream}");
    let row = text.lines().find(|line| line.contains(&name)).unwrap();
    let row: Value = serde_json::from_str(row).unwrap();
    let key = &row["entry"]["data_keys"]["keys"][0];
    let master = master(api_key, "payments", 1);
    let [dek, record_key] = keys(master, "payments", stream_id(stream), key);
    [master, dek, record_key]
}

/// A session that reads and one that appends, on one connection.
async fn sessions(client: &Client, api_key: &str) -> (Live, Session) {
    let ask = bearing(reads("s", "seq_num=0", Encoding::Frames), api_key);
    let mut reading = Live::new(client.open(ask).await);
    reading.frame().await.unwrap().unwrap().batch();
    let ask = bearing(Ask::post(records("s")), api_key);
    let mut session = Session::append(client, ask).await;
    session.send(frame(&input([record(&[], "record")]))).await;
    session.live.frame().await.unwrap().unwrap().ack();
    (reading, session)
}

/// Waits until none of these is in memory, once no client is connected.
async fn none_is_left(program: &Program, secrets: &[Secret]) {
    until("all connections are closed", async || {
        program.connections() + connections(program.id(), program.admin().port()) == 0
    })
    .await;
    // What belonged to a connection may outlive its socket for a moment.
    let mut found = search(program.id(), secrets).await;
    for _ in 0..SEARCHES {
        if found.is_empty() {
            return;
        }
        found = search(program.id(), secrets).await;
    }
    panic!("{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_when_nobody_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let lite = Lite::start().await;
    let program = block_in_place(|| program(dir.path(), &lite));
    let api_key = first_key(&program).await;
    let batch = input([record(&[], "record")]);
    let client = program.client("h2").await;
    let append = bearing(appends("s", Encoding::Json, &batch), &api_key);
    assert_eq!(client.ask(append).await.status, 200);
    let read = bearing(reads("s", "seq_num=0", Encoding::Json), &api_key);
    assert_eq!(client.ask(read).await.status, 200);
    let [master_key, dek, record_key] = keys_of(&program, &api_key, "s").await;
    let secrets = [
        Secret::key("master key", &master_key),
        Secret::key("data key", &dek),
        Secret::key("record key", &record_key),
    ];
    let (reading, mut session) = sessions(&client, &api_key).await;
    let found = search(program.id(), &secrets).await;
    for what in ["master key", "record key"] {
        let is_there = found.iter().any(|found| found.what.contains(what));
        assert!(is_there, "it proves nothing not to find the {what} later");
    }
    session.finish();
    while let Some(_ack) = session.live.frame().await.unwrap() {}
    drop((reading, session, client));
    none_is_left(&program, &secrets).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_master_key_is_left_after_it_was_changed() {
    let dir = tempfile::tempdir().unwrap();
    let lite = Lite::start().await;
    let program = block_in_place(|| program(dir.path(), &lite));
    let old = first_key(&program).await;
    let batch = input([record(&[], "record")]);
    let client = program.client("h2").await;
    let append = bearing(appends("s", Encoding::Json, &batch), &old);
    assert_eq!(client.ask(append).await.status, 200);
    let change = async |api_key: &str, body: Value| -> Value {
        let ask = keyed("POST", "/api/projects/rotate-master", api_key).raw(body.to_string());
        let answer = Client::plain_http1(program.admin()).await.ask(ask).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_str(answer.text().lines().next().unwrap()).unwrap()
    };
    let begun = change(&old, json!({})).await;
    let new = begun["api_key"].as_str().unwrap();
    let secrets = [
        Secret::key("old master key", &master(&old, "payments", 1)),
        Secret::key("new master key", &master(new, "payments", 2)),
    ];
    let reading = sessions(&client, new).await;
    let found = search(program.id(), &secrets).await;
    assert!(!found.is_empty(), "it proves nothing not to find it later");
    change(new, json!({ "finish": 2 })).await;
    let read = bearing(reads("s", "seq_num=0", Encoding::Json), new);
    assert_eq!(client.ask(read).await.status, 200);
    drop((reading, client));
    none_is_left(&program, &secrets).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_of_a_shredded_stream_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let lite = Lite::start().await;
    let program = block_in_place(|| program(dir.path(), &lite));
    let api_key = first_key(&program).await;
    let batch = input([record(&[], "record")]);
    let client = program.client("h2").await;
    let append = bearing(appends("s", Encoding::Json, &batch), &api_key);
    assert_eq!(client.ask(append).await.status, 200);
    let [_, dek, key] = keys_of(&program, &api_key, "s").await;
    let secrets = [
        Secret::key("data key", &dek),
        Secret::key("record key", &key),
    ];

    let (mut reading, mut session) = sessions(&client, &api_key).await;
    let found = search(program.id(), &secrets).await;
    assert!(!found.is_empty(), "it proves nothing not to find it later");

    let body = json!({ "basin": BASIN, "stream": "s" });
    let ask = keyed("POST", "/api/streams/shred", &api_key).raw(body.to_string());
    let shredded = Client::plain_http1(program.admin()).await.ask(ask).await;
    assert_eq!(shredded.status, 200, "{}", shredded.text());
    // The client keeps its connection, and its sessions are over.
    let over = async {
        while let Ok(Some(_)) = reading.frame().await {}
        while let Ok(Some(_)) = session.live.frame().await {}
    };
    timeout(DEADLINE, over).await.unwrap();
    until("no key is left", async || {
        search(program.id(), &secrets).await.is_empty()
    })
    .await;
}
