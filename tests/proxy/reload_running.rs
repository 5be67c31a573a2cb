//! What runs when a configuration is replaced goes on as it began, and never turns into plaintext.

use std::{path::PathBuf, sync::Arc};

use rcgen::date_time_ymd;
use streamseal::{
    registry::rules::{KeySource, RuleCipher, StreamRule},
    store::UnknownStreams,
};
use tokio::sync::Notify;

use crate::harness::{
    Act, Ask, Authority, BASIN, Call, Client, Encoding, Fake, Frame, KEY, Lite, Live, Session,
    Stack, contains, frame, input, meet, presenting, read, record, records, until,
};

const SECRET: &str = "a body that nobody may see";

fn rule(cipher: RuleCipher) -> Vec<StreamRule> {
    vec![StreamRule {
        r#match: format!("{BASIN}/**"),
        cipher,
        key: KeySource::Header,
        key_file: Default::default(),
        header_overrides: false,
    }]
}

async fn append(session: &mut Session, body: &str) {
    session
        .send(frame(&input([record(&[], body.to_owned())])))
        .await;
    session.live.frame().await.unwrap().unwrap().ack();
}

async fn next_body(live: &mut Live) -> Vec<u8> {
    loop {
        let batch = live.frame().await.unwrap().unwrap().batch();
        if let Some(record) = batch.records.first() {
            return record.body.to_vec();
        }
    }
}

