//! S2S frames: `s2-api` writes them, and this reads them, so that no product code judges the product.

use std::{io::Read as _, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::stream;
use http::Response;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use prost::Message;
use s2_api::v1::stream::{
    proto::{AppendAck, ReadBatch},
    s2s::{CompressionAlgorithm, SessionMessage},
};
use tokio::sync::mpsc;

use super::{AnyBody, Ask, Client};

/// Longest wait for anything that must happen.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Bit of a frame's flag: the sender is about to go.
pub const RECONNECT: u8 = 0b0001_0000;

/// One frame, decompressed.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// A message with its flag byte as it came.
    Message { flag: u8, payload: Bytes },
    /// The end of a session with an error.
    Terminal {
        status: u16,
        json: serde_json::Value,
    },
}

impl Frame {
    /// Writes a message.
    pub fn encode(compression: CompressionAlgorithm, message: &impl Message) -> Bytes {
        let message = SessionMessage::regular(compression, message);
        message.unwrap().encode()
    }

    /// Takes one frame off the front of `bytes`, if it is whole.
    pub fn take(bytes: &mut BytesMut) -> Option<Self> {
        let length = bytes.get(..3)?;
        let length = usize::from(length[0]) << 16 | usize::from(length[1]) << 8;
        let length = length | usize::from(bytes[2]);
        if bytes.len() < 3 + length {
            return None;
        }
        bytes.advance(3);
        let mut frame = bytes.split_to(length).freeze();
        let flag = frame.get_u8();
        if flag & 0x80 != 0 {
            let status = frame.get_u16();
            let json = serde_json::from_slice(&frame).unwrap();
            return Some(Self::Terminal { status, json });
        }
        let payload = match flag >> 5 & 0b11 {
            0 => frame,
            1 => zstd::decode_all(&*frame).unwrap().into(),
            2 => gunzip(&frame).into(),
            _ => panic!("compression 3"),
        };
        Some(Self::Message { flag, payload })
    }

    /// All frames of a whole body.
    pub fn all(body: &[u8]) -> Vec<Self> {
        let mut rest = BytesMut::from(body);
        let frames = std::iter::from_fn(|| Self::take(&mut rest)).collect();
        assert!(rest.is_empty(), "{} bytes after the last frame", rest.len());
        frames
    }

    /// The ack in it.
    pub fn ack(&self) -> AppendAck {
        match self {
            Self::Message { payload, .. } => AppendAck::decode(payload.clone()).unwrap(),
            Self::Terminal { .. } => panic!("no ack: {self:?}"),
        }
    }

    /// The batch in it.
    pub fn batch(&self) -> ReadBatch {
        match self {
            Self::Message { payload, .. } => ReadBatch::decode(payload.clone()).unwrap(),
            Self::Terminal { .. } => panic!("no batch: {self:?}"),
        }
    }

    /// Status and code of the terminal frame that it must be.
    pub fn failure(&self) -> (u16, String) {
        match self {
            Self::Terminal { status, json } => {
                let code = json["code"].as_str().unwrap_or_default();
                (*status, code.to_owned())
            }
            Self::Message { .. } => panic!("no terminal frame: {self:?}"),
        }
    }
}

/// Undoes gzip.
pub fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(bytes);
    decoder.read_to_end(&mut out).unwrap();
    out
}

/// A response body that is read while it comes.
pub struct Live {
    body: Incoming,
    rest: BytesMut,
    /// Every byte so far.
    pub received: Vec<u8>,
}

/// A body broke off: neither a clean end nor another byte.
#[derive(Debug)]
pub struct BrokenOff;

impl Live {
    /// Reads the body of a response that must be a success.
    pub fn new(response: Response<Incoming>) -> Self {
        assert_eq!(response.status(), 200);
        Self {
            body: response.into_body(),
            rest: BytesMut::new(),
            received: Vec::new(),
        }
    }

    /// The next frame; `None` at a clean end.
    pub async fn frame(&mut self) -> Result<Option<Frame>, BrokenOff> {
        self.next(Frame::take).await
    }

    /// The next server-sent event; `None` at a clean end.
    pub async fn event(&mut self) -> Result<Option<String>, BrokenOff> {
        self.next(|rest| {
            let end = rest.windows(2).position(|two| two == b"\n\n")?;
            let event = rest.split_to(end + 2);
            Some(String::from_utf8(event[..end].to_vec()).unwrap())
        })
        .await
    }

    async fn next<T>(
        &mut self,
        mut take: impl FnMut(&mut BytesMut) -> Option<T>,
    ) -> Result<Option<T>, BrokenOff> {
        loop {
            if let Some(taken) = take(&mut self.rest) {
                return Ok(Some(taken));
            }
            let chunk = tokio::time::timeout(DEADLINE, self.body.frame()).await;
            match chunk.expect("nothing came in time") {
                Some(Ok(chunk)) => {
                    let data = chunk.into_data().unwrap_or_default();
                    self.received.extend_from_slice(&data);
                    self.rest.extend_from_slice(&data);
                }
                Some(Err(_)) => return Err(BrokenOff),
                None => {
                    assert!(
                        self.rest.is_empty(),
                        "a clean end in the middle of something"
                    );
                    return Ok(None);
                }
            }
        }
    }
}

/// A session whose request body is written while its response is read.
pub struct Session {
    sender: Option<mpsc::Sender<Result<Bytes, BoxError>>>,
    /// What comes back.
    pub live: Live,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Session {
    /// Opens an append session. Returns when the response's head is there: nothing was sent yet.
    pub async fn append(client: &Client, ask: Ask) -> Self {
        let (sender, body) = channel();
        let ask = ask.header("content-type", "s2s/proto");
        let response = tokio::time::timeout(DEADLINE, client.send(ask, body)).await;
        Self {
            sender: Some(sender),
            live: Live::new(response.expect("no head in time").unwrap()),
        }
    }

    /// Sends bytes, which need not be a whole frame.
    pub async fn send(&self, bytes: impl Into<Bytes>) {
        let sender = self.sender.as_ref().unwrap();
        // The peer may be done with the session already.
        let _gone = sender.send(Ok(bytes.into())).await;
    }

    /// Breaks the request body off: over HTTP/2 the stream is reset.
    pub async fn break_off(&self) {
        let sender = self.sender.as_ref().unwrap();
        let _gone = sender.send(Err("broken off".into())).await;
    }

    /// Ends the request body cleanly.
    pub fn finish(&mut self) {
        self.sender = None;
    }
}

/// A body that is fed while it is sent.
pub fn channel() -> (mpsc::Sender<Result<Bytes, BoxError>>, AnyBody) {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, BoxError>>(8);
    let chunks = stream::unfold(receiver, |mut receiver| async {
        let chunk = receiver.recv().await?;
        Some((chunk.map(http_body::Frame::data), receiver))
    });
    (sender, StreamBody::new(chunks).boxed_unsync())
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(DEADLINE, waiting).await;
    waited.unwrap_or_else(|_| panic!("never: {what}"));
}
