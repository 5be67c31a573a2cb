//! When an API key is over, so is what came in with it: within five seconds, with every ack that is due, and
//! nobody else is.

use std::time::{Duration, Instant};

use serde_json::json;
use streamseal::{
    project::{Scope, Scopes},
    store::ApiKeyState,
};

use crate::harness::{
    Ask, BASIN, Client, Encoding, Frame, KEY, Live, Session, Stack, Token, base64, channel, frame,
    input, pepper, project, read, record, records, until,
};

/// What sessions may still take after their API key is over.
pub const SOON: Duration = Duration::from_secs(5);

/// A proxy with one project, a sealed stream `sealed` and a plain stream `plain` of one record each.
pub async fn stack() -> (Stack, Token) {
    let stack = Stack::with(|config| {
        project(config, "tests", &["test-*/**"]);
        config.streams = serde_json::from_value(json!([
            { "match": "*/plain", "cipher": "none" },
        ]))
        .unwrap();
    })
    .await;
    let token = stack.create_project("tests").await;
    let client = stack.h2().await;
    let config = json!({ "stream_cipher": "aegis-256", "create_stream_on_append": true });
    let make = Ask::post("/v1/basins").json(&json!({ "basin": BASIN, "config": config }));
    assert_eq!(client.ask(token.on(make)).await.status, 201);
    for stream in STREAMS {
        let batch = json!({ "records": [{ "body": "first" }] });
        let ask = keyed(stream, Ask::post(records(stream)).json(&batch));
        assert_eq!(client.ask(token.on(ask)).await.status, 200);
    }
    (stack, token)
}

/// The streams of [`stack`].
pub const STREAMS: [&str; 2] = ["sealed", "plain"];

/// The request with the key of the stream; the plain one has none.
pub fn keyed(stream: &str, ask: Ask) -> Ask {
    let ask = ask.without("s2-encryption-key");
    match stream {
        "plain" => ask,
        _ => ask.key(&KEY),
    }
}

/// What makes a request one of its client's.
pub trait Signs {
    /// The request with the client's credential.
    fn on(&self, ask: Ask) -> Ask;
}

impl Signs for Token {
    fn on(&self, ask: Ask) -> Ask {
        Token::on(self, ask)
    }
}

/// The connection says who the client is.
pub struct Bare;

impl Signs for Bare {
    fn on(&self, ask: Ask) -> Ask {
        ask.basin(BASIN)
    }
}

pub async fn reading(
    client: &Client,
    token: &impl Signs,
    stream: &str,
    encoding: Encoding,
) -> Live {
    let ask = keyed(stream, read(stream, "seq_num=0", encoding));
    let mut live = Live::new(client.open(token.on(ask)).await);
    match encoding {
        Encoding::Frames => {
            let first = live.frame().await.unwrap().unwrap();
            assert_eq!(first.batch().records.len(), 1);
        }
        _ => {
            let first = live.event().await.unwrap().unwrap();
            assert!(first.starts_with("event: batch\n"), "{first}");
        }
    }
    live
}

pub async fn appending(client: &Client, token: &impl Signs, stream: &str) -> Session {
    let ask = token.on(keyed(stream, Ask::post(records(stream))));
    Session::append(client, ask).await
}

/// Appends a record; where it went.
pub async fn append_one(session: &mut Session) -> u64 {
    session.send(frame(&input([record(&[], "more")]))).await;
    let frame = session.live.frame().await.unwrap().unwrap();
    frame.ack().start.unwrap().seq_num
}

/// How a read session ended: with this error, or in the middle of nothing.
async fn end_of(live: &mut Live, encoding: Encoding) -> Option<(u16, String)> {
    loop {
        match encoding {
            Encoding::Frames => match live.frame().await {
                Ok(Some(frame @ Frame::Terminal { .. })) => {
                    let failure = frame.failure();
                    assert_eq!(live.frame().await.unwrap(), None);
                    return Some(failure);
                }
                Ok(Some(Frame::Message { .. })) => {}
                Ok(None) => panic!("a clean end"),
                Err(_) => return None,
            },
            _ => match live.event().await {
                Ok(Some(event)) if event.starts_with("event: error\n") => {
                    let data = event.split("data: ").nth(1).unwrap();
                    let error: serde_json::Value = serde_json::from_str(data).unwrap();
                    assert_eq!(live.event().await.unwrap(), None);
                    return Some((401, error["code"].as_str().unwrap().to_owned()));
                }
                Ok(Some(_)) => {}
                Ok(None) => panic!("a clean end"),
                Err(_) => return None,
            },
        }
    }
}

