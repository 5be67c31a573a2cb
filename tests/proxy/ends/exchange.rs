//! A proxy between two relays, and one request with all that its client and the metrics saw of its end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;

use prost::Message as _;
use s2_api::v1::stream::proto::{AppendAck, ReadBatch};

use streamseal::config::Config;

use crate::harness::{
    Answer, Ask, BASIN, Client, Counts, DEADLINE, Encoding, End, Frame, Lite, Packed, Relay, Stack,
    append, delivered, input, record,
};

/// A basin whose streams are not sealed.
pub const PLAIN_BASIN: &str = "plain-basin";

/// A deployment in the clear, with a relay on each side of the proxy.
pub struct Relayed {
    pub stack: Stack,
    /// Between client and proxy.
    pub front: Relay,
    /// Between proxy and store.
    pub back: Relay,
}

/// The HTTP version of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

/// What is wrong, by case and mistake, with the variants in which it is.
#[derive(Default)]
pub struct Mistakes(BTreeMap<String, Vec<String>>);

impl Mistakes {
    pub fn add(&mut self, what: String, variant: impl std::fmt::Debug) {
        self.0.entry(what).or_default().push(format!("{variant:?}"));
    }

    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub fn assert_none(&self) {
        let told = self.0.iter();
        let told: Vec<String> = told
            .map(|(what, variants)| format!("{what}: {}", variants.join(" ")))
            .collect();
        assert!(told.is_empty(), "\n{}", told.join("\n"));
    }
}

/// What a client saw of an answer.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Status, headers and what came of the body; nothing if there was no head.
    pub answer: Option<Answer>,
    /// The body ended, and not by a reset or a lost connection.
    pub is_whole: bool,
    /// The codes of the resets that the client got.
    pub resets: Vec<u32>,
    /// The code that the request was counted with.
    pub counted: String,
}

impl Relayed {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let relayed = Self::without_basins(change).await;
        for (basin, cipher) in [(BASIN, Some("aegis-256")), (PLAIN_BASIN, None)] {
            let config = serde_json::json!({
                "stream_cipher": cipher,
                "create_stream_on_append": true,
                "create_stream_on_read": true,
            });
            let body = serde_json::json!({ "basin": basin, "config": config });
            let client = relayed.client(Version::Http2).await;
            let made = client.ask(Ask::post("/v1/basins").json(&body)).await;
            assert_eq!(made.status, 201, "{}", made.text());
        }
        relayed
    }

    pub async fn without_basins(change: impl FnOnce(&mut Config)) -> Self {
        let lite = Arc::new(Lite::start().await);
        let back = Relay::start(lite.address).await;
        let stack = Stack::over(lite, |config| {
            config.listen.plaintext = true;
            config.listen.tls = Default::default();
            back.aim(config);
            change(config);
        })
        .await;
        let front = Relay::start(stack.address).await;
        Self { stack, front, back }
    }

    pub async fn client(&self, version: Version) -> Client {
        match version {
            Version::Http1 => Client::plain_http1(self.front.address).await,
            Version::Http2 => Client::plain(self.front.address).await,
        }
    }

    /// Appends records `0..count` to a stream, each with its number for a body.
    pub async fn fill(&self, stream: &str, is_plain: bool, count: usize) {
        let client = self.client(Version::Http2).await;
        for from in (0..count).step_by(500) {
            let numbers = from..count.min(from + 500);
            let batch = input(numbers.map(|at| record(&[], format!("record {at}"))));
            let ask = append(stream, Encoding::Proto, Packed::Not, &batch);
            let answer = client.ask(placed(ask, is_plain)).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }

    /// The number of records in a stream, past the proxy.
    pub async fn stored(&self, stream: &str, is_plain: bool) -> u64 {
        let ask = Ask::get(format!("/v1/streams/{stream}/records/tail"));
        let answer = self.stack.direct().await.ask(placed(ask, is_plain)).await;
        answer.json()["tail"]["seq_num"].as_u64().unwrap()
    }

    /// Sends one request and sees it to its end.
    pub async fn see(&self, version: Version, ask: Ask) -> Outcome {
        let client = self.client(version).await;
        let (counts, frames) = (self.stack.counts(), self.front.stats().down);
        let (answer, mut is_whole) = whole_or_part(&client, ask).await;
        let counted = self.counted(&counts).await;
        let now = self.front.stats().down;
        let resets = now.resets[frames.resets.len()..].to_vec();
        if version == Version::Http2 {
            // Clients may take RST_STREAM(NO_ERROR) for an end. The relay does not.
            is_whole = now.ends > frames.ends;
        }
        Outcome {
            answer,
            is_whole,
            resets,
            counted,
        }
    }

    /// The code that one request was counted with since then.
    pub async fn counted(&self, before: &Counts) -> String {
        let families = ["requests_total"];
        let before = before.only(&families);
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let moved = loop {
            let now = self.stack.counts();
            let moved = now.only(&families).since(&before);
            if !moved.is_empty() && now.only(&["requests_active"]).sum() == 0.0 {
                break moved;
            }
            let is_late = tokio::time::Instant::now() > deadline;
            assert!(!is_late, "the request is not counted: {moved:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let [(series, by)] = &*moved else {
            panic!("counted more than once: {moved:?}");
        };
        assert_eq!(*by, 1.0, "{series}");
        let code = series.split("code=\"").nth(1).unwrap();
        code.split('"').next().unwrap().to_owned()
    }
}

/// The request in the basin that it is for. Plain streams take no key.
pub fn placed(ask: Ask, is_plain: bool) -> Ask {
    match is_plain {
        true => ask.basin(PLAIN_BASIN).without("s2-encryption-key"),
        false => ask,
    }
}

/// An answer, or as much of it as came, and whether its client takes it for whole.
async fn whole_or_part(client: &Client, ask: Ask) -> (Option<Answer>, bool) {
    let body = http_body_util::Full::new(ask.body_bytes().clone());
    let body = body.map_err(|never| match never {}).boxed_unsync();
    let reading = async {
        let Ok(response) = client.send(ask, body).await else {
            return (None, false);
        };
        let (head, mut body) = response.into_parts();
        let (mut bytes, mut is_whole) = (Vec::new(), true);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes.extend(frame.into_data().unwrap_or_default()),
                Err(_) => {
                    is_whole = false;
                    break;
                }
            }
        }
        let answer = Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: bytes.into(),
        };
        (Some(answer), is_whole)
    };
    let read = tokio::time::timeout(DEADLINE, reading).await;
    read.expect("the answer does not end")
}

