//! Request bodies for appends to sealed streams. They can be made from sealed records and nothing else.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use tokio::sync::mpsc;

use super::budget::Charge;
use crate::{
    upstream::{Body, BoxError},
    wire::{
        proto,
        record::SealedInput,
        s2s::{self, Compression},
    },
};

/// Sealed inputs that may wait for the upstream in one session. Each is at most a 2 MiB frame.
const QUEUED_INPUTS: usize = 2;

/// The body of an append to a sealed stream: the only body that reaches one.
pub struct SealedBody(Body);

/// Feeds a session's [`SealedBody`]. Dropping it without [`SealedSender::finish`] breaks the body
/// off, which resets the upstream's stream.
pub struct SealedSender(mpsc::Sender<Item>);

enum Item {
    Frame([Bytes; 2]),
    End,
}

/// The body broke off because its client went away.
#[derive(Debug, thiserror::Error)]
#[error("the client left its append session")]
struct ClientLeft;

/// The upstream does not take any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the upstream ended the session")]
pub struct Ended;

impl SealedBody {
    /// The body of a unary append, in protobuf.
    pub fn unary(input: &SealedInput) -> Self {
        let body = Full::new(proto::encode_sealed_input(input));
        Self(body.map_err(|never| match never {}).boxed_unsync())
    }

    /// The body of an append session, and what feeds it.
    pub fn session() -> (Self, SealedSender) {
        let (sender, receiver) = mpsc::channel(QUEUED_INPUTS);
        let body = FrameBody {
            receiver,
            payload: None,
            over: false,
        };
        (Self(body.boxed_unsync()), SealedSender(sender))
    }

    /// The bytes to send.
    pub fn into_body(self) -> Body {
        self.0
    }
}

impl SealedSender {
    /// Sends one input as a frame, waiting while the upstream is slower than the client. `charge` is given
    /// back when the upstream has taken it.
    ///
    /// # Errors
    /// [`Ended`] when the upstream ended the session.
    pub async fn send(&self, input: &SealedInput, charge: Option<Charge>) -> Result<(), Ended> {
        // Ciphertext does not compress.
        let payload = proto::encode_sealed_input(input);
        let frame = s2s::encode_message(Compression::None, payload, false);
        let [head, payload] = frame.map_err(|_| Ended)?;
        let payload = match charge {
            Some(charge) => charge.carried_by(payload),
            None => payload,
        };
        self.0
            .send(Item::Frame([head, payload]))
            .await
            .map_err(|_| Ended)
    }

    /// Ends the session's input cleanly: the upstream acks what it has and ends too.
    pub async fn finish(self) {
        // The upstream being gone already is seen on its side of the session.
        let _gone = self.0.send(Item::End).await;
    }
}

struct FrameBody {
    receiver: mpsc::Receiver<Item>,
    /// Of the frame whose head is out already.
    payload: Option<Bytes>,
    over: bool,
}

impl http_body::Body for FrameBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        if self.over {
            return std::task::Poll::Ready(None);
        }
        if let Some(payload) = self.payload.take() {
            return std::task::Poll::Ready(Some(Ok(http_body::Frame::data(payload))));
        }
        self.receiver.poll_recv(cx).map(|item| match item {
            Some(Item::Frame([head, payload])) => {
                self.payload = Some(payload);
                Some(Ok(http_body::Frame::data(head)))
            }
            Some(Item::End) => {
                self.over = true;
                None
            }
            None => {
                self.over = true;
                Some(Err(ClientLeft.into()))
            }
        })
    }
}
