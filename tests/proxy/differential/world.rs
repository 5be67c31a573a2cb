//! The two deployments side by side, and what is known of their streams: only to draw near the mark, and
//! to know what must be waited for.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use s2_api::v1::stream::proto::AppendAck;
use serde_json::json;

use super::{
    asks::{OTHER_KEY, trim_point},
    compare::Seen,
    ops::{Append, BASINS, BasinConfig, Call, Field, Key, Op, Place, STREAMS, Spelling, What},
};
use crate::harness::{Answer, Ask, Client, DEADLINE, KEY, Lite, Stack, nudge};

/// streamseal over plain storage, and S2 with its own encryption.
pub struct World {
    pub ours: Side,
    pub native: Side,
    /// Whether the stream of the present operation is not encrypted, or would not be if it were created. Nothing can
    /// be created in a basin that does not exist.
    pub is_plain: bool,
    pub has_basin: bool,
    /// From here on the two may answer differently, for a reason that depends on time.
    pub is_parted: bool,
    known: HashMap<(usize, usize), Known>,
    /// Streams that a call created.
    created: HashSet<(usize, usize)>,
    _servers: (Stack, Lite),
}

/// One deployment.
pub struct Side {
    http1: Http1,
    http2: Client,
    /// To the `s2-lite` itself.
    pub direct: Client,
}

enum Http1 {
    Tls(std::net::SocketAddr, String),
    Plain(std::net::SocketAddr),
}

/// What is known of a stream.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub tail: u64,
    pub fence: String,
    /// The key of its data records; `None` for a plain stream and one without data.
    pub key: Option<[u8; 32]>,
    /// Up to where it was trimmed.
    pub trimmed: u64,
}

impl World {
    /// Starts both, with nothing but the basin that settling needs.
    pub async fn start() -> Self {
        let stack = Stack::over(Arc::new(Lite::for_pages().await), |_| {}).await;
        let lite = Lite::for_pages().await;
        let ours = Side {
            http1: Http1::Tls(stack.address, stack.certificate.clone()),
            http2: stack.h2().await,
            direct: stack.direct().await,
        };
        let native = Side {
            http1: Http1::Plain(lite.address),
            http2: Client::plain(lite.address).await,
            direct: Client::plain(lite.address).await,
        };
        for side in [&ours, &native] {
            nudge(&side.direct).await;
        }
        Self {
            ours,
            native,
            is_plain: false,
            has_basin: false,
            is_parted: false,
            known: HashMap::new(),
            created: HashSet::new(),
            _servers: (stack, lite),
        }
    }

    /// What is known of a stream.
    pub fn known(&self, at: &Place) -> Known {
        let known = self.known.get(&(at.basin, at.stream));
        known.cloned().unwrap_or_default()
    }

    /// Asks both at once.
    pub async fn both(&self, op: &Op) -> Result<(Reply, Reply), String> {
        let ask = self.ask(op);
        let (ours, native) =
            tokio::join!(self.ours.reply(op, ask.clone()), self.native.reply(op, ask));
        let ours = ours.map_err(|why| format!("ours: {why}"))?;
        Ok((ours, native.map_err(|why| format!("native: {why}"))?))
    }

    /// The cipher of a stream, if there is the stream.
    pub async fn cipher(&self, at: &Place) -> Option<Option<String>> {
        let list = Ask::get("/v1/streams").basin(BASINS[at.basin]);
        let list = self.native.direct.ask(list).await;
        let list = (list.status == 200).then(|| list.json())?;
        let streams = list["streams"].as_array()?;
        let stream = streams
            .iter()
            .find(|stream| stream["name"] == STREAMS[at.stream])?;
        Some(stream["cipher"].as_str().map(str::to_owned))
    }

    /// Finds out whether the stream of a call is not encrypted: neither it nor, if it does not exist, its basin has
    /// a cipher.
    pub async fn look(&mut self, call: &Call) {
        let at = match call {
            Call::Append(append) => &append.at,
            Call::Read(read) => &read.at,
            Call::Tail { at, .. } => at,
            _ => return,
        };
        let basin = Ask::get(format!("/v1/basins/{}", BASINS[at.basin]));
        let basin = self.native.direct.ask(basin).await;
        self.has_basin = basin.status == 200;
        self.is_plain = match self.cipher(at).await {
            Some(cipher) => cipher.is_none(),
            None => !self.has_basin || basin.json()["stream_cipher"].is_null(),
        };
    }

