//! API keys live as their project's managers say, and no longer: made, rotated, expired and revoked through the
//! admin listener, and good on the data listener accordingly.

use serde_json::{Value, json};
use streamseal::{
    server::Authenticate,
    store::{ApiKeyState, Change, Embedded, Store as _},
};

use crate::{
    admin::{local, with},
    harness::{Answer, Ask, BASIN, Stack, ask_until, base64, project, records},
};

/// A proxy with two projects, none of which is created.
pub async fn stack() -> Stack {
    with(|config| {
        project(config, "payments", &["test-*/**"]);
        project(config, "other", &["other-*/**"]);
    })
    .await
}

/// A call that this API key authorises.
pub fn keyed(method: &str, path: &str, api_key: &str) -> Ask {
    local(method, path)
        .header("authorization", format!("Bearer {api_key}"))
        .header("content-type", "application/json")
}

/// The same that must succeed; what it says.
pub async fn call(stack: &Stack, method: &str, path: &str, api_key: &str, body: Value) -> Value {
    let answer = try_call(stack, method, path, api_key, &body).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

async fn try_call(stack: &Stack, method: &str, path: &str, api_key: &str, body: &Value) -> Answer {
    let ask = keyed(method, path, api_key).raw(body.to_string());
    stack.admin().await.ask(ask).await
}

/// Creates a project through the admin listener: what it says of the first API key.
async fn create(stack: &Stack, name: &str) -> Value {
    let ask = local("POST", "/api/projects").json(&json!({ "name": name }));
    let answer = stack.admin().await.ask(ask).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.json()
}

async fn list(stack: &Stack, api_key: &str) -> Vec<Value> {
    let listed = call(stack, "GET", "/api/apikeys", api_key, Value::Null).await;
    listed["rows"].as_array().unwrap().clone()
}

/// What is listed of one API key.
async fn row(stack: &Stack, api_key: &str, id: &Value) -> Value {
    let rows = list(stack, api_key).await;
    let mut rows = rows.into_iter();
    rows.find(|row| row["id"] == *id).unwrap()
}

fn text(made: &Value) -> String {
    made["api_key"].as_str().unwrap().to_owned()
}

fn data(api_key: &str) -> Ask {
    Ask::get("/v1/streams").header("authorization", format!("Bearer {api_key}"))
}

/// Whether the data listener lets an API key in.
async fn is_good(stack: &Stack, api_key: &str) -> bool {
    let answer = stack.h2().await.ask(data(api_key)).await;
    let is_refused = answer.status == 401;
    assert_eq!(is_refused, answer.code() == "authn", "{}", answer.text());
    !is_refused
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_is_created_once_and_its_first_key_works() {
    let stack = stack().await;
    let made = create(&stack, "payments").await;
    assert_eq!(
        (&made["project"], &made["mk_epoch"]),
        (&json!("payments"), &json!(1))
    );
    let key = text(&made);
    let basin = json!({ "basin": BASIN, "config": { "create_stream_on_append": true } });
    let bearer = format!("Bearer {key}");
    let ask = Ask::post("/v1/basins")
        .header("authorization", &bearer)
        .json(&basin);
    let client = stack.h2().await;
    let created = client.ask(ask).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let batch = json!({ "records": [{ "body": "a record" }] });
    let ask = Ask::post(records("s")).json(&batch);
    let appended = client.ask(ask.header("authorization", &bearer)).await;
    assert_eq!(appended.status, 200, "{}", appended.text());
    let twice = local("POST", "/api/projects").json(&json!({ "name": "payments" }));
    let twice = stack.admin().await.ask(twice).await;
    assert_eq!((twice.status, &*twice.code()), (409, "project_exists"));
    assert!(is_good(&stack, &key).await);
    let again = json!({ "name": "payments", "again": true });
    let again = stack
        .admin()
        .await
        .ask(local("POST", "/api/projects").json(&again))
        .await;
    assert_eq!(again.status, 200, "{}", again.text());
    assert!(!is_good(&stack, &key).await && is_good(&stack, &text(&again.json())).await);
    for (body, status, code) in [
        (json!({ "name": "nowhere" }), 404, "project_unknown"),
        (json!({ "name": "a b" }), 400, "invalid"),
        (json!({ "name": "other", "agian": true }), 400, "invalid"),
    ] {
        let ask = local("POST", "/api/projects").json(&body);
        let refused = stack.admin().await.ask(ask).await;
        assert_eq!((refused.status, &*refused.code()), (status, code), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_are_listed_without_anything_secret() {
    let stack = stack().await;
    let made = create(&stack, "payments").await;
    let answer = stack.admin().await.ask(local("GET", "/api/projects")).await;
    assert_eq!(
        answer.json()["rows"],
        json!([
            { "project": "payments", "configured": true, "match": ["test-*/**"], "created": true, "mk_epoch": 1,
              "changing": false, "api_keys": 1 },
            { "project": "other", "configured": true, "match": ["other-*/**"], "created": false,
              "mk_epoch": null, "changing": false, "api_keys": 0 },
        ])
    );
    let rows = list(&stack, &text(&made)).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["id"], made["id"]);
    assert_eq!(rows[0]["scopes"], json!(["append", "read", "manage"]));
    assert_eq!(
        (&rows[0]["state"], &rows[0]["own"]),
        (&json!("active"), &json!(true))
    );
    for name in ["lookup", "verify", "mk_commit"] {
        assert!(rows[0].get(name).is_none() && !answer.text().contains(name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_with_scopes_and_expire() {
    let stack = stack().await;
    let first = text(&create(&stack, "payments").await);
    let wanted = json!({ "scopes": ["read"], "label": "dashboards", "expires_in": "30d" });
    let made = call(&stack, "POST", "/api/apikeys", &first, wanted).await;
    assert!(is_good(&stack, &text(&made)).await);
    let listed = row(&stack, &first, &made["id"]).await;
    assert_eq!(listed["scopes"], json!(["read"]));
    assert_eq!(listed["label"], "dashboards");
    assert_eq!(listed["expires_at"], made["expires_at"]);
    let refused = try_call(&stack, "GET", "/api/apikeys", &text(&made), &Value::Null).await;
    assert_eq!(
        (refused.status, &*refused.code()),
        (403, "permission_denied")
    );
    let wanted = json!({ "scopes": ["read"], "expires_in": "1s" });
    let short = call(&stack, "POST", "/api/apikeys", &first, wanted).await;
    let over = |answer: &Answer| answer.status == 401;
    ask_until(&stack.h2().await, data(&text(&short)), over).await;
    assert_eq!(row(&stack, &first, &short["id"]).await["state"], "expired");
    for wrong in [
        json!({ "scopes": [] }),
        json!({ "scopes": ["write"] }),
        json!({ "scopes": ["read"], "expires_in": "soon" }),
        json!({ "scopes": ["read"], "expires_in": "0s" }),
        json!({ "scopes": ["read"], "label": "a\nb" }),
        json!({ "scopes": ["read"], "id": "key-1" }),
        json!({}),
    ] {
        let refused = try_call(&stack, "POST", "/api/apikeys", &first, &wrong).await;
        assert_eq!(
            (refused.status, &*refused.code()),
            (400, "invalid"),
            "{wrong}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_works_beside_its_successor_until_the_grace_time_ends() {
    let mut stack = stack().await;
    let made = create(&stack, "payments").await;
    let first = text(&made);
    let rotated = call(&stack, "POST", "/api/apikeys/rotate", &first, json!({})).await;
    let second = text(&rotated);
    assert_eq!(rotated["replaces"]["id"], made["id"]);
    assert!(is_good(&stack, &first).await && is_good(&stack, &second).await);
    let listed = row(&stack, &second, &made["id"]).await;
    assert_eq!(
        (&listed["state"], &listed["successor"]),
        (&json!("retiring"), &rotated["id"])
    );
    assert_eq!(listed["until"], rotated["replaces"]["until"]);
    let again = try_call(&stack, "POST", "/api/apikeys/rotate", &first, &json!({})).await;
    assert_eq!((again.status, &*again.code()), (409, "api_key_retiring"));
    // The day passes: it is recorded as seen, and so the system's clock is one that is set back.
    stack.stop().await;
    time_was_seen(&stack, 24 * 60 * 60 * 1000).await;
    stack.go().await.unwrap();
    // Marked before the first request, so that no clock brings it back.
    let entry = stack.project_entry("payments").await;
    let old = entry.api_key(made["id"].as_str().unwrap()).unwrap();
    assert!(matches!(old.state, ApiKeyState::Revoked { .. }), "{old:?}");
    assert!(!is_good(&stack, &first).await && is_good(&stack, &second).await);
    assert_eq!(row(&stack, &second, &made["id"]).await["state"], "revoked");
}

/// Records in the stopped proxy's store that so much later was seen.
async fn time_was_seen(stack: &Stack, later: u64) {
    let store = Embedded::open(&stack.config.store).unwrap();
    let name = "payments".parse().unwrap();
    let found = store.project(&name).await.unwrap();
    let mut entry = found.entry.unwrap().as_ref().clone();
    entry.seen_at = streamseal::clock::now_ms() + later;
    let change = Change::Project {
        name,
        expected: found.revision,
        entry: Some(entry),
    };
    store.commit(vec![change]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_rotations_at_once_exactly_one_is_done() {
    let stack = stack().await;
    let mut key = text(&create(&stack, "payments").await);
    for _ in 0..5 {
        let nothing = json!({});
        let rotate = || try_call(&stack, "POST", "/api/apikeys/rotate", &key, &nothing);
        let (one, other) = tokio::join!(rotate(), rotate());
        let (won, lost) = match one.status {
            200 => (one, other),
            _ => (other, one),
        };
        assert_eq!((won.status, lost.status), (200, 409), "{}", lost.text());
        assert!(is_good(&stack, &key).await);
        key = text(&won.json());
        assert!(is_good(&stack, &key).await);
    }
    let rows = list(&stack, &key).await;
    let active = rows.iter().filter(|row| row["state"] == "active").count();
    assert_eq!((rows.len(), active), (6, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_at_once_and_for_ever() {
    let mut stack = stack().await;
    let made = create(&stack, "payments").await;
    let first = text(&made);
    let all = json!({ "scopes": ["append", "read", "manage"] });
    let other = call(&stack, "POST", "/api/apikeys", &first, all).await;
    let client = stack.h2().await;
    assert_ne!(client.ask(data(&text(&other))).await.status, 401);
    let revoke = json!({ "id": other["id"] });
    let said = call(
        &stack,
        "POST",
        "/api/apikeys/revoke",
        &first,
        revoke.clone(),
    )
    .await;
    assert_eq!(said["was_good"], true);
    assert_eq!(client.ask(data(&text(&other))).await.status, 401);
    let own = try_call(
        &stack,
        "POST",
        "/api/apikeys/revoke",
        &text(&other),
        &revoke,
    )
    .await;
    assert_eq!((own.status, &*own.code()), (401, "authn"));
    let said = call(&stack, "POST", "/api/apikeys/revoke", &first, revoke).await;
    assert_eq!(said["was_good"], false);
    let last = json!({ "id": made["id"] });
    let refused = try_call(&stack, "POST", "/api/apikeys/revoke", &first, &last).await;
    assert_eq!((refused.status, &*refused.code()), (409, "last_api_key"));
    assert!(refused.text().contains("no recovery"), "{}", refused.text());
    stack.restart(|_| {}).await;
    assert!(is_good(&stack, &first).await && !is_good(&stack, &text(&other)).await);
    let forced = json!({ "id": made["id"], "force": true });
    call(&stack, "POST", "/api/apikeys/revoke", &first, forced).await;
    assert!(!is_good(&stack, &first).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_acts_for_its_own_project_alone() {
    let stack = stack().await;
    let ours = create(&stack, "payments").await;
    let theirs = create(&stack, "other").await;
    for (path, body) in [
        ("/api/apikeys/rotate", json!({ "id": theirs["id"] })),
        (
            "/api/apikeys/revoke",
            json!({ "id": theirs["id"], "force": true }),
        ),
    ] {
        let refused = try_call(&stack, "POST", path, &text(&ours), &body).await;
        assert_eq!(
            (refused.status, &*refused.code()),
            (404, "api_key_unknown"),
            "{path}"
        );
    }
    assert_eq!(list(&stack, &text(&ours)).await.len(), 1);
    assert!(is_good(&stack, &text(&theirs)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_pepper_makes_every_key_unknown() {
    let mut stack = stack().await;
    let key = text(&create(&stack, "payments").await);
    let pepper_file = stack.config.projects[0]
        .pepper_file
        .path()
        .unwrap()
        .to_owned();
    let before = std::fs::read(&pepper_file).unwrap();
    for (pepper, good) in [(base64(&[7; 32]).into_bytes(), false), (before, true)] {
        std::fs::write(&pepper_file, pepper).unwrap();
        stack.restart(|_| {}).await;
        assert_eq!(is_good(&stack, &key).await, good);
        let listed = try_call(&stack, "GET", "/api/apikeys", &key, &Value::Null).await;
        assert_eq!(
            listed.status,
            if good { 200 } else { 401 },
            "{}",
            listed.text()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_api_keys_the_calls_say_so() {
    let stack = with(|config| config.listen.authenticate = Authenticate::None).await;
    for (method, path) in [
        ("GET", "/api/projects"),
        ("GET", "/api/apikeys"),
        ("POST", "/api/apikeys/rotate"),
    ] {
        let refused = try_call(&stack, method, path, "sk-ss-x", &json!({})).await;
        assert_eq!(
            (refused.status, &*refused.code()),
            (409, "api_keys_off"),
            "{path}"
        );
        assert!(refused.text().contains("listen.authenticate"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_at_them() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "0123456789abcdef").unwrap();
    let stack = with(|config| {
        project(config, "payments", &["test-*/**"]);
        config.admin.token_file = token.into();
    })
    .await;
    let client = stack.admin().await;
    let operator = ("authorization", "Bearer 0123456789abcdef");
    let create = local("POST", "/api/projects").json(&json!({ "name": "payments" }));
    let denied = client.ask(create.clone()).await;
    assert_eq!(denied.status, 401, "{}", denied.text());
    let elsewhere = create.clone().header("x-forwarded-for", "10.0.0.1");
    let denied = client.ask(elsewhere.header(operator.0, operator.1)).await;
    assert_eq!(denied.status, 403, "{}", denied.text());
    let made = client.ask(create.header(operator.0, operator.1)).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let key = text(&made.json());
    // Neither the operator's token nor nothing is an API key, and an API key is not the operator's token.
    for ask in [
        local("GET", "/api/apikeys").header(operator.0, operator.1),
        local("GET", "/api/apikeys"),
        keyed("GET", "/api/apikeys", &key.to_uppercase()),
        keyed("GET", "/api/apikeys", &key).header(operator.0, operator.1),
        keyed("GET", "/api/projects", &key),
    ] {
        let denied = client.ask(ask).await;
        assert_eq!(denied.status, 401, "{}", denied.text());
        assert_eq!(denied.header("www-authenticate"), Some("Bearer"));
    }
    let forwarded = keyed("GET", "/api/apikeys", &key).header("forwarded", "for=10.0.0.1");
    let foreign = keyed("GET", "/api/apikeys", &key)
        .without("host")
        .header("host", "evil.example");
    let site = keyed("GET", "/api/apikeys", &key).header("origin", "http://evil.example");
    for ask in [forwarded, foreign, site] {
        let denied = client.ask(ask).await;
        assert_eq!((denied.status, &*denied.code()), (403, "permission_denied"));
    }
    let plain = keyed("POST", "/api/apikeys", &key)
        .without("content-type")
        .raw("{}");
    assert_eq!(client.ask(plain).await.status, 415);
    assert_eq!(
        client.ask(keyed("PUT", "/api/apikeys", &key)).await.status,
        405
    );
    assert_eq!(
        client
            .ask(keyed("GET", "/api/apikeys/rotate", &key))
            .await
            .status,
        405
    );
    assert_eq!(
        client.ask(keyed("GET", "/api/apikeys", &key)).await.status,
        200
    );
}
