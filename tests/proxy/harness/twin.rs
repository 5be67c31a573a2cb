//! The same request to streamseal over a plain store and to an `s2-lite` that encrypts by itself: S2
//! says what the right answer is.

use prost::Message as _;
use s2_api::v1::stream::proto::AppendInput;
use serde_json::{Value, json};

use super::{Answer, Ask, Client, Lite, Stack, ask_until, record, records};

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

/// Waits until what was deleted is gone.
pub async fn purged(direct: &Client, path: &str) {
    super::until("it is purged", async || {
        nudge(direct).await;
        direct.ask(Ask::get(path)).await.status == 404
    })
    .await;
}

/// Makes `s2-lite` look for what to purge. It does when something is trimmed or deleted, at times too early,
/// and then not for a minute: so something else is trimmed. It is not deleted, for its own deletion could be
/// the one that is not finished, and to delete it again would change nothing.
pub async fn nudge(direct: &Client) {
    let trim = AppendInput {
        records: vec![record(&[(b"", b"trim")], u64::MAX.to_be_bytes().to_vec())],
        ..AppendInput::default()
    };
    let append = Ask::post(records("another"))
        .basin("another-basin")
        .body("application/protobuf", trim.encode_to_vec());
    if direct.ask(append.clone()).await.status == 404 {
        let config = json!({ "create_stream_on_append": true });
        let basin = json!({ "basin": "another-basin", "config": config });
        direct.ask(Ask::post("/v1/basins").json(&basin)).await;
        direct.ask(append).await;
    }
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
