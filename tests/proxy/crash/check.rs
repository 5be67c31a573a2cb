//! Looks at everything after a restart: what the proxy shows and reads, and what the upstream has.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use prost::Message as _;
use s2_api::v1::stream::proto::ReadBatch;
use serde_json::Value;
use tokio::time::timeout;

use super::{
    basin::{Cipher, Exists, cipher},
    marker,
    model::Model,
    stream::Observed,
    work::keyed,
};
use crate::harness::{Answer, Ask, Client, DEADLINE, Encoding, read, records};

/// The proxy, and the upstream behind its back.
pub struct Eyes {
    pub proxied: Client,
    pub direct: Client,
}

/// One line of a list of streams.
struct Row {
    created_at: String,
    is_deleted: bool,
    cipher: Cipher,
}

type Rows = BTreeMap<String, Row>;

/// A basin after a restart.
struct Seen {
    /// The cipher that it shows; nothing when it is gone.
    cipher: Option<Cipher>,
    shown: Rows,
    /// Streams that were touched, by their place.
    streams: Vec<(usize, Option<Observed>)>,
}

impl Eyes {
    /// Compares everything that was touched with the model.
    pub async fn check(&self, model: &mut Model) {
        let looks = (0..model.basins.len()).map(|at| self.see(model, at));
        for (at, seen) in join_all(looks).await.into_iter().enumerate() {
            let basin = &mut model.basins[at];
            let wrong = if seen.cipher.is_some() {
                Exists::No
            } else {
                Exists::Yes
            };
            assert_ne!(basin.exists, wrong, "{}", basin.name);
            match seen.cipher {
                Some(cipher) => basin.check(cipher),
                None => basin.exists = Exists::No,
            }
            for stream in model.streams.iter().filter(|stream| stream.basin == at) {
                if let Some(row) = alive(&seen.shown, &stream.name) {
                    stream.shows(&row.created_at, row.cipher);
                }
            }
            for (at, observed) in seen.streams {
                let read = observed.iter().flat_map(|it| it.records.iter().flatten());
                read.for_each(|(_, id)| model.was_sent(at, *id));
                let (stream, basin) = model.stream(at);
                match observed {
                    Some(observed) => stream.check(basin, observed),
                    None => stream.check_gone(basin),
                }
            }
        }
    }

    /// Looks at a basin and all of its streams that were touched.
    async fn see(&self, model: &Model, at: usize) -> Seen {
        let name = &model.basins[at].name;
        let list = self
            .direct
            .ask(Ask::get(format!("/v1/basins?prefix={name}")))
            .await;
        let exists = list.json()["basins"][0]["state"] == "active";
        let touched = (0..model.streams.len()).filter(|stream| {
            let stream = &model.streams[*stream];
            stream.basin == at && (stream.touched || !exists)
        });
        let touched: Vec<usize> = touched.collect();
        if !exists {
            return Seen {
                cipher: None,
                shown: Rows::new(),
                streams: touched.into_iter().map(|at| (at, None)).collect(),
            };
        }
        let config = self.ask(Ask::get(format!("/v1/basins/{name}"))).await;
        assert_eq!(config.status, 200, "{}", config.text());
        let lists = (
            self.list(&self.proxied, name),
            self.list(&self.direct, name),
        );
        let (shown, real) = tokio::join!(lists.0, lists.1);
        for (stream, row) in real.iter().filter(|(_, row)| !row.is_deleted) {
            let created_at = &shown.get(stream).expect("listed upstream").created_at;
            assert_eq!(*created_at, row.created_at, "{stream}");
        }
        let looks = touched.into_iter().map(|at| {
            let stream = &model.streams[at];
            let row = alive(&shown, &stream.name);
            async move {
                let observed = match row {
                    Some(row) => self.observe(name, &stream.name, stream.unread, row).await,
                    None => None,
                };
                (at, observed)
            }
        });
        let streams = join_all(looks).await;
        Seen {
            cipher: Some(cipher(&config.json()["stream_cipher"])),
            shown,
            streams,
        }
    }

    async fn list(&self, client: &Client, basin: &str) -> Rows {
        let answer = client.ask(Ask::get("/v1/streams").basin(basin)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let row = |json: &Value| {
            let text = |field: &str| json[field].as_str().unwrap().to_owned();
            let row = Row {
                created_at: text("created_at"),
                is_deleted: !json["deleted_at"].is_null(),
                cipher: cipher(&json["cipher"]),
            };
            (text("name"), row)
        };
        answer.json()["streams"]
            .as_array()
            .unwrap()
            .iter()
            .map(row)
            .collect()
    }

    /// A stream as it is; nothing if it is gone.
    async fn observe(&self, basin: &str, name: &str, unread: u64, row: &Row) -> Option<Observed> {
        let ask = Ask::get(records(name) + "/tail").basin(basin);
        let tail = self.direct.ask(ask.clone()).await;
        if tail.status != 200 {
            assert!([404, 409].contains(&tail.status), "{}", tail.text());
            return None;
        }
        let tail = tail.json()["tail"]["seq_num"].as_u64().unwrap();
        // This settles what a kill left open.
        let settled = self.ask(ask).await;
        // Only now is it known which stream it is: an intent, or a former life, may have been shown before.
        let rows = self.list(&self.proxied, basin).await;
        let mut observed = Observed {
            created_at: row.created_at.clone(),
            shown: alive(&rows, name)?.cipher,
            stored: None,
            records: None,
        };
        match (settled.status, &*settled.code()) {
            (200, _) => assert_eq!(settled.json()["tail"]["seq_num"], tail, "{name}"),
            (403, "permission_denied") => return Some(observed),
            _ => panic!("{basin}/{name} is not settled: {}", settled.text()),
        }
        let mut found = Vec::new();
        let mut next = unread;
        while next < tail {
            let ask = read(name, &format!("seq_num={next}"), Encoding::Proto).basin(basin);
            let ask = keyed(ask, observed.shown.is_some());
            let (clear, stored) = tokio::join!(self.ask(ask.clone()), self.direct.ask(ask));
            let (clear, stored) = (batch(name, clear), batch(name, stored));
            observed.stored = Some(stored_as(name, &stored, observed.stored));
            for record in clear.records {
                assert_eq!(record.seq_num, next, "{name}");
                found.push((next, marker::id(&record.body)));
                next += 1;
            }
        }
        observed.records = Some(found);
        Some(observed)
    }

    async fn ask(&self, ask: Ask) -> Answer {
        let what = format!("{ask:?}");
        let answer = timeout(DEADLINE, self.proxied.ask(ask)).await;
        answer.unwrap_or_else(|_| panic!("hangs after a restart: {what}"))
    }
}

fn alive<'a>(rows: &'a Rows, name: &str) -> Option<&'a Row> {
    rows.get(name).filter(|row| !row.is_deleted)
}

fn batch(name: &str, answer: Answer) -> ReadBatch {
    assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    let batch = ReadBatch::decode(answer.body).unwrap();
    assert!(!batch.records.is_empty(), "{name}");
    batch
}

/// The one cipher that all stored records of a stream have.
fn stored_as(name: &str, batch: &ReadBatch, before: Option<Cipher>) -> Cipher {
    let cipher = |body: &[u8]| match body.first() {
        Some(1) => Some("aegis-256"),
        Some(2) => Some("aes-256-gcm"),
        _ => {
            marker::id(body);
            None
        }
    };
    let mut ciphers = batch.records.iter().map(|record| cipher(&record.body));
    let one = before.unwrap_or_else(|| cipher(&batch.records[0].body));
    assert!(ciphers.all(|cipher| cipher == one), "{name} mixes ciphers");
    one
}
