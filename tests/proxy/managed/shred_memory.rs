//! No data key of a stream is in the program's memory any more once the stream is shredded, though its sessions
//! were open.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use streamseal::{
    crypto::{ApiKey, DekPlace, Key, Pepper},
    store::WrappedKey,
};
use tokio::{task::block_in_place, time::timeout};

use super::{
    setup::{appends, path, reads},
    shred::{PEPPER, bearing, first_key, program},
};
use crate::{
    admin::local,
    harness::{
        Ask, BASIN, Client, DEADLINE, Encoding, Lite, Live, Program, Secret, Session, frame, input,
        record, records, search, until,
    },
    projects::keyed,
};

/// What seals the records of a stream's first key epoch, found as the documents say.
async fn record_key(program: &Program, api_key: &str, stream: &str) -> [u8; 32] {
    let export = Client::plain_http1(program.admin())
        .await
        .ask(local("GET", "/api/store/export"))
        .await;
    let text = export.text();
    let name = format!("{BASIN}/{stream}");
    let row = text.lines().find(|line| line.contains(&name)).unwrap();
    let row: Value = serde_json::from_str(row).unwrap();
    let key = &row["entry"]["data_keys"]["keys"][0]["wrapped"];
    let wrapped: WrappedKey = serde_json::from_value(key.clone()).unwrap();
    let WrappedKey::Master { wrapped, .. } = wrapped else {
        panic!("{key}");
    };
    let pepper = Pepper::new(Key::from_bytes(PEPPER));
    let parsed = ApiKey::parse(api_key.as_bytes()).unwrap();
    let master = parsed.master_key(&pepper, "payments", 1).unwrap();
    let id = path(stream).id();
    let place = DekPlace {
        project: "payments",
        stream: &id,
        epoch: 1,
    };
    let dek = master.unwrap_dek(&place, 1, &wrapped).unwrap();
    let text = dek.record_key(&place).to_base64();
    STANDARD
        .decode(text.as_bytes())
        .unwrap()
        .try_into()
        .unwrap()
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
    let key = record_key(&program, &api_key, "s").await;
    let secrets = [Secret::key("record key", &key)];

    let ask = bearing(reads("s", "seq_num=0", Encoding::Frames), &api_key);
    let mut reading = Live::new(client.open(ask).await);
    reading.frame().await.unwrap().unwrap().batch();
    let ask = bearing(Ask::post(records("s")), &api_key);
    let mut session = Session::append(&client, ask).await;
    session.send(frame(&batch)).await;
    session.live.frame().await.unwrap().unwrap().ack();
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
