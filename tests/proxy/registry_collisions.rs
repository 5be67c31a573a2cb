//! Clients that want different things of one stream at the same time leave it with one cipher, and
//! nothing of it in clear.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    harness::{
        Act, Answer, Ask, Call, Fake, KEY, Lite, Stack, ask_until, delete, purged, records, until,
    },
    registry_races::{SECRET, append, patch, stored_cipher},
};

/// How often a race is run that is not held in place.
const ROUNDS: usize = 25;

/// A proxy whose upstream holds calls back until it is told.
struct Held {
    stack: Stack,
    fake: Fake,
    go: Arc<Notify>,
}

impl Held {
    async fn start(cipher: &str) -> Self {
        let lite = Arc::new(Lite::start().await);
        let fake = Fake::start(lite.address).await;
        let stack = Stack::over(lite, |config| fake.aim(config)).await;
        stack.create_basin(Some(cipher)).await;
        let go = Arc::default();
        Self { stack, fake, go }
    }

    /// Holds calls like this.
    fn hold(&self, method: &'static str, path: &'static str) {
        let go = Arc::clone(&self.go);
        self.fake.script(move |call| match call.is(method, path) {
            true => Act::Hold(Arc::clone(&go)),
            false => Act::Pass,
        });
    }

    /// Waits until such a call is held, then for `meanwhile`, and lets everything go.
    async fn during(&self, method: &str, path: &str, meanwhile: impl Future<Output = ()>) {
        let here = |call: &Call| call.is(method, path);
        until("the call is held", async || {
            self.fake.calls().iter().any(here)
        })
        .await;
        meanwhile.await;
        self.fake.heal();
        self.go.notify_waiters();
    }

    async fn ask(&self, ask: Ask) -> Answer {
        self.stack.h2().await.ask(ask).await
    }

    fn never_plain(&self) {
        for call in self.fake.calls() {
            let body = String::from_utf8_lossy(&call.body);
            assert!(!body.contains(SECRET), "{} {}", call.method, call.uri);
        }
    }
}