/// Where a stream ends, as the upstream has it.
pub async fn tail(stack: &Stack, stream: &str) -> u64 {
    let ask = Ask::get(records(stream) + "/tail");
    let tail = stack.direct().await.ask(ask).await;
    tail.json()["tail"]["seq_num"].as_u64().unwrap()
}

/// Every kind of session with this API key, and what ends when it does.
pub struct Open {
    reads: Vec<(&'static str, Encoding, Live)>,
    appends: Vec<(&'static str, Session)>,
    _clients: Vec<Client>,
}

impl Open {
    async fn with(stack: &Stack, token: &Token) -> Self {
        let clients = vec![stack.h1().await, stack.h1().await, stack.h2().await];
        Self::over(clients, token).await
    }

    /// Every kind of session over three connections of one client.
    pub async fn over(clients: Vec<Client>, token: &impl Signs) -> Self {
        let mut reads = Vec::new();
        let mut appends = Vec::new();
        for stream in STREAMS {
            for encoding in [Encoding::Events, Encoding::Frames] {
                reads.push((
                    stream,
                    encoding,
                    reading(&clients[2], token, stream, encoding).await,
                ));
            }
            appends.push((stream, appending(&clients[2], token, stream).await));
        }
        let over_http1 = reading(&clients[0], token, "sealed", Encoding::Events).await;
        reads.push(("sealed", Encoding::Events, over_http1));
        let over_http1 = reading(&clients[1], token, "plain", Encoding::Frames).await;
        reads.push(("plain", Encoding::Frames, over_http1));
        Self {
            reads,
            appends,
            _clients: clients,
        }
    }

    /// Waits for the end of all. Sealed ones end with this error, plain ones break off.
    pub async fn end(self, status: u16, code: &str) {
        let ended = tokio::time::timeout(SOON, self.each_end(status, code)).await;
        ended.expect("they do not end");
    }

    async fn each_end(self, status: u16, code: &str) {
        let error = (status, code.to_owned());
        for (stream, encoding, mut live) in self.reads {
            let end = end_of(&mut live, encoding).await;
            match (stream, encoding) {
                ("sealed", Encoding::Frames) => assert_eq!(end, Some(error.clone())),
                ("sealed", _) => assert_eq!(end.unwrap().1, code),
                _ => assert_eq!(end, None, "{stream} {encoding:?}"),
            }
        }
        for (stream, mut session) in self.appends {
            match session.live.frame().await {
                Ok(frame) => {
                    assert_eq!(stream, "sealed");
                    assert_eq!(frame.unwrap().failure(), error);
                    assert_eq!(session.live.frame().await.unwrap(), None);
                }
                Err(_) => assert_eq!(stream, "plain"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_ends_every_open_session_and_no_other() {
    let (stack, token) = stack().await;
    let other = stack.issue(&token, "other", Scopes::all()).await;
    let open = Open::with(&stack, &token).await;
    let client = stack.h2().await;
    let mut kept = appending(&client, &other, "sealed").await;
    let mut kept_plain = appending(&client, &other, "plain").await;
    let mut reader = reading(&client, &other, "sealed", Encoding::Frames).await;
    let mut reader_plain = reading(&client, &other, "plain", Encoding::Events).await;
    stack.revoke(&token).await;
    // At once for what is new.
    assert_eq!(
        client.ask(token.on(Ask::get("/v1/streams"))).await.status,
        401
    );
    open.end(401, "authn").await;
    stack.lite.quiet().await;
    // Whoever has another API key notices nothing.
    for session in [&mut kept, &mut kept_plain] {
        assert_eq!(append_one(session).await, 1);
    }
    loop {
        let frame = reader.frame().await.unwrap().unwrap();
        if !frame.batch().records.is_empty() {
            break;
        }
    }
    loop {
        let event = reader_plain.event().await.unwrap().unwrap();
        if event.starts_with("event: batch\n") {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_and_the_end_of_the_grace_time_end_sessions_too() {
    let (stack, token) = stack().await;
    let soon = || streamseal::clock::now_ms() + 1000;
    let expiring = stack.issue(&token, "expiring", Scopes::all()).await;
    let open = Open::with(&stack, &expiring).await;
    stack
        .change_key(&expiring, |row| row.expires_at = Some(soon()))
        .await;
    open.end(401, "authn").await;
    let retiring = stack.issue(&token, "retiring", Scopes::all()).await;
    let open = Open::with(&stack, &retiring).await;
    let retire = |row: &mut streamseal::store::ApiKeyEntry| {
        let (until, successor) = (soon(), "next".to_owned());
        row.state = ApiKeyState::Retiring { until, successor };
    };
    stack.change_key(&retiring, retire).await;
    open.end(401, "authn").await;
    let narrowed = stack.issue(&token, "narrowed", Scopes::all()).await;
    let open = Open::with(&stack, &narrowed).await;
    let manage: Scopes = [Scope::Manage].into_iter().collect();
    stack
        .change_key(&narrowed, |row| row.scopes = manage.clone())
        .await;
    open.end(403, "permission_denied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_ends_what_is_not_the_projects_any_more() {
    let (mut stack, token) = stack().await;
    let open = Open::with(&stack, &token).await;
    stack
        .reload(|config| config.projects[0].r#match = vec!["other-*/**".to_owned()])
        .unwrap();
    open.end(403, "permission_denied").await;
    stack
        .reload(|config| config.projects[0].r#match = vec!["test-*/**".to_owned()])
        .unwrap();
    let open = Open::with(&stack, &token).await;
    // Another project that comes before it.
    stack
        .reload(|config| {
            let own = config.projects.pop().unwrap();
            project(config, "before", &["test-*/{sealed,plain}"]);
            config.projects.push(own);
        })
        .unwrap();
    open.end(403, "permission_denied").await;
    stack
        .reload(|config| drop(config.projects.remove(0)))
        .unwrap();
    let open = Open::with(&stack, &token).await;
    let other = stack.config.store.path.with_file_name("other");
    std::fs::write(&other, base64(&pepper("other"))).unwrap();
    stack
        .reload(|config| config.projects[0].pepper_file = other.into())
        .unwrap();
    open.end(401, "authn").await;
    let own = stack.config.store.path.with_file_name("tests.pepper");
    stack
        .reload(|config| config.projects[0].pepper_file = own.into())
        .unwrap();
    let open = Open::with(&stack, &token).await;
    stack
        .reload(|config| config.projects[0].name = "renamed".parse().unwrap())
        .unwrap();
    open.end(401, "authn").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_ack_that_is_due_comes_before_the_end() {
    let (stack, token) = stack().await;
    let client = stack.h2().await;
    let mut session = appending(&client, &token, "sealed").await;
    assert_eq!(append_one(&mut session).await, 1);
    // Sent, and not acked while nothing comes back.
    stack.tap.hold_after(crate::harness::Way::Down, 1);
    for _ in 0..10 {
        session.send(frame(&input([record(&[], "more")]))).await;
    }
    until("all are stored", async || {
        tail(&stack, "sealed").await == 12
    })
    .await;
    stack.revoke(&token).await;
    let refused = async || {
        let ask = token.on(Ask::get("/v1/streams/sealed"));
        stack.h2().await.ask(ask).await.status == 401
    };
    until("it is over", refused).await;
    stack.tap.release();
    let mut acked = 2;
    loop {
        match session.live.frame().await.unwrap().unwrap() {
            frame @ Frame::Message { .. } => {
                assert_eq!(frame.ack().start.unwrap().seq_num, acked);
                acked += 1;
            }
            frame => {
                assert_eq!(frame.failure(), (401, "authn".to_owned()));
                break;
            }
        }
    }
    assert_eq!(session.live.frame().await.unwrap(), None);
    assert_eq!(acked, tail(&stack, "sealed").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_without_every_ack_promises_nothing() {
    let (stack, token) = stack().await;
    let client = stack.h2().await;
    let mut session = appending(&client, &token, "sealed").await;
    assert_eq!(append_one(&mut session).await, 1);
    stack.tap.hold_after(crate::harness::Way::Down, 1);
    session.send(frame(&input([record(&[], "more")]))).await;
    until("it is stored", async || tail(&stack, "sealed").await == 3).await;
    let began = Instant::now();
    stack.revoke(&token).await;
    // The upstream's ack is held back: the client is told neither that it was stored nor that it was not.
    session.live.frame().await.unwrap_err();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_append_that_is_still_on_its_way_is_not_stored() {
    let (stack, token) = stack().await;
    let client = stack.h2().await;
    let (sender, body) = channel();
    let ask = token.on(Ask::post(records("plain")).header("content-type", "application/json"));
    let sending = client.send(ask, body);
    let body = json!({ "records": [{ "body": "late" }] }).to_string();
    let half = body.len() / 2;
    sender
        .send(Ok(body[..half].to_owned().into()))
        .await
        .unwrap();
    let revoke = async {
        until("it is on its way", async || stack.tap.saw(b"{\"records")).await;
        stack.revoke(&token).await;
        sender.closed().await;
    };
    let answered = tokio::time::timeout(SOON, async { tokio::join!(sending, revoke) }).await;
    let (answer, ()) = answered.expect("it goes on");
    assert!(answer.is_err() || !answer.unwrap().status().is_success());
    assert_eq!(tail(&stack, "plain").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_always_has_more_to_read_is_cut_off_as_well() {
    let (stack, token) = stack().await;
    let other = stack.issue(&token, "other", Scopes::all()).await;
    let client = stack.h2().await;
    let ask = read("sealed", "seq_num=0", Encoding::Frames);
    let mut live = Live::new(stack.h2().await.open(other.on(ask)).await);
    let mut writer = appending(&client, &token, "sealed").await;
    let writing = tokio::spawn(async move {
        loop {
            append_one(&mut writer).await;
        }
    });
    live.frame().await.unwrap().unwrap();
    stack.revoke(&other).await;
    let end = tokio::time::timeout(SOON, end_of(&mut live, Encoding::Frames)).await;
    assert_eq!(end.unwrap(), Some((401, "authn".to_owned())));
    assert!(!writing.is_finished());
    writing.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_slow_reader_is_not_delivered_after_the_end() {
    const BATCHES: usize = 24;
    let (stack, token) = stack().await;
    let client = stack.h2().await;
    let batch = input((0..100).map(|_| record(&[], vec![b'x'; 9000])));
    let mut writer = appending(&client, &token, "sealed").await;
    for _ in 0..BATCHES {
        writer.send(frame(&batch)).await;
        writer.live.frame().await.unwrap().unwrap().ack();
    }
    let other = stack.issue(&token, "other", Scopes::all()).await;
    let slow = Client::in_window(stack.address, &stack.certificate, "h2", 65_535).await;
    let ask = other.on(read("sealed", "seq_num=0", Encoding::Frames));
    let mut live = Live::new(slow.open(ask).await);
    live.frame().await.unwrap().unwrap();
    stack.revoke(&other).await;
    let revoked = Instant::now();
    until("every session has looked", async || {
        revoked.elapsed() > Duration::from_secs(2)
    })
    .await;
    let mut records = 0;
    let end = loop {
        match live.frame().await.unwrap().unwrap() {
            end @ Frame::Terminal { .. } => break end,
            batch => records += batch.batch().records.len(),
        }
    };
    assert_eq!(end.failure(), (401, "authn".to_owned()));
    assert!(
        records < BATCHES * 100 / 2,
        "{records} records after the end"
    );
}
