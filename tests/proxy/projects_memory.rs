//! No API key, and nothing of what is in it, is in the program's memory any more once the requests that brought
//! it or made it have ended and the connections are closed.

use aes_kw::{KeyInit as _, KwAes256};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    admin::local,
    harness::{Ask, Client, Found, Lite, Program, Secret, channel, connections, search, until},
    projects::keyed,
    projects_commands::{PEPPER, start},
};

/// How often memory is searched before what is found counts: what belonged to a connection may outlive its
/// socket for a moment.
const SEARCHES: usize = 5;

/// The master key in an API key of the project, as the documents say it is wrapped.
fn master_key(text: &str) -> [u8; 32] {
    let token = URL_SAFE_NO_PAD.decode(&text[6..]).unwrap();
    let mut kek = [0; 32];
    let info: [&[u8]; 4] = [
        b"streamseal/v1/token-wrap",
        &[0, 8],
        b"payments",
        &[0, 0, 0, 1],
    ];
    let prk = Hkdf::<Sha256>::new(Some(&PEPPER), &token[1..17]);
    prk.expand_multi_info(&info, &mut kek).unwrap();
    let mut master = [0; 32];
    let unwrapped = KwAes256::new(&kek.into()).unwrap_key(&token[17..], &mut master);
    unwrapped.unwrap();
    master
}

fn text(made: &Value) -> &str {
    made["api_key"].as_str().unwrap()
}

async fn ask(program: &Program, ask: Ask) -> Value {
    let answer = Client::plain_http1(program.admin()).await.ask(ask).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn has_no_connection(program: &Program) {
    until("all connections are closed", async || {
        program.connections() + connections(program.id(), program.admin().port()) == 0
    })
    .await;
}

/// Finds the master key while a call waits for the rest of its body. Otherwise it would prove nothing not to
/// find it later.
async fn is_present_meanwhile(program: &Program, key: &str, secrets: &[Secret]) {
    let client = Client::plain_http1(program.admin()).await;
    let (sender, body) = channel();
    sender.send(Ok("{".into())).await.unwrap();
    let asking = client.send(keyed("POST", "/api/apikeys", key), body);
    let present = until("the call was let in", async || {
        let found = search(program.id(), secrets).await;
        let has = |what: &str| found.iter().any(|found: &Found| found.what.contains(what));
        has("master key: first half") && has("text")
    });
    tokio::select! {
        // Standing still for long it may take the body for overdue.
        answer = asking => assert!(answer.is_err(), "an answer to half a call"),
        () = present => client.vanish(),
    }
    drop(sender);
}

#[tokio::test(flavor = "multi_thread")]
async fn api_keys_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let lite = Lite::start().await;
    let program = start(dir.path(), &lite, "warn");
    let create = local("POST", "/api/projects").json(&json!({ "name": "payments" }));
    let first = ask(&program, create).await;
    let rotate = keyed("POST", "/api/apikeys/rotate", text(&first)).raw("{}");
    let second = ask(&program, rotate).await;
    let issue = json!({ "scopes": ["read"] }).to_string();
    let issue = keyed("POST", "/api/apikeys", text(&second)).raw(issue);
    let third = ask(&program, issue).await;
    let mut secrets = vec![Secret::key("master key", &master_key(text(&first)))];
    for (what, made) in [("first", &first), ("second", &second), ("third", &third)] {
        assert_eq!(master_key(text(made)), master_key(text(&first)));
        secrets.push(Secret::api_key(what, text(made)));
        for protocol in ["http/1.1", "h2"] {
            let bearer = format!("Bearer {}", text(made));
            let ask = Ask::get("/v1/streams").header("authorization", bearer);
            let answer = program.client(protocol).await.ask(ask).await;
            assert_ne!(answer.status, 401, "{}", answer.text());
        }
    }
    let revoke = json!({ "id": third["id"] }).to_string();
    ask(
        &program,
        keyed("POST", "/api/apikeys/revoke", text(&second)).raw(revoke),
    )
    .await;
    is_present_meanwhile(&program, text(&second), &secrets).await;
    has_no_connection(&program).await;
    let mut found = Vec::new();
    for _ in 0..SEARCHES {
        found = search(program.id(), &secrets).await;
        if found.is_empty() {
            return;
        }
    }
    panic!("{found:#?}");
}