impl Outcome {
    /// Whether the client was told that the answer is a complete success.
    pub fn is_success(&self, encoding: Encoding) -> bool {
        let Some(answer) = self.answer.as_ref().filter(|answer| answer.status == 200) else {
            return false;
        };
        match encoding {
            Encoding::Frames if self.is_whole => !ends_in_error(&answer.body),
            Encoding::Events | Encoding::EventsBase64 => {
                let text = answer.text();
                let failed = text.contains("event: error");
                text.contains("[DONE]") || self.is_whole && !failed
            }
            _ => self.is_whole,
        }
    }

    /// Whether the answer is not cut in the middle of something.
    pub fn decodes(&self, encoding: Encoding) -> bool {
        let answer = self.answer.as_ref().unwrap();
        match encoding {
            Encoding::Json | Encoding::Base64 => {
                serde_json::from_slice::<serde_json::Value>(&answer.body).is_ok()
            }
            // A batch and an ack have the same fields, of different types.
            Encoding::Proto => {
                let body = &*answer.body;
                !body.is_empty()
                    && (AppendAck::decode(body).is_ok() || ReadBatch::decode(body).is_ok())
            }
            Encoding::Frames => {
                let mut rest = BytesMut::from(&*answer.body);
                while Frame::take(&mut rest).is_some() {}
                rest.is_empty()
            }
            Encoding::Events | Encoding::EventsBase64 => answer.text().contains("[DONE]"),
        }
    }

    /// The bodies of the records in a successful answer to a read.
    pub fn bodies(&self, encoding: Encoding) -> Vec<Bytes> {
        let answer = self.answer.as_ref().unwrap();
        let delivered = delivered(encoding, answer);
        assert_eq!(delivered.end, End::Clean);
        let records = delivered.records().into_iter();
        records.map(|record| record.body).collect()
    }
}

/// Whether frames end with a terminal one. The last may be cut.
fn ends_in_error(body: &[u8]) -> bool {
    let mut rest = BytesMut::from(body);
    let last = std::iter::from_fn(|| Frame::take(&mut rest)).last();
    matches!(last, Some(Frame::Terminal { .. }))
}
