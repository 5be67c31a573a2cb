//! Operations as requests: what is relative to a stream becomes absolute here.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use prost::Message as _;
use s2_api::v1::stream::proto::{AppendInput, AppendRecord, Header};
use serde_json::json;

use super::{
    configs::{basin_config, set, stream_config},
    ops::{
        Append, BASINS, Bytes, Call, Fence, Input, Key, Odd, Op, Page, Place, Pos, Read, STREAMS,
        Spelling, Start, What,
    },
    world::{Known, World},
};
use crate::harness::{self, Ask, Encoding, Frame, KEY, Packed};

/// The key that is used where [`KEY`] is not.
pub const OTHER_KEY: [u8; 32] = [7; 32];

/// Where a page comes from.
pub const ORIGIN: &str = "https://page.example";

/// The path of a stream.
pub fn stream_path(at: &Place) -> String {
    let name = STREAMS[at.stream];
    let upper = utf8_percent_encode(name, NON_ALPHANUMERIC).to_string();
    let name = match at.spelling {
        Spelling::Upper => upper,
        Spelling::Lower => upper.to_lowercase(),
        Spelling::Escaped => name.bytes().map(|byte| format!("%{byte:02x}")).collect(),
    };
    format!("/v1/streams/{name}")
}

impl World {
    /// The request that an operation is.
    pub fn ask(&self, op: &Op) -> Ask {
        let mut ask = self.call(&op.call);
        if op.origin {
            ask = ask.header("origin", ORIGIN);
        }
        if let Some(encoding) = &op.accept_encoding {
            ask = ask.header("accept-encoding", encoding);
        }
        ask
    }

    fn call(&self, call: &Call) -> Ask {
        let method = |head: &bool| if *head { "HEAD" } else { "GET" };
        match call {
            Call::CreateBasin {
                basin,
                config,
                token,
            } => {
                let mut body = json!({ "basin": BASINS[*basin] });
                set(&mut body, "config", config, basin_config);
                with_token(Ask::post("/v1/basins").json(&body), *token)
            }
            Call::EnsureBasin { basin, config } => {
                let ask = Ask::new("PUT", basin_path(*basin));
                let Some(config) = config else { return ask };
                let mut body = json!({});
                set(&mut body, "config", config, basin_config);
                ask.json(&body)
            }
            Call::ReconfigureBasin { basin, change } => {
                Ask::new("PATCH", basin_path(*basin)).json(&basin_config(change))
            }
            Call::ShowBasin { basin, head } => Ask::new(method(head), basin_path(*basin)),
            Call::DeleteBasin(basin) => Ask::new("DELETE", basin_path(*basin)),
            Call::ListBasins(page) => Ask::get(format!("/v1/basins{}", page_query(page))),
            Call::ListStreams { basin, page } => {
                Ask::get(format!("/v1/streams{}", page_query(page))).basin(BASINS[*basin])
            }
            Call::CreateStream { at, config, token } => {
                let mut body = json!({ "stream": STREAMS[at.stream] });
                set(&mut body, "config", config, stream_config);
                let ask = Ask::post("/v1/streams").basin(BASINS[at.basin]).json(&body);
                with_token(ask, *token)
            }
            Call::EnsureStream { at, config } => match config {
                Some(config) => stream("PUT", at, "").json(&stream_config(config)),
                None => stream("PUT", at, ""),
            },
            Call::ReconfigureStream { at, change } => {
                stream("PATCH", at, "").json(&stream_config(change))
            }
            Call::ShowStream { at, head } => stream(method(head), at, ""),
            Call::DeleteStream(at) => stream("DELETE", at, ""),
            Call::Tail { at, head, key } => {
                self.keyed(stream(method(head), at, "/records/tail"), at, *key)
            }
            Call::Append(append) => self.append(append),
            Call::Read(read) => self.read(read),
            Call::Odd(odd) => odd_ask(odd),
        }
    }

