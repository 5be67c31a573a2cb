//! Whatever the upstream says about which streams there are, and since when: nothing of a stream in a
//! basin with a cipher goes up in clear.

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use super::script::Reply;
use crate::harness::{Answer, Ask, BASIN, Client, KEY, Seen, Stack, contains, delete, records};

/// In every record that is meant for a sealed stream.
const SECRET: &str = "a body that nobody may see";

/// A lie, and what it says of a stream of this name, when it was made at this time.
type Lie = (&'static str, fn(&str, &str) -> Value);

/// What the upstream says when it is asked about a stream. The time is that of the plain stream that the
/// proxy knows.
#[rustfmt::skip]
const LISTS: &[Lie] = &[
    ("there is none",               |_, _| list(json!([]))),
    ("it is there",                 |name, _| list(json!([stream(name, LONG_AGO)]))),
    ("it is the plain one",         |name, made| list(json!([stream(name, made)]))),
    ("it was made just now",        |name, _| list(json!([stream(name, "2999-01-01T00:00:00Z")]))),
    ("it was made at no time",      |name, _| list(json!([stream(name, "")]))),
    ("it was made a megabyte ago",  |name, _| list(json!([stream(name, &"9".repeat(1 << 20))]))),
    ("it is there twice",           |name, made| list(json!([stream(name, LONG_AGO), stream(name, made)]))),
    ("another is there",            |name, made| list(json!([stream(&format!("{name}x"), made)]))),
    ("it is being deleted",         |name, made| list(json!([deleted(name, made)]))),
    ("it is plain, it says so",     |name, made| list(json!([with(name, made, Value::Null)]))),
    ("it is in another cipher",     |name, made| list(json!([with(name, made, json!("aes-256-gcm"))]))),
    ("there is more",               |_, _| json!({ "streams": [], "has_more": true })),
    ("names that are none",         |_, made| list(json!([stream("", made), stream(&"x".repeat(600), made)]))),
    ("its name is a number",        |_, made| list(json!([{ "name": 7, "created_at": made, "deleted_at": null }]))),
    ("no list",                     |_, _| json!({ "streams": null, "has_more": false })),
    ("nothing",                     |_, _| Value::Null),
];

const LONG_AGO: &str = "2001-01-01T00:00:00Z";

fn list(streams: Value) -> Value {
    json!({ "streams": streams, "has_more": false })
}

fn stream(name: &str, created_at: &str) -> Value {
    with(name, created_at, Value::Null)
}

fn with(name: &str, created_at: &str, cipher: Value) -> Value {
    json!({ "name": name, "created_at": created_at, "deleted_at": null, "cipher": cipher })
}

fn deleted(name: &str, created_at: &str) -> Value {
    let mut stream = stream(name, created_at);
    stream["deleted_at"] = created_at.into();
    stream
}

fn says(status: u16, json: &Value) -> Reply {
    let body = Full::new(Bytes::from(json.to_string())).map_err(|never| match never {});
    let response = Response::builder().status(status);
    let response = response.header("content-type", "application/json");
    response.body(body.boxed_unsync()).unwrap()
}

/// A basin with a stream `old` that is recorded as plain, one that is sealed, and one that the proxy has
/// never heard of.
async fn deployment() -> (Stack, String) {
    let stack = Stack::start().await;
    stack.create_basin(None).await;
    let client = stack.h2().await;
    let old = client.ask(Ask::new("PUT", "/v1/streams/old")).await;
    let made = old.json()["created_at"].as_str().unwrap().to_owned();
    let change = Ask::new("PATCH", format!("/v1/basins/{BASIN}"));
    let change = change.json(&json!({ "stream_cipher": "aegis-256" }));
    assert_eq!(client.ask(change).await.status, 200);
    assert_eq!(append(&client, "sealed").await.status, 200);
    let theirs = Ask::post(records("theirs")).json(&json!({ "records": [{ "body": "theirs" }] }));
    assert_eq!(stack.direct().await.ask(theirs).await.status, 200);
    (stack, made)
}

async fn append(client: &Client, stream: &str) -> Answer {
    let batch = json!({ "records": [{ "body": SECRET }] });
    client
        .ask(Ask::post(records(stream)).json(&batch).key(&KEY))
        .await
}

fn never_plain(stack: &Stack, what: &str) {
    for seen in stack.lite.seen() {
        let padded = [&seen.body[..], b"...."].concat();
        assert!(
            !contains(&padded, SECRET.as_bytes()),
            "{what}: {}",
            seen.line
        );
    }
}

/// Lies when it is asked about one stream.
fn lie(stack: &Stack, list: fn(&str, &str) -> Value, made: &str) {
    let made = made.to_owned();
    stack.lite.lie(move |seen| {
        let name = seen.line.split_once("/v1/streams?prefix=")?.1;
        let name = name.split('&').next().unwrap().replace("%2D", "-");
        Some(says(200, &list(&name, &made)))
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn no_list_makes_a_stream_plain() {
    let (stack, made) = deployment().await;
    let client = stack.h2().await;
    for (at, (what, list)) in LISTS.iter().enumerate() {
        lie(&stack, *list, &made);
        let new = format!("new-{at}");
        for name in ["sealed", "theirs", &new] {
            let answer = append(&client, name).await;
            assert!(answer.status == 200 || answer.status >= 400, "{what}");
            client
                .ask(Ask::get(records(name) + "/tail").key(&KEY))
                .await;
            client
                .ask(Ask::new("PUT", format!("/v1/streams/{name}")))
                .await;
            append(&client, name).await;
            never_plain(&stack, &format!("{name}: {what}"));
        }
        assert_eq!(append(&client, "sealed").await.status, 200, "{what}");
        stack.lite.be_honest();
        for name in ["sealed", &new] {
            let answer = append(&client, name).await;
            assert_eq!(answer.status, 200, "{name}, {what}: {}", answer.text());
        }
        let theirs = append(&client, "theirs").await;
        assert_eq!(theirs.code(), "permission_denied", "{what}");
        never_plain(&stack, what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_stream_takes_no_key_whatever_the_list_says() {
    for (what, list) in LISTS {
        let (mut stack, made) = deployment().await;
        lie(&stack, *list, &made);
        // Nothing that was looked at before is remembered.
        stack.restart(|_| {}).await;
        let client = stack.h2().await;
        let answer = append(&client, "old").await;
        never_plain(&stack, what);
        let listed = &list("old", &made)["streams"][0];
        let is_itself = listed["created_at"] == *made
            && listed["name"] == "old"
            && listed["deleted_at"].is_null();
        if is_itself {
            // A client that sends a key takes it for encrypted; one that sends none does not.
            assert_eq!((answer.status, &*answer.code()), (422, "invalid"), "{what}");
            let batch = json!({ "records": [{ "body": "clear" }] });
            let plain = Ask::post(records("old")).json(&batch);
            let answer = client.ask(plain).await;
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        } else {
            assert!(answer.status == 200 || answer.status >= 400, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_about_creations_and_deletions_make_nothing_plain() {
    let (stack, made) = deployment().await;
    let client = stack.h2().await;
    let answers: [(&str, u16, Value); 8] = [
        ("made, at the plain one's time", 201, stream("x", &made)),
        (
            "it was there, at the plain one's time",
            200,
            stream("x", &made),
        ),
        ("made, long ago", 201, stream("x", LONG_AGO)),
        ("made, in no cipher", 201, with("x", &made, json!("none"))),
        ("made, under another name", 201, stream("other", &made)),
        (
            "taken",
            409,
            json!({ "code": "resource_already_exists", "message": "taken" }),
        ),
        (
            "gone",
            404,
            json!({ "code": "stream_not_found", "message": "gone" }),
        ),
        ("done", 202, json!({})),
    ];
    for (at, (what, status, answer)) in answers.into_iter().enumerate() {
        let name = format!("life-{at}");
        let path = format!("/v1/streams/{name}");
        assert_eq!(append(&client, &name).await.status, 200);
        for method in ["POST", "PUT", "DELETE"] {
            let answer = answer.clone();
            stack.lite.lie(move |seen: &Seen| {
                let is_records = seen.line.contains("/records");
                let lies = seen.line.starts_with(method) && !is_records;
                lies.then(|| says(status, &answer))
            });
            let made = json!({ "stream": name });
            client.ask(Ask::new("DELETE", &path)).await;
            client.ask(Ask::post("/v1/streams").json(&made)).await;
            client.ask(Ask::new("PUT", &path)).await;
            append(&client, &name).await;
            append(&client, &format!("{name}-{method}")).await;
            never_plain(&stack, &format!("{method}: {what}"));
            stack.lite.be_honest();
            append(&client, &name).await;
            append(&client, &format!("{name}-{method}")).await;
            never_plain(&stack, &format!("after {method}: {what}"));
        }
        delete(&client, &path).await;
    }
}
