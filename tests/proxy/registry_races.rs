//! Whatever happens at the same time, every stream has one cipher, and all its records are under it.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};
use streamseal::keys::OnPlain;

use tokio::sync::Notify;

use crate::harness::{Act, Ask, BASIN, Call, Fake, KEY, Lite, Stack, ask_until, records, until};

pub const SECRET: &str = "a body that nobody may see";

pub fn append(stream: &str) -> Ask {
    let batch = json!({ "records": [{ "body": SECRET }] });
    Ask::post(records(stream)).json(&batch).key(&KEY)
}

pub fn patch(cipher: Value) -> Ask {
    Ask::new("PATCH", format!("/v1/basins/{BASIN}")).json(&json!({ "stream_cipher": cipher }))
}

/// The cipher that the stored bytes of a stream's records tell; all must tell the same.
pub async fn stored_cipher(stack: &Stack, stream: &str) -> Value {
    let ask = Ask::get(records(stream) + "?seq_num=0").header("accept", "application/protobuf");
    let answer = stack.direct().await.ask(ask).await;
    assert_eq!(answer.status, 200, "{stream}: {}", answer.text());
    let batch: s2_api::v1::stream::proto::ReadBatch = prost::Message::decode(answer.body).unwrap();
    let ciphers: Vec<Value> = batch
        .records
        .iter()
        .map(|record| match record.body.first() {
            Some(1) => json!("aegis-256"),
            Some(2) => json!("aes-256-gcm"),
            _ if record.body == SECRET => Value::Null,
            other => panic!("{stream}: {other:?}"),
        })
        .collect();
    assert!(
        ciphers.windows(2).all(|pair| pair[0] == pair[1]),
        "{ciphers:?}"
    );
    ciphers[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_make_one_stream() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let asks = join_all((0..16).map(|at| {
        let stack = &stack;
        async move {
            let client = if at % 2 == 0 {
                stack.h1().await
            } else {
                stack.h2().await
            };
            let ask = match at % 4 {
                3 => Ask::new("PUT", "/v1/streams/one"),
                2 => Ask::get(records("one") + "/tail"),
                _ => append("one"),
            };
            // As in S2, what is created twice at the same time may be refused with a conflict.
            ask_until(&client, ask, |answer| {
                answer.code() != "transaction_conflict"
            })
            .await
        }
    }));
    for answer in asks.await {
        assert!([200, 201].contains(&answer.status), "{}", answer.text());
    }
    assert_eq!(stored_cipher(&stack, "one").await, "aegis-256");
    let ask = Ask::get(records("one") + "?seq_num=0").key(&KEY);
    let read = stack.h2().await.ask(ask).await.json();
    let read = read["records"].as_array().unwrap();
    assert_eq!(read.len(), 8);
    assert!(read.iter().all(|record| record["body"] == SECRET));
    assert!(!stack.tap.saw(SECRET.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_wins_when_two_write_first() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    let other = Ask::post(records("s")).json(&json!({ "records": [{ "body": SECRET }] }));
    let (first, second) = tokio::join!(
        client.ask(append("s")),
        client.ask(other.clone().key(&[7; 32]))
    );
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400], "{} {}", first.text(), second.text());
    let winner = first.status;
    let (first, second) = (
        client.ask(append("s")).await,
        client.ask(other.key(&[7; 32])).await,
    );
    assert_eq!(first.status, winner);
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400], "{} {}", first.text(), second.text());
}

