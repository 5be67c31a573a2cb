//! Lines of JSON as the body of an answer, each sent as soon as there is something to say.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde::Serialize;
use tokio::{sync::mpsc, time::timeout};
use zeroize::Zeroizing;

use crate::upstream::{Body, BoxError};

/// Lines that wait for the reader.
const LINES_AHEAD: usize = 4;
/// Longest wait for the reader.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Where lines are said.
#[derive(Clone)]
pub(super) struct Lines(mpsc::Sender<Bytes>);

impl Lines {
    /// Lines, and the body that they are sent in. It ends when nobody can say more.
    pub(super) fn new() -> (Self, Body) {
        let (sender, receiver) = mpsc::channel(LINES_AHEAD);
        let frames = stream::unfold(receiver, |mut receiver| async {
            let line = receiver.recv().await?;
            Some((Ok::<_, BoxError>(Frame::data(line)), receiver))
        });
        (Self(sender), StreamBody::new(frames).boxed_unsync())
    }

    /// Says a line; `false` when nobody reads on.
    pub(super) async fn say(&self, line: &impl Serialize) -> bool {
        let mut json = Zeroizing::new(Vec::new());
        if let Err(error) = serde_json::to_writer(&mut *json, line) {
            tracing::error!(%error, "a line of the admin listener has no JSON form");
            return false;
        }
        json.push(b'\n');
        let line = Bytes::from_owner(json);
        let said = timeout(STALL_TIMEOUT, self.0.send(line)).await;
        matches!(said, Ok(Ok(())))
    }
}