    fn keyed(&self, ask: Ask, at: &Place, key: Key) -> Ask {
        let right = self.known(at).key.unwrap_or(KEY);
        let other = if right == KEY { OTHER_KEY } else { KEY };
        match key {
            // A stream that is not encrypted takes no key.
            Key::Right if self.is_plain => ask,
            Key::Right => ask.key(&right),
            Key::Other => ask.key(&other),
            Key::Absent => ask,
            Key::Half => ask.key(&right[..16]),
            Key::NotBase64 => ask.header("s2-encryption-key", "!".repeat(44)),
            Key::Long => ask.header("s2-encryption-key", "A".repeat(45)),
            Key::Empty => ask.header("s2-encryption-key", ""),
        }
    }

    fn append(&self, append: &Append) -> Ask {
        let known = self.known(&append.at);
        let ask = self.keyed(
            stream("POST", &append.at, "/records"),
            &append.at,
            append.key,
        );
        let ask = match &append.config {
            Some(config) => ask.header("s2-stream-config", stream_config(config).to_string()),
            None => ask,
        };
        let ask = match &append.accept {
            Some(accept) => ask.header("accept", accept),
            None => ask,
        };
        let inputs = append
            .inputs
            .iter()
            .map(|input| input.to_proto(append.encoding, &known));
        let inputs: Vec<AppendInput> = inputs.collect();
        match append.encoding {
            Encoding::Frames => {
                let frames = inputs
                    .iter()
                    .map(|input| Frame::encode(append.packed.frames(), input));
                ask.body("s2s/proto", frames.collect::<Vec<_>>().concat())
            }
            Encoding::Proto => packed(
                append.packed,
                ask,
                "application/protobuf",
                inputs[0].encode_to_vec(),
            ),
            encoding => {
                let ask = if encoding == Encoding::Base64 {
                    ask.header("s2-format", "base64")
                } else {
                    ask
                };
                let body = harness::json_input(encoding, &inputs[0]);
                packed(append.packed, ask, "application/json", body)
            }
        }
    }

    fn read(&self, read: &Read) -> Ask {
        let known = self.known(&read.at);
        let method = if read.head { "HEAD" } else { "GET" };
        let ask = stream(
            method,
            &read.at,
            &format!("/records?{}", read.query(&known)),
        );
        let ask = self.keyed(ask, &read.at, read.key).reading(read.encoding);
        let ask = match &read.config {
            Some(config) => ask.header("s2-stream-config", stream_config(config).to_string()),
            None => ask,
        };
        match read.last_event_id {
            Some((pos, count, bytes)) => ask.header(
                "last-event-id",
                format!("{},{count},{bytes}", pos.at(&known)),
            ),
            None => ask,
        }
    }
}

impl Read {
    fn query(&self, known: &Known) -> String {
        let mut pairs = Vec::new();
        match self.start {
            Some(Start::SeqNum(pos)) => pairs.push(format!("seq_num={}", pos.at(known))),
            Some(Start::Timestamp(at)) => pairs.push(format!("timestamp={at}")),
            Some(Start::TailOffset(offset)) => pairs.push(format!("tail_offset={offset}")),
            None => {}
        }
        let bounded = self.count.is_some() || self.bytes.is_some() || self.until.is_some();
        // Without an end, a session would follow the stream for ever.
        let wait = self.wait.or((!bounded).then_some(0));
        for (name, value) in [
            ("count", self.count),
            ("bytes", self.bytes),
            ("until", self.until),
            ("wait", wait.map(u64::from)),
        ] {
            pairs.extend(value.map(|value| format!("{name}={value}")));
        }
        pairs.extend(self.clamp.map(|clamp| format!("clamp={clamp}")));
        pairs.extend(self.more.clone());
        pairs.join("&")
    }
}

impl Pos {
    /// The number itself.
    pub fn at(self, known: &Known) -> u64 {
        match self {
            Self::At(at) => at,
            Self::Tail(offset) => known.tail.saturating_add_signed(offset),
        }
    }
}