    /// Gives S2's basin the cipher of a creation that was repeated after the cipher was removed, if this was
    /// one: ours has it.
    pub async fn level_cipher(&self, op: &Op, native: &Seen) -> bool {
        let Call::CreateBasin { basin, config, .. } = &op.call else {
            return false;
        };
        let Field::Set(BasinConfig {
            stream_cipher: Field::Set(cipher),
            ..
        }) = config
        else {
            return false;
        };
        let result = native.headers.get("s2-provision-result");
        if result.map(String::as_str) != Some("noop") {
            return false;
        }
        let path = format!("/v1/basins/{}", BASINS[*basin]);
        let config = self.native.direct.ask(Ask::get(&path)).await.json();
        if !config["stream_cipher"].is_null() {
            return false;
        }
        let change = Ask::new("PATCH", &path).json(&json!({ "stream_cipher": cipher }));
        let changed = self.native.direct.ask(change).await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        true
    }

    /// Takes note that a call created a stream. One that was there before is not known to the proxy by it.
    pub fn note_creation(&mut self, call: &Call) {
        if let Call::CreateStream { at, .. } | Call::EnsureStream { at, .. } = call {
            self.created.insert((at.basin, at.stream));
        }
    }

    /// The plain streams of a basin that nothing but a read created, if the call may give the basin a cipher. The
    /// proxy records a plain stream when it forwards its creation or an append: it would refuse these ones as made
    /// around it.
    pub async fn made_by_reads(&self, call: &Call) -> Vec<Place> {
        let basin = match call {
            Call::CreateBasin { basin, .. }
            | Call::EnsureBasin { basin, .. }
            | Call::ReconfigureBasin { basin, .. } => *basin,
            _ => return Vec::new(),
        };
        let mut found = Vec::new();
        for stream in 0..STREAMS.len() {
            let spelling = Spelling::Upper;
            let at = Place {
                basin,
                stream,
                spelling,
            };
            let is_known = self.created.contains(&(basin, stream)) || self.known(&at).tail > 0;
            if !is_known && self.cipher(&at).await == Some(None) {
                found.push(at);
            }
        }
        found
    }

    /// Takes note of what an append did.
    pub async fn learn(&mut self, append: &Append, acks: &[AppendAck]) {
        let is_sealed = self.cipher(&append.at).await.flatten().is_some();
        // What the request was made from, and what it comes to.
        let before = self.known(&append.at);
        let mut known = before.clone();
        for (input, ack) in append.inputs.iter().zip(acks) {
            let start = ack.start.unwrap_or_default().seq_num;
            let records = std::iter::repeat_n(&input.records, input.times).flatten();
            for (record, seq_num) in records.zip(start..) {
                match &record.what {
                    What::Data { .. } if is_sealed && known.key.is_none() => {
                        let other = append.key == Key::Other;
                        known.key = Some(if other { OTHER_KEY } else { KEY });
                    }
                    What::Fence(token) => known.fence = token.clone(),
                    What::Trim(pos) => {
                        let point = trim_point(*pos, &before, append.encoding).min(seq_num + 1);
                        known.trimmed = known.trimmed.max(point);
                    }
                    _ => {}
                }
            }
            known.tail = ack.end.unwrap_or_default().seq_num;
        }
        self.known
            .insert((append.at.basin, append.at.stream), known);
    }

    /// Takes note that something is gone.
    pub fn forget(&mut self, call: &Call) {
        match call {
            Call::DeleteBasin(basin) => {
                self.known.retain(|at, _| at.0 != *basin);
                self.created.retain(|at| at.0 != *basin);
            }
            Call::DeleteStream(at) => {
                self.known.remove(&(at.basin, at.stream));
                self.created.remove(&(at.basin, at.stream));
            }
            _ => {}
        }
    }
}

/// An answer, and whether it took more than one attempt.
#[derive(Debug)]
pub struct Reply {
    pub answer: Answer,
    pub retried: bool,
}

impl Side {
    /// Asks until the answer is not that two of `s2-lite`'s own transactions met.
    pub async fn reply(&self, op: &Op, ask: Ask) -> Result<Reply, String> {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let mut retried = false;
        loop {
            let asked = tokio::time::timeout_at(deadline, self.ask(op.http1, ask.clone())).await;
            let answer = asked.map_err(|_| "no whole answer in time".to_owned())?;
            if answer.code() != "transaction_conflict" {
                return Ok(Reply { answer, retried });
            }
            retried = true;
        }
    }

    async fn ask(&self, http1: bool, ask: Ask) -> Answer {
        match &self.http1 {
            _ if !http1 => self.http2.ask(ask).await,
            Http1::Tls(address, certificate) => {
                let client = Client::tls(*address, certificate, "http/1.1").await;
                client.ask(ask).await
            }
            Http1::Plain(address) => Client::plain_http1(*address).await.ask(ask).await,
        }
    }
}
