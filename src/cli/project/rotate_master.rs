//! `streamseal project rotate-master`: a project's next master key, its first API key on standard output, and how
//! far the change is on standard error.
//!
//! The API key is printed before it is used, and the change is ended with it: what was never printed ends no
//! API key of before.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::Method;
use hyper::body::Incoming;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    super::{
        Failure,
        remote::{Keyed, Listener},
        tell,
    },
    LOSS, Made, hand_over,
};

/// Longest line: a hundred data keys that do not open, with names of 600 bytes, six-fold escaped.
const MAX_LINE_BYTES: usize = 512 * 1024;
/// How often it says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Requests without progress before it gives up. One alone may just have been cut off.
const MAX_IN_VAIN: u32 = 2;

#[derive(Deserialize)]
struct First {
    mk_epoch: u32,
    #[serde(flatten)]
    made: Made,
}

/// A line that is not the first.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Progress { rewrapped: u64, of: u64 },
    Stopped(Stopped),
}

#[derive(Deserialize)]
struct Stopped {
    done: bool,
    ended: bool,
    #[serde(default)]
    stuck: Vec<Stuck>,
    error: Option<Info>,
}

#[derive(Deserialize)]
struct Stuck {
    stream: String,
    epoch: u32,
    why: String,
}

#[derive(Deserialize)]
struct Info {
    message: String,
}

/// Changes the master key.
///
/// # Errors
/// The proxy cannot be asked, refuses, or breaks off; a data key does not open. The change goes on with the next
/// run.
pub(super) async fn run(keyed: Keyed) -> Result<(), Failure> {
    let listener = keyed.listener()?;
    let mut lines = Lines::open(&listener, &json!({})).await?;
    let cut = || listener.failed(&"it broke off before there was an API key; run this again");
    let First { mk_epoch, made } = lines.next().await?.ok_or_else(cut)?;
    hand_over(&made)?;
    tell(&format!(
        "API key {} holds master key {mk_epoch}; it is shown this once, and when the change ends, all of before \
         end\n{LOSS}",
        made.id
    ));
    let mut watch = Watch::new();
    watch.watch(&mut lines).await?;
    let listener = listener.with_key(&made.api_key)?;
    let mut in_vain = 0;
    while in_vain < MAX_IN_VAIN {
        let mut lines = Lines::open(&listener, &json!({ "finish": mk_epoch })).await?;
        let before = watch.seen;
        let ended = watch.watch(&mut lines).await?;
        if ended {
            tell(&format!(
                "the change to master key {mk_epoch} has ended; API keys of before open nothing any more"
            ));
            return Ok(());
        }
        in_vain = if watch.seen > before { 0 } else { in_vain + 1 };
    }
    Err(listener.failed(&"it breaks off again and again; run this again with the new API key"))
}

/// What was said so far.
struct Watch {
    /// Lines of progress.
    seen: u64,
    told_at: Option<Instant>,
}

impl Watch {
    fn new() -> Self {
        Self {
            seen: 0,
            told_at: None,
        }
    }

    /// Says how far it is, until one request's work stops. Whether the change has ended.
    async fn watch(&mut self, lines: &mut Lines<'_>) -> Result<bool, Failure> {
        while let Some(line) = lines.next().await? {
            match line {
                Line::Progress { rewrapped, of } => self.tell(rewrapped, of),
                Line::Stopped(stopped) => return stopped.outcome(lines.listener),
            }
        }
        Ok(false)
    }

    fn tell(&mut self, rewrapped: u64, of: u64) {
        self.seen += 1;
        let is_time = self.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY);
        if is_time || rewrapped >= of {
            self.told_at = Some(Instant::now());
            tell(&format!("{rewrapped} of {of} data keys are wrapped anew"));
        }
    }
}

impl Stopped {
    fn outcome(self, listener: &Listener) -> Result<bool, Failure> {
        if let Some(Info { message }) = self.error {
            return Err(listener.failed(&format!("{message}; run this again, with either API key")));
        }
        if self.done {
            return Ok(self.ended);
        }
        for Stuck { stream, epoch, why } in &self.stuck {
            tell(&format!("stream {stream}, key epoch {epoch}: {why}"));
        }
        Err(listener.failed(
            &"the change does not end while these data keys do not open: restore the config store, or shred \
              them with `streamseal stream shred`, and run this again; old and new API keys are good until then",
        ))
    }
}

/// The lines of one answer.
struct Lines<'a> {
    listener: &'a Listener,
    body: Incoming,
    read: BytesMut,
}

impl<'a> Lines<'a> {
    async fn open(listener: &'a Listener, order: &serde_json::Value) -> Result<Self, Failure> {
        let order = Bytes::from(order.to_string());
        let path = "/api/projects/rotate-master";
        let answer = listener.open(Method::POST, path, order).await?;
        Ok(Self {
            listener,
            body: answer.into_body(),
            read: BytesMut::new(),
        })
    }

    /// The next whole line; `None` at the end, and when it was cut off.
    async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        let strange = || {
            self.listener
                .failed(&"the answer is not an admin listener's")
        };
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end + 1);
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|_| strange());
            }
            if self.read.len() > MAX_LINE_BYTES {
                return Err(strange());
            }
            match self.listener.next(&mut self.body).await {
                Ok(Some(more)) => self.read.extend_from_slice(&more),
                // A connection that is cut off is no failure: the change goes on with the next request.
                Ok(None) | Err(_) => return Ok(None),
            }
        }
    }
}
