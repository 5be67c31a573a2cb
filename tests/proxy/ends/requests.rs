//! A request that its client cuts stores nothing of what was not whole.

use http_body_util::BodyExt as _;
use prost::Message as _;
use s2_api::v1::stream::proto::AppendInput;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::exchange::{Mistakes, PLAIN_BASIN, Relayed, Version, placed};
use crate::harness::{
    Ask, BASIN, BodyEnd, DEADLINE, Encoding, KEY, Packed, RESET_CODES, Seen, Way, append, base64,
    channel, frame, input, json_input, record, records, until,
};

/// One kind of append.
#[derive(Debug, Clone, Copy)]
struct Row {
    is_plain: bool,
    encoding: Encoding,
}

const ROWS: [Row; 6] = [
    row(false, Encoding::Json),
    row(false, Encoding::Proto),
    row(false, Encoding::Frames),
    row(true, Encoding::Json),
    row(true, Encoding::Proto),
    row(true, Encoding::Frames),
];

const fn row(is_plain: bool, encoding: Encoding) -> Row {
    Row { is_plain, encoding }
}

/// Two records, of which the second would be missing unseen in protobuf.
fn batch() -> AppendInput {
    input([record(&[], "first"), record(&[], "second")])
}

impl Row {
    fn ask(self) -> Ask {
        let ask = append("s", self.encoding, Packed::Not, &batch());
        let ask = match self.encoding {
            Encoding::Frames => ask.raw(frame(&batch()).repeat(2)),
            _ => ask,
        };
        placed(ask, self.is_plain)
    }