/// Two sessions, one each way, over HTTP/2.
async fn sessions(client: &Client) -> (Session, Live) {
    let mut session = Session::append(client, Ask::post(records("s")).key(&KEY)).await;
    append(&mut session, "before").await;
    let follow = read("s", "seq_num=0", Encoding::Frames);
    let mut live = Live::new(client.open(follow).await);
    assert_eq!(next_body(&mut live).await, b"before");
    (session, live)
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_live_through_a_new_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { dir.path().join(name) };
    let authority = Authority::new("servers");
    let (first, second) = (authority.issue("first"), authority.issue("second"));
    first.write(dir.path(), "server");
    let mut stack = Stack::with(|config| {
        config.listen.tls = Default::default();
        config.listen.tls.cert_file = at("server.pem").into();
        config.listen.tls.key_file = at("server.key").into();
    })
    .await;
    let pem = authority.pem();
    let trusting = presenting([pem.as_str()], None);
    let basins = || Ask::get("/v1/basins");
    let (met, _) = meet(stack.address, &trusting, basins()).await.unwrap();
    assert_eq!(met.certificate, first.der());
    let made = serde_json::json!({ "basin": BASIN, "config": {
        "stream_cipher": "aegis-256", "create_stream_on_append": true } });
    let client = met.client;
    assert_eq!(
        client.ask(Ask::post("/v1/basins").json(&made)).await.status,
        201
    );
    let (mut session, mut live) = sessions(&client).await;
    // Half of a pair is refused, and the pair before stays.
    std::fs::write(at("server.pem"), &second.pem).unwrap();
    let refused = stack.reload(|_| {}).unwrap_err();
    assert!(refused.contains("listen.tls.cert_file"), "{refused}");
    let fresh = presenting([pem.as_str()], None);
    let (met, _) = meet(stack.address, &fresh, basins()).await.unwrap();
    assert_eq!(met.certificate, first.der());
    second.write(dir.path(), "server");
    assert_eq!(stack.reload(|_| {}), Ok(Vec::new()));
    let (met, _) = meet(stack.address, &fresh, basins()).await.unwrap();
    assert_eq!(met.certificate, second.der());
    let listed = stack.reloads().certificates();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].role.name(), &*listed[0].subject),
        ("listener", "CN=second")
    );
    for body in ["after", "and on"] {
        append(&mut session, body).await;
        assert_eq!(next_body(&mut live).await, body.as_bytes());
    }
    // The connection takes new requests, too.
    assert_eq!(client.ask(basins()).await.status, 200);
    session.finish();
    assert_eq!(session.live.frame().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_out_of_its_time_replaces_no_good_one() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { dir.path().join(name) };
    let authority = Authority::new("servers");
    let good = authority.issue("good");
    let expired = authority.issue_with("expired", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let early = authority.issue_with("early", |params| {
        params.not_before = date_time_ymd(3000, 1, 1);
        params.not_after = date_time_ymd(3001, 1, 1);
    });
    good.write(dir.path(), "server");
    let mut stack = Stack::with(|config| {
        config.listen.tls = Default::default();
        config.listen.tls.cert_file = at("server.pem").into();
        config.listen.tls.key_file = at("server.key").into();
    })
    .await;
    let pem = authority.pem();
    for bad in [expired, early] {
        bad.write(dir.path(), "server");
        let refused = stack.reload(|_| {}).unwrap_err();
        assert!(refused.starts_with("listen.tls.cert_file: "), "{refused}");
        assert!(refused.contains("not valid yet"), "{refused}");
        let fresh = presenting([pem.as_str()], None);
        let (met, _) = meet(stack.address, &fresh, Ask::get("/v1/basins"))
            .await
            .unwrap();
        assert_eq!(met.certificate, good.der());
    }
    let next = authority.issue("next");
    next.write(dir.path(), "server");
    assert_eq!(stack.reload(|_| {}), Ok(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_the_proxy_made_is_kept() {
    let mut stack = Stack::start().await;
    assert_eq!(stack.reload(|config| config.basins.clear()), Ok(Vec::new()));
    // It trusts nothing but the certificate of the start.
    assert_eq!(
        stack.h2().await.ask(Ask::get("/v1/basins")).await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_session_stays_sealed_whatever_the_new_rules_say() {
    for then in [
        Vec::new(),
        rule(RuleCipher::None),
        rule(RuleCipher::Aes256Gcm),
    ] {
        let mut stack = Stack::with(|config| config.streams = rule(RuleCipher::Aegis256)).await;
        stack.create_basin(None).await;
        let client = stack.h2().await;
        let (mut session, mut live) = sessions(&client).await;
        stack.say_none();
        assert_eq!(stack.reload(|config| config.streams = then), Ok(Vec::new()));
        session.send(frame(&input([record(&[], SECRET)]))).await;
        session.live.frame().await.unwrap().unwrap().ack();
        assert_eq!(next_body(&mut live).await, SECRET.as_bytes());
        assert!(!stack.tap.saw(SECRET.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_session_ends_where_the_new_rules_want_its_stream_encrypted() {
    let none: Vec<StreamRule> = Vec::new();
    // Recorded as plain or known by nothing but its rule, and a stream that nothing is known of.
    for (before, stream, made) in [
        (none.clone(), "recorded", true),
        (none, "unknown", false),
        (rule(RuleCipher::None), "ruled", false),
    ] {
        let mut stack = Stack::with(|config| config.streams = before).await;
        stack.create_basin(None).await;
        let client = stack.h2().await;
        if made {
            let path = format!("/v1/streams/{stream}");
            assert_eq!(client.ask(Ask::new("PUT", path)).await.status, 201);
            // A basin's first cipher has the streams that it finds recorded as plain.
            let cipher = serde_json::json!({ "stream_cipher": "aegis-256" });
            let patch = Ask::new("PATCH", format!("/v1/basins/{BASIN}")).json(&cipher);
            assert_eq!(client.ask(patch).await.status, 200);
        }
        let mut session = Session::append(&client, Ask::post(records(stream))).await;
        append(&mut session, "in the clear").await;
        let kept = stack.reload(|config| config.listen.tls.self_signed = true);
        assert_eq!(kept, Ok(Vec::new()));
        append(&mut session, "still in the clear").await;
        let sealing = rule(RuleCipher::Aegis256);
        assert_eq!(
            stack.reload(|config| config.streams = sealing),
            Ok(Vec::new())
        );
        session.send(frame(&input([record(&[], SECRET)]))).await;
        let ended = session.live.frame().await;
        let acked = matches!(ended, Ok(Some(Frame::Message { .. })));
        assert!(!acked, "{stream}");
        assert!(!stack.tap.saw(SECRET.as_bytes()), "{stream}");
        assert!(stack.tap.saw(b"still in the clear"), "{stream}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_do_not_disturb_those_who_append_and_read() {
    let mut stack = Stack::with(|config| config.streams = rule(RuleCipher::Aegis256)).await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    let (mut session, mut live) = sessions(&client).await;
    let others: Vec<_> = (0..4)
        .map(|at| (format!("other{at}"), stack.h2()))
        .collect();
    let mut running = tokio::task::JoinSet::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for (stream, client) in others {
        let (client, stopped) = (client.await, stopped.clone());
        running.spawn(async move {
            let mut count = 0;
            while !*stopped.borrow() {
                let body = serde_json::json!({ "records": [{ "body": SECRET }] });
                let ask = Ask::post(records(&stream)).json(&body).key(&KEY);
                let answer = client.ask(ask).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                count += 1;
            }
            count
        });
    }
    for at in 0..50 {
        let more = rule(RuleCipher::Aegis256).into_iter().chain([StreamRule {
            r#match: format!("elsewhere/{at}"),
            ..rule(RuleCipher::None).remove(0)
        }]);
        let more: Vec<_> = more.collect();
        assert_eq!(stack.reload(|config| config.streams = more), Ok(Vec::new()));
        append(&mut session, &format!("{at}")).await;
        assert_eq!(next_body(&mut live).await, format!("{at}").as_bytes());
    }
    stop.send(true).unwrap();
    let counts = running.join_all().await;
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    assert_eq!(stack.reloads().applied(), 50);
    assert!(!stack.tap.saw(SECRET.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_comes_while_a_stream_is_looked_at_holds() {
    let lite = Arc::new(Lite::start().await);
    let fake = Fake::start(lite.address).await;
    let mut stack = Stack::over(Arc::clone(&lite), |config| {
        fake.aim(config);
        config.store.unknown_streams = UnknownStreams::Plain;
    })
    .await;
    stack.create_basin(Some("aes-256-gcm")).await;
    // Made around the proxy: forwarded in the clear, if the operator says so.
    let direct = stack.direct().await;
    let made = serde_json::json!({ "stream": "s" });
    direct.ask(Ask::post("/v1/streams").json(&made)).await;
    let release = Arc::new(Notify::new());
    let held = Arc::clone(&release);
    fake.script(move |call| match call.is("GET", "/v1/streams?prefix=s&") {
        true => Act::Hold(Arc::clone(&held)),
        false => Act::Pass,
    });
    let client = stack.h2().await;
    // Without a key the upstream is asked whether there is such a stream.
    let body = serde_json::json!({ "records": [{ "body": SECRET }] });
    let ask = Ask::post(records("s")).json(&body);
    let asked = tokio::spawn(async move { client.ask(ask).await });
    let is_looked_at = async || {
        fake.calls()
            .iter()
            .any(|call| call.is("GET", "/v1/streams?"))
    };
    until("the stream is looked at", is_looked_at).await;
    let rules = rule(RuleCipher::Aegis256);
    assert_eq!(
        stack.reload(|config| config.streams = rules),
        Ok(Vec::new())
    );
    fake.heal();
    release.notify_one();
    // It began under the old rules, which let it pass in clear: the new one wants a key.
    let answer = asked.await.unwrap();
    assert_eq!((answer.status, &*answer.code()), (422, "invalid"));
    let keyed = Ask::post(records("s")).json(&body).key(&KEY);
    let keyed = stack.h2().await.ask(keyed).await;
    assert_eq!(keyed.status, 200, "{}", keyed.text());
    let stored = direct.ask(Ask::get(records("s") + "?seq_num=0")).await;
    assert_ne!(stored.json()["records"][0]["body"], SECRET);
    let calls = fake.calls();
    let is_secret = |call: &Call| contains(&call.body, SECRET.as_bytes());
    assert!(!calls.iter().any(is_secret));
}