/// Changes the cipher round and round, meanwhile makes streams and appends to each twice, and checks
/// that what is shown is what is stored.
async fn race(ciphers: &[Value], make: impl Fn(&str) -> Option<Ask>) {
    // A stream that is made while there is no cipher takes the appends with a key in clear.
    let stack = Stack::with(|config| config.keys.on_plain = OnPlain::Warn).await;
    stack.create_basin(ciphers[0].as_str()).await;
    let changes = async {
        let client = stack.h2().await;
        for cipher in ciphers.iter().cycle().skip(1).take(12) {
            let changed = client.ask(patch(cipher.clone())).await;
            assert_eq!(changed.status, 200, "{}", changed.text());
        }
    };
    let makers = join_all((0..20).map(|at| {
        let (stack, make) = (&stack, &make);
        async move {
            let (client, name) = (stack.h2().await, format!("s-{at}"));
            if let Some(ask) = make(&name) {
                assert_eq!(client.ask(ask).await.status, 201);
            }
            for _ in 0..2 {
                let answer = client.ask(append(&name)).await;
                assert_eq!(answer.status, 200, "{name}: {}", answer.text());
            }
        }
    }));
    tokio::join!(changes, makers);
    let client = stack.h2().await;
    let list = client.ask(Ask::get("/v1/streams")).await.json();
    let streams = list["streams"].as_array().unwrap();
    assert_eq!(streams.len(), 20);
    for stream in streams {
        let name = stream["name"].as_str().unwrap();
        assert_eq!(
            stored_cipher(&stack, name).await,
            stream["cipher"],
            "{name}"
        );
        let read = client
            .ask(Ask::get(records(name) + "?seq_num=0").key(&KEY))
            .await;
        assert_eq!(read.json()["records"][1]["body"], SECRET, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_created_while_the_cipher_changes_have_one_cipher() {
    let ciphers = [json!("aegis-256"), json!("aes-256-gcm"), Value::Null];
    let make = |name: &str| Ask::post("/v1/streams").json(&json!({ "stream": name }));
    race(&ciphers, |name| Some(make(name))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_made_on_demand_while_the_cipher_changes_have_one_cipher() {
    race(&[json!("aegis-256"), json!("aes-256-gcm")], |_| None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_acked_in_clear_while_its_cipher_comes_stays_plain() {
    let lite = Arc::new(Lite::start().await);
    let fake = Fake::start(lite.address).await;
    let stack = Stack::over(lite, |config| fake.aim(config)).await;
    stack.create_basin(None).await;
    let go = Arc::new(Notify::new());
    let hold = Arc::clone(&go);
    fake.script(
        move |call| match call.is("POST", "/v1/streams/late/records") {
            true => Act::Hold(Arc::clone(&hold)),
            false => Act::Pass,
        },
    );
    let client = stack.h2().await;
    let ciphered = async {
        let here = |call: &Call| call.is("POST", "/v1/streams/late/records");
        until("the append is on its way", async || {
            fake.calls().iter().any(here)
        })
        .await;
        let changed = client.ask(patch(json!("aegis-256"))).await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        fake.heal();
        go.notify_one();
    };
    let plain = append("late").without("s2-encryption-key");
    let (late, ()) = tokio::join!(client.ask(plain.clone()), ciphered);
    assert_eq!(late.status, 200);
    // It went up while the basin had no cipher. One stream never has both: who sends a key is refused.
    let next = client.ask(append("late")).await;
    assert_eq!((next.status, &*next.code()), (422, "invalid"));
    let next = client.ask(plain).await;
    assert_eq!(next.status, 200, "{}", next.text());
    assert_eq!(stored_cipher(&stack, "late").await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_not_there_makes_every_call_retryable() {
    let lite = Arc::new(Lite::start().await);
    let fake = Fake::start(lite.address).await;
    let mut stack = Stack::over(lite, |config| fake.aim(config)).await;
    stack.create_basin(Some("aegis-256")).await;
    assert_eq!(stack.h2().await.ask(append("known")).await.status, 200);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    stack
        .restart(|config| {
            config.upstream.account_endpoint = format!("http://{address}");
            config.upstream.basin_endpoint = format!("http://{address}");
        })
        .await;
    let client = stack.h2().await;
    let basin = || format!("/v1/basins/{BASIN}");
    for ask in [
        append("known"),
        append("unknown"),
        Ask::get(records("known")).key(&KEY),
        Ask::get(records("known") + "/tail"),
        Ask::post(records("known")).body("s2s/proto", "").key(&KEY),
        Ask::get("/v1/streams"),
        Ask::post("/v1/streams").json(&json!({ "stream": "x" })),
        Ask::new("DELETE", "/v1/streams/known"),
        Ask::get(basin()),
        patch(json!(null)),
        Ask::new("DELETE", basin()),
        Ask::get("/v1/basins"),
        Ask::get("/health"),
    ] {
        let answer = client.ask(ask.clone()).await;
        assert_eq!(
            (answer.status, &*answer.code()),
            (502, "hot_server"),
            "{ask:?}"
        );
    }
    stack.restart(|config| fake.aim(config)).await;
    let client = stack.h2().await;
    for stream in ["known", "unknown"] {
        let appended = client.ask(append(stream)).await;
        assert_eq!(appended.status, 200, "{stream}: {}", appended.text());
        let stored = stored_cipher(&stack, stream).await;
        assert_eq!(stored, "aegis-256", "{stream}");
    }
}