    /// How much of the request comes, and how many records of it are stored.
    fn places(self) -> Vec<(usize, u64)> {
        let length = self.ask().body_bytes().len();
        match self.encoding {
            Encoding::Frames => vec![(0, 0), (9, 0), (length / 2, 2), (length / 2 + 9, 2)],
            Encoding::Proto => {
                let first = input([record(&[], "first")]).encode_to_vec().len();
                [0, first, first + 3, length].map(|sent| (sent, 0)).to_vec()
            }
            _ => [0, length / 2, length].map(|sent| (sent, 0)).to_vec(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_request_stores_nothing() {
    let relayed = deployed().await;
    let mut mistakes = Mistakes::default();
    for row in ROWS {
        for (sent, whole) in row.places() {
            let what = format!("{row:?} after {sent} bytes");
            let mut cells = Vec::new();
            let stored = relayed.stored("s", row.is_plain).await;
            for code in RESET_CODES.map(Some).chain([None]) {
                let seen = relayed.stack.lite.seen().len();
                let counted = cut(&relayed, row, (sent, code), whole).await;
                if counted == "ok" {
                    mistakes.add(format!("{what}, counted as ok"), code);
                }
                cells.push((code, seen));
            }
            let ended = ends_upstream(&relayed).await;
            for (at, end) in ended.iter().enumerate().skip(cells[0].1) {
                let (code, _) = cells.iter().rfind(|(_, seen)| *seen <= at).unwrap();
                if *end == Some(BodyEnd::Clean) {
                    mistakes.add(format!("{what}, ended cleanly upstream"), code);
                }
            }
            let more = relayed.stored("s", row.is_plain).await - stored;
            let wanted = whole * cells.len() as u64;
            if more != wanted {
                mistakes.add(format!("{what}, stored in place of {wanted}"), more);
            }
        }
    }
    mistakes.assert_none();
}

/// How each append ended that the upstream saw, once all have. Other requests have no end.
async fn ends_upstream(relayed: &Relayed) -> Vec<Option<BodyEnd>> {
    let is_append = |seen: &Seen| seen.line.starts_with("POST") && seen.line.contains("/records");
    let lite = &relayed.stack.lite;
    lite.quiet().await;
    until("the appends end upstream", async || {
        let appends = lite.seen().into_iter().filter(is_append);
        appends.into_iter().all(|append| append.end.is_some())
    })
    .await;
    let ends = |seen: Seen| seen.end.filter(|_| is_append(&seen));
    lite.seen().into_iter().map(ends).collect()
}

async fn deployed() -> Relayed {
    let relayed = Relayed::start().await;
    for is_plain in [false, true] {
        relayed.fill("s", is_plain, 2).await;
    }
    relayed
}

/// Sends so much of an append, then cuts its stream with a code, or the connection. Returns what it was counted as.
async fn cut(
    relayed: &Relayed,
    row: Row,
    (length, code): (usize, Option<u32>),
    whole: u64,
) -> String {
    let Relayed { stack, front, .. } = relayed;
    let before = relayed.stored("s", row.is_plain).await;
    let counts = stack.counts();
    let passed = front.stats().up.bytes;
    let client = relayed.client(Version::Http2).await;
    let (sender, body) = channel();
    let part = row.ask().body_bytes().slice(..length);
    let exchange = tokio::spawn(async move {
        if let Ok(response) = client.send(row.ask(), body).await {
            let _cut = response.into_body().collect().await;
        }
    });
    sender.send(Ok(part)).await.unwrap();
    until("the proxy works on it", async || {
        let is_active = stack.counts().only(&["requests_active"]).sum() > 0.0;
        is_active && front.stats().up.bytes == passed + length
    })
    .await;
    until("the whole inputs are stored", async || {
        whole == 0 || relayed.stored("s", row.is_plain).await == before + whole
    })
    .await;
    match code {
        Some(code) => front.reset(Way::Up, code),
        None => front.cut(),
    }
    let ended = tokio::time::timeout(DEADLINE, exchange).await;
    ended.expect("the exchange does not end").unwrap();
    relayed.counted(&counts).await
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_over_http1_stores_nothing() {
    let relayed = deployed().await;
    let body = json_input(Encoding::Json, &batch());
    let half = String::from_utf8(body[..body.len() / 2].to_vec()).unwrap();
    let whole = String::from_utf8(body.clone()).unwrap();
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    for (name, framing, sent) in [
        ("half of a length", length(body.len()), half.clone()),
        ("no last chunk", CHUNKED.to_owned(), chunk(&whole)),
        (
            "half a chunk",
            CHUNKED.to_owned(),
            chunk(&whole)[..40].to_owned(),
        ),
        (
            "one byte short",
            length(body.len()),
            whole[..whole.len() - 1].to_owned(),
        ),
    ] {
        for is_plain in [false, true] {
            for half_close in [false, true] {
                let stored = relayed.stored("s", is_plain).await;
                let counts = relayed.stack.counts();
                let head = head(is_plain, &framing);
                send_raw(&relayed, format!("{head}{sent}"), half_close).await;
                let counted = relayed.counted(&counts).await;
                relayed.stack.lite.quiet().await;
                let what = format!("{name}, plain {is_plain}, half-closed {half_close}");
                assert_eq!(relayed.stored("s", is_plain).await, stored, "{what}");
                assert_ne!(counted, "ok", "{what}");
            }
        }
    }
}

const CHUNKED: &str = "transfer-encoding: chunked\r\n";

fn length(bytes: usize) -> String {
    format!("content-length: {bytes}\r\n")
}

fn head(is_plain: bool, framing: &str) -> String {
    let path = records("s");
    let (basin, key) = match is_plain {
        true => (PLAIN_BASIN, String::new()),
        false => (BASIN, format!("s2-encryption-key: {}\r\n", base64(&KEY))),
    };
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ns2-basin: {basin}\r\n{key}\
         content-type: application/json\r\n{framing}\r\n"
    )
}

/// Sends bytes and closes the connection, or its sending half.
async fn send_raw(relayed: &Relayed, bytes: String, half_close: bool) {
    let io = tokio::net::TcpStream::connect(relayed.stack.address).await;
    let mut io = io.unwrap();
    io.write_all(bytes.as_bytes()).await.unwrap();
    if half_close {
        io.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let read = io.read_to_end(&mut answer);
        let _reset = tokio::time::timeout(DEADLINE, read).await.unwrap();
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    } else {
        // What was sent arrives first.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
