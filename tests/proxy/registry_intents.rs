//! Whatever the upstream makes of a create or a delete, the stream ends up sealed or refused, and what
//! happened is settled when the upstream is well again.

use std::sync::Arc;

use serde_json::json;

use crate::harness::{Act, Ask, Call, Fake, KEY, Lite, Stack, records};

pub const SECRET: &str = "a body that nobody may see";

/// A proxy whose upstream follows a script, with a basin that has a cipher.
pub struct Scripted {
    pub stack: Stack,
    pub fake: Fake,
}

impl Scripted {
    pub async fn start() -> Self {
        let lite = Arc::new(Lite::start().await);
        let fake = Fake::start(lite.address).await;
        let stack = Stack::over(lite, |config| fake.aim(config)).await;
        stack.create_basin(Some("aegis-256")).await;
        Self { stack, fake }
    }

    pub async fn append(&self, stream: &str) -> crate::harness::Answer {
        let batch = json!({ "records": [{ "body": SECRET }] });
        let ask = Ask::post(records(stream)).json(&batch).key(&KEY);
        self.stack.h2().await.ask(ask).await
    }

    pub async fn read(&self, stream: &str) -> crate::harness::Answer {
        let ask = Ask::get(records(stream) + "?seq_num=0").key(&KEY);
        self.stack.h2().await.ask(ask).await
    }

    pub async fn create(&self, stream: &str) -> crate::harness::Answer {
        let ask = Ask::post("/v1/streams").json(&json!({ "stream": stream }));
        self.stack.h2().await.ask(ask).await
    }

    /// With a healthy upstream the stream takes records and gives them back; nothing was ever plain.
    pub async fn ends_sealed(&self, stream: &str, why: &str) {
        self.fake.heal();
        let appended = self.append(stream).await;
        assert_eq!(appended.status, 200, "{why}: {}", appended.text());
        let client = self.stack.h2().await;
        let ask = Ask::get(records(stream) + "?seq_num=0").key(&KEY);
        let read = client.ask(ask).await.json();
        assert_eq!(read["records"][0]["body"], SECRET, "{why}: {read}");
        self.never_plain(why);
    }

    pub fn never_plain(&self, why: &str) {
        for call in self.fake.calls() {
            let body = String::from_utf8_lossy(&call.body);
            assert!(
                !body.contains(SECRET),
                "{why}: {} {}",
                call.method,
                call.uri
            );
            assert!(!call.headers.contains_key("s2-encryption-key"), "{why}");
        }
    }
}

fn creates_stream(call: &Call) -> bool {
    call.is("POST", "/v1/streams") && !call.uri.contains("/records")
}

pub fn text(text: &str) -> String {
    text.to_owned()
}

/// What an upstream may do to a create, other than what it should.
fn faults() -> Vec<Act> {
    let error = r#"{"code":"other","message":"oops"}"#;
    let taken = r#"{"code":"resource_already_exists","message":"taken"}"#;
    let made =
        r#"{"name":"s","created_at":"2001-01-01T00:00:00Z","deleted_at":null,"cipher":null}"#;
    vec![
        Act::Drop,
        Act::LoseAnswer,
        Act::Answer(500, text(error)),
        Act::Replace(500, text(error)),
        Act::Replace(503, text("")),
        Act::Answer(302, text("")),
        Act::Answer(201, text("garbage")),
        Act::Replace(201, text("garbage")),
        Act::Replace(201, text("{}")),
        Act::Answer(204, text("")),
        Act::Answer(403, text(error)),
        Act::Answer(408, text(error)),
        Act::Replace(408, text(error)),
        Act::Answer(409, text(taken)),
        Act::Answer(201, text(made)),
        Act::Replace(201, text(made)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_on_demand_that_goes_wrong_ends_sealed() {
    let scripted = Scripted::start().await;
    for (at, fault) in faults().into_iter().enumerate() {
        let (stream, why) = (format!("demand-{at}"), format!("{fault:?}"));
        scripted
            .fake
            .script(move |call| match creates_stream(call) {
                true => fault.clone(),
                false => Act::Pass,
            });
        let first = scripted.append(&stream).await;
        scripted.never_plain(&why);
        // It may have gone through, sealed; or it was refused.
        assert!(
            first.status == 200 || first.status >= 300,
            "{why}: {}",
            first.status
        );
        scripted.ends_sealed(&stream, &why).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_by_call_that_goes_wrong_ends_sealed() {
    for restart in [false, true] {
        let mut scripted = Scripted::start().await;
        for (at, fault) in faults().into_iter().enumerate() {
            let stream = format!("call-{at}");
            scripted
                .fake
                .script(move |call| match creates_stream(call) {
                    true => fault.clone(),
                    false => Act::Pass,
                });
            scripted.create(&stream).await;
        }
        if restart {
            scripted.stack.restart(|_| {}).await;
        }
        for (at, fault) in faults().into_iter().enumerate() {
            let (stream, why) = (format!("call-{at}"), format!("{fault:?}"));
            scripted.ends_sealed(&stream, &why).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_denies_what_it_made_is_refused() {
    let scripted = Scripted::start().await;
    let direct = scripted.stack.direct().await;
    let made = json!({ "records": [{ "body": "theirs" }] });
    let made = Ask::post(records("theirs")).json(&made);
    assert_eq!(direct.ask(made).await.status, 200);
    let honest = scripted.append("theirs").await;
    assert_eq!(honest.code(), "permission_denied");
    // It says that the stream is not there, and then that somebody else was faster.
    scripted
        .fake
        .script(|call| match call.is("GET", "/v1/streams?prefix=theirs") {
            true => Act::Answer(200, text(r#"{"streams":[],"has_more":false}"#)),
            false => Act::Pass,
        });
    let lied = scripted.append("theirs").await;
    assert!(lied.status == 200 || lied.status >= 400, "{}", lied.status);
    scripted.never_plain("denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_garbles_its_lists_is_refused() {
    let scripted = Scripted::start().await;
    for body in [
        "",
        "[]",
        "{}",
        r#"{"streams":[{"name":"s"}],"has_more":false}"#,
        "<html>",
    ] {
        scripted
            .fake
            .script(move |call| match call.is("GET", "/v1/streams?") {
                true => Act::Answer(200, text(body)),
                false => Act::Pass,
            });
        let answer = scripted.read("s").await;
        assert_eq!(
            (answer.status, &*answer.code()),
            (502, "hot_server"),
            "{body}"
        );
    }
    for status in [404, 500] {
        scripted
            .fake
            .script(move |call| match call.is("GET", "/v1/streams?") {
                true => Act::Answer(status, text(r#"{"code":"x","message":"m"}"#)),
                false => Act::Pass,
            });
        assert_eq!(scripted.read("s").await.status, status);
    }
    assert!(!scripted.fake.calls().iter().any(creates_stream));
    scripted.ends_sealed("s", "lists").await;
}
