//! Reads: plain streams pass through; sealed ones are always read as an S2S session upstream, opened,
//! cut to plain sizes, and written in the encoding that the client asked for.

use std::{sync::Arc, time::Duration};

use crate::received::ReceivedBody;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};

mod resume;

use self::resume::{ResumingReader, Resumption};
use super::{
    Error, Pin, Proxy,
    append::{format_of, session_or_refusal},
    call::{Caller, Stop, empty},
    exchange::Exchange,
    gate::{Principal, Tenure},
    query::ReadQuery,
    respond::{self, Asked},
};
use crate::{
    body::{Charge, Cutoff, Opened, ReadError, Reader},
    clock,
    crypto::OpenError,
    drain::Drain,
    keys,
    project::Scope,
    registry::{Access, Lookup, Purpose},
    stream::StreamPath,
    upstream::{Body, BoxError, ResponseBody, Target, Upstream},
    wire::{
        json::{self, Format},
        media::Media,
        proto,
        record::{Position, ReadBatch, Record, UnopenedRecord},
        s2s::{self, Compression},
        sse::{self, LastEventId},
    },
};

/// Longest wait for the head of a session, and for what a unary read collects beyond its own `wait`.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

impl Proxy {
    /// `GET /v1/streams/{stream}/records`
    pub(super) async fn read(
        &self,
        path: StreamPath,
        request: Request<ReceivedBody>,
        caller: &Caller,
        asked: &Asked,
    ) -> Result<Response<Body>, Stop> {
        let (mut head, _body) = request.into_parts();
        let cutoff = head.extensions.remove::<Cutoff>();
        let lookup = self.registry.lookup(&path).await?;
        // As in S2 the query is read before the headers. On a plain stream it is the upstream's to read.
        let query = ReadQuery::parse(head.uri.query());
        if let Err(error) = keys::check_length(&head.headers) {
            return Err(match query {
                Err(bad @ Error::BadQuery(_)) => bad.into(),
                Ok(_) | Err(_) => Error::from(error).into(),
            });
        }
        if let Lookup::Found(Access::Plain(proof)) = lookup {
            let by = (&head.headers, caller);
            if !self.is_replaced_plain(&path, &proof, by).await? {
                return self.forward_read(proof, &path, head, caller, asked).await;
            }
        }
        if let Err(bad @ Error::BadQuery(_)) = query {
            return Err(bad.into());
        }
        let wanted = Wanted::of(&head.headers)?;
        let query = wanted.bound(query?)?;
        let access = self
            .access(&path, Purpose::Read, &head.headers, caller)
            .await?;
        let mut stream = match access {
            Access::Sealed(stream) => stream,
            Access::Plain(proof) => {
                return self.forward_read(proof, &path, head, caller, asked).await;
            }
        };
        let by = (Purpose::Read, &head.headers);
        let keys = self.keys(&mut stream, by, caller, &asked.exchange).await?;
        let tenure = self.tenure(caller, Scope::Read, &path);
        let opened = open_session(&self.upstream, &path, head.clone(), &query);
        let opened = tenure.within(opened);
        let response = session_or_refusal(&self.upstream, opened.await?).await?;
        let room = match wanted {
            Wanted::Unary { .. } => self.budget.whole_answer(cutoff),
            Wanted::Events { .. } | Wanted::Frames(_) => self.budget.reading(cutoff),
        };
        let body = response.into_body();
        let meter = self.meter(&path);
        let resumption = Resumption {
            upstream: self.upstream.clone(),
            registry: Arc::clone(&self.registry),
            stream: stream.clone(),
            head,
            query: query.clone(),
        };
        let pin = self.pin(stream, &keys);
        let reader = Reader::new(body, keys.session(), query.limit(), meter, room);
        let delivery = Delivery {
            reader: ResumingReader::new(reader, resumption),
            pin,
            drain: self.drain.clone(),
            tenure: tenure.clone(),
            at_tail: None,
            is_advised: false,
            exchange: Arc::clone(&asked.exchange),
        };
        match wanted {
            Wanted::Unary { media, format } => {
                let collected = collected(&self.upstream, delivery, query.wait());
                let (batch, charged) = tenure.within(collected).await?;
                // The tenure looks now and then only.
                let allowed = |caller: &Principal| caller.allow_stream(Scope::Read, &path);
                self.still(caller, allowed).await?;
                Ok(asked.whole(unary(&batch, charged, media, format)))
            }
            Wanted::Events { format, last } => {
                let body = events(delivery, format, last);
                Ok(asked.session(Media::EventStream, body))
            }
            Wanted::Frames(compression) => {
                Ok(asked.session(Media::S2s, frames(delivery, compression)))
            }
        }
    }
}

