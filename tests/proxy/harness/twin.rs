//! The same request to streamseal over a plain store and to an `s2-lite` that encrypts by itself: S2
//! says what the right answer is.

use serde_json::Value;

use super::{Answer, Ask, Client, Lite, Stack, ask_until};

/// Headers that both answers must agree on.
const COMPARED_HEADERS: [&str; 5] = [
    "content-type",
    "s2-provision-result",
    "allow",
    "cache-control",
    "accept-encoding",
];

/// Two deployments that should look alike.
pub struct Twin {
    /// streamseal over plain storage.
    pub stack: Stack,
    /// S2 with its own encryption.
    pub native: Lite,
    proxied: Client,
    direct: Client,
}

impl Twin {
    /// Starts both, empty.
    pub async fn start() -> Self {
        let stack = Stack::start().await;
        let native = Lite::start().await;
        Self {
            proxied: stack.h2().await,
            direct: Client::plain(native.address).await,
            stack,
            native,
        }
    }

    /// The answers of streamseal and of native S2.
    pub async fn both(&self, ask: &Ask) -> (Answer, Answer) {
        tokio::join!(self.proxied.ask(ask.clone()), self.direct.ask(ask.clone()))
    }

    /// Asks both and insists that the answers are alike.
    pub async fn same(&self, ask: Ask) -> Answer {
        let (ours, native) = self.both(&ask).await;
        assert_eq!(
            shape(&ours),
            shape(&native),
            "ours, then native, to {ask:?}"
        );
        ours
    }

    /// Asks both and insists on the same status and error code, whatever the words.
    pub async fn same_code(&self, ask: Ask) -> Answer {
        let (ours, native) = self.both(&ask).await;
        let codes = [&ours, &native].map(|answer| (answer.status, answer.code()));
        assert_eq!(codes[0], codes[1], "ours, then native, to {ask:?}");
        ours
    }

    /// Deletes something on both sides.
    pub async fn delete(&self, path: &str) {
        for client in [&self.proxied, &self.direct] {
            delete(client, path).await;
        }
    }

    /// A client of the native server.
    pub async fn native_client(&self) -> Client {
        Client::plain(self.native.address).await
    }
}

/// Deletes something. `s2-lite` may report a conflict for a deletion that it then carries out.
pub async fn delete(client: &Client, path: &str) {
    let done = |answer: &Answer| [202, 404].contains(&answer.status);
    ask_until(client, Ask::new("DELETE", path), done).await;
}

/// Waits until what was deleted is gone. `s2-lite` looks for what to purge when something is deleted, at
/// times too early: so other things are deleted until it did.
pub async fn purged(direct: &Client, path: &str) {
    let basin = serde_json::json!({ "basin": "another-basin" });
    super::until("it is purged", async || {
        direct.ask(Ask::post("/v1/basins").json(&basin)).await;
        for method in ["PUT", "DELETE"] {
            let other = Ask::new(method, "/v1/streams/another");
            direct.ask(other.basin("another-basin")).await;
        }
        let other = Ask::new("DELETE", "/v1/basins/no-such-basin");
        direct.ask(other).await;
        direct.ask(Ask::get(path)).await.status == 404
    })
    .await;
}

/// What of an answer clients can tell apart, without what no two servers share.
pub fn shape(answer: &Answer) -> (u16, Vec<Option<String>>, String) {
    let headers = COMPARED_HEADERS.map(|name| answer.header(name).map(str::to_owned));
    let body = match serde_json::from_slice::<Value>(&answer.body) {
        Ok(mut json) => {
            normalise(&mut json);
            json.to_string()
        }
        Err(_) => format!("{:?}", answer.body),
    };
    (answer.status, headers.to_vec(), body)
}

/// Blanks points in time, and where in a text a parser stood.
fn normalise(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), &value) {
                    ("created_at" | "deleted_at", Value::String(_)) => *value = "some time".into(),
                    ("message", Value::String(text)) => {
                        let text = text.split(" at line ").next().unwrap_or_default();
                        *value = text.into();
                    }
                    _ => normalise(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(normalise),
        _ => {}
    }
}