impl Input {
    fn to_proto(&self, encoding: Encoding, known: &Known) -> AppendInput {
        let record = |record: &super::ops::Rec| AppendRecord {
            timestamp: record.timestamp,
            ..record.what.to_proto(encoding, known)
        };
        let records: Vec<_> = self.records.iter().map(record).collect();
        AppendInput {
            records: std::iter::repeat_n(records, self.times).flatten().collect(),
            match_seq_num: self.match_seq_num.map(|pos| pos.at(known)),
            fencing_token: self.fencing_token.as_ref().map(|token| match token {
                Fence::Right => known.fence.clone(),
                Fence::Other(token) => token.clone(),
            }),
        }
    }
}

impl What {
    fn to_proto(&self, encoding: Encoding, known: &Known) -> AppendRecord {
        let command = |op: &str, body: Vec<u8>| harness::record(&[(b"", op.as_bytes())], body);
        match self {
            Self::Data { headers, body } => AppendRecord {
                timestamp: None,
                headers: headers
                    .iter()
                    .map(|(name, value)| Header {
                        name: name.clone().into(),
                        value: value.bytes(encoding).into(),
                    })
                    .collect(),
                body: body.bytes(encoding).into(),
            },
            Self::Fence(token) => command("fence", token.clone().into()),
            Self::Trim(pos) => command(
                "trim",
                trim_point(*pos, known, encoding).to_be_bytes().into(),
            ),
            Self::BadTrim => command("trim", b"short".into()),
            Self::UnknownCommand => command("unheard-of", Vec::new()),
            Self::EmptyName => harness::record(&[(b"n", b"v"), (b"", b"fence")], ""),
        }
    }
}

/// Where a trim trims to. Text has room for small numbers only.
pub fn trim_point(pos: Pos, known: &Known, encoding: Encoding) -> u64 {
    match encoding.is_binary() {
        true => pos.at(known),
        false => pos.at(known).min(0x7f),
    }
}

impl Bytes {
    fn bytes(self, encoding: Encoding) -> Vec<u8> {
        if !self.noise {
            return b"body ".iter().copied().cycle().take(self.len).collect();
        }
        let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ self.len as u64;
        let byte = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let byte = (state >> 32) as u8;
            if encoding.is_binary() {
                byte
            } else {
                b'!' + byte % 90
            }
        };
        std::iter::repeat_with(byte).take(self.len).collect()
    }
}

fn basin_path(basin: usize) -> String {
    format!("/v1/basins/{}", BASINS[basin])
}

fn stream(method: &str, at: &Place, rest: &str) -> Ask {
    Ask::new(method, stream_path(at) + rest).basin(BASINS[at.basin])
}

fn odd_ask(odd: &Odd) -> Ask {
    let mut ask = Ask::new(&odd.method, &odd.path).without("s2-basin");
    if let Some(basin) = &odd.basin {
        ask = ask.header("s2-basin", basin);
    }
    for (name, value) in &odd.headers {
        ask = ask.header(name, value);
    }
    ask.raw(odd.body.clone())
}

fn with_token(ask: Ask, token: Option<u8>) -> Ask {
    match token {
        // The first is longer than S2 takes.
        Some(37) => ask.header("s2-request-token", "x".repeat(37)),
        Some(token) => ask.header("s2-request-token", format!("token-{token}")),
        None => ask,
    }
}

fn packed(packed: Packed, ask: Ask, kind: &str, body: Vec<u8>) -> Ask {
    packed.pack(ask, kind, body)
}

fn page_query(page: &Page) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs = [
        ("prefix", &page.prefix),
        ("start_after", &page.start_after),
        ("limit", &page.limit),
    ];
    let pairs = pairs.into_iter().filter_map(|(name, value)| {
        let value = value.as_deref()?;
        Some(format!("{name}={}", encode(value)))
    });
    format!("?{}", pairs.collect::<Vec<_>>().join("&"))
}