/// Opens the upstream's read session.
async fn open_session(
    upstream: &Upstream,
    path: &StreamPath,
    mut head: request::Parts,
    query: &ReadQuery,
) -> Result<Response<ResponseBody>, Error> {
    for name in [
        "accept-encoding",
        "content-encoding",
        "content-length",
        "last-event-id",
        "s2-format",
    ] {
        head.headers.remove(name);
    }
    let s2s = HeaderValue::from_static(s2s::CONTENT_TYPE);
    head.headers.insert(header::CONTENT_TYPE, s2s.clone());
    head.headers.insert(header::ACCEPT, s2s);
    head.method = Method::GET;
    let uri = format!("{}?{}", head.uri.path(), query.to_upstream());
    head.uri = uri
        .parse()
        .map_err(|_| Error::BadPath("Invalid URL: not a URI".into()))?;
    let request = Request::from_parts(head, empty());
    let sent = upstream.send(Target::Basin(&path.basin), request);
    upstream
        .within(READ_TIMEOUT, sent)
        .await
        .map_err(|_| Error::Timeout)?
        .map_err(Error::from)
}

/// In which encoding the client wants its records.
enum Wanted {
    Unary {
        media: Media,
        format: Format,
    },
    Events {
        format: Format,
        last: Option<LastEventId>,
    },
    Frames(Compression),
}

impl Wanted {
    fn of(headers: &HeaderMap) -> Result<Self, Error> {
        if Media::content_type(headers) == Some(Media::S2s) {
            return Ok(Self::Frames(Compression::from_accept_encoding(headers)));
        }
        let format = format_of(headers)?;
        Ok(match Media::accept(headers) {
            Some(Media::EventStream) => Self::Events {
                format,
                last: last_event_id(headers)?,
            },
            Some(Media::Proto) => Self::Unary {
                media: Media::Proto,
                format,
            },
            Some(Media::Json | Media::S2s) | None => Self::Unary {
                media: Media::Json,
                format,
            },
        })
    }

    fn bound(&self, query: ReadQuery) -> Result<ReadQuery, Error> {
        let query = match self {
            Self::Unary { .. } => query.unary(),
            Self::Events {
                last: Some(last), ..
            } => query.resumed(last),
            Self::Events { last: None, .. } | Self::Frames(_) => query,
        };
        query.check()?;
        Ok(query)
    }
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<LastEventId>, Error> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let id = value.to_str().unwrap_or_default().parse();
    id.map(Some)
        .map_err(|error| Error::BadHeader(format!("Invalid header `last-event-id`: {error}")))
}

/// Opened records on their way to the client.
struct Delivery {
    reader: ResumingReader,
    pin: Pin,
    drain: Drain,
    tenure: Tenure,
    /// The stream's tail as the client knows it, while it has every record before it.
    at_tail: Option<Position>,
    /// Whether the client was told to go elsewhere.
    is_advised: bool,
    exchange: Arc<Exchange>,
}

impl Delivery {
    /// What comes next.
    async fn next(&mut self) -> Result<Option<Opened>, ReadError> {
        let opened = self.reader.next().await?;
        self.learn(opened.as_ref()).await;
        Ok(opened)
    }

