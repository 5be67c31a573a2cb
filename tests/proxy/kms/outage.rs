//! While the service is away streams whose keys are held go on, the others are refused, and nothing is lost.

use std::time::Duration;

use s2_api::v1::stream::s2s::CompressionAlgorithm;
use streamseal::{keys::MAX_GCM_RECORDS, registry::rules::RuleCipher};

use super::setup::{Gateway, SECRET, appends, one, reads};
use crate::harness::{
    Ask, BASIN, DEADLINE, Encoding, Frame, Live, Session, Transit, ask_until, delivered, records,
    until,
};

#[tokio::test(flavor = "multi_thread")]
async fn warm_streams_go_on_and_cold_ones_are_refused() {
    let mut gateway = Gateway::start().await;
    for stream in ["warm", "cold"] {
        gateway.put(stream, "before").await;
    }
    gateway.restart().await;
    gateway.put("warm", "warm").await;
    gateway.vault.act(Transit::Away);
    let before = gateway.vault.calls();
    for encoding in Encoding::APPENDS {
        gateway.append("warm", encoding, &one("meanwhile")).await;
    }
    for encoding in Encoding::READS {
        let query = reads("warm", "seq_num=0&count=6", encoding);
        let read = delivered(encoding, &gateway.ask(query).await);
        assert_eq!(read.records().len(), 6, "{encoding:?}");
    }
    assert_eq!(gateway.vault.calls(), before);
    for stream in ["cold", "new"] {
        for ask in Encoding::APPENDS.map(|encoding| appends(stream, encoding, &one("x"))) {
            let answer = gateway.ask(ask).await;
            assert_eq!((answer.status, &*answer.code()), (502, "hot_server"));
        }
    }
    let cold = gateway
        .ask(reads("cold", "seq_num=0", Encoding::Json))
        .await;
    assert_eq!((cold.status, &*cold.code()), (502, "hot_server"));
    assert_eq!(
        (gateway.stored("cold").await, gateway.stored("new").await),
        (1, 0)
    );
    gateway.vault.act(Transit::Serve);
    let client = gateway.stack.h2().await;
    for stream in ["cold", "new"] {
        let after = appends(stream, Encoding::Json, &one("after"));
        ask_until(&client, after, |answer| answer.status == 200).await;
    }
    assert_eq!(gateway.bodies("cold").await, ["before", "after"]);
    assert_eq!(gateway.bodies("new").await, ["after"]);
    assert_eq!(gateway.bodies("warm").await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_meet_it_in_the_middle_end_with_the_error() {
    let gateway = Gateway::with(RuleCipher::Aegis256, |config| {
        config.kms.cache_ttl = Duration::from_millis(300);
    })
    .await;
    gateway.put("s", SECRET).await;
    gateway.put("sink", SECRET).await;
    let client = gateway.stack.h2().await;
    let open = async |encoding| {
        let ask = reads("s", "seq_num=0", encoding);
        Live::new(client.open(ask).await)
    };
    let (mut frames, mut events) = (open(Encoding::Frames).await, open(Encoding::Events).await);
    let first = frames.frame().await.unwrap().unwrap().batch();
    assert_eq!(first.records.len(), 1);
    let first = events.event().await.unwrap().unwrap();
    assert!(first.contains(SECRET), "{first}");
    // Later than both, so that it notices last.
    let mut appending = Session::append(&client, Ask::post(records("sink")).basin(BASIN)).await;
    gateway.vault.act(Transit::Away);
    // Sessions may use a key no longer than the cache may.
    let mut acked = 1;
    let began = tokio::time::Instant::now();
    let failure = loop {
        assert!(began.elapsed() < DEADLINE, "it goes on");
        let input = Frame::encode(CompressionAlgorithm::None, &one("more"));
        appending.send(input).await;
        match appending.live.frame().await.unwrap().unwrap() {
            frame @ Frame::Message { .. } => acked = frame.ack().end.unwrap().seq_num,
            frame @ Frame::Terminal { .. } => break frame.failure(),
        }
    };
    assert_eq!(failure, (502, "hot_server".to_owned()));
    assert_eq!(gateway.stored("sink").await, acked);
    assert!(appending.live.frame().await.unwrap().is_none(), "more");
    // What comes to readers now is sealed under a key that they cannot have.
    let sealed = gateway.stack.stored("s").await;
    let raw = s2_api::v1::stream::proto::AppendRecord {
        timestamp: None,
        headers: Vec::new(),
        body: sealed[0].body.clone(),
    };
    gateway.stack.store("s", [raw]).await;
    let failure = loop {
        match frames.frame().await.unwrap().unwrap() {
            frame @ Frame::Message { .. } => assert!(frame.batch().records.is_empty()),
            frame @ Frame::Terminal { .. } => break frame.failure(),
        }
    };
    assert_eq!(failure, (502, "hot_server".to_owned()));
    let failure = loop {
        let event = events.event().await.unwrap().unwrap();
        if !event.starts_with("event: ping") {
            break event;
        }
    };
    assert!(failure.starts_with("event: error"), "{failure}");
    assert!(failure.contains("hot_server"), "{failure}");
    gateway.vault.act(Transit::Serve);
    let again = reads("s", "seq_num=0", Encoding::Json);
    ask_until(&client, again, |answer| answer.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_due_goes_on_until_the_next_can_be_had() {
    let mut gateway = Gateway::with(RuleCipher::Aes256Gcm, |config| {
        config.keys.rotate_after.records = 2;
    })
    .await;
    gateway.put("s", "0").await;
    gateway.put("s", "1").await;
    gateway.vault.act(Transit::Away);
    let before = gateway.vault.calls();
    for at in 2..30 {
        gateway.put("s", &at.to_string()).await;
    }
    // The attempts of one call.
    assert!(gateway.vault.calls() < before + 15, "with each request");
    assert_eq!(gateway.data_keys("s").await.unwrap().keys.len(), 1);
    gateway.vault.act(Transit::Serve);
    // Later; a new process does not remember when.
    gateway.restart().await;
    gateway.put("s", "30").await;
    assert_eq!(gateway.data_keys("s").await.unwrap().keys.len(), 2);
    let all: Vec<_> = (0..=30).map(|at| at.to_string()).collect();
    assert_eq!(gateway.bodies("s").await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_too_old_goes_on_as_well() {
    let gateway = Gateway::with(RuleCipher::Aegis256, |config| {
        config.keys.rotate_after.age = Duration::from_secs(3600);
    })
    .await;
    gateway.put("s", "0").await;
    gateway
        .tamper("s", |keys| keys.keys[0].created_at = 1)
        .await;
    gateway.vault.act(Transit::Away);
    for at in 1..10 {
        gateway.put("s", &at.to_string()).await;
    }
    assert_eq!(gateway.data_keys("s").await.unwrap().keys.len(), 1);
    assert_eq!(gateway.bodies("s").await.len(), 10);
    gateway.vault.act(Transit::Serve);
    // What is asked for is not put off.
    assert_eq!(gateway.rotate("s").await, Ok(2));
    gateway.put("s", "10").await;
    assert_eq!(gateway.data_keys("s").await.unwrap().keys.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cipher_bears_is_not_exceeded_even_then() {
    let mut gateway = Gateway::with(RuleCipher::Aes256Gcm, |_| {}).await;
    gateway.put("s", "0").await;
    gateway
        .tamper("s", |keys| keys.keys[0].sealed.records = MAX_GCM_RECORDS)
        .await;
    // What was reserved before counts for this process.
    gateway.restart().await;
    assert_eq!(gateway.bodies("s").await, ["0"]);
    gateway.vault.act(Transit::Away);
    let before = gateway.vault.calls();
    for encoding in Encoding::APPENDS {
        let answer = gateway.ask(appends("s", encoding, &one("x"))).await;
        // The session begins, for its key is at hand, and its first input is refused.
        let told = match (encoding, answer.status) {
            (Encoding::Frames, 200) => Frame::all(&answer.body)[0].failure(),
            (_, status) => (status, answer.code()),
        };
        assert_eq!(told, (502, "hot_server".to_owned()), "{encoding:?}");
    }
    assert!(gateway.vault.calls() < before + 15, "with each request");
    assert_eq!(gateway.stored("s").await, 1);
    assert_eq!(gateway.bodies("s").await, ["0"]);
    gateway.vault.act(Transit::Serve);
    let client = gateway.stack.h2().await;
    let again = appends("s", Encoding::Json, &one("1"));
    ask_until(&client, again, |answer| answer.status == 200).await;
    assert_eq!(gateway.data_keys("s").await.unwrap().keys.len(), 2);
    assert_eq!(gateway.bodies("s").await, ["0", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_appends_are_not_counted_under_the_key() {
    let mut gateway = Gateway::start().await;
    gateway.put("s", "0").await;
    gateway.restart().await;
    let before = gateway.data_keys("s").await.unwrap();
    gateway.vault.act(Transit::Away);
    for _ in 0..20 {
        let answer = gateway.ask(appends("s", Encoding::Json, &one("x"))).await;
        assert_eq!(answer.status, 502);
    }
    assert_eq!(gateway.data_keys("s").await.unwrap(), before);
    gateway.vault.act(Transit::Serve);
    until("it answers again", async || {
        gateway
            .ask(appends("s", Encoding::Json, &one("1")))
            .await
            .status
            == 200
    })
    .await;
}