/// The cipher that a stream shows in the list.
pub async fn shown_cipher(stack: &Stack, stream: &str) -> Value {
    let ask = Ask::get(format!("/v1/streams?prefix={stream}&limit=1"));
    stack.h2().await.ask(ask).await.json()["streams"][0]["cipher"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_first_appends_and_a_change_of_cipher_keep_the_old_cipher() {
    let held = Held::start("aegis-256").await;
    held.hold("POST", "/v1/streams/s/records");
    let release = held.during("POST", "/v1/streams/s/records", async {
        // The change does not wait: what the stream gets is recorded already.
        let changed = held.ask(patch(json!("aes-256-gcm"))).await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        let sends = |call: &&Call| call.is("POST", "/v1/streams/s/records");
        assert_eq!(held.fake.calls().iter().filter(sends).count(), 1);
    });
    let (one, two, ()) = tokio::join!(held.ask(append("s")), held.ask(append("s")), release);
    assert_eq!([one.status, two.status], [200; 2]);
    assert_eq!(shown_cipher(&held.stack, "s").await, "aegis-256");
    assert_eq!(stored_cipher(&held.stack, "s").await, "aegis-256");
    assert_eq!(held.ask(append("next")).await.status, 200);
    assert_eq!(stored_cipher(&held.stack, "next").await, "aes-256-gcm");
    held.never_plain();
}

#[tokio::test(flavor = "multi_thread")]
async fn first_appends_and_creations_during_a_change_of_cipher_agree() {
    let held = Held::start("aegis-256").await;
    held.hold("PATCH", "/v1/basins/");
    let made = Ask::post("/v1/streams").json(&json!({ "stream": "made" }));
    let made = held.ask(made);
    let release = held.during("PATCH", "/v1/basins/", async {
        // The old cipher is in force until the upstream answered, and a first append waits for nothing.
        let (one, two) = tokio::join!(held.ask(append("s")), held.ask(append("s")));
        assert_eq!([one.status, two.status], [200; 2]);
    });
    let creation = async {
        until("the change is under way", async || {
            let calls = held.fake.calls();
            calls.iter().any(|call| call.is("PATCH", "/v1/basins/"))
        })
        .await;
        made.await
    };
    let change = patch(json!("aes-256-gcm"));
    let (changed, made, ()) = tokio::join!(held.ask(change), creation, release);
    assert_eq!([changed.status, made.status], [200, 201]);
    assert_eq!(stored_cipher(&held.stack, "s").await, "aegis-256");
    assert_eq!(shown_cipher(&held.stack, "s").await, "aegis-256");
    // A creation by call waits for the change.
    assert_eq!(made.json()["cipher"], "aes-256-gcm");
    assert_eq!(held.ask(append("made")).await.status, 200);
    assert_eq!(stored_cipher(&held.stack, "made").await, "aes-256-gcm");
    held.never_plain();
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_of_creations_while_the_cipher_changes_agree() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let (h1, h2, third) = (stack.h1().await, stack.h2().await, stack.h2().await);
    for round in 0..ROUNDS {
        let stream = format!("s-{round}");
        let to = ["aes-256-gcm", "aegis-256"][round % 2];
        let (one, two, changed) = tokio::join!(
            h1.ask(append(&stream)),
            h2.ask(append(&stream)),
            third.ask(patch(json!(to)))
        );
        let statuses = [one.status, two.status, changed.status];
        assert_eq!(statuses, [200; 3], "{} {}", one.text(), two.text());
        let stored = stored_cipher(&stack, &stream).await;
        assert_eq!(shown_cipher(&stack, &stream).await, stored, "{stream}");
        let read = h2
            .ask(Ask::get(records(&stream) + "?seq_num=0").key(&KEY))
            .await;
        assert_eq!(read.json()["records"].as_array().unwrap().len(), 2);
    }
    assert!(!stack.tap.saw(SECRET.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_waits_for_the_deletion_under_way() {
    let held = Held::start("aegis-256").await;
    assert_eq!(held.ask(append("s")).await.status, 200);
    held.hold("DELETE", "/v1/streams/s");
    let appends = || {
        let calls = held.fake.calls();
        calls
            .iter()
            .filter(|call| call.is("POST", "/v1/streams/s/records"))
            .count()
    };
    let before = appends();
    let deleted = async {
        let answer = held.ask(Ask::new("DELETE", "/v1/streams/s")).await;
        assert_eq!(answer.status, 202);
    };
    let release = held.during("DELETE", "/v1/streams/s", async {
        // The append has arrived by now, and waits: what is asked later is answered.
        assert_eq!(held.ask(Ask::get("/v1/basins")).await.status, 200);
        assert_eq!(appends(), before);
    });
    let append_meanwhile = async {
        until("the deletion is under way", async || {
            held.fake.calls().iter().any(|call| call.is("DELETE", "/"))
        })
        .await;
        held.ask(append("s")).await
    };
    let ((), answer, ()) = tokio::join!(deleted, append_meanwhile, release);
    let pending = (409, "stream_deletion_pending".to_owned());
    let got = (answer.status, answer.code());
    assert!(got == pending || got.0 == 200, "{}", answer.text());
    held.never_plain();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_a_deletion_overtakes_makes_no_plain_stream() {
    let held = Held::start("aegis-256").await;
    assert_eq!(held.ask(append("s")).await.status, 200);
    held.hold("POST", "/v1/streams/s/records");
    let calls = held.fake.calls().len();
    let overtake = async {
        until("the append is held", async || {
            let calls = &held.fake.calls()[calls..];
            calls
                .iter()
                .any(|call| call.is("POST", "/v1/streams/s/records"))
        })
        .await;
        delete(&held.stack.h2().await, "/v1/streams/s").await;
        let changed = held.ask(patch(json!("aes-256-gcm"))).await;
        assert_eq!(changed.status, 200);
        purged(&held.stack.direct().await, "/v1/streams/s").await;
        held.fake.heal();
        held.go.notify_waiters();
    };
    let (late, ()) = tokio::join!(held.ask(append("s")), overtake);
    // The upstream makes the stream anew for it, with a record that was sealed for the old one.
    assert_eq!(late.status, 200, "{}", late.text());
    let next = held.ask(append("s")).await;
    assert!([200, 403].contains(&next.status), "{}", next.text());
    assert_eq!(stored_cipher(&held.stack, "s").await, "aegis-256");
    held.never_plain();
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_and_deletions_at_once_never_mix_ciphers() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let (h1, h2, third) = (stack.h1().await, stack.h2().await, stack.h2().await);
    for round in 0..ROUNDS {
        let stream = format!("s-{}", round % 3);
        let to = ["aes-256-gcm", "aegis-256"][round % 2];
        let path = format!("/v1/streams/{stream}");
        let (one, two, gone, changed) = tokio::join!(
            h1.ask(append(&stream)),
            h2.ask(append(&stream)),
            third.ask(Ask::new("DELETE", &path)),
            third.ask(patch(json!(to)))
        );
        for answer in [&one, &two] {
            assert!(
                [200, 404, 409, 503].contains(&answer.status),
                "{}",
                answer.text()
            );
        }
        assert!([202, 404, 409].contains(&gone.status), "{}", gone.text());
        assert_eq!(changed.status, 200, "{}", changed.text());
        let lives = |answer: &Answer| answer.status == 200;
        ask_until(&h2, append(&stream), |answer| {
            lives(answer) || answer.status == 409
        })
        .await;
        let read = Ask::get(records(&stream) + "?seq_num=0").key(&KEY);
        if lives(&h2.ask(read).await) {
            let stored = stored_cipher(&stack, &stream).await;
            assert_eq!(shown_cipher(&stack, &stream).await, stored, "{stream}");
        }
    }
    assert!(!stack.tap.saw(SECRET.as_bytes()));
}