    /// What comes next in a session, which ends when the drain or its API key is over. Once it has begun, every frame
    /// advises to go elsewhere. A client that waits at the tail gets one at once, where frames can: it
    /// repeats the tail.
    async fn step(&mut self, in_frames: bool) -> Result<Step, ReadError> {
        if self.drain.is_over() {
            return Ok(self.cut(Error::Draining));
        }
        if let Some(ended) = self.tenure.ended() {
            return Ok(self.cut(ended));
        }
        let waits = (in_frames && !self.is_advised)
            .then_some(self.at_tail)
            .flatten();
        let opened = tokio::select! {
            biased;
            opened = self.reader.next() => opened?,
            () = self.drain.over() => return Ok(self.cut(Error::Draining)),
            ended = self.tenure.over() => return Ok(self.cut(ended)),
            () = self.drain.begun(), if waits.is_some() => {
                self.is_advised = true;
                let beat = ReadBatch { records: Vec::new(), tail: waits };
                return Ok(Step::Batch(beat, true, None));
            }
        };
        self.learn(opened.as_ref()).await;
        Ok(match opened {
            Some(Opened::Batch {
                batch,
                reconnect_advised,
                charge,
            }) => {
                self.is_advised |= self.drain.is_draining();
                Step::Batch(batch, reconnect_advised || self.is_advised, charge)
            }
            Some(Opened::Terminal { status, body }) => {
                self.exchange.refused_with(status);
                Step::Terminal(status, body)
            }
            None => Step::End,
        })
    }

    fn cut(&self, error: Error) -> Step {
        self.exchange.failed(&error);
        Step::Failed(error)
    }

    /// Notes where the client gets with this. The first data record that opens proves that the key is the
    /// stream's.
    async fn learn(&mut self, opened: Option<&Opened>) {
        let Some(Opened::Batch { batch, .. }) = opened else {
            return;
        };
        self.at_tail = batch.tail.filter(|tail| match batch.records.last() {
            Some(last) => last.seq_num.checked_add(1) == Some(tail.seq_num),
            None => true,
        });
        let mut records = batch.records.iter();
        if records.any(|record| matches!(record.record, Record::Data(_))) {
            self.pin.now().await;
        }
        self.exchange.moved(batch.records.len() as u64);
    }
}

/// Collects one answer: S2 returns what is there, or waits for the first batch that comes.
async fn collected(
    upstream: &Upstream,
    mut delivery: Delivery,
    wait: u32,
) -> Result<(ReadBatch, Option<Charge>), Stop> {
    let mut whole = ReadBatch {
        records: Vec::new(),
        tail: None,
    };
    let mut charged: Option<Charge> = None;
    let collecting = async {
        let mut waiting = false;
        while let Some(opened) = delivery.next().await.map_err(Error::from)? {
            let batch = match opened {
                Opened::Batch { batch, charge, .. } => {
                    match (&mut charged, charge) {
                        (Some(charged), Some(charge)) => charged.merge(charge),
                        (none, charge) => *none = none.take().or(charge),
                    }
                    batch
                }
                Opened::Terminal { status, body } => return Err(terminal(status, body)),
            };
            let is_heartbeat = batch.records.is_empty();
            if is_heartbeat && !whole.records.is_empty() {
                break;
            }
            if !is_heartbeat {
                whole.records.extend(batch.records);
                whole.tail = batch.tail;
                if waiting {
                    break;
                }
            }
            waiting |= is_heartbeat;
        }
        Ok(())
    };
    let deadline = READ_TIMEOUT + Duration::from_secs(wait.into());
    upstream
        .within(deadline, collecting)
        .await
        .map_err(|_| Error::Timeout)??;
    Ok((whole, charged))
}

/// A batch as a whole answer.
fn unary(
    batch: &ReadBatch,
    charged: Option<Charge>,
    media: Media,
    format: Format,
) -> Response<Bytes> {
    let body = match media {
        Media::Proto => proto::encode_read_batch(batch),
        Media::Json | Media::S2s | Media::EventStream => json::encode_read_batch(batch, format),
    };
    respond::typed(StatusCode::OK, media, carried(body, charged))
}

/// The session as server-sent events.
fn events(delivery: Delivery, format: Format, last: Option<LastEventId>) -> Body {
    let mut id = last.unwrap_or(LastEventId {
        seq_num: 0,
        count: 0,
        bytes: 0,
    });
    chunks(delivery, false, move |step| match step {
        Step::Batch(batch, _, charge) => match batch.records.last() {
            Some(record) => {
                id.seq_num = record.seq_num;
                id.count = id.count.saturating_add(batch.records.len());
                let sizes = batch
                    .records
                    .iter()
                    .map(|record| record.record.metered_size());
                id.bytes = id.bytes.saturating_add(sizes.sum());
                vec![carried(sse::batch(&batch, format, &id), charge)]
            }
            None => {
                let ping = batch.tail.map(|tail| sse::ping(tail, clock::now_ms()));
                ping.into_iter().collect()
            }
        },
        Step::Terminal(_, json) => vec![sse::error(&json)],
        Step::Failed(error) => vec![sse::error(&error.to_json())],
        Step::End => vec![sse::done()],
    })
}

/// The session as S2S frames.
fn frames(delivery: Delivery, compression: Compression) -> Body {
    chunks(delivery, true, move |step| match step {
        Step::Batch(batch, reconnect_advised, charge) => {
            let payload = proto::encode_read_batch(&batch);
            match s2s::encode_message(compression, payload, reconnect_advised) {
                Ok([head, payload]) => vec![head, carried(payload, charge)],
                Err(_) => {
                    let error = Error::Garbage("a batch too large");
                    vec![respond::terminal_frame(&error.into())]
                }
            }
        }
        Step::Terminal(status, json) => vec![s2s::encode_terminal(status, &json)],
        Step::Failed(error) => vec![respond::terminal_frame(&error.into())],
        Step::End => Vec::new(),
    })
}

/// Bytes with what they take of the budget until they are out.
fn carried(bytes: Bytes, charge: Option<Charge>) -> Bytes {
    match charge {
        Some(charge) => charge.carried_by(bytes),
        None => bytes,
    }
}

/// One thing to write to the client.
enum Step {
    Batch(ReadBatch, bool, Option<Charge>),
    /// The upstream's own error; nothing follows.
    Terminal(u16, String),
    /// The proxy's error; nothing follows.
    Failed(Error),
    /// The clean end.
    End,
}

/// A body that writes each step as it comes, in one chunk or more. When the upstream breaks off, so does
/// the body: an abort never becomes a clean end.
fn chunks(
    delivery: Delivery,
    in_frames: bool,
    write: impl FnMut(Step) -> Vec<Bytes> + Send + 'static,
) -> Body {
    let steps = stream::unfold(Some((delivery, write)), move |state| async move {
        let (mut delivery, mut write) = state?;
        let step = match delivery.step(in_frames).await {
            Ok(step) => step,
            Err(ReadError::Broken(error)) => return Some((vec![Err(error)], None)),
            Err(
                error @ (ReadError::Open(_)
                | ReadError::Decode(_)
                | ReadError::NoKey(_)
                | ReadError::NoRoom(_)),
            ) => {
                let error = Error::from(error);
                delivery.exchange.failed(&error);
                Step::Failed(error)
            }
        };
        let more = matches!(step, Step::Batch(..));
        let frames = write(step)
            .into_iter()
            .map(|chunk| Ok::<_, BoxError>(Frame::data(chunk)));
        Some((frames.collect(), more.then_some((delivery, write))))
    });
    StreamBody::new(steps.flat_map(stream::iter)).boxed_unsync()
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Open(UnopenedRecord {
                seq_num,
                cause: OpenError::Shredded,
            }) => Self::RecordShredded(seq_num),
            ReadError::Open(record) => Self::Open(record),
            ReadError::Decode(_) => Self::Garbage("a batch that does not decode"),
            ReadError::Broken(_) => Self::Broken,
            // Keys are fetched by the proxy itself, and so fail in its terms.
            ReadError::NoKey(error) => match error.downcast() {
                Ok(error) => *error,
                Err(_) => Self::Garbage("a key that cannot be had"),
            },
            ReadError::NoRoom(_) => Self::Busy,
        }
    }
}

/// A terminal frame as the answer to a unary read.
fn terminal(status: u16, json: String) -> Stop {
    match StatusCode::from_u16(status) {
        Ok(status) => Stop::relay(respond::json(status, json.into())),
        Err(_) => Error::Garbage("a terminal frame with a bad status").into(),
    }
}
